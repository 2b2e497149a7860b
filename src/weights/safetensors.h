/* One mapped safetensors file, checked completely. Inside this room: other rooms use store.h. */
#ifndef ZI_WEIGHTS_SAFETENSORS_H
#define ZI_WEIGHTS_SAFETENSORS_H

#include "base/error.h"
#include "base/file.h"
#include "ops/tensor.h"

typedef struct zi_entry {
    zi_weight weight;  /* its name lies in the file's strings, its data in the file's mapping */
    const char *dtype; /* the file's own word: "BF16", "F8_E4M3", ... */
    size_t rank;       /* dimensions in the file; a weight has at most 4, and ZI_DTYPE_OTHER where the file has more */
    const char *path;
    void *owned; /* NULL, or the weight's data where a store had to make its own (convert.h) */
} zi_entry;

typedef struct zi_safetensors {
    char *path;
    zi_mapping mapping;
    char *strings;
    zi_entry *entries; /* in order of name */
    size_t count;
    int in_memory; /* no file: the mapping holds the only copy */
} zi_safetensors;

/* On failure nothing is left to close. */
zimage_status zi_safetensors_open(const char *path, zi_safetensors *file, zimage_error *error);
void zi_safetensors_close(zi_safetensors *file);

void zi_entries_sort(zi_entry *entries, size_t count);
/* Bisection in sorted entries; NULL: not there. */
const zi_entry *zi_entries_find(const zi_entry *entries, size_t count, const char *name);

#endif
