/*
 * The weights of one network: safetensors files on disk, single or sharded, mapped read-only. Nothing in a file is
 * trusted: header length, JSON, names, shapes, dtypes and offsets (no overlap, no hole, no overflow) are checked.
 */
#ifndef ZI_WEIGHTS_STORE_H
#define ZI_WEIGHTS_STORE_H

#include "base/error.h"
#include "base/fingerprint.h"
#include "base/pool.h"
#include "ops/tensor.h"

typedef struct zi_store zi_store;

/*
 * Opens FOLDER/BASE.safetensors.index.json and its shards, otherwise FOLDER/BASE.safetensors, as diffusers does. For
 * the base "model" the single file goes first, as in transformers. Where there is neither, BASE becomes "model", the
 * name that MLX gives to the file of every component.
 */
zimage_status zi_store_open(const char *folder, const char *base, zi_store **store, const zi_log *log,
                            zimage_error *error);
/* Opens one safetensors file. The caller frees *store with zi_store_free. */
zimage_status zi_store_open_file(const char *path, zi_store **store, zimage_error *error);
/* Fails if a part of a mapped file was lost (base/mapping.h). Warns of files that were written since then. */
zimage_status zi_store_check(const zi_store *store, const zi_log *log, zimage_error *error);
void zi_store_free(zi_store *store);
/*
 * Shares weights with other stores of the process for which this was called, too; before the store is bound. A file
 * that one of them has mapped is mapped no second time, by whatever name it was opened. A tensor that is equal to one
 * of them, in name, type, shape and bytes, becomes that one. To find out, both are read to their first difference:
 * where all of a file is equal, all of it is read once. Messages about a shared file have the name by which it was
 * opened first. Memory that the copies of binding take is never shared.
 */
zimage_status zi_store_share(zi_store *store, zimage_error *error);
/* Later binding dequantises packed weights to ZI_F32 or ZI_BF16, in memory of the store. ZI_GROUPED: it does not. */
void zi_store_dequantize(zi_store *store, zi_dtype dtype);
/* Later binding only checks and describes weights; it makes no copies. */
void zi_store_describe_only(zi_store *store);

/*
 * Adds to a fingerprint: the name, type and shape of each tensor, and 64 bytes of the data of up to 64 of them, because
 * models of one kind differ in their numbers only. How the tensors are cut into files does not matter. Before the store
 * is bound. Bytes are read from the file, not from its mapping, so a lost one raises no signal.
 */
void zi_store_fingerprint(const zi_store *store, zi_fingerprint *f);

size_t zi_store_count(const zi_store *store);
/* Tensors are sorted by name. A tensor that was bound as a packed matrix is ZI_GROUPED from then on. */
const zi_weight *zi_store_at(const zi_store *store, size_t index);
const char *zi_store_file_of(const zi_store *store, size_t index);       /* path of the file of the tensor */
const char *zi_store_dtype_of(const zi_store *store, size_t index);      /* as the file says: "BF16", "I64", ... */
const zi_weight *zi_store_find(const zi_store *store, const char *name); /* NULL: there is none */
const char *zi_store_path(const zi_store *store);                        /* the file or the index, for messages */
size_t zi_store_bytes(const zi_store *store);                            /* of the data of all tensors */
int zi_store_is_sharded(const zi_store *store);                          /* 1: an index was opened */

/* A session of a model with this store begins (change 1) or ends (-1). */
void zi_store_count_session(const zi_store *store, int change);
/* Whether at most one session reads the store's files: those of other models that share them count. */
int zi_store_has_one_session(const zi_store *store);
/* Gives the pages of mapped files back to the system, which reads them again at their next use. Files that more than
 * one session reads keep theirs. */
void zi_store_release_pages(const zi_store *store);
/*
 * Bytes that zi_store_release_pages keeps in memory: the copies that binding made (zi_store_dequantize, another
 * layout), and all of a store without a file.
 */
size_t zi_store_owned_bytes(zi_store *store);

/* Makes the copies that zi_bind_late put off. Any thread may call it, at any time; without such copies it returns at
 * once. Other tensors may be read meanwhile. */
