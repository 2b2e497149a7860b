/*
 * Copying stored weights to the GPU. Threads (lanes) copy them piece by piece from mapped files into pinned buffers of
 * their own; most of their time goes into page faults. One stream copies the pieces to the GPU, in parallel with the
 * stream that computes.
 */
#ifndef ZI_CUDA_UPLOAD_H
#define ZI_CUDA_UPLOAD_H

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define ZI_UPLOAD_PARTS 3

typedef struct zi_upload_part {
    const uint8_t *from; /* in host memory */
    uint8_t *to;         /* in device memory */
    size_t bytes;
} zi_upload_part;

/* One weight's copies. The caller owns it, fills `parts` and makes the event `arrived`, which is recorded after the
 * last piece. The rest belongs to the uploader. */
typedef struct zi_upload {
    zi_upload_part parts[ZI_UPLOAD_PARTS];
    cudaEvent_t arrived;
    int part;       /* the next piece begins in this part ... */
    size_t at;      /* ... here */
    size_t to_send; /* bytes that are not queued on the stream yet */
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
    zi_upload *first, *last; /* uploads with pieces that no lane has taken */
    int under_way, stop;     /* under_way: pieces that lanes have taken and not queued; stop: 1 ends the threads */
    zi_upload_lane *lanes;
    uint8_t *pinned;
} zi_uploader;

/* piece: bytes, 0: a good default. Returns 0 if it failed: *code is CUDA's error, or success if threads could not be
 * started. zi_uploader_close cleans up in either case. */
int zi_uploader_open(zi_uploader *uploader, int device, int threads, size_t piece, cudaError_t *code);
/* Ends the threads. Pieces that no lane has taken are not sent. */
void zi_uploader_close(zi_uploader *uploader);
/* Sends uploads in the order of the calls. The upload must stay where it is until it is awaited or cancelled. */
void zi_uploader_queue(zi_uploader *uploader, zi_upload *upload);
/* Waits until all of it is queued on the stream, so that a stream can wait for `arrived`. */
cudaError_t zi_uploader_await(zi_uploader *uploader, zi_upload *upload);
/* Forgets all queued uploads. When it returns, pieces that lanes had taken are queued on the stream. */
void zi_uploader_cancel(zi_uploader *uploader);

#endif
