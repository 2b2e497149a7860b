/* One safetensors file, mapped and checked completely. Only for src/weights; other modules use store.h. */
#ifndef ZI_WEIGHTS_SAFETENSORS_H
#define ZI_WEIGHTS_SAFETENSORS_H

#include <stdatomic.h>

#include "base/error.h"
#include "base/mapping.h"
#include "ops/tensor.h"

typedef struct zi_safetensors zi_safetensors;

typedef struct zi_entry {
    zi_weight weight;  /* its name lies in `strings` of the file, its data in the file's mapping */
    const char *dtype; /* the file's own word: "BF16", "F8_E4M3", ... */
    size_t rank;       /* dimensions in the file; a weight has at most 4, and ZI_DTYPE_OTHER where the file has more */
    zi_safetensors *file; /* which holds it */
    const char *path;
    void *owned; /* the data of the weight where the store made a copy (convert.h); otherwise NULL */
    int late;    /* its copy is not made yet (zi_bind_late): 1 in the same layout, 2 with channels first */
} zi_entry;

struct zi_safetensors {
    char *path;
    zi_mapping mapping;
    char *strings;
    zi_entry *entries; /* sorted by name */
    size_t count;
    int in_memory;       /* 1: there is no file, and the mapping holds the only copy of the data (memory.h) */
    atomic_int sessions; /* that read it */
    /* Of a file on the list of files that stores share (share.c); its lock guards them. */
    int references;       /* stores, and comparisons under way; 0: not on the list */
    uint64_t order;       /* of files on the list, by age */
    zi_safetensors *next; /* on the list */
};

/* Opens, maps and checks the file. After a failure there is nothing to close. */
zimage_status zi_safetensors_open(const char *path, zi_safetensors *file, zimage_error *error);
void zi_safetensors_close(zi_safetensors *file);
/* Fails if a part of the file was lost while it was mapped. *written: it was written since then (mapping.h). */
zimage_status zi_safetensors_check(const zi_safetensors *file, int *written, zimage_error *error);

void zi_entries_sort(zi_entry *entries, size_t count);
/* The entry of that name, searched by bisection in sorted entries; NULL: there is none. */
const zi_entry *zi_entries_find(const zi_entry *entries, size_t count, const char *name);

#endif