zimage_status zi_store_copy_late(zi_store *store, zimage_error *error);

/*
 * A store without a file, for measurements. At first it only collects: a network that is bound to it gets no weights,
 * but the store keeps the specs (name and shape) of the tensors that the network needs. zi_store_fill then makes these
 * tensors in memory, and the network is bound a second time, in the usual way. label takes the place of a path.
 */
zimage_status zi_store_new_memory(const char *label, zi_store **store, zimage_error *error);

typedef struct zi_memory_format {
    zi_dtype dtype;  /* ZI_F32, ZI_F16 or ZI_BF16 */
    int bits, group; /* bits 4 or 8: matrices whose rows are whole numbers of groups become ZI_GROUPED; bits 0: none */
} zi_memory_format;

/*
 * Makes the tensors, with random numbers of both signs, most of which are below 0.03. To make billions of numbers in
 * seconds the threads of the pool copy one random block of some MiB again and again, from changing offsets.
 */
zimage_status zi_store_fill(zi_store *store, const zi_memory_format *format, zi_pool *pool, zimage_error *error);

/*
 * Binding a network to its weights: the network asks for every tensor by name and shape, then finishes. The binder
 * collects the problems (tensors that are missing, have another shape or no float type), and finish reports all of them
 * in one message. Unexpected tensors, which were neither asked for nor ignored, are added to that message; without a
 * problem they are a warning.
 *
 * Names are those of diffusers; in a store of another layout (layout.h) the binder looks for the names of that layout.
 * A matrix "X.weight" may be packed by MLX's quantiser: U32, with X.scales and X.biases. It is bound as ZI_GROUPED, or
 * dequantised (zi_store_dequantize). Convolutions of a layout with channels last are copied with channels first, as
 * [out, in, kernel_h, kernel_w]: the decoder of a VAE has 50 million numbers, so one copy when the model is opened
 * costs less than a second layout in every convolution. Those of the encoder are copied when it first works.
 */
typedef struct zi_binder zi_binder;

zimage_status zi_binder_new(zi_store *store, zi_binder **binder, zimage_error *error);
/*
 * Sets *weight to the tensor of shape[dims] whose name is printed by format, or to NULL where it can't be used. The
 * data is valid after a successful finish; the store owns the weight.
 */
void zi_bind(zi_binder *binder, const zi_weight **weight, int dims, const int64_t *shape, const char *format, ...)
    ZI_PRINTF(5, 6);
/*
 * Marks a weight of zi_bind (NULL: nothing happens): in computations of these types its products are computed in bf16
 * or float32 instead. Weights packed in fewer than 8 bits are not marked: their own error is much larger than that of
 * int8.
 */
void zi_bind_precise(zi_binder *binder, const zi_weight *weight, zi_precise computations);
/* The tensor that zi_bind was called for last holds variances: zi_store_fill makes numbers above 0. */
void zi_bind_positive(zi_binder *binder);
/*
 * Whether the store has a tensor of this name, which diffusers gave up. It renames such tensors of a single file, but
 * none of shards (_fix_state_dict_keys_on_load).
 */
int zi_binder_has_outdated(const zi_binder *binder, const char *name);
/* Whether the store has a tensor that diffusers calls `name`; a store that only collects has what it is asked for. */
int zi_binder_has(const zi_binder *binder, const char *name);
/* The copies of tensors whose names begin with `prefix`, a literal, are made by zi_store_copy_late, not when binding
 * ends: few jobs read these tensors. One prefix for each binder. */
void zi_bind_late(zi_binder *binder, const char *prefix);
/* Tensors whose names begin with `prefix` are expected, and not needed. */
void zi_bind_ignore(zi_binder *binder, const char *prefix);
/* Reports the problems, makes the copies that are needed, and frees the binder in every case. */
zimage_status zi_binder_finish(zi_binder *binder, const zi_log *log, zimage_error *error);

/* For descriptions: packed matrices that were not asked for become ZI_GROUPED, too, with the bits of the bound ones. */
void zi_store_group_others(zi_store *store);

#endif
