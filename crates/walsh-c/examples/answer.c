/* Answers a question: answer MODEL QUESTION, where MODEL is a file or a name as for `walsh pull`. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "walsh.h"

static void check(WalshStatus status)
{
    if (status != WALSH_STATUS_OK) {
        fprintf(stderr, "%s\n", walsh_last_error());
        exit(1);
    }
}

/* A conversation with one message, as JSON. */
static char *dialogue(const char *question)
{
    static const char before[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"", after[] = "\"}]}";
    char *json = malloc(sizeof before + 6 * strlen(question) + sizeof after), *end;
    if (json == NULL)
        exit(1);
    end = json + sprintf(json, "%s", before);
    for (; *question != '\0'; question++) {
        unsigned char byte = (unsigned char)*question;
        if (byte < 0x20 || byte == '"' || byte == '\\')
            end += sprintf(end, "\\u%04x", byte);
        else
            *end++ = (char)byte;
    }
    sprintf(end, "%s", after);
    return json;
}

int main(int argc, char **argv)
{
    WalshModel *model;
    WalshSession *session;
    WalshSessionOptions options = {.size = sizeof options, .kv = "4bit"};
    WalshSampling sampling;
    size_t count;
    int32_t *tokens, token;
    char *json;

    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL QUESTION\n", argv[0]);
        return 2;
    }
    check(walsh_model_open(argv[1], NULL, &model));
    check(walsh_session_new(model, &options, &session));
    sampling = walsh_sampling(model);

    json = dialogue(argv[2]);
    check(walsh_chat_prompt(model, json, NULL, 0, &count));
    tokens = malloc(count * sizeof *tokens);
    if (tokens == NULL)
        return 1;
    check(walsh_chat_prompt(model, json, tokens, count, &count));
    check(walsh_session_read(session, tokens, count));
    check(walsh_session_sample(session, &sampling, &token));
    for (int written = 0; written < 400 && !walsh_model_is_end(model, token); written++) {
        char bytes[256];
        check(walsh_token_bytes(model, token, bytes, sizeof bytes, &count));
        fwrite(bytes, 1, count < sizeof bytes ? count : sizeof bytes, stdout);
        fflush(stdout);
        check(walsh_session_next(session, token, &sampling, &token));
    }
    putchar('\n');

    free(tokens);
    free(json);
    walsh_session_free(session);
    walsh_model_free(model);
    return 0;
}
