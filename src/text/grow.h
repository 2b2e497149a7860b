/* Arrays that grow, for src/text. */
#ifndef ZI_TEXT_GROW_H
#define ZI_TEXT_GROW_H

#include <stdint.h>
#include <stdlib.h>

/*
 * Makes room for at least `needed` items: returns data, or its new place if it had to grow, and updates *capacity.
 * NULL: out of memory; data is unchanged and still belongs to the caller. The capacity doubles, so that appending n
 * items takes O(n) steps.
 */
static inline void *zi_grow(void *data, size_t *capacity, size_t needed, size_t item_size)
{
    if (data && needed <= *capacity)
        return data;
    size_t wanted = *capacity < 32 ? 32 : *capacity;
    while (wanted < needed) {
        if (wanted > SIZE_MAX / 2)
            return NULL;
        wanted *= 2;
    }
    if (wanted > SIZE_MAX / item_size)
        return NULL;
    void *moved = realloc(data, wanted * item_size);
    if (moved)
        *capacity = wanted;
    return moved;
}

/* The token ids of one call. */
typedef struct zi_ids {
    int32_t *data;
    size_t count;
    size_t capacity;
} zi_ids;

static inline int zi_ids_push(zi_ids *ids, int32_t id)
{
    int32_t *data = zi_grow(ids->data, &ids->capacity, ids->count + 1, sizeof *data);
    if (!data)
        return 0;
    ids->data = data;
    ids->data[ids->count++] = id;
    return 1;
}

#endif
