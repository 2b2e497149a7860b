/*
 * A job is one request for images, from its admission until its results are forgotten. Everything here is called with
 * the server's lock held, unless it says otherwise.
 *
 * A job lives as long as somebody refers to it: the table of jobs, the worker or encoder that has it, each exchange
 * that waits for it. Who waits is a listener: it is woken when anything has happened. What has happened is a list of
 * events with numbers, which each listener reads at its own pace. Of progress, and of previews that nobody counts, only
 * the newest is kept: a slow reader misses some, and holds up nobody.
 */
#ifndef ZI_SERVE_JOB_H
#define ZI_SERVE_JOB_H

#include <stdatomic.h>

#include "gallery.h"
#include "ids.h"

#include "queue.h"
#include "request.h"
#include "resolve.h"

#define JOB_ID_LENGTH ID_LENGTH

#define PICTURE_TAG_SIZE 67

#define FRONT_CALLER_TEXT 52 /* hashes of a key and of its user */
#define FRONT_REPEAT_TEXT 65 /* a hash of a client's name of a request */

typedef enum job_state { JOB_QUEUED, JOB_RUNNING, JOB_COMPLETED, JOB_FAILED, JOB_CANCELLED } job_state;
typedef enum cancel_reason {
    CANCEL_NONE,
    CANCEL_CLIENT_GONE,
    CANCEL_API,
    CANCEL_TIMEOUT,
    CANCEL_SHUTDOWN,
    CANCEL_REASONS
} cancel_reason;

/* A finished image, encoded. */
typedef struct job_picture {
    uint8_t *data; /* NULL: not made yet */
    size_t size;
    uint8_t *thumb; /* a small JPEG; NULL: there was no memory for it */
    size_t thumb_size;
    char tag[PICTURE_TAG_SIZE];          /* SHA-256 of the data, in quotes: its ETag */
    char kept_as[GALLERY_ID_LENGTH + 1]; /* in the gallery; empty: it is not there */
    uint64_t seed;
    int32_t width, height, prompt_tokens;
    double seconds;
} job_picture;

typedef enum event_kind { EVENT_STATE, EVENT_PROGRESS, EVENT_PREVIEW, EVENT_PICTURE, EVENT_END } event_kind;

typedef struct job_event {
    struct job_event *next;
    int references;
    uint64_t number; /* from 1 */
    event_kind kind;
    job_state state;
    int index;       /* of the image */
    int step, steps; /* of previews and progress */
    int partial;     /* of a preview that a stream has asked for: its number from 0; else -1 */
    zimage_stage stage;
    double fraction;
    uint8_t *data; /* of a preview: JPEG */
    size_t size;
} job_event;

/* An image of a front's job, as the ledger has it. */
typedef struct job_part {
    int is_running;    /* a worker has begun it */
    double fraction;   /* of it */
    int64_t known;     /* the last that was read of it (shared/service.h) */
    unsigned partials; /* bit i: partial image i was read */
} job_part;

typedef struct job_listener {
    struct job_listener *next;
    void (*wake)(void *user); /* called with the lock held */
    void *user;
} job_listener;

