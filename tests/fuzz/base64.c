/* Base64 from a stranger: what is decoded and encoded again is the same text, whole and in parts. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "shared/base64.h"

/* The text without line breaks, which mean nothing. */
static size_t join_lines(const uint8_t *data, size_t size, char *text)
{
    size_t length = 0;
    for (size_t i = 0; i < size; i++)
        if (data[i] != '\r' && data[i] != '\n')
            text[length++] = (char)data[i];
    return length;
}

static void encode_again(const uint8_t *bytes, size_t count, const char *expected, size_t length)
{
    char *text = malloc(length + 1);
    if (!text)
        zi_fuzz_fail("out of memory");
    if (base64_length(count) != length)
        zi_fuzz_fail("%zu bytes of %zu characters", count, length);
    base64_write(bytes, count, 0, text, length);
    /* The bits of the last character that belong to no byte may be anything. */
    size_t compared = count % 3 ? length - (count % 3 == 1 ? 3 : 2) : length;
    if (memcmp(text, expected, compared) != 0)
        zi_fuzz_fail("other characters");
    for (size_t at = 0, part = 1; at < length; at += part, part = part % 7 + 1) {
        part = part < length - at ? part : length - at;
        char piece[8];
        base64_write(bytes, count, at, piece, part);
        if (memcmp(piece, text + at, part) != 0)
            zi_fuzz_fail("a part has other characters");
    }
    free(text);
}

static int run(const uint8_t *data, size_t size)
{
    uint8_t *bytes = NULL;
    size_t count = 0;
    if (!base64_read((const char *)data, size, &bytes, &count)) {
        zi_fuzz_note("no base64");
        return ZI_FUZZ_KEEP;
    }
    char *text = malloc(size + 1);
    if (!text)
        zi_fuzz_fail("out of memory");
    encode_again(bytes, count, text, join_lines(data, size, text));
    free(text);
    free(bytes);
    return ZI_FUZZ_KEEP;
}

const zi_fuzz_target zi_fuzz_base64 = {.name = "base64", .run = run};
