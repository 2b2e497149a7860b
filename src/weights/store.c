#include "weights/store.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/names.h"
#include "base/stand_in.h"
#include "weights/absent.h"
#include "weights/memory.h"
#include "weights/share.h"
#include "weights/store_entries.h"

#define TRANSFORMERS_BASE "model"
#define MLX_BASE          "model" /* the name that MLX gives to the file of every component */

struct zi_store {
    char *path;
    zi_safetensors **files;
    size_t file_count;
    zi_entry *entries; /* the tensors, sorted by name */
    size_t count;
    size_t bytes;
    const zi_layout *layout;
    zi_dtype packed_as; /* the type that packed weights become; ZI_GROUPED: they stay packed */
    int describe_only;
    int sharded;            /* 1: an index was opened */
    zi_tensor_specs *specs; /* what networks need from a store in memory, until it is filled; otherwise NULL */
    pthread_mutex_t lock;   /* of entries that are late */
    atomic_int has_late;
};

/* NULL: out of memory. */
static zi_store *store_new(const char *path)
{
    zi_store *store = calloc(1, sizeof *store);
    if (!store)
        return NULL;
    store->packed_as = ZI_GROUPED;
    store->path = strdup(path);
    if (store->path && pthread_mutex_init(&store->lock, NULL) == 0)
        return store;
    free(store->path);
    free(store);
    return NULL;
}

void zi_store_free(zi_store *store)
{
    if (!store)
        return;
    for (size_t i = 0; i < store->count; i++)
        free(store->entries[i].owned);
    for (size_t i = 0; i < store->file_count; i++)
        zi_file_let_go(store->files[i]);
    zi_specs_free(store->specs);
    pthread_mutex_destroy(&store->lock);
    free(store->files);
    free(store->entries);
    free(store->path);
    free(store);
}

/*
 * Gives every weight an id, by which backends recognise a weight that they have a copy of. The ids of a file begin at a
 * random number, so that no two files of a process share an id. Without random bytes all ids are 0: a backend then
 * recognises weights by address.
 */
static void number_weights(zi_safetensors *file)
{
    uint64_t start = 0;
    if (getentropy(&start, sizeof start) != 0)
        return;
    start &= UINT64_MAX >> 1; /* leaves room for any count */
    for (size_t i = 0; i < file->count; i++)
        file->entries[i].weight.id = start + i + 1;
}

/* Room for one more file, which is empty. NULL: out of memory. */
static zi_safetensors *new_file(zi_store *store, zimage_error *error)
{
    size_t bytes = (store->file_count + 1) * sizeof(zi_safetensors *);
    zi_safetensors **files = realloc(store->files, bytes), *file = calloc(1, sizeof *file);
    if (files)
        store->files = files;
    if (files && file)
        return file;
    free(file);
    zi_fail_memory(error, store->path, bytes + sizeof *file);
    return NULL;
}

static zimage_status add_file(zi_store *store, const char *path, zimage_error *error)
{
    ZI_TRY(zi_refuse_stand_in(path, error));
    zi_safetensors *file = new_file(store, error);
    if (!file)
        return ZIMAGE_ERROR_MEMORY;
    zimage_status status = zi_safetensors_open(path, file, error);
    if (status != ZIMAGE_OK) {
        free(file);
        return status;
    }
    number_weights(file);
    store->files[store->file_count++] = file;
    return ZIMAGE_OK;
}

static zimage_status allocate_entries(zi_store *store, size_t capacity, zimage_error *error)
{
    store->entries = calloc(capacity + 1, sizeof *store->entries);
    if (!store->entries)
        return zi_fail_memory(error, store->path, (capacity + 1) * sizeof *store->entries);
    return ZIMAGE_OK;
}

static void add_entry(zi_store *store, const zi_entry *entry)
{
    store->entries[store->count++] = *entry;
    store->bytes += entry->weight.bytes;
}

/* The store holds all tensors of one file. */
static zimage_status add_all_of(zi_store *store, const zi_safetensors *file, zimage_error *error)
{
    ZI_TRY(allocate_entries(store, file->count, error));
    for (size_t i = 0; i < file->count; i++)
        add_entry(store, &file->entries[i]);
    return ZIMAGE_OK;
}

static zimage_status fill_from_file(zi_store *store, zimage_error *error)
{
    ZI_TRY(add_file(store, store->path, error));
    return add_all_of(store, store->files[0], error);
}

