#include "cuda/upload.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/signals.h"
#include "base/stack.h"

#define PIECE_BYTES ((size_t)4 << 20)

struct zi_upload_lane {
    zi_uploader *uploader;
    pthread_t thread;
    int started;
    uint8_t *buffers[2];
    cudaEvent_t free[2]; /* recorded after the last copy out of each buffer */
    int current;         /* the buffer that is filled next */
};

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

/* Some bytes of a part of an upload. */
typedef struct upload_piece {
    zi_upload *upload;
    zi_upload_part part;
} upload_piece;

static void skip_empty_parts(zi_upload *u)
{
    while (u->part < ZI_UPLOAD_PARTS && u->at == u->parts[u->part].bytes) {
        u->part++;
        u->at = 0;
    }
}

/* Cuts the next piece off the first upload of the queue, which is not empty. */
static upload_piece cut_piece(zi_uploader *uploader)
{
    zi_upload *u = uploader->first;
    const zi_upload_part *part = &u->parts[u->part];
    size_t left = part->bytes - u->at, bytes = left < uploader->piece ? left : uploader->piece;
    upload_piece p = {u, {part->from + u->at, part->to + u->at, bytes}};
    u->at += bytes;
    skip_empty_parts(u);
    if (u->part == ZI_UPLOAD_PARTS)
        uploader->first = u->next;
    if (uploader->first == NULL)
        uploader->last = NULL;
    return p;
}

/* Waits for a piece; 0: the thread must end. */
static int take_piece(zi_uploader *u, upload_piece *p)
{
    pthread_mutex_lock(&u->lock);
    while (!u->stop && u->first == NULL)
        pthread_cond_wait(&u->queued, &u->lock);
    int found = !u->stop;
    if (found) {
        *p = cut_piece(u);
        u->under_way++;
    }
    pthread_mutex_unlock(&u->lock);
    return found;
}

/* Reads all pages in one call instead of by page faults. Only a hint: Linux before 5.14 lacks it. */
static void populate(const zi_upload_part *part)
{
#ifdef MADV_POPULATE_READ
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)part->from & ~(page - 1);
    (void)madvise((void *)begin, (uintptr_t)part->from + part->bytes - begin, MADV_POPULATE_READ);
#endif
}

static cudaError_t put_on_stream(zi_uploader *u, zi_upload_lane *lane, const upload_piece *p)
{
    cudaError_t code =
        cudaMemcpyAsync(p->part.to, lane->buffers[lane->current], p->part.bytes, cudaMemcpyHostToDevice, u->stream);
    if (code == cudaSuccess)
        code = cudaEventRecord(lane->free[lane->current], u->stream);
    if (code == cudaSuccess && p->upload->to_send == p->part.bytes)
        code = cudaEventRecord(p->upload->arrived, u->stream);
    return code;
}

static void send_piece(zi_uploader *u, zi_upload_lane *lane, const upload_piece *p)
{
    cudaError_t code = cudaEventSynchronize(lane->free[lane->current]);
    if (code == cudaSuccess) {
        populate(&p->part);
        memcpy(lane->buffers[lane->current], p->part.from, p->part.bytes);
    }
    pthread_mutex_lock(&u->lock);
    if (code == cudaSuccess)
        code = put_on_stream(u, lane, p);
    if (p->upload->code == cudaSuccess)
        p->upload->code = code;
    p->upload->to_send -= p->part.bytes;
    u->under_way--;
    pthread_cond_broadcast(&u->sent);
    pthread_mutex_unlock(&u->lock);
    lane->current ^= 1;
}

static void *lane_main(void *arg)
{
    zi_upload_lane *lane = arg;
    upload_piece p;
    (void)cudaSetDevice(lane->uploader->device); /* a failure shows in the copies */
    while (take_piece(lane->uploader, &p))
        send_piece(lane->uploader, lane, &p);
    return NULL;
}

/* ---- the caller's side ------------------------------------------------------------------------------------------- */

void zi_uploader_queue(zi_uploader *u, zi_upload *upload)
{
    upload->part = 0;
    upload->at = upload->to_send = 0;
    upload->code = cudaSuccess;
    upload->next = NULL;
    for (int i = 0; i < ZI_UPLOAD_PARTS; i++)
        upload->to_send += upload->parts[i].bytes;
    skip_empty_parts(upload);
    pthread_mutex_lock(&u->lock);
    if (u->last != NULL)
        u->last->next = upload;
    else
        u->first = upload;
    u->last = upload;
    pthread_cond_broadcast(&u->queued);
    pthread_mutex_unlock(&u->lock);
}

