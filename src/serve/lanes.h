/*
 * The two workers of a device. The first one makes images. On a GPU with memory for it the second one joins: it makes
 * the next job's image with a session of its own, which reads the same weights. What surrounds the steps of one image
 * (text encoder, VAE, and the host's work) then runs beside the steps of the other. The steps never run side by side:
 * they take turns. So each image is made as it would be made alone, and no two requests are computed as one.
 *
 * The second worker joins where the first has made an image of that model, all of whose weights stayed in the GPU's own
 * memory, and where the plans of both images fit its limit together. Where the first one's next image does not fit
 * beside the second session, that session is closed.
 */
#ifndef ZI_SERVE_LANES_H
#define ZI_SERVE_LANES_H

#include "worker.h"

typedef struct open_session {
    model_entry *model; /* NULL: a free place */
    zimage_session *session;
    double used;
} open_session;

/* What the workers of a device share. With the server's lock, but for `planning`. */
typedef struct lanes {
    const char *device;
    struct worker *first, *second, *turn; /* turn: whose image is between its text and its decoding; NULL: nobody's */
    pthread_mutex_t planning; /* held from the plan of an image until its memory is taken: plans look at what is free */
    model_entry *ready;       /* the second worker may join for this model; NULL: it may not */
    int is_joined;            /* the second worker has a session, or is about to open one */
    int is_dismissed;         /* it shall close it */
    uint64_t taken[2];        /* bytes of the GPU's memory in the last plan of each worker, where there is a limit */
    int64_t most_pixels;      /* of an image that may join: one of so many did not fit. 0: none was refused */
} lanes;

struct worker {
    server *server;
    lanes *lanes;
    int index;     /* the firsts of all devices, then the seconds */
    int is_second; /* of its device */
    pthread_t thread;
    int is_started;
    job *job; /* at hand; NULL: idle */
    open_session sessions[SERVE_MODELS_MAX];
};

/* An image that is being made. */
typedef struct attempt {
    struct worker *worker;
    job *job;
    int index; /* of the image */
    int is_planning, has_turn;
    double waited; /* seconds, for its turn */
} attempt;

/* The next job, if the second worker may make an image of it now; it is still in the queue. With the lock. */
job *lanes_joinable(const struct worker *second);
/* The first worker is going to make an image of a job: a second one with a session of another model closes it. 0: the
 * job was cancelled meanwhile. Without the lock. */
int lanes_settle(struct worker *first, const job *j);
/* The limit of the GPU's memory for the second worker's session, 0: what is free. Returns 0 if nothing is left. */
int lanes_limit(const struct worker *second, uint64_t *limit);
/* Nothing as large as this image joins any more. */
void lanes_refuse(const attempt *a);
/*
 * Before an image is made: plans it, and leaves the attempt in planning, which lanes_advance or lanes_end ends. The
 * first worker dismisses the second where both do not fit; 0: the job was cancelled meanwhile. To the second worker 0
 * says that the image does not fit beside the first one's. Without the lock.
 */
int lanes_begin(attempt *a, zimage_session *session, const zimage_request *request);
/* The first worker is going to open or close sessions: the second one closes its own. j may be NULL. 0: the job was
 * cancelled meanwhile. Without the lock. */
int lanes_dismiss(struct worker *first, const job *j);
/* At each progress: waits for the image's turn before the first step, and ends the turn behind the last one. Without
 * the lock. */
void lanes_advance(attempt *a, zimage_stage stage);
/* Behind the image, or what became of it: NULL. Without the lock. */
void lanes_end(attempt *a, const zimage_image *image);

#endif
