/* Bodies of requests, as they arrive: JSON, and multipart forms. What is large lies in temporary files (spool.h). */
#ifndef ZI_SERVE_BODY_H
#define ZI_SERVE_BODY_H

#include <microhttpd.h>

#include "request.h"

typedef enum body_kind { BODY_NONE, BODY_JSON, BODY_FORM, BODY_BYTES } body_kind;

typedef struct body body;

/* A body of a kind, of at most so many bytes. connection: for the boundary of a form. NULL: a form without a boundary,
 * or no memory. */
body *body_new(body_kind kind, size_t limit, struct MHD_Connection *connection);
void body_free(body *b);
/* Takes bytes. 0: a fault, after which all other bytes are ignored. */
int body_feed(body *b, const char *data, size_t size, fault *f);
/* The whole body was read: an object with its fields. The result lives as long as the body. 0: a fault. */
int body_finish(body *b, const form **result, fault *f);
/* The bytes that were fed. */
size_t body_size(const body *b);
/* A number for the content of a whole body: what it was cut into does not matter. */
uint64_t body_hash(const body *b);
/* The bytes of a body of BODY_BYTES. NULL: no memory. */
const uint8_t *body_bytes(body *b, size_t *size);

#endif
