#include "weights/convert.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHAPE_TEXT 96

const char *zi_shape_text(char *text, size_t size, int dims, const int64_t *shape)
{
    size_t length = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < dims && length < size; i++)
        length += (size_t)snprintf(text + length, size - length, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (length < size)
        snprintf(text + length, size - length, "]");
    return text;
}

/* ---- MLX's affine groups ----------------------------------------------------------------------------------------- */

/* The bits of a number, 32 * words / in; 0: MLX has no numbers of so many bits. */
static int bits_of_row(int64_t words, int64_t in)
{
    int64_t bits = words <= in ? 32 * words / in : 0;
    int known = (bits >= 1 && bits <= 6) || bits == 8;
    return known && bits * in == 32 * words ? (int)bits : 0;
}

/* The group size, in / scales; 0: MLX has no groups of that size. */
static int group_of_row(int64_t scales, int64_t in)
{
    int64_t group = scales > 0 ? in / scales : 0;
    int known = group == 32 || group == 64 || group == 128;
    return known && group * scales == in ? (int)group : 0;
}

/* Adds "X.scales: I32 [4, 2], expected WHAT", where part is "scales"; for entry NULL "X.scales: missing, ...". */
static void add_problem(zi_names *problems, const zi_entry *weight, const char *part, const zi_entry *entry,
                        const char *expected)
{
    char shape[SHAPE_TEXT];
    int stem = (int)(strlen(weight->weight.name) - strlen("weight"));
    stem = stem < 70 ? stem : 70;
    if (entry)
        zi_names_add(problems, "%.*s%s: %s %s, expected %s", stem, weight->weight.name, part, entry->dtype,
                     zi_shape_text(shape, sizeof shape, entry->weight.dims, entry->weight.shape), expected);
    else
        zi_names_add(problems, "%.*s%s: missing, expected %s", stem, weight->weight.name, part, expected);
}

int zi_is_float(zi_dtype dtype)
{
    return dtype == ZI_F32 || dtype == ZI_F16 || dtype == ZI_BF16;
}

static int has_rows(const zi_entry *entry, int64_t rows)
{
    return entry->weight.dims == 2 && entry->weight.shape[0] == rows;
}

static int same_kind(const zi_weight *a, const zi_weight *b)
{
    return a->dtype == b->dtype && a->dims == b->dims && memcmp(a->shape, b->shape, sizeof a->shape) == 0;
}

static uint64_t rotate(uint64_t bits, int by)
{
    return bits << by | bits >> (64 - by);
}

/* The id of a matrix of three tensors: stores that share only some of the three must not share the id. */
static uint64_t joined_id(uint64_t weight, uint64_t scales, uint64_t biases)
{
    return weight && scales && biases ? weight ^ rotate(scales, 21) ^ rotate(biases, 42) : 0;
}

int zi_entry_group(zi_entry *entry, const zi_entry *scales, const zi_entry *biases, const int64_t *shape,
                   zi_names *problems)
{
    char expected[160], text[SHAPE_TEXT];
    int64_t out = shape[0], in = shape[1];
    zi_weight *weight = &entry->weight;
    int bits = has_rows(entry, out) ? bits_of_row(weight->shape[1], in) : 0;
    if (!bits) {
        snprintf(expected, sizeof expected, "U32 [%lld, %lld * bits / 32] with 1 to 6 or 8 bits", (long long)out,
                 (long long)in);
        add_problem(problems, entry, "weight", entry, expected);
        return 0;
    }
    int group = scales && has_rows(scales, out) ? group_of_row(scales->weight.shape[1], in) : 0;
    if (!group || !zi_is_float(scales->weight.dtype)) {
        snprintf(expected, sizeof expected, "F32, F16 or BF16 [%lld, %lld / group] with groups of 32, 64 or 128",
                 (long long)out, (long long)in);
        add_problem(problems, entry, "scales", scales, expected);
        return 0;
    }
    if (!biases || !same_kind(&biases->weight, &scales->weight)) {
        snprintf(expected, sizeof expected, "%s %s as its scales", scales->dtype,
                 zi_shape_text(text, sizeof text, 2, scales->weight.shape));
        add_problem(problems, entry, "biases", biases, expected);
        return 0;
    }
    weight->id = joined_id(weight->id, scales->weight.id, biases->weight.id);
    weight->dtype = ZI_GROUPED;
    weight->shape[1] = in;
    weight->bits = bits;
    weight->group = group;
    weight->scale_dtype = scales->weight.dtype;
    weight->scales = scales->weight.data;
    weight->biases = biases->weight.data;
    return 1;
}

/* ---- copies in memory -------------------------------------------------------------------------------------------- */

/* The weight of entry becomes `data`, which entry owns from now on. */
static void replace(zi_entry *entry, zi_dtype dtype, void *data)
{
    zi_weight *weight = &entry->weight;
    weight->dtype = dtype;
    weight->data = entry->owned = data;
    weight->bytes = (size_t)zi_weight_count(weight) * zi_dtype_size(dtype);
    weight->mapped = 0;
}

#define PAGE_BYTES ((size_t)16 << 10) /* the largest of the systems that we know: Apple's */

/* Whole pages, so that a GPU which shares the host's memory can read them in place; NULL: out of memory. */
static void *page_aligned(size_t bytes)
{
    return bytes <= SIZE_MAX - PAGE_BYTES
               ? aligned_alloc(PAGE_BYTES, (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES)
               : NULL;
}

zimage_status zi_entry_expand(zi_entry *entry, zi_dtype dtype, zimage_error *error)
{
    const zi_weight *weight = &entry->weight;
    int64_t rows = weight->shape[0], columns = weight->shape[1];
    size_t bytes = (size_t)zi_weight_count(weight) * zi_dtype_size(dtype), row_bytes = (size_t)columns * sizeof(float);
    void *data = page_aligned(bytes);
    float *row = malloc(row_bytes);
    assert(weight->dtype == ZI_GROUPED && (dtype == ZI_F32 || dtype == ZI_BF16));
    if (!data || !row) {
        free(data);
        free(row);
        return zi_fail_memory(error, weight->name, bytes + row_bytes);
    }
    for (int64_t r = 0; r < rows; r++) {
        zi_weight_unpack(weight, r * columns, columns, row);
        if (dtype == ZI_F32)
            memcpy((float *)data + r * columns, row, row_bytes);
        for (int64_t c = 0; c < columns && dtype == ZI_BF16; c++)
            ((uint16_t *)data)[r * columns + c] = zi_f32_to_bf16(row[c]);
    }
    free(row);
    replace(entry, dtype, data);
    return ZIMAGE_OK;
}

zimage_status zi_entry_channels_first(zi_entry *entry, zimage_error *error)
{
    zi_weight *weight = &entry->weight;
    size_t size = zi_dtype_size(weight->dtype);
    int64_t outs = weight->shape[0], places = weight->shape[1] * weight->shape[2], channels = weight->shape[3];
    uint8_t *data = malloc(weight->bytes);
    if (!data)
        return zi_fail_memory(error, weight->name, weight->bytes);
    uint8_t *next = data;
    for (int64_t o = 0; o < outs; o++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t p = 0; p < places; p++, next += size)
                memcpy(next, weight->data + (size_t)((o * places + p) * channels + c) * size, size);
    const int64_t shape[] = {outs, channels, weight->shape[1], weight->shape[2]};
    memcpy(weight->shape, shape, sizeof shape);
    replace(entry, weight->dtype, data);
    return ZIMAGE_OK;
}