cudaError_t zi_uploader_await(zi_uploader *u, zi_upload *upload)
{
    pthread_mutex_lock(&u->lock);
    while (upload->to_send > 0)
        pthread_cond_wait(&u->sent, &u->lock);
    cudaError_t code = upload->code;
    pthread_mutex_unlock(&u->lock);
    return code;
}

void zi_uploader_cancel(zi_uploader *u)
{
    pthread_mutex_lock(&u->lock);
    u->first = u->last = NULL;
    while (u->under_way > 0)
        pthread_cond_wait(&u->sent, &u->lock);
    pthread_mutex_unlock(&u->lock);
}

/* ---- opening and closing ----------------------------------------------------------------------------------------- */

/* Returns an errno value. */
static int init_sync(zi_uploader *u)
{
    int code = pthread_mutex_init(&u->lock, NULL);
    if (code != 0)
        return code;
    code = pthread_cond_init(&u->queued, NULL);
    if (code == 0) {
        code = pthread_cond_init(&u->sent, NULL);
        if (code == 0)
            return 0;
        pthread_cond_destroy(&u->queued);
    }
    pthread_mutex_destroy(&u->lock);
    return code;
}

static cudaError_t open_lane(zi_uploader *u, int index)
{
    zi_upload_lane *lane = &u->lanes[index];
    cudaError_t code = cudaSuccess;
    lane->uploader = u;
    for (int i = 0; i < 2 && code == cudaSuccess; i++) {
        lane->buffers[i] = u->pinned + (size_t)(2 * index + i) * u->piece;
        code = cudaEventCreateWithFlags(&lane->free[i], cudaEventDisableTiming);
    }
    return code;
}

/* Signals are blocked in the lanes: they are for the application's threads. At least one lane must start. */
static int start_lanes(zi_uploader *u)
{
    sigset_t all, before;
    int started = 0;
    zi_signals_from_elsewhere(&all);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0)
        return 0;
    for (int i = 0; i < u->threads; i++) {
        u->lanes[i].started = zi_thread_start(&u->lanes[i].thread, lane_main, &u->lanes[i]) == 0;
        started += u->lanes[i].started;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started > 0;
}

int zi_uploader_open(zi_uploader *u, int device, int threads, size_t piece, cudaError_t *code)
{
    *u = (zi_uploader){.device = device, .threads = threads, .piece = piece > 0 ? piece : PIECE_BYTES};
    *code = cudaSuccess;
    u->lanes = calloc((size_t)threads, sizeof(*u->lanes));
    u->ready = u->lanes != NULL && init_sync(u) == 0;
    if (!u->ready)
        return 0;
    *code = cudaStreamCreateWithFlags(&u->stream, cudaStreamNonBlocking);
    if (*code == cudaSuccess)
        *code = cudaMallocHost((void **)&u->pinned, 2 * (size_t)threads * u->piece);
    for (int i = 0; i < threads && *code == cudaSuccess; i++)
        *code = open_lane(u, i);
    return *code == cudaSuccess && start_lanes(u);
}

static void stop_lanes(zi_uploader *u)
{
    pthread_mutex_lock(&u->lock);
    u->stop = 1;
    pthread_cond_broadcast(&u->queued);
    pthread_mutex_unlock(&u->lock);
    for (int i = 0; i < u->threads; i++)
        if (u->lanes[i].started)
            pthread_join(u->lanes[i].thread, NULL);
}

void zi_uploader_close(zi_uploader *u)
{
    if (u->ready)
        stop_lanes(u);
    if (u->stream != NULL)
        (void)cudaStreamSynchronize(u->stream);
    for (int i = 0; u->lanes != NULL && i < 2 * u->threads; i++)
        if (u->lanes[i / 2].free[i % 2] != NULL)
            (void)cudaEventDestroy(u->lanes[i / 2].free[i % 2]);
    if (u->pinned != NULL)
        (void)cudaFreeHost(u->pinned);
    if (u->stream != NULL)
        (void)cudaStreamDestroy(u->stream);
    if (u->ready) {
        pthread_cond_destroy(&u->sent);
        pthread_cond_destroy(&u->queued);
        pthread_mutex_destroy(&u->lock);
    }
    free(u->lanes);
    *u = (zi_uploader){.device = u->device};
}