/* Hands the store to the caller; frees it if status is an error. */
static zimage_status finish_open(zi_store *made, zimage_status status, zi_store **store)
{
    if (status != ZIMAGE_OK) {
        zi_store_free(made);
        return status;
    }
    made->layout = zi_layout_detect(made->entries, made->count);
    *store = made;
    return ZIMAGE_OK;
}

zimage_status zi_store_open_file(const char *path, zi_store **store, zimage_error *error)
{
    *store = NULL;
    zi_store *made = store_new(path);
    if (!made)
        return zi_fail_memory(error, path, sizeof *made);
    return finish_open(made, fill_from_file(made, error), store);
}

/* A shard lies beside the index: a name that could lead to another folder is refused. */
static int is_plain_name(const char *name)
{
    return *name && !strchr(name, '/') && !strchr(name, '\\') && !strstr(name, "..");
}

/* ---- shards ------------------------------------------------------------------------------------------------------ */

typedef struct found_tensor {
    const zi_entry *entry;
    size_t file;
} found_tensor;

/* An index and its shards, as they are read. Nothing but `names` and `found` is owned. */
typedef struct sharded {
    const char *folder;
    const json_t *map;  /* "weight_map" */
    const char **names; /* of the shards, sorted; names[i] belongs to files[i] of the store */
    size_t count;
    found_tensor *found; /* the tensors of all shards */
} sharded;

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* By name, then by shard. */
static int compare_found(const void *a, const void *b)
{
    const found_tensor *first = a, *second = b;
    int order = strcmp(first->entry->weight.name, second->entry->weight.name);
    return order ? order : (first->file > second->file) - (first->file < second->file);
}

static zimage_status list_shards(const zi_store *store, sharded *s, json_t *map, zimage_error *error)
{
    const char *tensor;
    json_t *shard;
    char text[64];
    size_t count = 0;
    json_object_foreach(map, tensor, shard)
    {
        if (!json_is_string(shard) || !is_plain_name(json_string_value(shard)))
            return zi_fail(error, ZIMAGE_ERROR_FORMAT,
                           "%s: \"weight_map\": \"%.200s\": %s, expected the name of a file beside the index",
                           store->path, tensor, zi_json_describe(shard, text, sizeof text));
        s->names[count++] = json_string_value(shard);
    }
    if (count > 0)
        qsort(s->names, count, sizeof *s->names, compare_texts);
    for (size_t i = 0; i < count; i++)
        if (s->count == 0 || strcmp(s->names[s->count - 1], s->names[i]) != 0)
            s->names[s->count++] = s->names[i];
    return ZIMAGE_OK;
}

static zimage_status open_shards(zi_store *store, const sharded *s, zimage_error *error)
{
    for (size_t i = 0; i < s->count; i++) {
        char *path = zi_path_join(s->folder, s->names[i]);
        if (!path)
            return zi_fail_memory(error, "a path", strlen(s->folder) + strlen(s->names[i]) + 2);
        zimage_status status = zi_refuse_dangling_link(path, error);
        if (status == ZIMAGE_OK && !zi_file_exists(path))
            status = zi_fail(error, ZIMAGE_ERROR_FILE,
                             "%s: \"weight_map\" names the shard %s, but there is no such file", store->path, path);
        if (status == ZIMAGE_OK)
            status = add_file(store, path, error);
        free(path);
        ZI_TRY(status);
    }
    return ZIMAGE_OK;
}

/* Every tensor is where the index says. */
static zimage_status check_map(const zi_store *store, const sharded *s, json_t *map, zimage_error *error)
{
    const char *tensor;
    json_t *shard;
    json_object_foreach(map, tensor, shard)
    {
        const char *name = json_string_value(shard);
        const char **place = bsearch(&name, s->names, s->count, sizeof name, compare_texts);
        const zi_safetensors *file = store->files[place - s->names];
        if (!zi_entries_find(file->entries, file->count, tensor))
            return zi_fail(error, ZIMAGE_ERROR_FORMAT,
                           "%s: \"weight_map\" says that tensor \"%.200s\" is in %s, but it is not there", store->path,
                           tensor, file->path);
    }
    return ZIMAGE_OK;
}

/*
 * The store holds all tensors of all shards. diffusers and transformers take from the index only the names of the
 * shards: they read the shards in the order of their names, and of tensors of one name the last one counts.
 */
