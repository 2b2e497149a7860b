#include "weights/memory.h"

#include <stdlib.h>
#include <string.h>

#include "base/free_memory.h"
#include "base/numbers.h"
#include "weights/convert.h"

#define ALIGNMENT 64
#define PIECE     ZI_MIB       /* bytes that one task copies */
#define BLOCK     (8 * ZI_MIB) /* bytes of random numbers; they are followed by one more piece */
#define STRIDE    ((size_t)977 * ALIGNMENT)

/* ---- specs ------------------------------------------------------------------------------------------------------- */

static int make_room(zi_tensor_specs *specs)
{
    if (specs->count < specs->capacity)
        return 1;
    size_t capacity = specs->capacity ? 2 * specs->capacity : 256;
    zi_tensor_spec *list = realloc(specs->list, capacity * sizeof *list);
    if (!list)
        return 0;
    specs->list = list;
    specs->capacity = capacity;
    return 1;
}

void zi_specs_add(zi_tensor_specs *specs, const char *name, int dims, const int64_t *shape)
{
    char *copy = strdup(name);
    if (!copy || !make_room(specs)) {
        free(copy);
        specs->failed = 1;
        return;
    }
    zi_tensor_spec *spec = &specs->list[specs->count++];
    *spec = (zi_tensor_spec){.name = copy, .dims = dims};
    memcpy(spec->shape, shape, (size_t)dims * sizeof *shape);
}

void zi_specs_free(zi_tensor_specs *specs)
{
    if (!specs)
        return;
    for (size_t i = 0; i < specs->count; i++)
        free(specs->list[i].name);
    free(specs->list);
    free(specs);
}

/* ---- random numbers ---------------------------------------------------------------------------------------------- */

/* The bits of a number with random sign and fraction, from 2^-9 to 2^-5 in size, divided by 2^down. */
static uint32_t random_number(zi_dtype dtype, int down, uint64_t random)
{
    uint32_t sign = (uint32_t)(random >> 63), fraction = (uint32_t)random;
    uint32_t exponent = ((uint32_t)(random >> 61) & 3) - (uint32_t)down;
    switch (dtype) {
    case ZI_F32:
        return sign << 31 | (127 - 9 + exponent) << 23 | (fraction & 0x7fffff);
    case ZI_BF16:
        return sign << 15 | (127 - 9 + exponent) << 7 | (fraction & 0x7f);
    case ZI_F16:
        return sign << 15 | (15 - 9 + exponent) << 10 | (fraction & 0x3ff);
    default: /* ZI_GROUPED: words of whole numbers */
        return fraction;
    }
}

static void make_block(uint8_t *block, zi_dtype dtype, int down)
{
    size_t size = dtype == ZI_GROUPED ? sizeof(uint32_t) : zi_dtype_size(dtype);
    uint64_t state = 0x9E3779B97F4A7C15u;
    for (size_t i = 0; i < BLOCK + PIECE; i += size) {
        uint32_t bits = random_number(dtype, down, zi_random_next(&state) * 0x2545F4914F6CDD1Du); /* xorshift64* */
        uint16_t half = (uint16_t)bits;
        memcpy(block + i, size == 4 ? (const void *)&bits : (const void *)&half, size);
    }
}

typedef struct copying {
    uint8_t *target;
    size_t bytes, salt;
    const uint8_t *block;
} copying;

static void copy_task(void *arg, int64_t task, int worker)
{
    const copying *c = arg;
    size_t first = (size_t)task * PIECE, bytes = zi_min_size(c->bytes - first, PIECE);
    memcpy(c->target + first, c->block + (c->salt + (size_t)task) * STRIDE % BLOCK, bytes);
}

/* salt makes tensors begin at different places of the block. */
static void copy_block(zi_pool *pool, const uint8_t *block, uint8_t *target, size_t bytes, size_t salt)
{
    copying c = {target, bytes, salt, block};
    zi_pool_run(pool, copy_task, &c, (int64_t)((bytes + PIECE - 1) / PIECE));
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* A matrix of one row is a pad token, which quantisers leave alone. */
static int is_grouped(const zi_tensor_spec *spec, const zi_memory_format *format)
{
    return format->bits && spec->dims == 2 && spec->shape[0] > 1 && spec->shape[1] % format->group == 0;
}

static zi_weight describe(const zi_tensor_spec *spec, const zi_memory_format *format, const char *name)
{
    zi_weight weight = {.name = name, .dtype = format->dtype, .dims = spec->dims};
    memcpy(weight.shape, spec->shape, sizeof spec->shape);
    size_t count = (size_t)zi_weight_count(&weight);
    weight.bytes = count * zi_dtype_size(format->dtype);
    if (is_grouped(spec, format)) {
        weight.dtype = ZI_GROUPED;
        weight.bits = format->bits;
        weight.group = format->group;
        weight.scale_dtype = format->dtype;
        weight.bytes = count / 8 * (size_t)format->bits;
    }
    return weight;
}

static size_t scale_bytes(const zi_weight *weight)
{
    if (weight->dtype != ZI_GROUPED || weight->group == 0)
        return 0;
    return (size_t)(zi_weight_count(weight) / weight->group) * zi_dtype_size(weight->scale_dtype);
}

/* Describes every tensor; returns the bytes of all. */
static size_t describe_all(const zi_tensor_specs *specs, const char *label, const zi_memory_format *format,
                           zi_safetensors *file)
{
    size_t total = 0;
    char *string = file->strings;
    for (size_t i = 0; i < specs->count; i++) {
        zi_weight weight = describe(&specs->list[i], format, string);
        file->entries[i] = (zi_entry){.weight = weight,
                                      .dtype = zi_dtype_name(weight.dtype),
                                      .rank = (size_t)weight.dims,
                                      .file = file,
                                      .path = label};
        total += aligned(weight.bytes) + 2 * aligned(scale_bytes(&weight));
        string = stpcpy(string, specs->list[i].name) + 1;
    }
    file->count = specs->count;
    zi_entries_sort(file->entries, file->count);
    return total;
}

/* Linux maps more memory than there is, and ends the process when the memory is used. */
static zimage_status check_size(const char *label, size_t bytes, zimage_error *error)
{
    uint64_t free = zi_free_memory();
    if (bytes < free)
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_MEMORY, "%s: the weights need %llu MiB, but %llu MiB of memory are free", label,
                   zi_mib(bytes), (unsigned long long)(free / ZI_MIB));
}

