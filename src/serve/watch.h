/* Connections that are watched: clients that go away, and times that are over. */
#ifndef ZI_SERVE_WATCH_H
#define ZI_SERVE_WATCH_H

#include "http.h"

/* A connection. Everything with the server's lock. */
typedef struct peer {
    struct peer *next, *before;
    int fd;
    uint64_t serial;
    double deadline;    /* when the connection is closed; 0: never */
    int is_gone;        /* the client has closed it, at least its half */
    exchange *exchange; /* that it has now; NULL: none */
} peer;

struct watch *watch_start(http *h);
/* All connections are closed. */
void watch_stop(struct watch *w);
/* NULL: no memory. */
peer *watch_add(struct watch *w, int fd, double deadline);
void watch_remove(struct watch *w, peer *p);
/* An exchange's wake_at is now this time. */
void watch_at(struct watch *w, double time);

#endif
