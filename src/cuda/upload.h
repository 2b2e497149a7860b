/*
 * The way of stored weights onto the card. Threads copy them, a piece at a time, out of mapped files into pinned buffers
 * of their own (bringing the pages in is most of the work), and one stream carries the pieces on, beside the stream that
 * computes.
 */
#ifndef ZI_CUDA_UPLOAD_H
#define ZI_CUDA_UPLOAD_H

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define ZI_UPLOAD_PARTS 3

typedef struct zi_upload_part {
    const uint8_t *from; /* on the host */
    uint8_t *to;         /* on the card */
    size_t bytes;
} zi_upload_part;

/* What is wanted on the card together. The caller owns it and fills parts; the rest is the uploader's, but for `arrived`,
 * an event of the caller's that is recorded behind the last piece. */
typedef struct zi_upload {
    zi_upload_part parts[ZI_UPLOAD_PARTS];
    cudaEvent_t arrived;
    int part;       /* the next piece begins in this part ... */
    size_t at;      /* ... here */
    size_t to_send; /* bytes that are not on the stream yet */
    cudaError_t code;
    struct zi_upload *next;
} zi_upload;

typedef struct zi_upload_lane zi_upload_lane; /* a thread with two pinned buffers */

typedef struct zi_uploader {
    int device, threads, ready; /* ready: lock and conditions were made */
    size_t piece;               /* bytes of a pinned buffer */
    cudaStream_t stream;
    pthread_mutex_t lock;
    pthread_cond_t queued, sent;
    zi_upload *first, *last; /* with pieces that nobody has taken */
    int under_way, stop;     /* pieces between a file and the stream; the threads are to end */
    zi_upload_lane *lanes;
    uint8_t *pinned;
} zi_uploader;

/* piece: bytes, 0 = as is best. Whatever fails, zi_uploader_close cleans up. *code tells a failing of the card's. 0: failed. */
int zi_uploader_open(zi_uploader *uploader, int device, int threads, size_t piece, cudaError_t *code);
/* Ends the threads; what was queued and not taken is not sent. */
void zi_uploader_close(zi_uploader *uploader);
/* In the order of the calls. The upload must not move until it was awaited or cancelled. */
void zi_uploader_queue(zi_uploader *uploader, zi_upload *upload);
/* Waits until all of it is on the stream, so that `arrived` can be waited for. */
cudaError_t zi_uploader_await(zi_uploader *uploader, zi_upload *upload);
/* Forgets what is queued; pieces under way have been put on the stream when it returns. */
void zi_uploader_cancel(zi_uploader *uploader);

#endif
