/* Tensors made in memory as a network asks for them: what store.h's store without a file consists of. Inside this room. */
#ifndef ZI_WEIGHTS_MEMORY_H
#define ZI_WEIGHTS_MEMORY_H

#include "base/pool.h"
#include "weights/safetensors.h"
#include "weights/store.h"

typedef struct zi_wish {
    char *name;
    int dims;
    int64_t shape[4];
} zi_wish;

typedef struct zi_wishes {
    zi_wish *list;
    size_t count, capacity;
    int failed; /* out of memory */
} zi_wishes;

/* NULL: not a store that takes notes. */
zi_wishes *zi_store_wishes(const zi_store *store);

void zi_wishes_add(zi_wishes *wishes, const char *name, int dims, const int64_t *shape);
/* All of them as one "file" of random numbers in memory, in order of name. On failure nothing is left to close. */
zimage_status zi_wishes_grant(const zi_wishes *wishes, const char *label, const zi_memory_format *format, zi_pool *pool,
                              zi_safetensors *file, zimage_error *error);
void zi_wishes_free(zi_wishes *wishes);

#endif