typedef struct job {
    queue_item item; /* first: a worker gets it from the queue */
    struct job *newer, *older;
    int references;
    char id[JOB_ID_LENGTH + 1];
    uint64_t owner;                  /* who may see it: the API key */
    const char *owner_name;          /* the key's; "": none */
    uint64_t idempotency, body_hash; /* the client's name of the request, and its content; 0: none */
    int is_detached;                 /* 1: it goes on when nobody listens */
    int wants_previews;              /* as request_previews */
    serve_request request;           /* never changes after the admission, but for notes and what the worker resolves */
    int is_resolved;
    resolved_request resolved;
    struct model_entry *model;
    double
        planned; /* seconds of an image, before they are corrected by what was measured (item.seconds); 0: not known */
    job_state state;
    atomic_int cancel; /* cancel_reason; the progress callback reads it without the lock */
    fault fault;       /* of JOB_FAILED */
    int count, begun, made;
    job_picture *pictures; /* [count] */
    job_event *first, *last;
    uint64_t first_number, last_number; /* of events; a front begins behind a number by chance: see job_number_events */
    job_listener *listeners;
    double created, started, finished; /* seconds of the clock that only runs forward */
    int64_t created_at;                /* seconds since 1970 */
    double fraction, progress_at;
    zimage_stage stage;
    int step, steps;
    /* of a server that is a front of a ledger (front.h) */
    char owner_hash[OWNER_HASH_TEXT], ledger_caller[FRONT_CALLER_TEXT], repeat[FRONT_REPEAT_TEXT];
    int is_stored;                    /* the ledger has it */
    size_t before;                    /* images of its caller before it */
    double missing;                   /* since when a finished file of it can't be read; 0: it is not so */
    double touched;                   /* when somebody asked for it; it is not forgotten at once */
    struct job *twin;                 /* held: the client's job of an earlier request with the same name; NULL: none */
    job_part *parts;                  /* [count] */
    int streams;                      /* of its events, that show how far it is */
    double viewed_until, shown_until; /* somebody asks for its progress now and then, and for previews */
    double watch_told;                /* when the ledger was told that somebody watches; 0: never */
    int shows_told;                   /* previews were wanted then */
} job;

typedef struct job_table {
    job *newest, *oldest;
    size_t count;
    uint64_t bytes;       /* of pictures */
    uint64_t input_bytes; /* of decoded input images, with those of requests that are no jobs yet */
} job_table;

/* A new job with one reference, which the caller has. Takes the content of the request. NULL: no memory. */
job *job_new(serve_request *request);
job *job_hold(job *j);
void job_release(job_table *table, job *j);
/* The table has a reference of its own. */
void job_table_add(job_table *table, job *j);
/* NULL: there is none, or it is another owner's. */
job *job_find(const job_table *table, const char *id, uint64_t owner);
/* The same for anybody who knows the id, which nobody can guess. */
job *job_find_any(const job_table *table, const char *id);
/* The owner's newest job under an Idempotency-Key that was created since then and did not fail. */
job *job_find_repeated(const job_table *table, uint64_t owner, uint64_t idempotency, double since);
/* Releases a job's input images. They are large. */
void job_drop_inputs(job_table *table, job *j);
/* Releases the input images of finished jobs. Forgets those jobs that are older than the limit, and the oldest ones
 * while their pictures take too much. */
void job_table_trim(job_table *table, double now, double seconds, uint64_t bytes);
void job_table_free(job_table *table);

int job_is_over(const job *j);
const char *job_state_name(job_state state);
const char *cancel_reason_name(cancel_reason reason);

void job_listen(job *j, job_listener *listener);
/* Returns whether nobody listens any more. */
int job_unlisten(job *j, job_listener *listener);

/* How far an image under way is: the event of it; with another kind and data, a preview's. */
job_event job_progress(int index, zimage_stage stage, int step, int steps, double fraction);
/* That event happens. fraction: of the images under way. */
void job_progressed(job *j, const job_event *event, double fraction);
/* The images under way are nobody's any more: the job waits again, and of its events progress and previews that nobody
 * counts are forgotten. */
void job_requeued(job *j);

/* Appends an event, which takes data (NULL: none), and wakes the listeners. An event without memory is dropped. */
void job_happened(job *j, const job_event *event);
/* Events of fronts have other numbers on each. With the job's first event still to come. */
void job_number_events(job *j);
/* The number behind which a client goes on that has seen this one; 0: it saw events of another server. */
uint64_t job_resume_at(const job *j, uint64_t seen);
/* The first event behind a number, held until job_event_release; NULL: there is none yet. */
job_event *job_next_event(job *j, uint64_t number);
void job_event_release(job_event *event);

/* Ends a job: its state, its last event. */
void job_end(job *j, job_state state, double now);

#endif