/*
 * The random blocks that tensors are copied from: numbers; larger numbers for vectors (gains and biases: with small
 * ones a layer would not change the result); words of packed whole numbers, and scales for these.
 */
enum { NUMBERS, VECTORS, WORDS, SCALES, BLOCKS };

static void place_weights(zi_safetensors *file)
{
    uint8_t *next = (uint8_t *)file->mapping.data;
    for (size_t i = 0; i < file->count; i++) {
        zi_weight *weight = &file->entries[i].weight;
        size_t scales = scale_bytes(weight);
        weight->data = next;
        next += aligned(weight->bytes);
        weight->scales = scales ? next : NULL;
        weight->biases = scales ? next + aligned(scales) : NULL;
        next += 2 * aligned(scales);
    }
}

static void fill_weight(const zi_weight *weight, uint8_t *const *blocks, zi_pool *pool, size_t salt)
{
    size_t scales = scale_bytes(weight);
    int block = weight->dtype == ZI_GROUPED ? WORDS : weight->dims == 1 ? VECTORS : NUMBERS;
    copy_block(pool, blocks[block], (uint8_t *)weight->data, weight->bytes, salt);
    if (scales) {
        copy_block(pool, blocks[SCALES], (uint8_t *)weight->scales, scales, salt);
        copy_block(pool, blocks[NUMBERS], (uint8_t *)weight->biases, scales, salt);
    }
}

static zimage_status fill_all(zi_safetensors *file, const zi_memory_format *format, zi_pool *pool, zimage_error *error)
{
    zi_mapping memory; /* mapped: unlike memory of malloc it goes back to the system at once */
    ZI_TRY(check_size(file->path, BLOCKS * (BLOCK + PIECE), error));
    ZI_TRY(zi_map_memory(file->path, BLOCKS * (BLOCK + PIECE), &memory, error));
    uint8_t *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = (uint8_t *)memory.data + (size_t)i * (BLOCK + PIECE);
    make_block(blocks[NUMBERS], format->dtype, 0);
    make_block(blocks[VECTORS], format->dtype, -6);
    if (format->bits) {
        make_block(blocks[WORDS], ZI_GROUPED, 0);
        make_block(blocks[SCALES], format->dtype, format->bits);
    }
    for (size_t i = 0; i < file->count; i++)
        fill_weight(&file->entries[i].weight, blocks, pool, i);
    zi_unmap(&memory);
    return ZIMAGE_OK;
}

static void remove_signs(const zi_tensor_specs *specs, zi_safetensors *file)
{
    for (size_t i = 0; i < specs->count; i++) {
        const zi_entry *entry =
            specs->list[i].positive ? zi_entries_find(file->entries, file->count, specs->list[i].name) : NULL;
        size_t size = entry ? zi_dtype_size(entry->weight.dtype) : 0;
        for (size_t byte = size - 1; size > 0 && byte < entry->weight.bytes; byte += size)
            ((uint8_t *)entry->weight.data)[byte] &= 0x7f;
    }
}

static size_t names_size(const zi_tensor_specs *specs)
{
    size_t size = 1;
    for (size_t i = 0; i < specs->count; i++)
        size += strlen(specs->list[i].name) + 1;
    return size;
}

static zimage_status make_file(const zi_tensor_specs *specs, const char *label, const zi_memory_format *format,
                               zi_pool *pool, zi_safetensors *file, zimage_error *error)
{
    size_t bytes = (specs->count + 1) * sizeof *file->entries;
    file->path = strdup(label);
    file->strings = malloc(names_size(specs));
    file->entries = calloc(specs->count + 1, sizeof *file->entries);
    if (specs->failed || !file->path || !file->strings || !file->entries)
        return zi_fail_memory(error, label, bytes);
    size_t all = describe_all(specs, file->path, format, file);
    if (pool)
        ZI_TRY(check_size(label, all, error));
    ZI_TRY(zi_map_memory(label, all, &file->mapping, error));
    place_weights(file);
    if (!pool)
        return ZIMAGE_OK;
    ZI_TRY(fill_all(file, format, pool, error));
    remove_signs(specs, file);
    return ZIMAGE_OK;
}

zimage_status zi_specs_fill(const zi_tensor_specs *specs, const char *label, const zi_memory_format *format,
                            zi_pool *pool, zi_safetensors *file, zimage_error *error)
{
    *file = (zi_safetensors){.in_memory = 1};
    if (!zi_is_float(format->dtype))
        return zi_fail(error, ZIMAGE_ERROR_INTERNAL, "%s: the dtype of the weights: %s, expected F32, F16 or BF16",
                       label, zi_dtype_name(format->dtype));
    zimage_status status = make_file(specs, label, format, pool, file, error);
    if (status != ZIMAGE_OK)
        zi_safetensors_close(file);
    return status;
}
