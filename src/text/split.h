/* Cuts text into pieces by the pattern of a tokenizer.json, with PCRE2. Byte pairs are merged within a piece only. */
#ifndef ZI_TEXT_SPLIT_H
#define ZI_TEXT_SPLIT_H

#include "base/error.h"

/* PRETOKENIZE_REGEX of transformers' models/qwen2/tokenization_qwen2.py. It matches in linear time. */
#define ZI_QWEN2_PATTERN                                                                                               \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"  \
    "\\s+(?!\\S)|\\s+"

/* Bytes between two added tokens that another pattern is matched on: its time may grow with their square. */
#define ZI_SLOW_PATTERN_LIMIT ((size_t)8 << 10)

typedef struct zi_split zi_split; /* a compiled pattern; immutable */

/* where: the file and the field, for messages. */
zimage_status zi_split_new(const char *pattern, const char *where, zi_split **split, zimage_error *error);
void zi_split_free(zi_split *split);

/*
 * The state of one caller: zi_splitter_open, then _start for each part of a text and _next for each piece, then _close.
 * All parts share one budget of work.
 */
typedef struct zi_splitter {
    const zi_split *split;
    void *match_data;
    void *match_context;
    const char *subject; /* the text that the pattern sees: the caller's, or stand_in */
    char *stand_in;
    size_t stand_in_capacity;
    size_t length;
    size_t offset;    /* the pieces before this were returned */
    size_t match_end; /* > offset: the end of a match whose piece comes after the gap before it */
    int exhausted;    /* 1: there are no more matches */
    uint64_t budget;  /* work that is left for all texts, if the pattern is not that of Qwen2 */
} zi_splitter;

zimage_status zi_splitter_open(zi_splitter *splitter, const zi_split *split, zimage_error *error);
void zi_splitter_close(zi_splitter *splitter);

/* Begins a text of valid UTF-8, which the caller keeps until its last piece. */
zimage_status zi_splitter_start(zi_splitter *splitter, const char *text, size_t length, zimage_error *error);
/* The next piece is text[*begin, *end): a match, or a gap between two. *begin == *end: there are no more pieces. */
zimage_status zi_splitter_next(zi_splitter *splitter, size_t *begin, size_t *end, zimage_error *error);

#endif
