/*
 * The format (docs/spec/formats.md 1): u64 little-endian header length N | N bytes of JSON | tensor data to the end of
 * the file. The header maps each name to {"dtype", "shape", "data_offsets": [begin, end)}; offsets count from the end
 * of the header.
 */
#include "weights/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define LARGEST_NUMBER ((int64_t)1 << 53) /* a double holds every integer up to here, so every JSON reader does */
#define METADATA       "__metadata__"

typedef struct buffer {
    const uint8_t *data;
    size_t size;
} buffer;

#define LENGTH_BYTES 8 /* of the header's length */

typedef struct dtype_info {
    const char *name;
    size_t size; /* bytes an element */
    zi_dtype dtype;
} dtype_info;

static const dtype_info dtypes[] = {
    {"F32", 4, ZI_F32},
    {"F16", 2, ZI_F16},
    {"BF16", 2, ZI_BF16},
    {"BOOL", 1, ZI_DTYPE_OTHER},
    {"U8", 1, ZI_DTYPE_OTHER},
    {"I8", 1, ZI_DTYPE_OTHER},
    {"F8_E4M3", 1, ZI_DTYPE_OTHER},
    {"F8_E5M2", 1, ZI_DTYPE_OTHER},
    {"U16", 2, ZI_DTYPE_OTHER},
    {"I16", 2, ZI_DTYPE_OTHER},
    {"U32", 4, ZI_DTYPE_OTHER},
    {"I32", 4, ZI_DTYPE_OTHER},
    {"U64", 8, ZI_DTYPE_OTHER},
    {"I64", 8, ZI_DTYPE_OTHER},
    {"F64", 8, ZI_DTYPE_OTHER},
};

/* NULL: the type is not known here, so the size of its elements is not checked. */
static const dtype_info *find_dtype(const char *name)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    return NULL;
}

/* Messages about a tensor read FILE: tensor "NAME": WHAT. A long name is cut, so that WHAT remains. */
#define TENSOR "%s: tensor \"%.200s\": "

static zimage_status fail_value(const zi_entry *entry, const char *field, const json_t *value, const char *expected,
                                zimage_error *error)
{
    char text[64];
    return zi_fail(error, ZIMAGE_ERROR_FORMAT, TENSOR "\"%s\": %s, expected %s", entry->path, entry->weight.name, field,
                   zi_json_describe(value, text, sizeof text), expected);
}

static zimage_status read_number(const zi_entry *entry, const char *field, const json_t *value, int64_t *number,
                                 zimage_error *error)
{
    char text[64];
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > LARGEST_NUMBER)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, TENSOR "\"%s\" holds %s, expected integers from 0 to %lld",
                       entry->path, entry->weight.name, field, zi_json_describe(value, text, sizeof text),
                       (long long)LARGEST_NUMBER);
    *number = json_integer_value(value);
    return ZIMAGE_OK;
}

/*
 * Fills dims, shape and rank. The product of all sizes that are not 0 must fit into 64 bits, so that no later product
 * of sizes overflows, in whatever order. Sizes after the third are multiplied into the fourth; a tensor of more than
 * four dimensions can be described, but not used.
 */
static zimage_status read_shape(zi_entry *entry, const json_t *field, zimage_error *error)
{
    zi_weight *weight = &entry->weight;
    int64_t product = 1;
    if (!json_is_array(field))
        return fail_value(entry, "shape", field, "an array of integers", error);
    size_t dims = json_array_size(field);
    for (size_t i = 0; i < dims; i++) {
        int64_t size = 0;
        ZI_TRY(read_number(entry, "shape", json_array_get(field, i), &size, error));
        if (size > 0 && __builtin_mul_overflow(product, size, &product))
            return zi_fail(error, ZIMAGE_ERROR_FORMAT, TENSOR "\"shape\" has a product beyond 64 bits", entry->path,
                           weight->name);
        if (i < 4)
            weight->shape[i] = size;
        else
            weight->shape[3] *= size;
    }
    weight->dims = dims < 4 ? (int)dims : 4;
    entry->rank = dims;
    return ZIMAGE_OK;
}

static zimage_status read_offsets(const zi_entry *entry, const json_t *field, buffer data, int64_t *begin, int64_t *end,
                                  zimage_error *error)
{
    if (!json_is_array(field) || json_array_size(field) != 2)
        return fail_value(entry, "data_offsets", field, "an array of 2 integers", error);
    ZI_TRY(read_number(entry, "data_offsets", json_array_get(field, 0), begin, error));
    ZI_TRY(read_number(entry, "data_offsets", json_array_get(field, 1), end, error));
    if (*begin > *end)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, TENSOR "\"data_offsets\" begin at %lld, after their end %lld",
                       entry->path, entry->weight.name, (long long)*begin, (long long)*end);
    if ((uint64_t)*end > data.size)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT,
                       TENSOR "\"data_offsets\" end at %lld, but the file has only %zu bytes of data", entry->path,
                       entry->weight.name, (long long)*end, data.size);
    return ZIMAGE_OK;
}

