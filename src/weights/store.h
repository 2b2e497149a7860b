/*
 * Model weights on disk: safetensors files, single or sharded, mapped read-only. Nothing in a file is trusted: header
 * length, JSON, names, shapes, offsets (no overlap, no hole, no overflow), dtypes are checked before use.
 */
#ifndef ZI_WEIGHTS_STORE_H
#define ZI_WEIGHTS_STORE_H

#include "base/error.h"
#include "base/pool.h"
#include "ops/tensor.h"

typedef struct zi_store zi_store;

/*
 * Opens FOLDER/BASE.safetensors, or FOLDER/BASE.safetensors.index.json and its shards; where there is neither, the same
 * with BASE "model", as MLX names every component.
 */
zimage_status zi_store_open(const char *folder, const char *base, zi_store **store, const zi_log *log,
                            zimage_error *error);
/* Opens one safetensors file. */
zimage_status zi_store_open_file(const char *path, zi_store **store, zimage_error *error);
void zi_store_free(zi_store *store);
/* Binding will expand packed weights to `dtype`, ZI_F32 or ZI_BF16, in memory of the store; ZI_GROUPED: they stay. */
void zi_store_dequantize(zi_store *store, zi_dtype dtype);
/* Binding will only check and describe: weights that would need a copy in memory keep their stored form. */
void zi_store_describe_only(zi_store *store);

size_t zi_store_count(const zi_store *store);
/* In order of name. A tensor that binding found to be a packed matrix is ZI_GROUPED from then on. */
const zi_weight *zi_store_at(const zi_store *store, size_t index);
const char *zi_store_file_of(const zi_store *store, size_t index);       /* path of the file that holds it */
const char *zi_store_dtype_of(const zi_store *store, size_t index);      /* the file's own word: "BF16", "I64", ... */
const zi_weight *zi_store_find(const zi_store *store, const char *name); /* NULL: not there */
const char *zi_store_path(const zi_store *store); /* what was opened: file or index, for messages */
size_t zi_store_bytes(const zi_store *store);     /* tensor data in all */

/* Gives back the memory that mapped files take; it is read again when it is next used. Nothing for a store in memory. */
void zi_store_release_pages(const zi_store *store);
/* Memory of tensors that had to be copied (zi_store_dequantize, another layout); it is not given back. */
size_t zi_store_owned_bytes(const zi_store *store);

/*
 * A store without a file, for measuring. New it only takes notes: a network that is bound to it gets no weights, but
 * what it asks for is noted. zi_store_fill then makes all of that in memory, and the network is bound once more, as ever.
 */
zimage_status zi_store_new_memory(const char *label, zi_store **store, zimage_error *error);

typedef struct zi_memory_format {
    zi_dtype dtype;  /* ZI_F32, ZI_F16 or ZI_BF16 */
    int bits, group; /* bits 4 or 8: matrices are ZI_GROUPED with such groups where their rows divide into them */
} zi_memory_format;

/*
 * Numbers of random sign, most of them below 0.03. So that billions take seconds they are one random block of some MiB
 * repeated from changing offsets. The pool's threads fill.
 */
zimage_status zi_store_fill(zi_store *store, const zi_memory_format *format, zi_pool *pool, zimage_error *error);

/*
 * Binding a network to its weights: ask for every tensor by name and shape, then finish. Problems are collected, and
 * finish reports them together: missing, misshapen, not a float dtype; unexpected ones (neither asked for nor ignored)
 * are part of that message and otherwise one warning.
 *
 * Names are diffusers' ones; a store of another layout (layout.h) is searched by its own. A matrix "X.weight" may be
 * packed by MLX's quantiser: U32, with X.scales and X.biases; it is then bound as ZI_GROUPED or, if the store says so,
 * expanded. Convolutions of a layout that has channels last are copied to [out, in, kernel_h, kernel_w]: a VAE's
 * decoder has 50 million numbers, so one copy at opening costs less than a second layout in every convolution.
 */
typedef struct zi_binder zi_binder;

zimage_status zi_binder_new(zi_store *store, zi_binder **binder, zimage_error *error);
/* *weight is set to the tensor, or to NULL if it can't be used. Its data is valid after a successful finish. */
void zi_bind(zi_binder *binder, const zi_weight **weight, int dims, const int64_t *shape, const char *format, ...)
    ZI_PRINTF(5, 6);
/* Marks a weight that zi_bind found (NULL: it didn't) as precise in these computations; not one packed in fewer than 8 bits,
 * whose own error is much larger than that of int8 computation. */
void zi_bind_precise(zi_binder *binder, const zi_weight *weight, zi_precise computations);
/* Names starting with `prefix` are known and not needed. */
void zi_bind_ignore(zi_binder *binder, const char *prefix);
/* Makes the copies that are needed. Frees the binder in every case. */
zimage_status zi_binder_finish(zi_binder *binder, const zi_log *log, zimage_error *error);

/* Packed matrices that no network asked for become ZI_GROUPED too, with the bits of those that one did: to describe. */
void zi_store_group_others(zi_store *store);

#endif
