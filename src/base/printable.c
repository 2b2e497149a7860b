/* The one filter for text that a person reads: messages of the library, and all that the program prints. */
#include <stdio.h>
#include <string.h>

#include "zimage.h"

/* Bytes of the well-formed UTF-8 sequence at text (zero-terminated), or 0. Unicode 15, table 3-7. */
static size_t sequence_length(const unsigned char *text)
{
    unsigned char low = 0x80, high = 0xBF;
    size_t length = 0;
    if (text[0] < 0x80)
        return 1;
    if (text[0] >= 0xC2 && text[0] <= 0xDF)
        length = 2;
    else if (text[0] >= 0xE0 && text[0] <= 0xEF)
        length = 3;
    else if (text[0] >= 0xF0 && text[0] <= 0xF4)
        length = 4;
    if (text[0] == 0xE0)
        low = 0xA0; /* overlong */
    else if (text[0] == 0xED)
        high = 0x9F; /* surrogates */
    else if (text[0] == 0xF0)
        low = 0x90;
    else if (text[0] == 0xF4)
        high = 0x8F;
    for (size_t i = 1; i < length; i++) {
        if (text[i] < low || text[i] > high)
            return 0;
        low = 0x80;
        high = 0xBF;
    }
    return length;
}

/* The code point of a well-formed sequence of at most 3 bytes; 0 for longer ones, of which none is escaped. */
static unsigned code_point(const unsigned char *text, size_t length)
{
    switch (length) {
    case 1:
        return text[0];
    case 2:
        return (text[0] & 0x1Fu) << 6 | (text[1] & 0x3Fu);
    case 3:
        return (text[0] & 0x0Fu) << 12 | (text[1] & 0x3Fu) << 6 | (text[2] & 0x3Fu);
    default:
        return 0;
    }
}

/* C0, DEL and C1 command a terminal; U+2028 and U+2029 begin a line; the others change the direction of what follows
 * them, so that a name can look like another. */
static int is_escaped(unsigned code)
{
    return code < 0x20 || (code >= 0x7F && code <= 0x9F) || (code >= 0x2028 && code <= 0x202E) ||
           (code >= 0x2066 && code <= 0x2069);
}

size_t zimage_printable(const char *text, char *line, size_t size)
{
    size_t needed = 0, kept = 0;
    int full = !line || size == 0;
    for (const unsigned char *c = (const unsigned char *)(text ? text : ""); *c;) {
        char escape[16];
        const void *part = c;
        size_t bytes = sequence_length(c), length = bytes;
        unsigned code = bytes ? code_point(c, bytes) : *c;
        if (bytes == 0 || (bytes < 4 && is_escaped(code))) {
            length = (size_t)snprintf(escape, sizeof escape, bytes < 2 ? "\\x%02x" : "\\u%04x", code);
            part = escape;
        }
        full |= kept + length >= size;
        if (!full) {
            memcpy(line + kept, part, length);
            kept += length;
        }
        needed += length;
        c += bytes ? bytes : 1;
    }
    if (line && size > 0)
        line[kept] = 0;
    return needed;
}
