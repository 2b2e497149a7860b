/* The threads that make images: two workers for each device (lanes.h), and an encoder of finished images. */
#ifndef ZI_SERVE_WORKER_H
#define ZI_SERVE_WORKER_H

#include "server.h"

/* Starts all threads. The first worker opens the default model at once. 0: an error. */
int workers_start(server *s, zimage_error *error);
/* Waits for all threads, once the state is draining and no job is left, and frees them. */
void workers_stop(server *s);

/* The job that a worker has at hand; NULL: it is idle. The first workers of all devices come before the second ones, in
 * the order of the devices. With the lock. */
const job *worker_job(const server *s, int index);
/* Whether the worker can have a job: the second one of a device only where it has joined. With the lock. */
int worker_is_shown(const server *s, int index);
/* Whether a worker has this job at hand. With the lock. */
int worker_has(const server *s, const job *j);
/* Jobs whose images are being made or encoded. With the lock. */
int workers_busy(const server *s);

/* Gives an image to the encoder, which takes it, with a reference to the job. waited: seconds that it waited for its
 * turn. With the lock; waits while too many images wait to be encoded. */
void encode_later(server *s, job *j, int index, zimage_image *image, double waited);
/* A finished picture of a job, which takes it, or the fault that it has none (NULL: none). With the lock. */
void picture_keep(server *s, job *j, int index, job_picture *picture, const fault *f);
int encoder_start(server *s);
void encoder_stop(server *s);
int encoder_busy(const server *s);

#endif
