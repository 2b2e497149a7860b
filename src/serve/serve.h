/*
 * The server: HTTP in front of the library. It uses zimage.h and shared/ only.
 *
 * A request of any dialect becomes one serve_request (request.h), a job (job.h), and waits in the queue (queue.h). One
 * worker a device (worker.h) makes the images. docs/design.md, "The server", has the whole picture.
 */
#ifndef ZI_SERVE_SERVE_H
#define ZI_SERVE_SERVE_H

#include <stdint.h>

#include "shared/service.h"
#include "zimage.h"

#define SERVE_DEVICES_MAX 16
#define SERVE_MODELS_MAX  64
#define SERVE_ALIASES_MAX 64
#define SERVE_PORT        8421

/* A model folder and the name under which requests ask for it. */
typedef struct serve_model {
    const char *id; /* NULL: the folder's own name */
    const char *folder;
} serve_model;

typedef struct serve_params {
    const char *host;            /* the address to listen on, as a number: "127.0.0.1", "::1" */
    int port;                    /* 0: the system chooses one */
    const char *unix_path;       /* listen on this Unix socket, and on no port; NULL: on the port */
    const char *tls_cert;        /* PEM files of a certificate, with those that lead to its issuer, */
    const char *tls_key;         /* and of its key; NULL: no TLS */
    const char *public_url;      /* by which clients reach the server; NULL: as they call it */
    const char *key_file;        /* one API key a line; NULL: none */
    const char *key;             /* a further one; NULL: none. Without both no key is asked for */
    const char *allowed_hosts;   /* further names in Host, separated by commas; may be NULL */
    const char *allowed_origins; /* origins of pages that may send requests, separated by commas; may be NULL */
    int insecure;                /* 1: listen beyond loopback without a key */
    serve_model models[SERVE_MODELS_MAX]; /* the first is the default */
    int model_count;
    const char *default_model;              /* its id; NULL: the first */
    const char *aliases;                    /* "NAME" of the default model or "NAME=ID", separated by commas; or NULL */
    int keep_models;                        /* that stay open at the same time */
    const char *devices[SERVE_DEVICES_MAX]; /* one worker each */
    int device_count;
    zimage_session_params session;    /* of all workers, but for the device and the log */
    int max_queue;                    /* jobs that wait */
    double max_wait;                  /* predicted seconds that a job may have to wait */
    int max_images;                   /* of a request */
    int max_steps;                    /* of an image; 0: 4 times the model's own */
    int sdapi_max_steps;              /* AUTOMATIC1111's clients get no more of a distilled model; 0: its own */
    int64_t max_pixels;               /* of an image; 0: the model's own limit */
    int max_connections, per_address; /* connections at the same time: in all, and of one address */
    double rate, burst;               /* requests a second of a key and of an address; 0: no limit */
    double failed_keys;               /* wrong keys a minute of an address; 0: no limit */
    double header_seconds;            /* that a request's head may take */
    double body_seconds;              /* that a body may take */
    double connection_seconds;        /* that a connection may be idle */
    double job_seconds;               /* that a job may take; 0: no limit */
    double idle_seconds;              /* after which an unused model is closed; 0: never */
    double drain;                     /* seconds that jobs may still take when the server is asked to stop */
    uint64_t max_body, max_uploads;   /* bytes of a body; of all bodies, and of all decoded input images */
    uint64_t max_image;               /* bytes of an input image's file */
    int no_overlap;                   /* 1: one image at a time on each device */
    uint64_t store_bytes;             /* of finished images */
    double store_seconds;
    int is_metrics_public;          /* 1: /metrics needs no key */
    int has_no_slots, has_no_page;  /* 1: /slots, the page: there is none */
    int has_no_switch;              /* 1: nobody changes the default model */
    const char *page_folder;        /* the page's files are read from it at each request; NULL: those of the program */
    int is_json_log;                /* 1: each line of the log is a JSON object */
    const char *gallery;            /* a folder that finished images are written into; NULL: none */
    int quiet;                      /* 1: no line for each request */
    int (*stopping)(void);          /* not 0: the server shall stop */
    int (*reloading)(void);         /* not 0, once: the certificate shall be read again */
    void (*log)(const char *line);  /* a line that a person reads; called from any thread */
    void (*ready)(const char *url); /* called once, when the server listens */
    const service_ledger *ledger; /* in which jobs are kept for workers elsewhere; NULL: the server makes the images */
} serve_params;

/* Serves until stopping() says so. Fails if it can't begin: an address in use, a key file that can't be read. */
zimage_status serve_run(const serve_params *params, zimage_error *error);

#endif
