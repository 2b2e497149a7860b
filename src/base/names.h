/* A list of names for a message, in bounded space: "a, b, c and 12 more". */
#ifndef ZI_BASE_NAMES_H
#define ZI_BASE_NAMES_H

#include <stddef.h>

#include "base/error.h"

typedef struct zi_names {
    size_t count;  /* names that were added */
    size_t listed; /* names that text holds */
    size_t length; /* of text */
    char text[480];
} zi_names;

/* Lists the first eight names, or as many as fit (at least two), and counts the others. */
void zi_names_add(zi_names *names, const char *format, ...) ZI_PRINTF(2, 3);
/* The list with its ending; valid until the next call with these names. */
const char *zi_names_text(zi_names *names);

#endif
