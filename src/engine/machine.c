#include "engine/machine.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/system.h"

#define REPEATS 3

/* ---- measuring --------------------------------------------------------------------------------------------------- */

typedef struct trial {
    zi_tensor x, y, k, v;
    zi_weight weight;
    zi_attention_shape shape;
    zi_conv conv;
} trial;

static zimage_status run_linear(zi_ops *ops, trial *t)
{
    return ops->table->linear(ops, &t->y, &t->x, &t->weight, NULL, 0);
}

static zimage_status run_attention(zi_ops *ops, trial *t)
{
    return ops->table->attention(ops, &t->y, &t->x, &t->k, &t->v, &t->shape);
}

static zimage_status run_conv(zi_ops *ops, trial *t)
{
    return ops->table->conv2d(ops, &t->y, &t->x, &t->conv);
}

/* The best of a few runs, the first of which warms caches and threads. */
static zimage_status fastest(zi_ops *ops, zimage_status (*run)(zi_ops *, trial *), trial *t, double *seconds)
{
    *seconds = 1e9;
    for (int i = 0; i <= REPEATS; i++) {
        double start = zi_now();
        ZI_TRY(run(ops, t));
        ZI_TRY(zi_ops_finish(ops));
        double taken = zi_now() - start;
        if (i > 0 && taken < *seconds)
            *seconds = taken;
    }
    return ZIMAGE_OK;
}

