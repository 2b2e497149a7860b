/* Models of published sizes with random weights, made in memory: for measuring without a download. */
#ifndef ZI_ENGINE_SYNTHETIC_H
#define ZI_ENGINE_SYNTHETIC_H

#include "engine/context.h"

enum {
    ZI_PART_TEXT = 1,
    ZI_PART_TRANSFORMER = 2,
    ZI_PART_VAE = 4,
    ZI_PARTS = 7,
};

typedef struct zi_synthetic {
    const char *model;  /* "z-image-turbo", or "small" for tests */
    const char *format; /* "bf16", "f16", "f32", "q4", "q8" */
    int layers;         /* at most so many of each stack of layers; 0 = all */
    int threads;        /* 0 = all */
    zimage_compute compute;
    const char *cpu_mask;
    const char *device; /* these two as in zimage_open_params */
    uint64_t device_memory;
} zi_synthetic;

/* Fills a context with the parts named (no tokenizer: prompts come as embeddings); released with zimage_close. */
zimage_status zi_context_new_synthetic(const zi_synthetic *synthetic, int parts, zimage_context **context,
                                       zimage_error *error);

/* ZIMAGE_ERROR_ARGUMENT: there is no such model or format. */
zimage_status zi_synthetic_check(const zi_synthetic *synthetic, zimage_error *error);

#endif
