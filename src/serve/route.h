/* The endpoints: one table, from which routing, the header Allow and /openapi.json come. */
#ifndef ZI_SERVE_ROUTE_H
#define ZI_SERVE_ROUTE_H

#include <microhttpd.h>

#include "body.h"

#define ROUTE_PARAMETERS_MAX 2
#define ROUTE_PARAMETER_SIZE 512

struct exchange;

typedef enum route_flags {
    ROUTE_PUBLIC = 1,    /* no key is needed */
    ROUTE_SDAPI = 2,     /* errors as AUTOMATIC1111 sends them */
    ROUTE_UNCOUNTED = 4, /* the rate of requests does not count it: it sends a finished image */
    /* which jobs a front of a ledger has to know before it is handled (ask.h): */
    ROUTE_ASKS_JOB = 8,   /* the one of its first parameter */
    ROUTE_ASKS_ALL = 16,  /* the caller's */
    ROUTE_ASKS_OPEN = 32, /* those of the caller's that are not over */
} route_flags;

typedef struct endpoint {
    const char *method;
    const char *path; /* "{id}" stands for one part */
    enum MHD_Result (*handle)(struct exchange *x);
    int flags;
    unsigned bodies; /* bit i: body_kind i */
    size_t limit;    /* bytes of the body */
    int dialect;     /* serve_dialect of the body's fields; -1: it has none */
    const char *type;
    const char *summary;
} endpoint;

extern const endpoint route_table[];
extern const size_t route_table_size;

typedef struct route_match {
    const endpoint *endpoint;                                    /* NULL: no such path, or no such method */
    char parameters[ROUTE_PARAMETERS_MAX][ROUTE_PARAMETER_SIZE]; /* decoded */
    char allow[64];                                              /* methods of the path; empty: there is no such path */
} route_match;

/* Finds the endpoint of a path as it was sent, without its "?" part. The parts are decoded after the path was split.
 * 0: a part is malformed, too long, or holds a zero byte. */
int route_find(const char *method, const char *path, route_match *match);

#endif
