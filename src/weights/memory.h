/*
 * Tensors made in memory from the specs that a network's binding collects: the store without a file
 * (zi_store_new_memory in store.h) consists of them. Only for src/weights.
 */
#ifndef ZI_WEIGHTS_MEMORY_H
#define ZI_WEIGHTS_MEMORY_H

#include "base/pool.h"
#include "weights/safetensors.h"
#include "weights/store.h"

typedef struct zi_tensor_spec {
    char *name;
    int dims;
    int64_t shape[4];
    int positive; /* no number has a sign */
} zi_tensor_spec;

typedef struct zi_tensor_specs {
    zi_tensor_spec *list;
    size_t count, capacity;
    int failed; /* 1: a spec is missing, because memory ran out */
} zi_tensor_specs;

/* The specs that a store in memory has collected; NULL: the store is of a file, or was filled. */
zi_tensor_specs *zi_store_specs(const zi_store *store);

/* Copies name. Running out of memory is recorded, and reported by zi_specs_fill. */
void zi_specs_add(zi_tensor_specs *specs, const char *name, int dims, const int64_t *shape);
/* Makes all tensors, with random numbers, as one "file" in memory. pool NULL: they have addresses, but no memory is
 * taken for them; nobody may write there. After a failure there is nothing to close. */
zimage_status zi_specs_fill(const zi_tensor_specs *specs, const char *label, const zi_memory_format *format,
                            zi_pool *pool, zi_safetensors *file, zimage_error *error);
void zi_specs_free(zi_tensor_specs *specs);

#endif
