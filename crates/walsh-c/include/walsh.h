/* Walsh for C. This file is made of the crate walsh-c: its test says how, and fails where it is not of today.
 *
 * Text is UTF-8 and ends with a zero where no length is given. A call that can fail returns a WalshStatus; what went wrong is in
 * walsh_last_error(). Handles are used by any number of threads, a session by one at a time. */

#ifndef WALSH_H
#define WALSH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What a program is compiled for; it goes up when functions or structs change so that a program must be compiled anew.
#define WALSH_ABI 1

// How a call ended. `walsh_last_error` has the words.
typedef enum WalshStatus {
  // It is done.
  WALSH_STATUS_OK = 0,
  // An argument cannot be used: a null pointer, a number out of range, text that is not UTF-8, a handle that another
  // thread works with.
  WALSH_STATUS_ARGUMENT = 1,
  // A file cannot be read or written, or is not what it should be.
  WALSH_STATUS_FILE = 2,
  // The model cannot be run, cannot chat, or computes numbers that are none.
  WALSH_STATUS_MODEL = 3,
  // The text does not fit into the context.
  WALSH_STATUS_CONTEXT_FULL = 4,
  // Memory is missing.
  WALSH_STATUS_MEMORY = 5,
  // The device is not there, or has failed.
  WALSH_STATUS_DEVICE = 6,
  // `walsh_session_cancel` has ended it.
  WALSH_STATUS_CANCELLED = 7,
  // A fault of Walsh, which should be reported.
  WALSH_STATUS_INTERNAL = 8,
} WalshStatus;

// A model that is open: its weights, its vocabulary. Any number of threads may use it at once.
typedef struct WalshModel WalshModel;

// A text in the making: its tokens, the KV caches of all layers. One thread at a time works with it; a second one is told so.
typedef struct WalshSession WalshSession;

// How a model is opened. Set `size` to `sizeof(WalshModelOptions)`, and what is not of interest to 0.
typedef struct WalshModelOptions {
  // Of this struct, in bytes.
  size_t size;
  // What computes, such as "cpu" (null is the same), "cpu:isa=avx2" or "cuda:0".
  const char *device;
  // Worker threads of the device cpu; 0 for one to each core.
  uint32_t threads;
  // The folder for what is fetched and measured; null for `walsh` in the user's cache folder.
  const char *cache_dir;
} WalshModelOptions;

// How the next token is chosen, by llama.cpp's steps in its order. `walsh_sampling` fills it in.
typedef struct WalshSampling {
  // Of this struct, in bytes.
  size_t size;
  // What logits are divided by; 0 takes the likeliest token.
  float temperature;
  // How many of the likeliest tokens stay; 0 keeps all.
  uint32_t top_k;
  // The fewest likeliest tokens whose probabilities reach this sum stay; 1 keeps all.
  float top_p;
  // Tokens at least this probable, relative to the likeliest, stay; 0 keeps all.
  float min_p;
  // How much less likely recent tokens become, from 0.01 to 100; 1 changes nothing.
  float repetition_penalty;
  // How many of the latest tokens the penalty looks at.
  uint32_t repetition_window;
} WalshSampling;

// How a session is started. Set `size` to `sizeof(WalshSessionOptions)`, and what is not of interest to 0.
typedef struct WalshSessionOptions {
  // Of this struct, in bytes.
  size_t size;
  // How many tokens it can hold; 0 for the model's own context, but at most 4,096.
  size_t context;
  // How many tokens are read at a time; 0 for 512.
  size_t chunk;
  // How the KV cache is kept, such as "4bit" or "k=tq5,v=tq4"; null for "f16".
  const char *kv;
} WalshSessionOptions;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The `WALSH_ABI` that the library has: a program that loads it by name compares.
uint32_t walsh_abi(void);

// The version of the library, such as "0.1.0".
const char *walsh_version(void);

// What went wrong in the latest call of this thread that failed: one line of UTF-8, empty before there was one. It is valid
// until another call of this thread fails.
const char *walsh_last_error(void);

// Opens a model: the path of a GGUF file or of a folder of safetensors, or a name as for `walsh pull`, fetched first where it
// is not here.
//
// # Safety
// Texts are null or end with a zero; `options` is null or valid; `model` is null or has room for a pointer.
enum WalshStatus walsh_model_open(const char *path,
                                  const struct WalshModelOptions *options,
                                  struct WalshModel **model);

// Closes a model; nothing for a null pointer. Sessions of it go on.
//
// # Safety
// The pointer is null, or one that `walsh_model_open` made and nothing has freed; nobody uses it any more.
void walsh_model_free(struct WalshModel *model);

// How many tokens its vocabulary has, and so how many logits there are; 0 for a null pointer.
//
// # Safety
// The pointer is null, or of an open model.
size_t walsh_model_vocabulary(const struct WalshModel *model);

// How many tokens of context it was trained for; 0 for a null pointer.
//
// # Safety
// The pointer is null, or of an open model.
size_t walsh_model_context(const struct WalshModel *model);

// Whether a token ends what the model writes; no for a null pointer.
//
// # Safety
// The pointer is null, or of an open model.
bool walsh_model_is_end(const struct WalshModel *model, int32_t token);

// Whether it has a chat template, as `walsh_chat_prompt` needs it; no for a null pointer.
//
// # Safety
// The pointer is null, or of an open model.
bool walsh_model_chats(const struct WalshModel *model);

// How a model's makers say that tokens are chosen, and the usual values for what they do not say; greedy for a null pointer.
//
// # Safety
// The pointer is null, or of an open model.
struct WalshSampling walsh_sampling(const struct WalshModel *model);

