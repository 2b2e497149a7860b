/* The algorithms that were measured to be fastest, in memory and in a file, and the clock that measures them. */
#ifndef ZI_CUDA_CHOICES_H
#define ZI_CUDA_CHOICES_H

#include "ops/ops.h"

typedef struct zi_cuda zi_cuda; /* internal.h */

typedef struct zi_cuda_choices {
    char *path; /* NULL: no file */
    char header[256];
    int written; /* the file has that header */
    char **lines;
    int count, capacity;
} zi_cuda_choices;

/* folder may be NULL: then no file is read or written. header: one line that names the GPU and the libraries. */
void zi_cuda_choices_open(zi_cuda_choices *choices, const char *folder, const char *header);
void zi_cuda_choices_close(zi_cuda_choices *choices);
/* Whether a value of that size is known for the key; fills it. Check what it says: the file may hold anything. */
int zi_cuda_recall(const zi_cuda_choices *choices, const char *kind, const void *key, size_t size, void *value,
                   size_t value_size);
void zi_cuda_remember(zi_cuda_choices *choices, const char *kind, const void *key, size_t size, const void *value,
                      size_t value_size);
/* Queues kernels. */
typedef zimage_status zi_cuda_work(const void *user);
/* Milliseconds that the GPU takes for what `work` queues: the mean of a few runs after one that warms up. */
zimage_status zi_cuda_time(zi_cuda *cuda, zi_cuda_work *work, const void *user, float *milliseconds);

#endif