static zimage_status make(zi_ops *ops, zi_tensor *tensor, int dims, const int64_t *shape)
{
    ZI_TRY(ops->table->alloc(ops, tensor, dims, shape));
    size_t count = (size_t)zi_tensor_count(tensor);
    float *values = malloc(count * sizeof *values);
    if (!values)
        return zi_fail_memory(ops->error, "a measurement", count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(i * 7919 % 1009) / 1009 - 0.5f;
    zimage_status status = ops->table->upload(ops, tensor, values);
    free(values);
    return status;
}

static zimage_status time_linear(zi_ops *ops, const zi_weight *weight, int64_t tokens, double *seconds)
{
    trial t = {.weight = *weight};
    const int64_t x[2] = {tokens, weight->shape[1]}, y[2] = {tokens, weight->shape[0]};
    ZI_TRY(make(ops, &t.x, 2, x));
    ZI_TRY(make(ops, &t.y, 2, y));
    return fastest(ops, run_linear, &t, seconds);
}

static zimage_status time_attention(zi_ops *ops, int64_t tokens, int64_t heads, int64_t dim, double *seconds)
{
    trial t = {.shape = {heads, heads, dim, 0}};
    const int64_t shape[2] = {tokens, heads * dim};
    ZI_TRY(make(ops, &t.x, 2, shape));
    ZI_TRY(make(ops, &t.y, 2, shape));
    ZI_TRY(make(ops, &t.k, 2, shape));
    ZI_TRY(make(ops, &t.v, 2, shape));
    return fastest(ops, run_attention, &t, seconds);
}

static zimage_status time_conv(zi_ops *ops, const zi_weight *weight, int64_t side, double *seconds)
{
    trial t = {.weight = *weight};
    const int64_t x[3] = {side, side, weight->shape[1]}, y[3] = {side, side, weight->shape[0]};
    ZI_TRY(make(ops, &t.x, 3, x));
    ZI_TRY(make(ops, &t.y, 3, y));
    t.conv = (zi_conv){.weight = &t.weight, .image_rows = side};
    return fastest(ops, run_conv, &t, seconds);
}

/* numbers: [size, size] stored as BF16. The oracle is some hundred times slower and gets smaller sizes. */
static zimage_status measure_with(zi_ops *ops, const uint8_t *numbers, int64_t size, zi_machine *machine)
{
    const int64_t many = size / 4, few = size / 32, side = size / 32, dim = 64, heads = size / 2 / dim,
                  channels = size / 8;
    zi_weight matrix = {.name = "a measurement", .dtype = ZI_BF16, .dims = 2, .shape = {size, size}, .data = numbers};
    zi_weight filter = {
        .name = "a measurement", .dtype = ZI_BF16, .dims = 4, .shape = {channels, channels, 3, 3}, .data = numbers};
    double short_run, long_run, attention, conv, weights = (double)size * (double)size;
    ZI_TRY(time_linear(ops, &matrix, many, &long_run));
    ZI_TRY(time_linear(ops, &matrix, few, &short_run));
    ZI_TRY(time_attention(ops, many, heads, dim, &attention));
    ZI_TRY(time_conv(ops, &filter, side, &conv));
    /* seconds = weights (2 tokens / linear + unpack) */
    double token = (long_run - short_run) / (double)(many - few);
    if (token <= 0) /* disturbed */
        token = long_run / (double)many;
    double rest = (long_run - token * (double)many) / weights;
    *machine = (zi_machine){
        .linear = 2 * weights / token,
        .attention = 4 * (double)(many * many * heads * dim) / attention,
        .conv = 2.0 * 9 * (double)(side * side * channels * channels) / conv,
        .unpack = rest > 0 ? rest : 0,
    };
    return ZIMAGE_OK;
}

static zimage_status measure(zi_ops *ops, zi_machine *machine, zimage_error *error)
{
    int64_t size = strcmp(ops->table->name, "reference") != 0 ? 1024 : 256;
    size_t bytes = (size_t)(size * size) * 2;
    uint8_t *numbers = malloc(bytes);
    if (!numbers)
        return zi_fail_memory(error, "a measurement", bytes);
    for (size_t i = 0; i < bytes; i++)
        numbers[i] = i % 2 ? 0x3c : (uint8_t)(i * 13); /* BF16 near 0.01 */
    zimage_error *before = ops->error;
    zi_arena_mark mark = ops->table->mark(ops);
    ops->error = error;
    zimage_status status = measure_with(ops, numbers, size, machine);
    if (ops->forget_weights && status == ZIMAGE_OK)
        status = ops->forget_weights(ops);
    ops->error = before;
    ops->table->release(ops, mark);
    free(numbers);
    return status;
}

/* ---- keeping ----------------------------------------------------------------------------------------------------- */

static void machine_key(const zi_ops *ops, const zi_pool *pool, char *key, size_t size)
{
    char model[200], kernels[80] = "reference";
    zi_cpu_model(model, sizeof model);
    if (ops->describe)
        ops->describe(ops, kernels, sizeof kernels);
    snprintf(key, size, "%s, %s, %d threads, zimage %s", model, kernels, zi_pool_threads(pool), zimage_version());
}

/* The cache's file; free() it. NULL: there is no place for it. */
static char *cache_path(int create)
{
    char *folder = zi_cache_folder(create), *path = folder ? zi_path_join(folder, "machine.json") : NULL;
    free(folder);
    return path;
}

static int positive(const json_t *entry, const char *field, double *value)
{
    *value = json_number_value(json_object_get(entry, field));
    return *value > 0;
}

static int read_entry(const json_t *entry, zi_machine *machine)
{
    return positive(entry, "linear", &machine->linear) && positive(entry, "attention", &machine->attention) &&
           positive(entry, "conv", &machine->conv) && (positive(entry, "unpack", &machine->unpack) || 1);
}

static void write_all(const char *path, const json_t *all)
{
    zi_output output;
    char *text = json_dumps(all, JSON_INDENT(2));
    if (text && zi_output_open(&output, path, NULL) == ZIMAGE_OK) {
        if (fputs(text, output.file) >= 0)
            zi_output_commit(&output, NULL);
        else
            zi_output_abandon(&output);
    }
    free(text);
}

static void keep(json_t *all, const char *key, const zi_machine *machine)
{
    json_t *entry = json_pack("{s:f, s:f, s:f, s:f}", "linear", machine->linear, "attention", machine->attention,
                              "conv", machine->conv, "unpack", machine->unpack);
    char *path = cache_path(1);
    if (json_object_set_new(all, key, entry) == 0 && path)
        write_all(path, all);
    free(path);
}

zimage_status zi_machine_get(zi_ops *ops, zi_pool *pool, zi_machine *machine, zimage_error *error)
{
    char key[300];
    json_t *all = NULL;
    char *path = cache_path(0);
    machine_key(ops, pool, key, sizeof key);
    if (path && zi_json_load(path, &all, NULL) == ZIMAGE_OK && read_entry(json_object_get(all, key), machine)) {
        json_decref(all);
        free(path);
        return ZIMAGE_OK;
    }
    free(path);
    zimage_status status = measure(ops, machine, error);
    if (!all)
        all = json_object();
    if (status == ZIMAGE_OK && all)
        keep(all, key, machine);
    json_decref(all);
    return status;
}

double zi_machine_seconds(const zi_machine *machine, const zi_plan_counts *counts)
{
    return counts->linear_flops / machine->linear + counts->unpacked * machine->unpack +
           counts->attention_flops / machine->attention + counts->conv_flops / machine->conv;
}
