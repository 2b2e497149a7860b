/*
 * NFC made of parts of utf8proc. utf8proc_map is not used, for two reasons. It sorts combining marks by bubble sort,
 * which takes hours for a hostile megabyte of marks. And its Unicode version is that of the system, not that of the
 * reference (the `tokenizers` package).
 *
 * The text is cut into runs that can't influence each other: before every character below U+0300, which never combines
 * with a character before it, and on both sides of a character that is inert in the reference (zi_char_is_inert).
 */
#include "text/normalize.h"

#include <string.h>
#include <utf8proc.h>

#include "text/grow.h"
#include "text/unicode.h"

/* Characters below U+0300 don't combine with a character before them, and each is its own NFC. */
#define FIRST_COMBINING 0x300
/* The first byte of U+0300 in UTF-8; every byte of a smaller character is below it. */
#define FIRST_COMBINING_BYTE 0xCC
/* Code points for one canonical decomposition: utf8proc writes at most 4. */
#define DECOMPOSITION_ROOM 8
/* Longer runs of marks are sorted by counting, which is faster for them than insertion. */
#define LONG_RUN 24

static zimage_status no_memory(zimage_error *error, size_t bytes)
{
    return zi_fail_memory(error, "normalising the text", bytes);
}

static int combining_class(int32_t code)
{
    return utf8proc_get_property(code)->combining_class;
}

/* Appends the full canonical decomposition of one character to the run. */
static zimage_status add_decomposed(zi_normalizer *n, uint32_t code, zimage_error *error)
{
    size_t needed = n->count + DECOMPOSITION_ROOM;
    int32_t *codes = zi_grow(n->codes, &n->code_capacity, needed, sizeof *codes);
    if (!codes)
        return no_memory(error, needed * sizeof *codes);
    n->codes = codes;
    utf8proc_ssize_t written =
        utf8proc_decompose_char((utf8proc_int32_t)code, codes + n->count, DECOMPOSITION_ROOM, UTF8PROC_DECOMPOSE, NULL);
    if (written < 0 || written > DECOMPOSITION_ROOM)
        return zi_fail(error, ZIMAGE_ERROR_INTERNAL, "utf8proc can't decompose U+%04X", (unsigned)code);
    n->count += (size_t)written;
    return ZIMAGE_OK;
}

static void insertion_sort(int32_t *codes, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        int32_t code = codes[i];
        int class = combining_class(code);
        size_t k = i;
        for (; k > 0 && combining_class(codes[k - 1]) > class; k--)
            codes[k] = codes[k - 1];
        codes[k] = code;
    }
}

static zimage_status counting_sort(zi_normalizer *n, int32_t *codes, size_t count, zimage_error *error)
{
    int32_t *sorted = zi_grow(n->sorted, &n->sorted_capacity, count, sizeof *sorted);
    if (!sorted)
        return no_memory(error, count * sizeof *sorted);
    n->sorted = sorted;
    size_t start[257] = {0};
    for (size_t i = 0; i < count; i++)
        start[(combining_class(codes[i]) & 255) + 1]++;
    for (int class = 0; class < 256; class ++)
        start[class + 1] += start[class];
    for (size_t i = 0; i < count; i++)
        sorted[start[combining_class(codes[i]) & 255]++] = codes[i];
    memcpy(codes, sorted, count * sizeof *codes);
    return ZIMAGE_OK;
}

/* Canonical order: sorts each run of combining marks by class; marks of one class keep their order. */
static zimage_status put_in_order(zi_normalizer *n, zimage_error *error)
{
    for (size_t i = 0; i < n->count;) {
        if (!combining_class(n->codes[i])) {
            i++;
            continue;
        }
        size_t end = i + 1;
        while (end < n->count && combining_class(n->codes[end]))
            end++;
        if (end - i <= LONG_RUN)
            insertion_sort(n->codes + i, end - i);
        else
            ZI_TRY(counting_sort(n, n->codes + i, end - i, error));
        i = end;
    }
    return ZIMAGE_OK;
}

static zimage_status append_code(zi_normalizer *n, uint32_t code, zimage_error *error)
{
    char *text = zi_grow(n->text, &n->text_capacity, n->length + 4, 1);
    if (!text)
        return no_memory(error, n->length + 4);
    n->text = text;
    n->length += (size_t)utf8proc_encode_char((utf8proc_int32_t)code, (utf8proc_uint8_t *)text + n->length);
    return ZIMAGE_OK;
}

/* Sorts and composes the run, and appends it to the result. */
static zimage_status finish_run(zi_normalizer *n, zimage_error *error)
{
    if (!n->count)
        return ZIMAGE_OK;
    ZI_TRY(put_in_order(n, error));
    utf8proc_ssize_t composed =
        utf8proc_normalize_utf32(n->codes, (utf8proc_ssize_t)n->count, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (composed < 0)
        return zi_fail(error, ZIMAGE_ERROR_INTERNAL, "utf8proc can't compose a text: %s", utf8proc_errmsg(composed));
    for (utf8proc_ssize_t i = 0; i < composed; i++)
        ZI_TRY(append_code(n, (uint32_t)n->codes[i], error));
    n->count = 0;
    return ZIMAGE_OK;
}

static int needs_work(const uint8_t *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (text[i] >= FIRST_COMBINING_BYTE)
            return 1;
    return 0;
}

zimage_status zi_normalize_nfc(zi_normalizer *n, const char *text, size_t length, const char **result,
                               size_t *result_length, zimage_error *error)
{
    *result = text;
    *result_length = length;
    if (!needs_work((const uint8_t *)text, length))
        return ZIMAGE_OK;
    n->length = 0;
    n->count = 0;
    const uint8_t *cursor = (const uint8_t *)text, *end = cursor + length;
    while (cursor < end) {
        uint32_t code = zi_utf8_next(&cursor);
        int inert = zi_char_is_inert(code);
        if (code < FIRST_COMBINING || inert)
            ZI_TRY(finish_run(n, error));
        /* A character below U+0300 that is not followed by a combining one needs no run. */
        if (inert || (code < FIRST_COMBINING && (cursor == end || *cursor < FIRST_COMBINING_BYTE)))
            ZI_TRY(append_code(n, code, error));
        else
            ZI_TRY(add_decomposed(n, code, error));
    }
    ZI_TRY(finish_run(n, error));
    *result = n->text;
    *result_length = n->length;
    return ZIMAGE_OK;
}

void zi_normalizer_free(zi_normalizer *n)
{
    free(n->text);
    free(n->codes);
    free(n->sorted);
    *n = (zi_normalizer){0};
}