static zimage_status add_all_found(zi_store *store, sharded *s, const zi_log *log, zimage_error *error)
{
    zi_names extras = {0};
    size_t count = 0, total = 0;
    for (size_t f = 0; f < s->count; f++)
        total += store->files[f]->count;
    s->found = calloc(total + 1, sizeof *s->found);
    if (!s->found)
        return zi_fail_memory(error, store->path, (total + 1) * sizeof *s->found);
    ZI_TRY(allocate_entries(store, total, error));
    for (size_t f = 0; f < s->count; f++)
        for (size_t i = 0; i < store->files[f]->count; i++)
            s->found[count++] = (found_tensor){&store->files[f]->entries[i], f};
    if (count > 0)
        qsort(s->found, count, sizeof *s->found, compare_found);
    for (size_t i = 0; i < count; i++) {
        const char *name = s->found[i].entry->weight.name, *shard = s->names[s->found[i].file];
        const char *expected = json_string_value(json_object_get(s->map, name));
        if (!expected || strcmp(expected, shard) != 0)
            zi_names_add(&extras, "%s in %s", name, shard);
        if (i + 1 == count || strcmp(s->found[i + 1].entry->weight.name, name) != 0)
            add_entry(store, s->found[i].entry);
    }
    if (extras.count > 0)
        zi_warn(
            log,
            "%s: the shards hold %zu tensor%s that \"weight_map\" does not name there; of tensors of one name the last "
            "shard's is used, as diffusers does: %s",
            store->path, extras.count, extras.count == 1 ? "" : "s", zi_names_text(&extras));
    return ZIMAGE_OK;
}

static zimage_status add_all_mapped(zi_store *store, const char *folder, json_t *map, const zi_log *log,
                                    zimage_error *error)
{
    size_t count = json_object_size(map) + 1;
    sharded s = {.folder = folder, .map = map, .names = calloc(count, sizeof *s.names)};
    if (!s.names)
        return zi_fail_memory(error, store->path, count * sizeof *s.names);
    zimage_status status = list_shards(store, &s, map, error);
    if (status == ZIMAGE_OK)
        status = open_shards(store, &s, error);
    if (status == ZIMAGE_OK)
        status = check_map(store, &s, map, error);
    if (status == ZIMAGE_OK)
        status = add_all_found(store, &s, log, error);
    free(s.found);
    free(s.names);
    return status;
}

static zimage_status fill_from_index(zi_store *store, const char *folder, const zi_log *log, zimage_error *error)
{
    json_t *index = NULL;
    char text[64];
    ZI_TRY(zi_refuse_stand_in(store->path, error));
    ZI_TRY(zi_json_load_within(store->path, &zi_index_limits, &index, error));
    json_t *map = json_object_get(index, "weight_map");
    zimage_status status;
    if (json_is_object(map))
        status = add_all_mapped(store, folder, map, log, error);
    else
        status = zi_fail(error, ZIMAGE_ERROR_FORMAT, "%s: \"weight_map\": %s, expected an object", store->path,
                         zi_json_describe(map, text, sizeof text));
    json_decref(index);
    return status;
}

static zimage_status open_index(const char *folder, const char *path, zi_store **store, const zi_log *log,
                                zimage_error *error)
{
    zi_store *made = store_new(path);
    if (!made)
        return zi_fail_memory(error, path, sizeof *made);
    made->sharded = 1;
    return finish_open(made, fill_from_index(made, folder, log, error), store);
}

/* FOLDER/BASE with the ending; NULL: out of memory. */
static char *candidate(const char *folder, const char *base, const char *ending)
{
    size_t size = strlen(base) + strlen(ending) + 1;
    char *name = malloc(size);
    if (!name)
        return NULL;
    snprintf(name, size, "%s%s", base, ending);
    char *path = zi_path_join(folder, name);
    free(name);
    return path;
}

/* Whether the file is there. A link that leads nowhere is an error. */
static zimage_status find_file(const char *path, int *found, zimage_error *error)
{
    *found = zi_file_exists(path);
    return zi_refuse_dangling_link(path, error);
}

/*
 * Of a single file and an index diffusers reads the index (from_pretrained in modeling_utils.py), and transformers,
 * whose files have the base name "model", the single file (_get_resolved_checkpoint_files).
 */
static zimage_status open_one_of(const char *folder, const char *base, const char *single, const char *index,
                                 zi_store **store, const zi_log *log, zimage_error *error)
{
    int has_single, has_index;
    ZI_TRY(find_file(single, &has_single, error));
    ZI_TRY(find_file(index, &has_index, error));
    int single_first = strcmp(base, TRANSFORMERS_BASE) == 0;
    if (has_single && has_index)
        zi_warn(log, "%s: not used: %s is read, as %s does", single_first ? index : single,
                single_first ? single : index, single_first ? "transformers" : "diffusers");
    if (has_single && (single_first || !has_index))
        return zi_store_open_file(single, store, error);
    return has_index ? open_index(folder, index, store, log, error) : ZIMAGE_OK;
}

