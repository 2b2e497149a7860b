#include "weights/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/names.h"
#include "weights/memory.h"
#include "weights/store_entries.h"

#define MLX_BASE "model" /* the name that MLX gives to the file of every component */

struct zi_store {
    char *path;
    zi_safetensors *files;
    size_t file_count;
    zi_entry *entries; /* the tensors, sorted by name */
    size_t count;
    size_t bytes;
    const zi_layout *layout;
    zi_dtype packed_as; /* the type that packed weights become; ZI_GROUPED: they stay packed */
    int describe_only;
    zi_tensor_specs *specs; /* what networks need from a store in memory, until it is filled; otherwise NULL */
};

/* NULL: out of memory. */
static zi_store *store_new(const char *path)
{
    zi_store *store = calloc(1, sizeof *store);
    if (!store)
        return NULL;
    store->packed_as = ZI_GROUPED;
    store->path = strdup(path);
    if (store->path)
        return store;
    free(store);
    return NULL;
}

void zi_store_free(zi_store *store)
{
    if (!store)
        return;
    for (size_t i = 0; i < store->file_count; i++)
        zi_safetensors_close(&store->files[i]);
    for (size_t i = 0; i < store->count; i++)
        free(store->entries[i].owned);
    zi_specs_free(store->specs);
    free(store->files);
    free(store->entries);
    free(store->path);
    free(store);
}

static zimage_status add_file(zi_store *store, const char *path, zimage_error *error)
{
    size_t bytes = (store->file_count + 1) * sizeof *store->files;
    zi_safetensors *files = realloc(store->files, bytes);
    if (!files)
        return zi_fail_memory(error, path, bytes);
    store->files = files;
    ZI_TRY(zi_safetensors_open(path, &files[store->file_count], error));
    store->file_count++;
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
    return add_all_of(store, &store->files[0], error);
}

/*
 * Gives every weight an id, by which backends recognise a weight that they have a copy of. The ids of a store begin at
 * a random number, so that no two stores of a process share an id. Without random bytes all ids are 0: a backend then
 * recognises weights by address.
 */
static void number_weights(zi_store *store)
{
    uint64_t start = 0;
    if (getentropy(&start, sizeof start) != 0)
        return;
    start &= UINT64_MAX >> 1; /* leaves room for any count */
    for (size_t i = 0; i < store->count; i++)
        store->entries[i].weight.id = start + i + 1;
}

/* Hands the store to the caller; frees it if status is an error. */
static zimage_status finish_open(zi_store *made, zimage_status status, zi_store **store)
{
    if (status != ZIMAGE_OK) {
        zi_store_free(made);
        return status;
    }
    made->layout = zi_layout_detect(made->entries, made->count);
    number_weights(made);
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

/* Sets *index to the place of the shard in store->files; opens a shard that is new. names[i] belongs to files[i]. */
static zimage_status find_shard(zi_store *store, const char *folder, const char **names, const char *name,
                                size_t *index, zimage_error *error)
{
    for (size_t i = 0; i < store->file_count; i++) {
        *index = i;
        if (strcmp(names[i], name) == 0)
            return ZIMAGE_OK;
    }
    *index = store->file_count;
    char *path = zi_path_join(folder, name);
    if (!path)
        return zi_fail_memory(error, "a path", strlen(folder) + strlen(name) + 2);
    zimage_status status;
    if (zi_file_exists(path))
        status = add_file(store, path, error);
    else
        status = zi_fail(error, ZIMAGE_ERROR_FILE, "%s: \"weight_map\" names the shard %s, but there is no such file",
                         store->path, path);
    free(path);
    if (status == ZIMAGE_OK)
        names[*index] = name;
    return status;
}

static zimage_status add_mapped(zi_store *store, const char *folder, const char **names, const char *tensor,
                                const json_t *shard, zimage_error *error)
{
    char text[64];
    size_t index = 0;
    if (!json_is_string(shard) || !is_plain_name(json_string_value(shard)))
        return zi_fail(error, ZIMAGE_ERROR_FORMAT,
                       "%s: \"weight_map\": \"%.200s\": %s, expected the name of a file beside the index", store->path,
                       tensor, zi_json_describe(shard, text, sizeof text));
    ZI_TRY(find_shard(store, folder, names, json_string_value(shard), &index, error));
    const zi_safetensors *file = &store->files[index];
    const zi_entry *entry = zi_entries_find(file->entries, file->count, tensor);
    if (!entry)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT,
                       "%s: \"weight_map\" says that tensor \"%.200s\" is in %s, but it is not there", store->path,
                       tensor, file->path);
    add_entry(store, entry);
    return ZIMAGE_OK;
}

