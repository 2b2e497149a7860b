/*
 * HTTP by libmicrohttpd. An exchange is one request and its answer. The daemon's only thread reads requests, calls the
 * handlers and sends answers; an exchange that waits for a job is suspended, and woken by the job. A watcher thread
 * notices clients that go away meanwhile, and times that are over.
 */
#ifndef ZI_SERVE_HTTP_H
#define ZI_SERVE_HTTP_H

#include <microhttpd.h>

#include "body.h"
#include "pieces.h"
#include "policy.h"
#include "rate.h"
#include "route.h"
#include "server.h"

#define REQUEST_ID_LENGTH 16

typedef struct http {
    server *server;
    policy policy;
    rate_table requests, failures; /* the daemon's thread alone uses them */
    struct MHD_Daemon *daemon;
    int socket;
    struct watch *watch;
    struct reader *reader;
    char *description;          /* /openapi.json; NULL: nobody has asked for it */
    struct exchange *exchanges; /* with the server's lock */
    int is_closing;             /* nobody is suspended any more. With the server's lock */
} http;

typedef struct exchange {
    struct exchange *next, *before;
    http *http;
    server *server;
    struct MHD_Connection *connection;
    struct peer *peer;
    char *method, *url; /* as they were sent */
    char id[REQUEST_ID_LENGTH + 1];
    route_match match; /* its endpoint is NULL: there is none */
    uint64_t owner;    /* the API key */
    body *body;
    uint64_t reserved;       /* bytes of bodies that count as this one's */
    struct reading *reading; /* of the body's request; it then has the body */
    const form *form;        /* lives as long as the body */
    json_t *echo;            /* what the answer repeats of the request; NULL: nothing */
    uint64_t body_hash;
    fault fault;
    size_t swallowed; /* bytes of the body behind a fault */
    double started;
    int status;         /* of the answer; 0: none yet */
    const char *origin; /* of a page that may read the answer; NULL: none */
    /* waiting; with the server's lock */
    job *job; /* held */
    job_listener listener;
    int is_listening, is_suspended, is_gone;
    int is_reading, is_whole;                      /* the body is being read; it was read */
    int is_late;                                   /* the body took too long, and the client was told */
    double wake_at;                                /* 0: never */
    enum MHD_Result (*resume)(struct exchange *x); /* called when it is woken; NULL: the request is not handled yet */
    enum MHD_Result (*answer)(struct exchange *x); /* of exchange_wait_for_images */
    struct stream *stream;
    struct front_asking *asking;                   /* what the ledger was asked; NULL: nothing */
    int is_answered;                               /* it has answered */
    enum MHD_Result (*stored)(struct exchange *x); /* of exchange_submit */
} exchange;

/* *h is all zeros before. */
int http_start(http *h, server *s, zimage_error *error);
/* Wakes everybody, waits a moment until answers are sent, and stops. */
void http_stop(http *h);
/* "http://127.0.0.1:8421", or "unix:/run/zimage" */
void http_url(const http *h, char *url, size_t size);

/* ---- for handlers ---- */

/* Answers; each returns what the handler returns. Values and texts are taken; NULL: there was no memory. */
enum MHD_Result answer_json(exchange *x, int status, json_t *value);
enum MHD_Result answer_text(exchange *x, int status, const char *type, char *text);
/* Pieces point into the exchange's job, which is held until they are sent. */
enum MHD_Result answer_pieces(exchange *x, int status, const char *type, pieces *p);
/* The fault of the exchange, in the dialect of its endpoint. */
enum MHD_Result answer_fault(exchange *x);
enum MHD_Result answer_empty(exchange *x, int status);
/* Sends events of the exchange's job as they happen. render turns an event into pieces; 1: it is the last one. shows:
 * whether it shows progress or previews. */
typedef int stream_render(exchange *x, const job_event *event, pieces *p);
enum MHD_Result answer_stream(exchange *x, stream_render *render, uint64_t after, int shows);

/* A header or a parameter of the URL; NULL: there is none. */
const char *exchange_header(const exchange *x, const char *name);
const char *exchange_argument(const exchange *x, const char *name);

/* The request that was read, for handlers of endpoints with a dialect. */
serve_request *exchange_request(exchange *x);
/* Admits it. The exchange then has the job and listens to it; its request and its body are gone. Calls `stored` when
 * the job is known to be kept; a fault is answered. */
enum MHD_Result exchange_submit(exchange *x, int is_detached, enum MHD_Result (*stored)(exchange *x));
/* Joins the caller's job of that id. 0: a fault. */
int exchange_find_job(exchange *x, const char *id);
/* Suspends the exchange until its job tells something, or a time (0: none). Then `resume` is called; at once, if the
 * job is over. */
enum MHD_Result exchange_wait(exchange *x, double wake_at, enum MHD_Result (*resume)(exchange *x));
/* Waits for the images of the exchange's job, and calls `answer` when they are there; else the job's fault is answered.
 */
enum MHD_Result exchange_wait_for_images(exchange *x, enum MHD_Result (*answer)(exchange *x));

/* ---- between http.c, check.c, answer.c, stream.c, watch.c ---- */

/* All that is checked before the body is read, which then has a place. 0: a fault. */
int exchange_check(exchange *x);
/* Counts further bytes of the body. 0: all bodies together would have too many. */
int exchange_reserve(exchange *x, uint64_t bytes);

/* With the server's lock. */
void exchange_wake(exchange *x);
/* The whole answer to a client whose body takes too long: libmicrohttpd sends none before a body is there. NULL: no
 * memory. Released with free. */
char *answer_late(const exchange *x);
void exchange_leave_job(exchange *x);
enum MHD_Result exchange_send(exchange *x, int status, struct MHD_Response *response);
void stream_detach(exchange *x);
void stream_ping(exchange *x, double now);

#endif