static zimage_status check_bytes(const zi_entry *entry, size_t element, zimage_error *error)
{
    int64_t bytes;
    if (__builtin_mul_overflow(zi_weight_count(&entry->weight), (int64_t)element, &bytes))
        bytes = INT64_MAX; /* larger than any file */
    if ((uint64_t)bytes == entry->weight.bytes)
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_FORMAT,
                   TENSOR "\"shape\" and \"dtype\" %s make %lld bytes, but \"data_offsets\" span %zu", entry->path,
                   entry->weight.name, entry->dtype, (long long)bytes, entry->weight.bytes);
}

/* Fills the rest of entry, which has its name, path and dtype text already. */
static zimage_status read_entry(zi_entry *entry, const json_t *object, buffer data, zimage_error *error)
{
    zi_weight *weight = &entry->weight;
    int64_t begin = 0, end = 0;
    ZI_TRY(read_shape(entry, json_object_get(object, "shape"), error));
    ZI_TRY(read_offsets(entry, json_object_get(object, "data_offsets"), data, &begin, &end, error));
    weight->data = data.data + begin;
    weight->bytes = (size_t)(end - begin);
    weight->mapped = 1;
    const dtype_info *info = find_dtype(entry->dtype);
    weight->dtype = info && entry->rank <= 4 ? info->dtype : ZI_DTYPE_OTHER;
    return info ? check_bytes(entry, info->size, error) : ZIMAGE_OK;
}

/* null counts as absent: MLX writes it. */
static zimage_status check_metadata(const char *path, json_t *metadata, zimage_error *error)
{
    const char *key;
    json_t *value;
    char text[64];
    if (metadata && !json_is_null(metadata) && !json_is_object(metadata))
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, "%s: \"%s\": %s, expected an object of strings", path, METADATA,
                       zi_json_describe(metadata, text, sizeof text));
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return zi_fail(error, ZIMAGE_ERROR_FORMAT, "%s: \"%s\": \"%.200s\": %s, expected a string", path, METADATA,
                           key, zi_json_describe(value, text, sizeof text));
    }
    return ZIMAGE_OK;
}

/*
 * Counts the tensors, checks that each is an object with a dtype, and allocates the entries and one block for the
 * strings of all of them, which outlive the JSON.
 */
static zimage_status allocate_entries(zi_safetensors *file, json_t *header, zimage_error *error)
{
    const char *name;
    json_t *object;
    char text[64];
    size_t size = 1;
    json_object_foreach(header, name, object)
    {
        const json_t *dtype = json_object_get(object, "dtype");
        zi_entry entry = {.weight.name = name, .path = file->path};
        if (strcmp(name, METADATA) == 0)
            continue;
        if (!json_is_object(object))
            return zi_fail(error, ZIMAGE_ERROR_FORMAT, TENSOR "%s, expected an object", file->path, name,
                           zi_json_describe(object, text, sizeof text));
        if (!json_is_string(dtype))
            return fail_value(&entry, "dtype", dtype, "a string", error);
        size += strlen(name) + 1 + strlen(json_string_value(dtype)) + 1;
        file->count++;
    }
    file->strings = malloc(size);
    file->entries = calloc(file->count + 1, sizeof *file->entries);
    if (!file->strings || !file->entries)
        return zi_fail_memory(error, file->path, size + (file->count + 1) * sizeof *file->entries);
    return ZIMAGE_OK;
}

static const char *keep_string(char **end, const char *text)
{
    size_t size = strlen(text) + 1;
    char *kept = memcpy(*end, text, size);
    *end += size;
    return kept;
}

static zimage_status read_entries(zi_safetensors *file, json_t *header, buffer data, zimage_error *error)
{
    const char *name;
    json_t *object;
    ZI_TRY(check_metadata(file->path, json_object_get(header, METADATA), error));
    ZI_TRY(allocate_entries(file, header, error));
    zi_entry *entry = file->entries;
    char *end = file->strings;
    json_object_foreach(header, name, object)
    {
        if (strcmp(name, METADATA) == 0)
            continue;
        entry->file = file;
        entry->path = file->path;
        entry->weight.name = keep_string(&end, name);
        entry->dtype = keep_string(&end, json_string_value(json_object_get(object, "dtype")));
        ZI_TRY(read_entry(entry, object, data, error));
        entry++;
    }
    return ZIMAGE_OK;
}

