/* Uses every function of the header: check MODEL FOLDER. What it prints last is what the model writes. */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "walsh.h"

#define TRUE(condition)                                                                   \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, walsh_last_error()); \
            exit(1);                                                                      \
        }                                                                                 \
    } while (0)
#define OK(call) TRUE((call) == WALSH_STATUS_OK)
/* Fails with a status, and with a message that says something. */
#define FAILS(call, status, word)                          \
    do {                                                   \
        TRUE((call) == (status));                          \
        TRUE(strstr(walsh_last_error(), word) != NULL);    \
    } while (0)

enum { TOKENS = 12 };

/* So many tokens behind what a session has read. */
static void write_on(const WalshSession *session, const WalshSampling *sampling, int32_t *tokens)
{
    OK(walsh_session_sample(session, sampling, &tokens[0]));
    for (int at = 1; at < TOKENS; at++)
        OK(walsh_session_next(session, tokens[at - 1], sampling, &tokens[at]));
}

/* A thread that reads a long text. */
struct reader {
    const WalshSession *session;
    int32_t tokens[4000];
    WalshStatus status;
};

static void *read_long(void *argument)
{
    struct reader *reader = argument;
    /* It may meet the other thread's look at the session. */
    do
        reader->status = walsh_session_read(reader->session, reader->tokens, 4000);
    while (reader->status == WALSH_STATUS_ARGUMENT);
    return NULL;
}

/* A second thread is told that the session is in use, and ends what the first is in. */
static void cancel_from_beside(const WalshModel *model, const int32_t *prompt, size_t count)
{
    static struct reader reader;
    WalshSessionOptions options = {.size = sizeof options, .context = 4096, .chunk = 32};
    WalshSession *session;
    pthread_t thread;
    size_t position;

    OK(walsh_session_new(model, &options, &session));
    for (size_t at = 0; at < 4000; at++)
        reader.tokens[at] = prompt[at % count];
    reader.session = session;
    TRUE(pthread_create(&thread, NULL, read_long, &reader) == 0);
    while (walsh_session_position(session, &position) == WALSH_STATUS_OK)
        TRUE(position < 4000);
    FAILS(walsh_session_position(session, &position), WALSH_STATUS_ARGUMENT, "another thread");
    OK(walsh_session_cancel(session));
    TRUE(pthread_join(thread, NULL) == 0);
    TRUE(reader.status == WALSH_STATUS_CANCELLED);
    OK(walsh_session_position(session, &position));
    TRUE(position < 4000);
    walsh_session_free(session);
}

