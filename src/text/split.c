#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/split.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "text/grow.h"
#include "text/pattern.h"
#include "text/unicode.h"

struct zi_split {
    pcre2_code *code;
    int is_qwen2; /* 1: the pattern is known to be fast */
};

/* Steps of backtracking in one match of Qwen2's pattern: the default of PCRE2, and a few for each byte of the text. */
#define MATCH_LIMIT_BASE     10000000u
#define MATCH_LIMIT_PER_BYTE 4u

/*
 * Any other pattern may backtrack as much as its author likes. PCRE2 only takes a limit of steps for one match, and
 * does not say how many a match took. So a match begins with few steps and is begun anew with more where they are not
 * enough, and every limit is charged as if all of its steps were taken. A step may pass over all of the text that is
 * left, so it costs the bytes of that. The just-in-time compiler does not count every step, so it is not used.
 */
#define WORK_BUDGET  ((uint64_t)1500000000)
#define FIRST_LIMIT  32u
#define LIMIT_GROWTH 8u
/* KiB that one match may take. */
#define HEAP_LIMIT (64u << 10)

static const char *pcre2_text(int code, char *buffer, size_t size)
{
    if (pcre2_get_error_message(code, (PCRE2_UCHAR *)buffer, size) < 0 && !buffer[0])
        return "unknown error";
    return buffer;
}

zimage_status zi_split_new(const char *pattern, const char *where, zi_split **split, zimage_error *error)
{
    *split = NULL;
    ZI_TRY(zi_pattern_check(pattern, where, error));
    zi_split *made = calloc(1, sizeof *made);
    if (!made)
        return zi_fail_memory(error, "a pattern", sizeof *made);
    int code = 0;
    PCRE2_SIZE at = 0;
    made->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    if (!made->code) {
        char text[160] = "";
        free(made);
        if (code == PCRE2_ERROR_HEAP_FAILED)
            return zi_fail_memory(error, "compiling a pattern", strlen(pattern));
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, "%s is not a valid pattern: %s at byte %zu", where,
                       pcre2_text(code, text, sizeof text), (size_t)at);
    }
    uint32_t empty = 0;
    pcre2_pattern_info(made->code, PCRE2_INFO_MATCHEMPTY, &empty);
    if (empty) {
        zi_split_free(made);
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED, "%s can match the empty string, which is not supported", where);
    }
    made->is_qwen2 = strcmp(pattern, ZI_QWEN2_PATTERN) == 0;
    /* Without a just-in-time compiler (or without executable memory) matching is slower, with the same results. */
    if (made->is_qwen2)
        (void)pcre2_jit_compile(made->code, PCRE2_JIT_COMPLETE);
    *split = made;
    return ZIMAGE_OK;
}

void zi_split_free(zi_split *split)
{
    if (!split)
        return;
    pcre2_code_free(split->code);
    free(split);
}

zimage_status zi_splitter_open(zi_splitter *splitter, const zi_split *split, zimage_error *error)
{
    *splitter = (zi_splitter){.split = split, .budget = WORK_BUDGET};
    splitter->match_data = pcre2_match_data_create_from_pattern(split->code, NULL);
    splitter->match_context = pcre2_match_context_create(NULL);
    if (splitter->match_data && splitter->match_context) {
        pcre2_set_heap_limit(splitter->match_context, HEAP_LIMIT);
        return ZIMAGE_OK;
    }
    zi_splitter_close(splitter);
    return zi_fail_memory(error, "matching a pattern", 256);
}

void zi_splitter_close(zi_splitter *splitter)
{
    pcre2_match_data_free(splitter->match_data);
    pcre2_match_context_free(splitter->match_context);
    free(splitter->stand_in);
    *splitter = (zi_splitter){0};
}

/* A character that has this class in every Unicode version, of this many bytes in UTF-8. */
static const char *stand_in_for(zi_char_class class, size_t bytes)
{
    switch (class) {
    case ZI_CHAR_LETTER:
        return bytes == 3 ? "\xE4\xB8\x80" : "\xF0\xA0\x80\x80"; /* U+4E00, U+20000 */
    case ZI_CHAR_NUMBER:
        return bytes == 3 ? "\xE0\xB9\x90" : "\xF0\x9D\x9F\x8E"; /* U+0E50, U+1D7CE */
    case ZI_CHAR_OTHER:
    case ZI_CHAR_AS_IS:
        break;
    }
    /* U+00D7, U+E000, U+10FFFD */
    return bytes == 2 ? "\xC3\x97" : bytes == 3 ? "\xEE\x80\x80" : "\xF4\x8F\xBF\xBD";
}

/*
 * Where PCRE2 may have another class for a character than the reference, the pattern sees a copy of the text with
 * another character there, of the right class and of the same length.
 */