static int compare_places(const void *a, const void *b)
{
    const zi_weight *x = &((const zi_entry *)a)->weight, *y = &((const zi_entry *)b)->weight;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* The tensors must cover the data exactly: an overlap would share memory between weights, a hole could hide data. */
static zimage_status check_tiling(zi_safetensors *file, buffer data, zimage_error *error)
{
    size_t covered = 0;
    qsort(file->entries, file->count, sizeof *file->entries, compare_places);
    for (size_t i = 0; i < file->count; i++) {
        const zi_weight *weight = &file->entries[i].weight;
        size_t begin = (size_t)(weight->data - data.data);
        if (begin < covered)
            return zi_fail(error, ZIMAGE_ERROR_FORMAT,
                           TENSOR "\"data_offsets\" begin at %zu and overlap tensor \"%.200s\", which ends at %zu",
                           file->path, weight->name, begin, file->entries[i - 1].weight.name, covered);
        if (begin > covered)
            return zi_fail(error, ZIMAGE_ERROR_FORMAT,
                           TENSOR
                           "\"data_offsets\" begin at %zu and leave a hole: bytes %zu to %zu belong to no tensor",
                           file->path, weight->name, begin, covered, begin);
        covered = begin + weight->bytes;
    }
    if (covered != data.size)
        return zi_fail(
            error, ZIMAGE_ERROR_FORMAT,
            "%s: the tensors' \"data_offsets\" end at %zu, but the file has %zu bytes of data: the rest belongs "
            "to no tensor",
            file->path, covered, data.size);
    return ZIMAGE_OK;
}

/* Reads the length of the header. */
static zimage_status read_length(const zi_file *file, size_t *header, zimage_error *error)
{
    uint8_t bytes[LENGTH_BYTES];
    uint64_t length = 0;
    if (file->size < LENGTH_BYTES)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT,
                       "%s: this is not a safetensors file: it has %llu bytes, fewer than %d", file->path,
                       (unsigned long long)file->size, LENGTH_BYTES);
    ZI_TRY(zi_file_read(file, 0, bytes, LENGTH_BYTES, error));
    for (int i = 0; i < LENGTH_BYTES; i++)
        length |= (uint64_t)bytes[i] << 8 * i;
    if (length == 0)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, "%s: this is not a safetensors file: its header length is 0",
                       file->path);
    if (length > file->size - LENGTH_BYTES)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT,
                       "%s: the header length is %llu, but only %llu bytes follow it: the file is truncated or not a "
                       "safetensors file",
                       file->path, (unsigned long long)length, (unsigned long long)(file->size - LENGTH_BYTES));
    if (length > ZI_HEADER_BYTES)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, "%s: the header length is %llu, expected at most %zu", file->path,
                       (unsigned long long)length, ZI_HEADER_BYTES);
    *header = (size_t)length;
    return ZIMAGE_OK;
}

static zimage_status parse_header(zi_safetensors *file, buffer text, buffer data, zimage_error *error)
{
    json_t *header = NULL;
    if (text.data[0] != '{')
        return zi_fail(error, ZIMAGE_ERROR_FORMAT,
                       "%s: this is not a safetensors file: its header does not begin with '{'", file->path);
    ZI_TRY(
        zi_json_parse(file->path, "the header", &zi_header_limits, (const char *)text.data, text.size, &header, error));
    zimage_status status = read_entries(file, header, data, error);
    json_decref(header);
    if (status == ZIMAGE_OK)
        status = check_tiling(file, data, error);
    if (status == ZIMAGE_OK)
        zi_entries_sort(file->entries, file->count);
    return status;
}

/* The header is read, not mapped: nothing changes it while it is parsed, and a file that becomes shorter meanwhile is
 * an error instead of a signal. */
static zimage_status read_file(zi_safetensors *file, const zi_file *source, zimage_error *error)
{
    size_t length = 0;
    ZI_TRY(read_length(source, &length, error));
    uint8_t *text = malloc(length);
    if (!text)
        return zi_fail_memory(error, file->path, length);
    zimage_status status = zi_file_read(source, LENGTH_BYTES, text, length, error);
    if (status == ZIMAGE_OK)
        status = zi_map_file(source, &file->mapping, error);
    const size_t begin = LENGTH_BYTES + length;
    if (status == ZIMAGE_OK)
        status = parse_header(file, (buffer){text, length},
                              (buffer){file->mapping.data + begin, file->mapping.size - begin}, error);
    free(text);
    return status;
}

zimage_status zi_safetensors_open(const char *path, zi_safetensors *file, zimage_error *error)
{
    zi_file source;
    memset(file, 0, sizeof *file);
    file->path = strdup(path);
    if (!file->path)
        return zi_fail_memory(error, "a path", strlen(path) + 1);
    zimage_status status = zi_file_open(file->path, &source, error);
    if (status == ZIMAGE_OK) {
        status = read_file(file, &source, error);
        zi_file_close(&source);
    }
    if (status != ZIMAGE_OK)
        zi_safetensors_close(file);
    return status;
}

zimage_status zi_safetensors_check(const zi_safetensors *file, int *written, zimage_error *error)
{
    *written = 0;
    return file->in_memory ? ZIMAGE_OK : zi_mapping_check(&file->mapping, file->path, written, error);
}

void zi_safetensors_close(zi_safetensors *file)
{
    free(file->entries);
    free(file->strings);
    zi_unmap(&file->mapping);
    free(file->path);
    memset(file, 0, sizeof *file);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const zi_entry *)a)->weight.name, ((const zi_entry *)b)->weight.name);
}

void zi_entries_sort(zi_entry *entries, size_t count)
{
    if (count > 0)
        qsort(entries, count, sizeof *entries, compare_names);
}

const zi_entry *zi_entries_find(const zi_entry *entries, size_t count, const char *name)
{
    zi_entry key = {.weight.name = name};
    return count > 0 ? bsearch(&key, entries, count, sizeof *entries, compare_names) : NULL;
}