/* Without either file it returns ZIMAGE_OK and leaves *store NULL. */
static zimage_status open_base(const char *folder, const char *base, zi_store **store, const zi_log *log,
                               zimage_error *error)
{
    char *single = candidate(folder, base, ".safetensors");
    char *index = candidate(folder, base, ".safetensors.index.json");
    zimage_status status = single && index ? open_one_of(folder, base, single, index, store, log, error)
                                           : zi_fail_memory(error, "a path", strlen(folder) + strlen(base) + 32);
    free(single);
    free(index);
    return status;
}

zimage_status zi_store_open(const char *folder, const char *base, zi_store **store, const zi_log *log,
                            zimage_error *error)
{
    *store = NULL;
    ZI_TRY(zi_refuse_dangling_link(folder, error));
    if (!zi_folder_exists(folder))
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: there is no such folder; it should hold the weights", folder);
    ZI_TRY(open_base(folder, base, store, log, error));
    if (!*store && strcmp(base, MLX_BASE) != 0)
        ZI_TRY(open_base(folder, MLX_BASE, store, log, error));
    return *store ? ZIMAGE_OK : zi_fail_without_weights(folder, base, error);
}

zimage_status zi_store_share(zi_store *store, zimage_error *error)
{
    return zi_files_share(&store->files, &store->file_count, store->entries, store->count, error);
}

void zi_store_dequantize(zi_store *store, zi_dtype dtype)
{
    store->packed_as = dtype;
}

void zi_store_describe_only(zi_store *store)
{
    store->describe_only = 1;
}

zi_entry *zi_store_entries(zi_store *store)
{
    return store->entries;
}

const zi_layout *zi_store_layout(const zi_store *store)
{
    return store->layout;
}

zimage_status zi_store_make_copy(zi_store *store, zi_entry *entry, int channels_last, zimage_error *error)
{
    if (store->describe_only)
        return ZIMAGE_OK;
    if (entry->weight.dtype == ZI_GROUPED && store->packed_as != ZI_GROUPED)
        return zi_entry_expand(entry, store->packed_as, error);
    if (channels_last)
        return zi_entry_channels_first(entry, error);
    return ZIMAGE_OK;
}

void zi_store_defer_copy(zi_store *store, zi_entry *entry, int channels_last)
{
    entry->late = channels_last ? 2 : 1;
    atomic_store(&store->has_late, 1);
}

/* What was copied before a failure stays copied. */
static zimage_status copy_late(zi_store *store, zimage_error *error)
{
    for (size_t i = 0; i < store->count; i++) {
        zi_entry *entry = &store->entries[i];
        if (entry->late)
            ZI_TRY(zi_store_make_copy(store, entry, entry->late == 2, error));
        entry->late = 0;
    }
    zi_store_release_pages(store); /* the originals are not read again */
    atomic_store(&store->has_late, 0);
    return ZIMAGE_OK;
}

zimage_status zi_store_copy_late(zi_store *store, zimage_error *error)
{
    if (!atomic_load(&store->has_late))
        return ZIMAGE_OK;
    pthread_mutex_lock(&store->lock);
    zimage_status status = atomic_load(&store->has_late) ? copy_late(store, error) : ZIMAGE_OK;
    pthread_mutex_unlock(&store->lock);
    return status;
}

zimage_status zi_store_new_memory(const char *label, zi_store **store, zimage_error *error)
{
    *store = NULL;
    zi_store *made = store_new(label);
    if (!made)
        return zi_fail_memory(error, label, sizeof *made);
    made->specs = calloc(1, sizeof *made->specs);
    if (!made->specs) {
        zi_store_free(made);
        return zi_fail_memory(error, label, sizeof *made->specs);
    }
    made->layout = zi_layout_detect(NULL, 0);
    *store = made;
    return ZIMAGE_OK;
}

zi_tensor_specs *zi_store_specs(const zi_store *store)
{
    return store->specs;
}

