#include "weights/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ALIGNMENT 64
#define PIECE     ((size_t)1 << 20) /* bytes of a task */
#define BLOCK     ((size_t)8 << 20) /* bytes of random numbers; a piece more lies behind */
#define STRIDE    ((size_t)977 * ALIGNMENT)

/* ---- notes ------------------------------------------------------------------------------------------------------- */

static int make_room(zi_wishes *wishes)
{
    if (wishes->count < wishes->capacity)
        return 1;
    size_t capacity = wishes->capacity ? 2 * wishes->capacity : 256;
    zi_wish *list = realloc(wishes->list, capacity * sizeof *list);
    if (!list)
        return 0;
    wishes->list = list;
    wishes->capacity = capacity;
    return 1;
}

void zi_wishes_add(zi_wishes *wishes, const char *name, int dims, const int64_t *shape)
{
    char *copy = strdup(name);
    if (!copy || !make_room(wishes)) {
        free(copy);
        wishes->failed = 1;
        return;
    }
    zi_wish *wish = &wishes->list[wishes->count++];
    *wish = (zi_wish){.name = copy, .dims = dims};
    memcpy(wish->shape, shape, (size_t)dims * sizeof *shape);
}

void zi_wishes_free(zi_wishes *wishes)
{
    if (!wishes)
        return;
    for (size_t i = 0; i < wishes->count; i++)
        free(wishes->list[i].name);
    free(wishes->list);
    free(wishes);
}

/* ---- random numbers ---------------------------------------------------------------------------------------------- */

/* The bits of a number of random sign and fraction, 2^-9 to 2^-5. */
static uint32_t random_number(zi_dtype dtype, uint64_t random)
{
    uint32_t sign = (uint32_t)(random >> 63), exponent = (uint32_t)(random >> 61) & 3, fraction = (uint32_t)random;
    switch (dtype) {
    case ZI_F32:
        return sign << 31 | (127 - 9 + exponent) << 23 | (fraction & 0x7fffff);
    case ZI_BF16:
        return sign << 15 | (127 - 9 + exponent) << 7 | (fraction & 0x7f);
    default:
        return sign << 15 | (15 - 9 + exponent) << 10 | (fraction & 0x3ff);
    }
}

static void make_block(uint8_t *block, zi_dtype dtype)
{
    size_t size = zi_dtype_size(dtype);
    uint64_t state = 0x9E3779B97F4A7C15u;
    for (size_t i = 0; i < BLOCK + PIECE; i += size) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        uint32_t bits = random_number(dtype, state * 0x2545F4914F6CDD1Du);
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
    size_t first = (size_t)task * PIECE, bytes = c->bytes - first < PIECE ? c->bytes - first : PIECE;
    memcpy(c->target + first, c->block + (c->salt + (size_t)task) * STRIDE % BLOCK, bytes);
}

/* salt: so that tensors begin at different places of the block. */
static void copy_block(zi_pool *pool, const uint8_t *block, uint8_t *target, size_t bytes, size_t salt)
{
    copying c = {target, bytes, salt, block};
    zi_pool_run(pool, copy_task, &c, (int64_t)((bytes + PIECE - 1) / PIECE));
}

/* ---- granting ---------------------------------------------------------------------------------------------------- */

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Places every tensor behind the one before; data holds the offset until the memory is there. */
static size_t place(const zi_wishes *wishes, const char *label, zi_dtype dtype, zi_safetensors *file)
{
    size_t total = 0;
    char *string = file->strings;
    for (size_t i = 0; i < wishes->count; i++) {
        const zi_wish *wish = &wishes->list[i];
        zi_entry *entry = &file->entries[i];
        entry->path = label;
        entry->dtype = zi_dtype_name(dtype);
        entry->weight = (zi_weight){.name = string, .dtype = dtype, .dims = wish->dims};
        memcpy(entry->weight.shape, wish->shape, sizeof wish->shape);
        entry->weight.bytes = (size_t)zi_weight_count(&entry->weight) * zi_dtype_size(dtype);
        total += aligned(entry->weight.bytes);
        string = stpcpy(string, wish->name) + 1;
    }
    file->count = wishes->count;
    zi_entries_sort(file->entries, file->count);
    return total;
}

/* The system would grant more than there is and end the process when it is used. */
static zimage_status check_size(const char *label, size_t bytes, zimage_error *error)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (pages <= 0 || page <= 0 || bytes / (size_t)page < (size_t)pages)
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_MEMORY, "%s: the weights need %zu MiB, but this machine has %zu MiB of memory",
                   label, bytes >> 20, (size_t)pages / 1024 * (size_t)page / 1024);
}

static zimage_status map_memory(const char *label, size_t bytes, zi_mapping *mapping, zimage_error *error)
{
    ZI_TRY(check_size(label, bytes, error));
    void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        return zi_fail_memory(error, label, bytes);
    *mapping = (zi_mapping){data, bytes};
    return ZIMAGE_OK;
}

static zimage_status fill(zi_safetensors *file, zi_dtype dtype, zi_pool *pool, zimage_error *error)
{
    zi_mapping block; /* not by malloc: it really goes back */
    uint8_t *target = (uint8_t *)file->mapping.data;
    ZI_TRY(map_memory(file->path, BLOCK + PIECE, &block, error));
    make_block((uint8_t *)block.data, dtype);
    for (size_t i = 0; i < file->count; i++) {
        zi_weight *weight = &file->entries[i].weight;
        weight->data = target;
        copy_block(pool, block.data, target, weight->bytes, i);
        target += aligned(weight->bytes);
    }
    zi_unmap(&block);
    return ZIMAGE_OK;
}

static size_t names_size(const zi_wishes *wishes)
{
    size_t size = 1;
    for (size_t i = 0; i < wishes->count; i++)
        size += strlen(wishes->list[i].name) + 1;
    return size;
}

static zimage_status grant(const zi_wishes *wishes, const char *label, zi_dtype dtype, zi_pool *pool,
                           zi_safetensors *file, zimage_error *error)
{
    size_t bytes = (wishes->count + 1) * sizeof *file->entries;
    file->path = strdup(label);
    file->strings = malloc(names_size(wishes));
    file->entries = calloc(wishes->count + 1, sizeof *file->entries);
    if (wishes->failed || !file->path || !file->strings || !file->entries)
        return zi_fail_memory(error, label, bytes);
    ZI_TRY(map_memory(label, place(wishes, file->path, dtype, file), &file->mapping, error));
    return fill(file, dtype, pool, error);
}

zimage_status zi_wishes_grant(const zi_wishes *wishes, const char *label, zi_dtype dtype, zi_pool *pool,
                              zi_safetensors *file, zimage_error *error)
{
    *file = (zi_safetensors){.in_memory = 1};
    zimage_status status = grant(wishes, label, dtype, pool, file, error);
    if (status != ZIMAGE_OK)
        zi_safetensors_close(file);
    return status;
}
