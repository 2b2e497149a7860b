/* UTF-8, and the characters on which the reference and the libraries of the system may differ (unicode_tables.c). */
#ifndef ZI_TEXT_UNICODE_H
#define ZI_TEXT_UNICODE_H

#include <stddef.h>
#include <stdint.h>

/*
 * The bytes of the longest valid prefix; `length` if all of the text is valid UTF-8 (no overlong forms, no surrogates).
 */
size_t zi_utf8_valid_prefix(const char *text, size_t length);

/* Decodes the character at *cursor, which must be valid, and moves *cursor after it. */
static inline uint32_t zi_utf8_next(const uint8_t **cursor)
{
    const uint8_t *c = *cursor;
    if (c[0] < 0x80) {
        *cursor += 1;
        return c[0];
    }
    if (c[0] < 0xE0) {
        *cursor += 2;
        return (c[0] & 0x1Fu) << 6 | (c[1] & 0x3Fu);
    }
    if (c[0] < 0xF0) {
        *cursor += 3;
        return (c[0] & 0x0Fu) << 12 | (c[1] & 0x3Fu) << 6 | (c[2] & 0x3Fu);
    }
    *cursor += 4;
    return (c[0] & 0x07u) << 18 | (c[1] & 0x3Fu) << 12 | (c[2] & 0x3Fu) << 6 | (c[3] & 0x3Fu);
}

/* The class of a character in the reference, where it depends on the Unicode version. */
typedef enum zi_char_class {
    ZI_CHAR_AS_IS = 0, /* the same in every version from 14.0 on: the library knows it */
    ZI_CHAR_LETTER,
    ZI_CHAR_NUMBER,
    ZI_CHAR_OTHER, /* neither letter nor number nor white space */
} zi_char_class;

zi_char_class zi_char_class_of_reference(uint32_t code_point);

/* 1: the normaliser of the reference knows no decomposition, composition or combining class of this character. */
int zi_char_is_inert(uint32_t code_point);

#endif
