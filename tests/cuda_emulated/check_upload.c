/* Tests the uploader: many threads, small pieces, cancelling and closing in the middle. Also for ThreadSanitizer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"
#include "cuda/upload.h"

#define UPLOADS  60
#define PART_MAX 20000 /* bytes of a part */

static uint64_t state = ZI_RANDOM_SEED;

static size_t below(size_t n)
{
    return (size_t)(zi_random_next(&state) >> 20) % n;
}

static void need(int right, const char *what)
{
    if (right)
        return;
    fprintf(stderr, "check_upload: %s\n", what);
    exit(1);
}

typedef struct fixture {
    uint8_t *host, *device, *back;
    zi_upload uploads[UPLOADS];
} fixture;

/* Up to three parts; some are empty. */
static void fill(fixture *f, int i)
{
    memset(f->uploads[i].parts, 0, sizeof(f->uploads[i].parts));
    for (int p = 0; p < ZI_UPLOAD_PARTS; p++) {
        size_t at = (size_t)(i * ZI_UPLOAD_PARTS + p) * PART_MAX,
               bytes = p > 0 && below(3) == 0 ? 0 : 1 + below(PART_MAX);
        f->uploads[i].parts[p] = (zi_upload_part){f->host + at, f->device + at, bytes};
    }
}

static void check(fixture *f, int i)
{
    for (int p = 0; p < ZI_UPLOAD_PARTS; p++) {
        const zi_upload_part *part = &f->uploads[i].parts[p];
        need(cudaMemcpy(f->back, part->to, part->bytes, cudaMemcpyDeviceToHost) == cudaSuccess, "reading");
        need(memcmp(f->back, part->from, part->bytes) == 0, "other bytes arrived");
    }
}

/* Queues all uploads, awaits and checks the first `awaited` in order, then cancels, or closes with the rest queued. */
static void run(fixture *f, int threads, size_t piece, int awaited, int cancel)
{
    zi_uploader u;
    cudaError_t code;
    need(zi_uploader_open(&u, 0, threads, piece, &code), "opening");
    for (int i = 0; i < UPLOADS; i++) {
        fill(f, i);
        zi_uploader_queue(&u, &f->uploads[i]);
    }
    for (int i = 0; i < awaited; i++) {
        need(zi_uploader_await(&u, &f->uploads[i]) == cudaSuccess, "awaiting");
        need(cudaEventSynchronize(f->uploads[i].arrived) == cudaSuccess, "waiting for a copy");
        check(f, i);
    }
    if (cancel) {
        zi_uploader_cancel(&u);
        fill(f, 0);
        zi_uploader_queue(&u, &f->uploads[0]);
        need(zi_uploader_await(&u, &f->uploads[0]) == cudaSuccess, "awaiting after cancelling");
        need(cudaEventSynchronize(f->uploads[0].arrived) == cudaSuccess, "waiting for a copy");
        check(f, 0);
    }
    zi_uploader_close(&u);
}

int main(void)
{
    static fixture f;
    size_t bytes = (size_t)UPLOADS * ZI_UPLOAD_PARTS * PART_MAX;
    f.host = malloc(bytes);
    f.back = malloc(PART_MAX);
    need(f.host != NULL && f.back != NULL && cudaMalloc((void **)&f.device, bytes) == cudaSuccess, "no memory");
    for (size_t i = 0; i < bytes; i++)
        f.host[i] = (uint8_t)(i * 7 + i / 251);
    for (int i = 0; i < UPLOADS; i++)
        need(cudaEventCreateWithFlags(&f.uploads[i].arrived, cudaEventDisableTiming) == cudaSuccess, "an event");
    for (int round = 0; round < 12; round++)
        run(&f, 1 + round % 8, round % 3 ? 700 + below(5000) : 0, round % 4 ? (int)below(UPLOADS) : UPLOADS, round & 1);
    for (int i = 0; i < UPLOADS; i++)
        (void)cudaEventDestroy(f.uploads[i].arrived);
    (void)cudaFree(f.device);
    free(f.back);
    free(f.host);
    return 0;
}
