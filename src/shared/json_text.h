/* Texts as JSON. */
#ifndef ZI_SHARED_JSON_TEXT_H
#define ZI_SHARED_JSON_TEXT_H

#include <jansson.h>

/* Bytes that are not UTF-8 are written out as zimage_printable writes them. NULL: no memory. */
json_t *json_of_text(const char *text);

#endif