static void warn_of_extras(const zi_store *store, const json_t *map, const char **names, const zi_log *log)
{
    zi_names extras = {0};
    for (size_t f = 0; f < store->file_count; f++) {
        const zi_safetensors *file = &store->files[f];
        for (size_t i = 0; i < file->count; i++) {
            const char *name = file->entries[i].weight.name;
            const char *shard = json_string_value(json_object_get(map, name));
            if (!shard || strcmp(shard, names[f]) != 0)
                zi_names_add(&extras, "%s in %s", name, names[f]);
        }
    }
    if (extras.count > 0)
        zi_warn(log, "%s: the shards hold %zu tensor%s that \"weight_map\" does not name, not used: %s", store->path,
                extras.count, extras.count == 1 ? "" : "s", zi_names_text(&extras));
}

static zimage_status add_all_mapped(zi_store *store, const char *folder, json_t *map, const zi_log *log,
                                    zimage_error *error)
{
    const char *tensor;
    json_t *shard;
    size_t count = json_object_size(map);
    ZI_TRY(allocate_entries(store, count, error));
    zimage_status status = ZIMAGE_OK;
    const char **names = calloc(count + 1, sizeof *names); /* of the shards: at most one for each tensor */
    if (!names)
        return zi_fail_memory(error, store->path, (count + 1) * sizeof *names);
    json_object_foreach(map, tensor, shard)
    {
        status = add_mapped(store, folder, names, tensor, shard, error);
        if (status != ZIMAGE_OK)
            break;
    }
    if (status == ZIMAGE_OK)
        warn_of_extras(store, map, names, log);
    free(names);
    zi_entries_sort(store->entries, store->count);
    return status;
}

static zimage_status fill_from_index(zi_store *store, const char *folder, const zi_log *log, zimage_error *error)
{
    json_t *index = NULL;
    char text[64];
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

/*
 * Opens the single file, or the index if there is no single file, as diffusers and transformers do. Without either it
 * returns ZIMAGE_OK and leaves *store NULL.
 */
static zimage_status open_base(const char *folder, const char *base, zi_store **store, const zi_log *log,
                               zimage_error *error)
{
    char *single = candidate(folder, base, ".safetensors");
    char *index = candidate(folder, base, ".safetensors.index.json");
    zimage_status status = ZIMAGE_OK;
    if (!single || !index)
        status = zi_fail_memory(error, "a path", strlen(folder) + strlen(base) + 32);
    else if (zi_file_exists(single))
        status = zi_store_open_file(single, store, error);
    else if (zi_file_exists(index))
        status = open_index(folder, index, store, log, error);
    free(single);
    free(index);
    return status;
}

zimage_status zi_store_open(const char *folder, const char *base, zi_store **store, const zi_log *log,
                            zimage_error *error)
{
    *store = NULL;
    if (!zi_folder_exists(folder))
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: there is no such folder; it should hold the weights", folder);
    ZI_TRY(open_base(folder, base, store, log, error));
    if (!*store && strcmp(base, MLX_BASE) != 0)
        ZI_TRY(open_base(folder, MLX_BASE, store, log, error));
    if (*store)
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_FILE,
                   "%s: no weights: there is neither %s.safetensors nor %s.safetensors.index.json", folder, base, base);
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
    store->files = calloc(1, sizeof *store->files);
    if (!store->files)
        return zi_fail_memory(error, store->path, sizeof *store->files);
    ZI_TRY(zi_specs_fill(store->specs, store->path, format, pool, &store->files[0], error));
    store->file_count = 1;
    ZI_TRY(add_all_of(store, &store->files[0], error));
    store->layout = zi_layout_detect(store->entries, store->count);
    number_weights(store);
    zi_specs_free(store->specs);
    store->specs = NULL;
    return ZIMAGE_OK;
}

size_t zi_store_owned_bytes(const zi_store *store)
{
    size_t bytes = 0;
    for (size_t i = 0; i < store->count; i++)
        bytes += store->entries[i].owned ? store->entries[i].weight.bytes : 0;
    for (size_t i = 0; i < store->file_count; i++)
        bytes += store->files[i].in_memory ? store->files[i].mapping.size : 0;
    return bytes;
}

void zi_store_release_pages(const zi_store *store)
{
    for (size_t i = 0; i < store->file_count; i++)
        if (!store->files[i].in_memory)
            zi_drop_pages(&store->files[i].mapping);
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

const char *zi_store_path(const zi_store *store)
{
    return store->path;
}

size_t zi_store_bytes(const zi_store *store)
{
    return store->bytes;
}
