/*
 * From a body to a serve_request. Parsing a large body and decoding its images takes seconds, so a thread of its own
 * does it, one request at a time; the exchange is suspended meanwhile. A reading owns its body: a client may go away
 * while the thread has it.
 */
#ifndef ZI_SERVE_READING_H
#define ZI_SERVE_READING_H

#include "http.h"

struct reader;

/* NULL: no memory, or no thread. */
struct reader *reader_start(server *s);
/* All exchanges are over. */
void reader_stop(struct reader *r);

/* Reads the request of an exchange, whose body is whole, and calls the endpoint's handler; a fault is answered. */
enum MHD_Result reading_begin(exchange *x);
/* Releases the exchange's reading, at once or when the thread has done with it. With the server's lock. */
void reading_leave(exchange *x);

#endif
