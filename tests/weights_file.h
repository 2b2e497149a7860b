/* Files of weights that tests make by a function of their names. */
#ifndef ZI_TESTS_WEIGHTS_FILE_H
#define ZI_TESTS_WEIGHTS_FILE_H

#include "files.h"
#include "support.h"
#include "weights/store.h"

static inline uint32_t crc32_of(const char *text)
{
    uint32_t crc = 0xffffffffu;
    for (; *text; text++) {
        crc ^= (uint8_t)*text;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

/* out <- the tensor of that name */
typedef void make_weight(const char *name, int dims, const int64_t *shape, float *out);

/* A safetensors file in the making. */
typedef struct weights_file {
    make_weight *make;
    char header[1 << 16];
    size_t length;
    float *data;
    size_t used, capacity; /* values */
} weights_file;

static inline weights_file *weights_new(make_weight *make)
{
    weights_file *file = calloc(1, sizeof *file);
    assert_non_null(file);
    file->make = make;
    file->capacity = 1 << 20;
    file->data = malloc(file->capacity * sizeof *file->data);
    assert_non_null(file->data);
    file->length = (size_t)snprintf(file->header, sizeof file->header, "{");
    return file;
}

static inline void add(weights_file *file, const char *prefix, const char *name, int dims, const int64_t *shape)
{
    char full[128];
    size_t count = 1;
    assert_true((size_t)snprintf(full, sizeof full, "%s%s", prefix, name) < sizeof full);
    for (int i = 0; i < dims; i++)
        count *= (size_t)shape[i];
    assert_true(file->used + count <= file->capacity && file->length + 256 < sizeof file->header);
    file->make(full, dims, shape, file->data + file->used);
    file->length += (size_t)sprintf(file->header + file->length, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[",
                                    file->used ? "," : "", full);
    for (int i = 0; i < dims; i++)
        file->length += (size_t)sprintf(file->header + file->length, "%s%lld", i ? "," : "", (long long)shape[i]);
    file->length += (size_t)sprintf(file->header + file->length, "],\"data_offsets\":[%zu,%zu]}", file->used * 4,
                                    (file->used + count) * 4);
    file->used += count;
}

static inline void add1(weights_file *file, const char *prefix, const char *name, int64_t count)
{
    add(file, prefix, name, 1, &count);
}

static inline void add2(weights_file *file, const char *prefix, const char *name, int64_t out, int64_t in)
{
    const int64_t shape[] = {out, in};
    add(file, prefix, name, 2, shape);
}

/* NAME.weight and NAME.bias: a linear layer, a norm (in 0) or a convolution (kernel > 0). */
static inline void add_pair(weights_file *file, const char *prefix, const char *name, int64_t out, int64_t in,
                            int64_t kernel)
{
    char weight[128], bias[128];
    const int64_t shape[] = {out, in, kernel, kernel};
    assert_true((size_t)snprintf(weight, sizeof weight, "%s.weight", name) < sizeof weight);
    assert_true((size_t)snprintf(bias, sizeof bias, "%s.bias", name) < sizeof bias);
    add(file, prefix, weight, kernel ? 4 : in ? 2 : 1, shape);
    add1(file, prefix, bias, out);
}

/* Writes and opens the file, and frees the builder. */
static inline zi_store *weights_open(weights_file *file)
{
    const char *path = temporary("model.safetensors");
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *store = NULL;
    file->length += (size_t)sprintf(file->header + file->length, "}");
    while (file->length % 8 != 0)
        file->header[file->length++] = ' ';
    size_t size = 8 + file->length + file->used * sizeof(float);
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)file->length >> 8 * i);
    memcpy(bytes + 8, file->header, file->length);
    memcpy(bytes + 8 + file->length, file->data, file->used * sizeof(float));
    write_bytes(path, bytes, size);
    free(bytes);
    free(file->data);
    free(file);
    if (zi_store_open_file(path, &store, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return store;
}

#endif
