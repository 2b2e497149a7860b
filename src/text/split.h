/* Cuts text into the pieces that are merged each for itself: the pattern of a tokenizer.json, by PCRE2. */
#ifndef ZI_TEXT_SPLIT_H
#define ZI_TEXT_SPLIT_H

#include "base/error.h"

typedef struct zi_split zi_split; /* a compiled pattern; immutable */

/* where: file and field, for messages. */
zimage_status zi_split_new(const char *pattern, const char *where, zi_split **split, zimage_error *error);
void zi_split_free(zi_split *split);

/* One call's state. Start with zeros, then _open. */
typedef struct zi_splitter {
    const zi_split *split;
    void *match_data;
    void *match_context;
    const char *subject; /* what the pattern sees: the text, or `stand_in` */
    char *stand_in;
    size_t stand_in_capacity;
    size_t length;
    size_t offset;    /* everything before this has been handed out */
    size_t match_end; /* > offset: a match that waits while the text before it is handed out */
    int exhausted;    /* no further match */
} zi_splitter;

zimage_status zi_splitter_open(zi_splitter *splitter, const zi_split *split, zimage_error *error);
void zi_splitter_close(zi_splitter *splitter);

/* Begins a text (valid UTF-8, which must stay until its last piece was taken). */
zimage_status zi_splitter_start(zi_splitter *splitter, const char *text, size_t length, zimage_error *error);
/* The next piece is text[*begin .. *end); *begin == *end: there is none. Pieces and gaps between them are alike. */
zimage_status zi_splitter_next(zi_splitter *splitter, size_t *begin, size_t *end, zimage_error *error);

#endif
