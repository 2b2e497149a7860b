/*
 * The service: jobs of servers in a ledger, from which workers on other machines take them. src/serve sees the ledger
 * by this table of functions only, src/queue keeps it, and src/cli joins both.
 *
 * A job is a client's request for some images; an image is a row that one worker makes. All functions but `wake` are
 * called by one thread.
 */
#ifndef ZI_SHARED_SERVICE_H
#define ZI_SHARED_SERVICE_H

#include <stddef.h>
#include <stdint.h>

#include "zimage.h"

#define SERVICE_ID_TEXT    32 /* of a job: its id and a zero */
#define SERVICE_MODEL_TEXT 128

typedef enum service_answer {
    SERVICE_OK,
    SERVICE_LOST,   /* the ledger can't be reached: the same call may work after `reopen` */
    SERVICE_FAILED, /* it answered, and the answer is an error */
} service_answer;

/* An input image as a file, from which a worker gets the very same image. */
typedef struct service_input {
    uint8_t *data;
    size_t size;
} service_input;

/* A job that is to be kept. */
typedef struct service_job {
    const char *id;                /* that nobody can guess */
    const char *owner;             /* who may see it: a hash of an API key; "": no key is asked for */
    const char *repeat;            /* a hash of the client's own name of the request; NULL: none */
    const char *caller;            /* callers take turns */
    const char *about;             /* JSON: what a server that has never seen the job needs to know of it */
    int is_batch;                  /* 1: it goes after all jobs that are not */
    int count;                     /* of images, whose seeds follow each other */
    const zimage_model *model;     /* that is to make them */
    const zimage_request *request; /* of the first image, with its size, steps, guidance and seed */
    zimage_format format;
    int quality; /* of a lossy file */
    int has_recipe;
    int is_watched; /* from its beginning; for `partials`, see service_watch */
    int partials;
    const service_input *inputs; /* files of the request's images, and behind them of the mask */
    size_t input_count;
} service_job;

/* A job that somebody watches now, or has watched a moment ago. It is said again every few seconds. */
typedef struct service_watch {
    const char *id;
    int shows;    /* 1: previews are wanted, too */
    int partials; /* partial images of the client's stream, of each image; 0: it wants what costs little */
} service_watch;

/* An image of a watched job, and the last that is known of it: service_news.serial, or 0. */
typedef struct service_watched {
    const char *id;
    int index;
    int64_t known;
} service_watched;

#define SERVICE_PROGRESS   (-1)
#define SERVICE_PREVIEW    (-2)
#define SERVICE_PARTIALS   3
#define SERVICE_JPEG_BYTES 262144 /* of a preview, at most */

/* What a worker says of an image under way. It is a worker's of any version: nothing here is checked but `size`. */
typedef struct service_news {
    const char *id;
    int index;
    int64_t serial;
    int number; /* SERVICE_PROGRESS; SERVICE_PREVIEW; of a partial image its number from 0, also behind its end */
    const char *stage;
    int step, steps;
    double fraction;
    const uint8_t *jpeg; /* NULL: none */
    size_t size;
} service_news;

typedef enum service_state {
    SERVICE_QUEUED,
    SERVICE_RUNNING,
    SERVICE_DONE,
    SERVICE_BROKEN,
    SERVICE_CANCELLED,
} service_state;

/*
 * One image of a job. Texts live until the function returns. The result of a finished image has "file", "sha256",
 * "width", "height", "seconds", "prompt_tokens", perhaps "warnings"; in a tar file also "entry", "offset", "bytes".
 * That of a broken one has "status", the name of a zimage_status, if it is known.
 */
typedef struct service_part {
    const char *id; /* of the job */
    int index;      /* of the image */
    service_state state;
    size_t before;      /* images of the caller that are made before it, if it waits and `places` was asked for */
    const char *result; /* JSON, see below */
    const char *error;  /* of a broken one: a sentence */
} service_part;

/* Which jobs are looked for: the one with this id, or the newest ones of an owner. */
typedef struct service_question {
    const char *id;    /* NULL: those of the owner */
    const char *owner; /* NULL: anybody's */
    int is_open;       /* 1: only jobs that are not over */
    double seconds;    /* no older ones */
    int limit;
} service_question;

typedef struct service_found {
    const char *id, *owner, *about;
    double age; /* in seconds */
} service_found;

/* Who makes images of a model. */
typedef struct service_crew {
    const char *model;      /* its fingerprint */
    int workers, announced; /* that are there; that were there in the last minutes */
    int running;            /* images */
} service_crew;

/* The images of a caller that wait. */
typedef struct service_line {
    const char *model, *caller;
    int is_batch;
    size_t waiting;
} service_line;

/* Where a finished image lies. */
typedef struct service_file {
    const char *name, *sha256;
    uint64_t offset, bytes; /* of its part of a tar file; bytes 0: the whole file */
} service_file;

/* Takers of answers: called for each. */
typedef void service_take_part(void *taker, const service_part *part);
typedef void service_take_found(void *taker, const service_found *found);
typedef void service_take_crew(void *taker, const service_crew *crew);
typedef void service_take_line(void *taker, const service_line *line);
typedef void service_take_news(void *taker, const service_news *news);

typedef struct service_ledger {
    void *user;
    /* Keeps a job, with all of its images or not at all. Keeping it again changes nothing. known: the id of the job
     * that the owner sent under this name in the last minutes; "": this one is kept. */
    service_answer (*add)(void *user, const service_job *job, char known[SERVICE_ID_TEXT], zimage_error *error);
    /* Its images that are not finished will not be made. */
    service_answer (*cancel)(void *user, const char *id, zimage_error *error);
    service_answer (*look)(void *user, const char *const *ids, size_t count, int places, service_take_part *take,
                           void *taker, zimage_error *error);
    service_answer (*find)(void *user, const service_question *question, service_take_found *take, void *taker,
                           zimage_error *error);
    service_answer (*load)(void *user, service_take_crew *take_crew, service_take_line *take_line, void *taker,
                           zimage_error *error);
    /* Some watch these jobs: their workers tell news of them, for half a minute. */
    service_answer (*watch)(void *user, const service_watch *watches, size_t count, zimage_error *error);
    /* What is new of these images, in order. Of an image that its worker does not have any more only partial images. */
    service_answer (*news)(void *user, const service_watched *watched, size_t count, service_take_news *take,
                           void *taker, zimage_error *error);
    /* Forgets jobs that are over for long enough, and removes their files; some at a time. It may be called often. */
    service_answer (*tidy)(void *user, zimage_error *error);
    /* The bytes of a finished image, if they are whole. *data is released with zimage_free. */
    zimage_status (*read)(void *user, const service_file *file, uint8_t **data, size_t *size, zimage_error *error);
    service_answer (*reopen)(void *user, zimage_error *error);
    /* Until an image is over, `wake`, or so many seconds. */
    void (*wait)(void *user, double seconds);
    void (*wake)(void *user); /* from any thread */
} service_ledger;

#endif
