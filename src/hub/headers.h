/* Values of headers of HTTP answers. Every function takes a text that a stranger sent. */
#ifndef ZI_HUB_HEADERS_H
#define ZI_HUB_HEADERS_H

#include <stddef.h>
#include <stdint.h>

#include "hub/names.h"

/* "\"abc\"", "W/\"abc\"" or "abc" -> abc. 0: it is no name of a blob. */
int hub_header_etag(const char *value, char etag[HUB_ETAG_MAX]);
/* A whole number and nothing else. */
int hub_header_number(const char *value, uint64_t *number);
/* "bytes FIRST-LAST/TOTAL"; *total is UINT64_MAX for "*". */
int hub_header_range(const char *value, uint64_t *first, uint64_t *last, uint64_t *total);
/* The address of <ADDRESS>; rel="next" in a Link header. 0: there is none, or it is longer than the buffer. */
int hub_header_next(const char *value, char *address, size_t size);
/* The seconds to wait of a RateLimit header, "api";r=0;t=55, if nothing is left; else 0. */
double hub_header_wait(const char *value);

#endif
