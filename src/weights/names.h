/* "a, b, c and 12 more": names for a message, in bounded space. Inside this room. */
#ifndef ZI_WEIGHTS_NAMES_H
#define ZI_WEIGHTS_NAMES_H

#include <stddef.h>

#include "base/error.h"

typedef struct zi_names {
    size_t count;
    size_t listed;
    size_t length;
    char text[480];
} zi_names;

/* The first eight (or as many as fit, at least two) are listed, the others only counted. */
void zi_names_add(zi_names *names, const char *format, ...) ZI_PRINTF(2, 3);
/* The list with its ending; valid until names changes. */
const char *zi_names_text(zi_names *names);

#endif
