#include "weights/write.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/output.h"

/* The bytes of the data; -1: the arguments do not describe a tensor. */
static int64_t data_bytes(const char *name, const int64_t *shape, int dims)
{
    int64_t bytes = sizeof(float);
    if (dims < 0 || dims > 4 || strcmp(name, "__metadata__") == 0)
        return -1;
    for (int i = 0; i < dims; i++)
        if (shape[i] < 0 || __builtin_mul_overflow(bytes, shape[i], &bytes))
            return -1;
    return bytes;
}

/* {"NAME": {"dtype": "F32", "shape": [...], "data_offsets": [0, bytes]}} */
static zimage_status make_header(const char *path, const char *name, const int64_t *shape, int dims, int64_t bytes,
                                 json_t **header, zimage_error *error)
{
    json_error_t problem = {0};
    *header = json_pack_ex(&problem, 0, "{s: {s: s, s: [], s: [I, I]}}", name, "dtype", "F32", "shape", "data_offsets",
                           (json_int_t)0, (json_int_t)bytes);
    if (!*header && json_error_code(&problem) == json_error_invalid_utf8)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "%s: the tensor's name is not UTF-8", path);
    json_t *sizes = json_object_get(json_object_get(*header, name), "shape");
    for (int i = 0; sizes && i < dims; i++)
        if (json_array_append_new(sizes, json_integer(shape[i])) != 0)
            sizes = NULL;
    if (sizes)
        return ZIMAGE_OK;
    json_decref(*header);
    return zi_fail_memory(error, "a safetensors header", 0);
}

/* The length of the header and its text, padded with spaces so that the data is aligned; NULL: out of memory. */
static uint8_t *header_bytes(const json_t *header, size_t *size)
{
    size_t length = json_dumpb(header, NULL, 0, JSON_COMPACT);
    size_t padded = (length + 7) / 8 * 8;
    uint8_t *bytes = length ? malloc(8 + padded) : NULL;
    if (!bytes)
        return NULL;
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)padded >> 8 * i);
    memset(bytes + 8, ' ', padded);
    if (json_dumpb(header, (char *)bytes + 8, length, JSON_COMPACT) != length) {
        free(bytes);
        return NULL;
    }
    *size = 8 + padded;
    return bytes;
}

/* A write that fails here is reported by zi_output_commit. */
static zimage_status write_bytes(zi_output *output, const char *name, const float *data, const int64_t *shape, int dims,
                                 zimage_error *error)
{
    int64_t bytes = data_bytes(name, shape, dims);
    if (bytes < 0)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "%s: tensor \"%.200s\" can't be written: its shape or name is invalid", output->path, name);
    json_t *header = NULL;
    ZI_TRY(make_header(output->path, name, shape, dims, bytes, &header, error));
    size_t size = 0;
    uint8_t *text = header_bytes(header, &size);
    json_decref(header);
    if (!text)
        return zi_fail_memory(error, "a safetensors header", 0);
    if (zi_output_write(output, text, size))
        zi_output_write(output, data, (size_t)bytes);
    free(text);
    return ZIMAGE_OK;
}

zimage_status zi_safetensors_write_to(zi_output *output, const char *name, const float *data, const int64_t *shape,
                                      int dims, zimage_error *error)
{
    zimage_status status = write_bytes(output, name, data, shape, dims, error);
    if (status == ZIMAGE_OK)
        return zi_output_commit(output, error);
    zi_output_abandon(output);
    return status;
}

zimage_status zi_safetensors_write(const char *path, const char *name, const float *data, const int64_t *shape,
                                   int dims, zimage_error *error)
{
    zi_output output;
    ZI_TRY(zi_output_open(&output, path, error));
    return zi_safetensors_write_to(&output, name, data, shape, dims, error);
}
