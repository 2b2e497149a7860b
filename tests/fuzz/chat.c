/* A chat template from a stranger: a program in the language Jinja, which is rendered for one message. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "text/jinja.h"

#define MOST_BYTES ((size_t)64 << 20)

static int run(const uint8_t *data, size_t size)
{
    static const char content[] = "A cat's  12 caf\xc3\xa9s \xf0\x9f\x90\xb1<think>a</think>";
    static char eos[] = "<|im_end|>";
    const zi_chat_token tokens[] = {{"eos_token", eos}, {"bos_token", NULL}};
    zimage_error error = ZIMAGE_ERROR_INIT;
    char *source = malloc(size + 1), *text = NULL;
    size_t length = 0;
    if (!source)
        zi_fuzz_fail("out of memory");
    memcpy(source, data, size);
    source[size] = 0;
    const zi_chat chat = {source, "chat.jinja", content, strlen(content), (int)(size & 1), tokens, 2};
    zimage_status status = zi_jinja_render(&chat, &text, &length, &error);
    if (status == ZIMAGE_OK ? !text || length > MOST_BYTES : text != NULL || !error.message[0])
        zi_fuzz_fail("%zu bytes, \"%s\"", length, error.message);
    zi_fuzz_note(status == ZIMAGE_OK ? text : error.message);
    free(text);
    free(source);
    return ZI_FUZZ_KEEP;
}

const zi_fuzz_target zi_fuzz_chat = {.name = "chat", .run = run};
