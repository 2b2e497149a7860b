#include "base64.h"

#include <stdlib.h>
#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t base64_length(size_t size)
{
    return (size + 2) / 3 * 4;
}

static char character_at(const uint8_t *data, size_t size, size_t at)
{
    size_t group = at / 4 * 3, left = size - group;
    uint32_t bits = (uint32_t)data[group] << 16;
    bits |= left > 1 ? (uint32_t)data[group + 1] << 8 : 0;
    bits |= left > 2 ? data[group + 2] : 0;
    return at % 4 > left ? '=' : alphabet[bits >> (18 - 6 * (at % 4)) & 63];
}

void base64_write(const uint8_t *data, size_t size, size_t at, char *text, size_t count)
{
    for (size_t i = 0; i < count; i++)
        text[i] = character_at(data, size, at + i);
}

int base64_read(const char *text, size_t length, uint8_t **data, size_t *size)
{
    uint8_t *out = malloc(length / 4 * 3 + 3), values[256];
    uint32_t bits = 0;
    size_t used = 0, count = 0, padding = 0;
    if (!out)
        return 0;
    memset(values, 255, sizeof values);
    for (uint8_t i = 0; i < 64; i++)
        values[(unsigned char)alphabet[i]] = i;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '\r' || c == '\n')
            continue;
        padding += c == '=';
        if ((c == '=') != (padding > 0) || (c != '=' && values[c] == 255) || padding > 2) {
            free(out);
            return 0;
        }
        bits = bits << 6 | (c == '=' ? 0 : values[c]);
        if (++count % 4 == 0) {
            for (int byte = 0; byte < 3; byte++)
                out[used++] = (uint8_t)(bits >> (16 - 8 * byte));
            bits = 0;
        }
    }
    if (count % 4 != 0 || used < padding) { /* "AAAAA", or padding where there is nothing */
        free(out);
        return 0;
    }
    *data = out;
    *size = used - padding;
    return 1;
}