// Starts a session.
//
// # Safety
// `model` is null or open; `options` is null or valid; `session` is null or has room for a pointer.
enum WalshStatus walsh_session_new(const struct WalshModel *model,
                                   const struct WalshSessionOptions *options,
                                   struct WalshSession **session);

// Ends a session; nothing for a null pointer.
//
// # Safety
// The pointer is null, or one that this library made and nothing has freed; nobody uses it any more.
void walsh_session_free(struct WalshSession *session);

// Appends tokens, as a prompt is read: many at a time. When it fails half way, the chunks that were read stay.
//
// # Safety
// `session` is null or valid; `tokens` is null or has `count` numbers.
enum WalshStatus walsh_session_read(const struct WalshSession *session, const int32_t *tokens, size_t count);

// Chooses the token that follows what was read; it is not appended. A null pointer for `sampling` takes the
// likeliest; `token` is -1 where the call fails.
//
// # Safety
// `session` is null or valid; `sampling` is null or valid; `token` is null or has room for a number.
enum WalshStatus walsh_session_sample(const struct WalshSession *session,
                                      const struct WalshSampling *sampling,
                                      int32_t *token);

// Appends a token and chooses the one that follows: the step of writing. A null pointer for `sampling` takes the likeliest,
// for which the least is computed, and nothing of which the logits are known afterwards. `next` is -1 where the call fails.
//
// # Safety
// `session` is null or valid; `sampling` is null or valid; `next` is null or has room for a number.
enum WalshStatus walsh_session_next(const struct WalshSession *session,
                                    int32_t token,
                                    const struct WalshSampling *sampling,
                                    int32_t *next);

// The logits behind the latest token, one to each token of the vocabulary: `count` is their number, whatever has room in
// `logits`. They are zeros where they are not known: at the start, behind a truncation, and behind a `walsh_session_next`
// that took the likeliest.
//
// # Safety
// `session` is null or valid; `logits` is null or has room for `capacity` numbers; `count` is null or has room for a number.
enum WalshStatus walsh_session_logits(const struct WalshSession *session,
                                      float *logits,
                                      size_t capacity,
                                      size_t *count);

// How many tokens it holds.
//
// # Safety
// `session` is null or valid; `position` is null or has room for a number.
enum WalshStatus walsh_session_position(const struct WalshSession *session, size_t *position);

// Cuts the text back to its first `position` tokens. What follows is what would follow if no more had been read.
//
// # Safety
// `session` is null or valid.
enum WalshStatus walsh_session_truncate(const struct WalshSession *session, size_t position);

// Another session that holds the same text, and goes on as this one would.
//
// # Safety
// `session` is null or valid; `fork` is null or has room for a pointer.
enum WalshStatus walsh_session_fork(const struct WalshSession *session, struct WalshSession **fork);

// Has tokens chosen by the random numbers of a seed from here on; without, they differ from session to session.
//
// # Safety
// `session` is null or valid.
enum WalshStatus walsh_session_seed(const struct WalshSession *session, uint64_t seed);

// Writes a session to a file: its tokens, the codes of its KV caches, its logits. An earlier file is replaced once the new one
// is whole.
//
// # Safety
// `session` is null or valid; `path` is null or ends with a zero.
enum WalshStatus walsh_session_save(const struct WalshSession *session,
                                    const char *path);

// Takes up a session that `walsh_session_save` wrote, or `walsh generate --save`, with the same model. It goes on as the saved
// one would have; random numbers are its own.
//
// # Safety
// `model` is null or open; `path` is null or ends with a zero; `session` is null or has room for a pointer.
enum WalshStatus walsh_session_restore(const struct WalshModel *model,
                                       const char *path,
                                       struct WalshSession **session);

// Ends the call that another thread is in with the session, within a chunk of tokens: it returns `WALSH_STATUS_CANCELLED`, and
// what it has read stays. Where no thread is in one, the next call that reads ends at once.
//
// # Safety
// `session` is null or valid.
enum WalshStatus walsh_session_cancel(const struct WalshSession *session);

// The tokens of a text, of which `count` is the number, whatever has room in `tokens`. The text need not be UTF-8. With
// `whole`, it is a text's beginning, and has the token that the model was trained to see there; with `special`, names of
// control tokens such as `<|im_end|>` become those tokens (never let it be set for what users type).
//
// # Safety
// `model` is null or open; `text` is null or has `bytes` bytes; `tokens` is null or has room for `capacity` numbers; `count` is
// null or has room for a number.
enum WalshStatus walsh_tokenize(const struct WalshModel *model,
                                const char *text,
                                size_t bytes,
                                bool whole,
                                bool special,
                                int32_t *tokens,
                                size_t capacity,
                                size_t *count);

// The bytes that a token stands for, of which `count` is the number, whatever has room in `bytes`; the name of a control
// token. A character can take several tokens: join bytes before they are shown.
//
// # Safety
// `model` is null or open; `bytes` is null or has room for `capacity` bytes; `count` is null or has room for a number.
enum WalshStatus walsh_token_bytes(const struct WalshModel *model,
                                   int32_t token,
                                   char *bytes,
                                   size_t capacity,
                                   size_t *count);

// The tokens of a conversation by the model's chat template, which end where the answer begins: `count` is their number,
// whatever has room in `tokens`. The conversation is JSON, `{"messages": [{"role": "user", "content": "Hello"}]}`; besides,
// `tools` (as OpenAI has them), `variables` of the template, and `continues`, where the last message is an answer to go on
// with. What messages say never becomes a control token.
//
// # Safety
// `model` is null or open; `dialogue` is null or ends with a zero; `tokens` is null or has room for `capacity` numbers; `count`
// is null or has room for a number.
enum WalshStatus walsh_chat_prompt(const struct WalshModel *model,
                                   const char *dialogue,
                                   int32_t *tokens,
                                   size_t capacity,
                                   size_t *count);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WALSH_H */