int main(int argc, char **argv)
{
    WalshModel *model = NULL;
    WalshSession *session = NULL, *other = NULL;
    WalshModelOptions opening = {.size = sizeof opening, .device = "cpu", .threads = 1};
    WalshSessionOptions options = {.size = sizeof options, .context = 256, .chunk = 64, .kv = "4bit"};
    WalshSampling sampling;
    const char *text = "The capital of France is";
    int32_t prompt[64], few[2], first[TOKENS], second[TOKENS], token;
    size_t count, position, vocabulary;
    char path[4096];
    float *logits;

    TRUE(argc == 3);
    TRUE(walsh_abi() == WALSH_ABI);
    TRUE(strlen(walsh_version()) >= 5);
    TRUE(strlen(walsh_last_error()) == 0);

    /* Models. */
    FAILS(walsh_model_open("/no/such/file.gguf", NULL, &model), WALSH_STATUS_FILE, "/no/such/file.gguf");
    TRUE(model == NULL);
    FAILS(walsh_model_open(NULL, NULL, &model), WALSH_STATUS_ARGUMENT, "path is null");
    FAILS(walsh_model_open("\xff", NULL, &model), WALSH_STATUS_ARGUMENT, "UTF-8");
    FAILS(walsh_model_open(argv[1], NULL, NULL), WALSH_STATUS_ARGUMENT, "model is null");
    opening.device = "abacus";
    FAILS(walsh_model_open(argv[1], &opening, &model), WALSH_STATUS_ARGUMENT, "abacus");
    opening.device = "cpu";
    opening.size--;
    FAILS(walsh_model_open(argv[1], &opening, &model), WALSH_STATUS_ARGUMENT, "size");
    opening.size++;
    OK(walsh_model_open(argv[1], &opening, &model));
    vocabulary = walsh_model_vocabulary(model);
    TRUE(vocabulary > 1000);
    TRUE(walsh_model_context(model) >= 256);
    TRUE(walsh_model_chats(model));
    TRUE(walsh_model_vocabulary(NULL) == 0 && walsh_model_context(NULL) == 0);
    TRUE(!walsh_model_chats(NULL) && !walsh_model_is_end(NULL, 0));

    /* Text. */
    OK(walsh_tokenize(model, text, strlen(text), true, false, NULL, 0, &count));
    TRUE(count > 2 && count < 64);
    OK(walsh_tokenize(model, text, strlen(text), true, false, prompt, 64, &position));
    TRUE(position == count);
    OK(walsh_tokenize(model, text, strlen(text), true, false, few, 2, &position));
    TRUE(position == count && few[0] == prompt[0] && few[1] == prompt[1]);
    FAILS(walsh_tokenize(model, text, strlen(text), true, false, NULL, 2, &position), WALSH_STATUS_ARGUMENT, "tokens");
    FAILS(walsh_tokenize(model, NULL, 3, true, false, prompt, 64, &position), WALSH_STATUS_ARGUMENT, "text is null");
    OK(walsh_tokenize(model, NULL, 0, false, false, NULL, 0, &position));
    TRUE(position == 0);
    FAILS(walsh_token_bytes(model, -1, path, sizeof path, &position), WALSH_STATUS_ARGUMENT, "-1");
    FAILS(walsh_token_bytes(model, (int32_t)vocabulary, path, sizeof path, &position), WALSH_STATUS_ARGUMENT, "vocabulary");
    OK(walsh_token_bytes(model, prompt[count - 1], path, sizeof path, &position));
    TRUE(position == 3 && memcmp(path, " is", 3) == 0);
    {
        int32_t chat[256];
        const char *said = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}";
        OK(walsh_chat_prompt(model, said, chat, 256, &position));
        TRUE(position > 4 && position <= 256);
        FAILS(walsh_chat_prompt(model, "{\"messages\":[]}", chat, 256, &position), WALSH_STATUS_ARGUMENT, "at least one");
        FAILS(walsh_chat_prompt(model, "{\"message\":1}", chat, 256, &position), WALSH_STATUS_ARGUMENT, "message");
        FAILS(walsh_chat_prompt(model, "{", chat, 256, &position), WALSH_STATUS_ARGUMENT, "dialogue");
    }

    /* Sessions. */
    options.kv = "tq1";
    FAILS(walsh_session_new(model, &options, &session), WALSH_STATUS_ARGUMENT, "tq1");
    options.kv = "4bit";
    FAILS(walsh_session_new(NULL, &options, &session), WALSH_STATUS_ARGUMENT, "model is null");
    OK(walsh_session_new(model, NULL, &session));
    walsh_session_free(session);
    OK(walsh_session_new(model, &options, &session));
    FAILS(walsh_session_sample(session, NULL, &token), WALSH_STATUS_ARGUMENT, "empty");
    token = (int32_t)vocabulary;
    FAILS(walsh_session_read(session, &token, 1), WALSH_STATUS_ARGUMENT, "vocabulary");
    OK(walsh_session_read(session, prompt, count));
    OK(walsh_session_position(session, &position));
    TRUE(position == count);
    logits = malloc(vocabulary * sizeof *logits);
    TRUE(logits != NULL);
    OK(walsh_session_logits(session, logits, vocabulary, &position));
    TRUE(position == vocabulary);
    OK(walsh_session_sample(session, NULL, &token));
    for (size_t at = 0; at < vocabulary; at++)
        TRUE(logits[at] <= logits[token]);
    free(logits);

    /* What follows is the same in a fork, behind a truncation, and from a file. */
    OK(walsh_session_fork(session, &other));
    write_on(session, NULL, first);
    write_on(other, NULL, second);
    TRUE(memcmp(first, second, sizeof first) == 0);
    walsh_session_free(other);
    OK(walsh_session_truncate(session, count - 1));
    FAILS(walsh_session_truncate(session, count), WALSH_STATUS_ARGUMENT, "position");
    OK(walsh_session_next(session, prompt[count - 1], NULL, &token));
    TRUE(token == first[0]);
    TRUE((size_t)snprintf(path, sizeof path, "%s/session.walsh", argv[2]) < sizeof path);
    OK(walsh_session_save(session, path));
    OK(walsh_session_restore(model, path, &other));
    for (int at = 1; at < TOKENS; at++) {
        OK(walsh_session_next(session, first[at - 1], NULL, &first[at]));
        OK(walsh_session_next(other, first[at - 1], NULL, &second[at]));
        TRUE(first[at] == second[at]);
    }
    walsh_session_free(other);
    FAILS(walsh_session_restore(model, argv[1], &other), WALSH_STATUS_FILE, argv[1]);
    TRUE(other == NULL);
    FAILS(walsh_session_save(session, "/no/such/folder/a.walsh"), WALSH_STATUS_FILE, "/no/such/folder");

    /* Random numbers are those of the seed. */
    sampling = walsh_sampling(model);
    sampling.temperature = 1.5f;
    OK(walsh_session_truncate(session, 0));
    OK(walsh_session_read(session, prompt, count));
    OK(walsh_session_seed(session, 7));
    write_on(session, &sampling, first);
    OK(walsh_session_truncate(session, 0));
    OK(walsh_session_read(session, prompt, count));
    OK(walsh_session_seed(session, 7));
    write_on(session, &sampling, second);
    TRUE(memcmp(first, second, sizeof first) == 0);
    sampling.top_p = 2;
    FAILS(walsh_session_sample(session, &sampling, &token), WALSH_STATUS_ARGUMENT, "top_p");
    TRUE(walsh_sampling(NULL).temperature == 0);

    /* Ends: cancelled, and full. */
    OK(walsh_session_cancel(session));
    FAILS(walsh_session_read(session, prompt, count), WALSH_STATUS_CANCELLED, "");
    OK(walsh_session_read(session, prompt, count));
    size_t before;
    OK(walsh_session_position(session, &before));
    OK(walsh_session_cancel(session));
    TRUE(walsh_session_next(session, prompt[0], NULL, &token) == WALSH_STATUS_CANCELLED && token == -1);
    FAILS(walsh_session_next(session, prompt[0], NULL, NULL), WALSH_STATUS_ARGUMENT, "next is null");
    OK(walsh_session_position(session, &position));
    TRUE(position == before);
    cancel_from_beside(model, prompt, count);
    OK(walsh_session_truncate(session, 0));
    for (position = 0; position + count <= 256; position += count)
        OK(walsh_session_read(session, prompt, count));
    FAILS(walsh_session_read(session, prompt, count), WALSH_STATUS_CONTEXT_FULL, "256");
    FAILS(walsh_session_read(NULL, prompt, count), WALSH_STATUS_ARGUMENT, "session is null");

    /* A session outlives its model's handle. */
    walsh_model_free(model);
    OK(walsh_session_truncate(session, 0));
    OK(walsh_session_read(session, prompt, count));
    walsh_session_free(session);
    walsh_session_free(NULL);
    walsh_model_free(NULL);
    puts("done");
    return 0;
}
