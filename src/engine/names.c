/* The public functions that need no model: names, versions, tensors in files. */
#include <stdlib.h>
#include <string.h>

#include "base/mapping.h"
#include "base/output.h"
#include "base/system.h"
#include "weights/store.h"
#include "weights/write.h"

const char *zimage_status_name(zimage_status status)
{
    static const char *const names[] = {
        "ok",         "invalid argument", "file error",  "malformed file", "model error", "out of memory",
        "not finite", "cancelled",        "unsupported", "internal error",
    };
    return (unsigned)status < sizeof names / sizeof *names ? names[status] : "unknown status";
}

/* ---- enums, both ways -------------------------------------------------------------------------------------------- */

static const char *const compute_names[] = {"auto", "f32", "bf16", "int8", "fp8", NULL};
static const char *const dequantize_names[] = {"none", "bf16", "f32", NULL};
static const char *const rng_names[] = {"torch-cpu", "torch-cuda", "mlx", "numpy", NULL};
static const char *const stage_names[] = {"text_encoder", "context", "denoise", "vae_decode", "vae_encode", NULL};
static const char *const format_names[] = {"png", "jpeg", "webp", NULL};
static const char *const template_names[] = {"none", "z-image", "klein", NULL};

static const char *name_of(const char *const *names, unsigned value)
{
    for (unsigned i = 0; names[i]; i++)
        if (i == value)
            return names[i];
    return "unknown";
}

/* The place of a name in the list; -1: it is not there. */
static int find_name(const char *const *names, const char *name)
{
    for (int i = 0; name && names[i]; i++)
        if (!strcmp(names[i], name))
            return i;
    return -1;
}

#define ENUM_NAMES(kind)                                                                                               \
    const char *zimage_##kind##_name(zimage_##kind value)                                                              \
    {                                                                                                                  \
        return name_of(kind##_names, (unsigned)value);                                                                 \
    }                                                                                                                  \
    int zimage_##kind##_parse(const char *name, zimage_##kind *value)                                                  \
    {                                                                                                                  \
        int found = find_name(kind##_names, name);                                                                     \
        if (found >= 0 && value)                                                                                       \
            *value = (zimage_##kind)found;                                                                             \
        return found >= 0;                                                                                             \
    }

ENUM_NAMES(compute)
ENUM_NAMES(dequantize)
ENUM_NAMES(rng)
ENUM_NAMES(stage)
ENUM_NAMES(format)
ENUM_NAMES(template)

#define STRING(x)             #x
#define VERSION_TEXT(a, b, c) STRING(a) "." STRING(b) "." STRING(c)

const char *zimage_version(void)
{
    return VERSION_TEXT(ZIMAGE_VERSION_MAJOR, ZIMAGE_VERSION_MINOR, ZIMAGE_VERSION_PATCH);
}

const char *zimage_replace_lost_pages(const void *address)
{
    return zi_mapping_repair(address);
}

void zimage_remove_temporary_files(void)
{
    zi_output_remove_temporaries();
}

uint64_t zimage_peak_rss_bytes(void)
{
    return zi_peak_resident_bytes();
}

void zimage_free(void *data)
{
    free(data);
}

/* The dtype of a tensor of the store, as its file names it. */
static const char *stored_dtype(const zi_store *store, const zi_weight *weight)
{
    size_t index = 0;
    while (zi_store_at(store, index) != weight)
        index++;
    return zi_store_dtype_of(store, index);
}

static zimage_status unpack_named(const zi_store *store, const char *path, const char *name, float **data,
                                  int64_t shape[4], int32_t *dimensions, zimage_error *error)
{
    const zi_weight *weight = zi_store_find(store, name);
    if (!weight)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, "%s: there is no tensor \"%s\"", path, name);
    if (!zi_dtype_size(weight->dtype))
        return zi_fail(error, ZIMAGE_ERROR_FORMAT,
                       "%s: tensor \"%s\" is %s, expected F32, F16 or BF16 of at most 4 dimensions", path, name,
                       stored_dtype(store, weight));
    int64_t count = zi_weight_count(weight);
    float *values = malloc(count > 0 ? (size_t)count * sizeof(float) : 1);
    if (!values)
        return zi_fail_memory(error, name, (size_t)count * sizeof(float));
    zi_weight_unpack(weight, 0, count, values);
    for (int i = 0; i < 4; i++)
        shape[i] = i < weight->dims ? weight->shape[i] : 1;
    *dimensions = weight->dims;
    *data = values;
    return ZIMAGE_OK;
}

zimage_status zimage_tensor_read(const char *path, const char *name, float **data, int64_t shape[4],
                                 int32_t *dimensions, zimage_error *error)
{
    zi_store *store = NULL;
    if (data)
        *data = NULL;
    if (!path || !name || !data || !shape || !dimensions)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "path, name, data, shape and dimensions: NULL, expected all five");
    ZI_TRY(zi_store_open_file(path, &store, error));
    zimage_status status = unpack_named(store, path, name, data, shape, dimensions, error);
    if (status == ZIMAGE_OK)
        status = zi_store_check(store, NULL, error);
    if (status != ZIMAGE_OK) {
        free(*data);
        *data = NULL;
    }
    zi_store_free(store);
    return status;
}

zimage_status zimage_tensor_write(const char *path, const char *name, const float *data, const int64_t *shape,
                                  int32_t dimensions, zimage_error *error)
{
    if (!path || !name || !data || !shape)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "path, name, data and shape: NULL, expected all four");
    return zi_safetensors_write(path, name, data, shape, dimensions, error);
}

zimage_status zimage_tensor_write_beneath(const char *folder, const char *file, const char *name, const float *data,
                                          const int64_t *shape, int32_t dimensions, zimage_error *error)
{
    zi_output output;
    if (!folder || !file || !name || !data || !shape)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "folder, file, name, data and shape: NULL, expected all five");
    ZI_TRY(zi_output_open_at(&output, &(zi_place){.path = file, .folder = folder}, error));
    return zi_safetensors_write_to(&output, name, data, shape, dimensions, error);
}