zimage_status zi_store_fill(zi_store *store, const zi_memory_format *format, zi_pool *pool, zimage_error *error)
{
    zi_safetensors *file = new_file(store, error);
    if (!file)
        return ZIMAGE_ERROR_MEMORY;
    zimage_status status = zi_specs_fill(store->specs, store->path, format, pool, file, error);
    if (status != ZIMAGE_OK) {
        free(file);
        return status;
    }
    number_weights(file);
    store->files[store->file_count++] = file;
    ZI_TRY(add_all_of(store, file, error));
    store->layout = zi_layout_detect(store->entries, store->count);
    zi_specs_free(store->specs);
    store->specs = NULL;
    return ZIMAGE_OK;
}

size_t zi_store_owned_bytes(zi_store *store)
{
    size_t bytes = 0;
    pthread_mutex_lock(&store->lock);
    for (size_t i = 0; i < store->count; i++)
        bytes += store->entries[i].owned ? store->entries[i].weight.bytes : 0;
    pthread_mutex_unlock(&store->lock);
    for (size_t i = 0; i < store->file_count; i++)
        bytes += store->files[i]->in_memory ? store->files[i]->mapping.size : 0;
    return bytes;
}

void zi_store_release_pages(const zi_store *store)
{
    for (size_t i = 0; i < store->file_count; i++)
        if (!store->files[i]->in_memory && atomic_load(&store->files[i]->sessions) <= 1)
            zi_drop_pages(&store->files[i]->mapping);
}

void zi_store_count_session(const zi_store *store, int change)
{
    for (size_t i = 0; i < store->file_count; i++)
        atomic_fetch_add(&store->files[i]->sessions, change);
}

int zi_store_has_one_session(const zi_store *store)
{
    for (size_t i = 0; i < store->file_count; i++)
        if (atomic_load(&store->files[i]->sessions) > 1)
            return 0;
    return 1;
}

zimage_status zi_store_check(const zi_store *store, const zi_log *log, zimage_error *error)
{
    for (size_t i = 0; i < store->file_count; i++) {
        int written;
        ZI_TRY(zi_safetensors_check(store->files[i], &written, error));
        if (written)
            zi_warn(log, "%s: the file was written while it was in use: results may be wrong", store->files[i]->path);
    }
    return ZIMAGE_OK;
}

size_t zi_store_count(const zi_store *store)
{
    return store->count;
}

const zi_weight *zi_store_at(const zi_store *store, size_t index)
{
    return &store->entries[index].weight;
}

const char *zi_store_file_of(const zi_store *store, size_t index)
{
    return store->entries[index].path;
}

const char *zi_store_dtype_of(const zi_store *store, size_t index)
{
    return store->entries[index].dtype;
}

const zi_weight *zi_store_find(const zi_store *store, const char *name)
{
    const zi_entry *entry = zi_entries_find(store->entries, store->count, name);
    return entry ? &entry->weight : NULL;
}

#define SAMPLES      64 /* of a fingerprint: tensors, */
#define SAMPLE_BYTES 64 /* and bytes of each */

/* From the middle of the tensor. What can't be read is left out: opening the model reports it. */
static void add_sample(const zi_entry *entry, zi_fingerprint *f)
{
    const zi_weight *w = &entry->weight;
    const zi_mapping *mapping = &entry->file->mapping;
    uint8_t bytes[SAMPLE_BYTES];
    size_t at = w->bytes > SAMPLE_BYTES ? (w->bytes - SAMPLE_BYTES) / 2 : 0;
    size_t size = w->bytes < SAMPLE_BYTES ? w->bytes : SAMPLE_BYTES;
    if (size == 0 || entry->file->in_memory)
        return;
    ssize_t count = pread(mapping->descriptor, bytes, size, (off_t)((size_t)(w->data - mapping->data) + at));
    zi_fingerprint_add(f, bytes, count > 0 ? (size_t)count : 0);
}

void zi_store_fingerprint(const zi_store *store, zi_fingerprint *f)
{
    size_t step = (store->count + SAMPLES - 1) / SAMPLES;
    for (size_t i = 0; i < store->count; i++) {
        const zi_entry *entry = &store->entries[i];
        zi_fingerprint_add_text(f, entry->weight.name);
        zi_fingerprint_add_text(f, entry->dtype);
        for (int k = 0; k < entry->weight.dims; k++) {
            char size[32];
            snprintf(size, sizeof size, "%lld", (long long)entry->weight.shape[k]);
            zi_fingerprint_add_text(f, size);
        }
        if (i % step == 0)
            add_sample(entry, f);
    }
}

const char *zi_store_path(const zi_store *store)
{
    return store->path;
}

size_t zi_store_bytes(const zi_store *store)
{
    return store->bytes;
}

int zi_store_is_sharded(const zi_store *store)
{
    return store->sharded;
}