zimage_status zi_splitter_start(zi_splitter *splitter, const char *text, size_t length, zimage_error *error)
{
    splitter->subject = text;
    splitter->length = length;
    splitter->offset = 0;
    splitter->match_end = 0;
    splitter->exhausted = 0;
    if (!splitter->split->is_qwen2 && length > ZI_SLOW_PATTERN_LIMIT)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "the text has a part of %zu bytes, expected at most %zu for a tokenizer with another pattern "
                       "than that of Qwen2",
                       length, ZI_SLOW_PATTERN_LIMIT);
    const uint8_t *start = (const uint8_t *)text, *cursor = start, *end = start + length;
    while (cursor < end) {
        const uint8_t *character = cursor;
        uint32_t code = zi_utf8_next(&cursor);
        zi_char_class class = code < 0x80 ? ZI_CHAR_AS_IS : zi_char_class_of_reference(code);
        if (class == ZI_CHAR_AS_IS)
            continue;
        if (splitter->subject == text) {
            char *copy = zi_grow(splitter->stand_in, &splitter->stand_in_capacity, length, 1);
            if (!copy)
                return zi_fail_memory(error, "splitting the text", length);
            memcpy(copy, text, length);
            splitter->stand_in = copy;
            splitter->subject = copy;
        }
        size_t bytes = (size_t)(cursor - character);
        memcpy(splitter->stand_in + (character - start), stand_in_for(class, bytes), bytes);
    }
    uint64_t limit = MATCH_LIMIT_BASE + (uint64_t)MATCH_LIMIT_PER_BYTE * length;
    pcre2_set_match_limit(splitter->match_context, limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit);
    return ZIMAGE_OK;
}

/* PCRE2_NO_UTF_CHECK: the text is valid already, and a check in each match would take quadratic time. */
static int match_once(const zi_splitter *splitter, uint32_t options)
{
    return pcre2_match(splitter->split->code, (PCRE2_SPTR)splitter->subject, splitter->length, splitter->offset,
                       PCRE2_NO_UTF_CHECK | options, splitter->match_data, splitter->match_context);
}

/* A match within the budget. PCRE2_ERROR_MATCHLIMIT: the budget is spent. */
static int match_within_budget(zi_splitter *splitter)
{
    uint64_t cost = splitter->length - splitter->offset + 1;
    for (uint64_t limit = FIRST_LIMIT; splitter->budget >= cost; limit *= LIMIT_GROWTH) {
        uint64_t steps = limit < splitter->budget / cost ? limit : splitter->budget / cost;
        splitter->budget -= steps * cost;
        pcre2_set_match_limit(splitter->match_context, (uint32_t)steps); /* WORK_BUDGET has less than 32 bits */
        int code = match_once(splitter, PCRE2_NO_JIT);
        if (code != PCRE2_ERROR_MATCHLIMIT)
            return code;
    }
    return PCRE2_ERROR_MATCHLIMIT;
}

static int match(zi_splitter *splitter)
{
    if (!splitter->split->is_qwen2)
        return match_within_budget(splitter);
    int code = match_once(splitter, 0);
    if (code == PCRE2_ERROR_JIT_STACKLIMIT)
        code = match_once(splitter, PCRE2_NO_JIT); /* the interpreter keeps its backtracking on the heap */
    return code;
}

static zimage_status match_failed(int code, size_t length, zimage_error *error)
{
    char text[160] = "";
    if (code == PCRE2_ERROR_NOMEMORY)
        return zi_fail_memory(error, "matching the tokenizer's pattern", length);
    if (code == PCRE2_ERROR_MATCHLIMIT || code == PCRE2_ERROR_HEAPLIMIT)
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                       "the tokenizer's pattern takes too much work on this text of %zu bytes: it tries too many ways "
                       "to match",
                       length);
    return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED, "the tokenizer's pattern can't be matched on this text: %s",
                   pcre2_text(code, text, sizeof text));
}

/* Finds the next match; sets *begin and match_end, or exhausted. */
static zimage_status find_match(zi_splitter *splitter, size_t *begin, zimage_error *error)
{
    int code = match(splitter);
    if (code == PCRE2_ERROR_NOMATCH) {
        splitter->exhausted = 1;
        return ZIMAGE_OK;
    }
    if (code < 0)
        return match_failed(code, splitter->length, error);
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(splitter->match_data);
    if (span[0] < splitter->offset || span[1] <= span[0] || span[1] > splitter->length)
        return zi_fail(error, ZIMAGE_ERROR_INTERNAL, "the tokenizer's pattern matched nothing at byte %zu", span[0]);
    *begin = span[0];
    splitter->match_end = span[1];
    return ZIMAGE_OK;
}

zimage_status zi_splitter_next(zi_splitter *splitter, size_t *begin, size_t *end, zimage_error *error)
{
    *begin = *end = splitter->offset;
    if (splitter->offset == splitter->length)
        return ZIMAGE_OK;
    if (splitter->match_end <= splitter->offset && !splitter->exhausted) {
        size_t match_begin = splitter->offset;
        ZI_TRY(find_match(splitter, &match_begin, error));
        *end = splitter->exhausted ? splitter->length : match_begin;
    }
    /* Text that no match covers is a piece, too; the match after it is the next piece. */
    if (*end == *begin)
        *end = splitter->match_end;
    splitter->offset = *end;
    return ZIMAGE_OK;
}
