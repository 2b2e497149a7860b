#include "ops/speed.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/output.h"
#include "base/system.h"

#define CACHE_FILE    "machine.json"
#define REPEATS       3
#define LEAST_SECONDS 1e-9 /* of a measurement: a clock that stands still must not make an infinite rate */
#define MOST_SECONDS  1e9
#define LARGE         1024              /* side of the matrix that is measured with */
#define EXCHANGED     ((size_t)8 << 20) /* bytes of an exchange that is measured; and of one that is nearly latency: */
#define EXCHANGED_FEW ((size_t)4 << 10)
#define SMALL         256 /* with a backend without a peak rate: the reference backend is some hundred times slower */

/* ---- measuring --------------------------------------------------------------------------------------------------- */

typedef struct trial {
    zi_tensor x, y, k, v;
    zi_weight weight;
    zi_attention attention;
    zi_conv conv;
} trial;

static zimage_status run_linear(zi_run *run, trial *t)
{
    return zi_table(run)->linear(run, &t->y, &t->x, &t->weight, NULL, 0);
}

static zimage_status run_attention(zi_run *run, trial *t)
{
    return zi_table(run)->attention(run, &t->y, &t->x, &t->k, &t->v, &t->attention);
}

static zimage_status run_conv(zi_run *run, trial *t)
{
    return zi_table(run)->conv2d(run, &t->y, &t->x, &t->conv);
}

/* The best of a few runs, the first of which warms caches and threads. */
static zimage_status fastest(zi_run *run, zimage_status (*work)(zi_run *, trial *), trial *t, double *seconds)
{
    *seconds = MOST_SECONDS;
    for (int i = 0; i <= REPEATS; i++) {
        double start = zi_now();
        ZI_TRY(work(run, t));
        ZI_TRY(zi_table(run)->finish(run));
        double taken = zi_now() - start;
        if (i > 0 && taken < *seconds)
            *seconds = taken > LEAST_SECONDS ? taken : LEAST_SECONDS;
    }
    return ZIMAGE_OK;
}

static zimage_status make(zi_run *run, zi_tensor *tensor, int dims, const int64_t *shape)
{
    ZI_TRY(zi_table(run)->alloc(run, tensor, dims, shape));
    size_t count = (size_t)zi_tensor_count(tensor);
    float *values = malloc(count * sizeof *values);
    if (!values)
        return zi_fail_memory(run->error, "a measurement", count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(i * 7919 % 1009) / 1009 - 0.5f;
    zimage_status status = zi_table(run)->upload(run, tensor, values);
    free(values);
    return status;
}

static zimage_status time_linear(zi_run *run, const zi_weight *weight, int64_t tokens, double *seconds)
{
    trial t = {.weight = *weight};
    ZI_TRY(make(run, &t.x, ZI_SHAPE(tokens, weight->shape[1])));
    ZI_TRY(make(run, &t.y, ZI_SHAPE(tokens, weight->shape[0])));
    return fastest(run, run_linear, &t, seconds);
}

static zimage_status time_attention(zi_run *run, int64_t tokens, int64_t heads, int64_t dim, double *seconds)
{
    trial t = {.attention = {.heads = heads, .kv_heads = heads, .head_dim = dim}};
    ZI_TRY(make(run, &t.x, ZI_SHAPE(tokens, heads * dim)));
    ZI_TRY(make(run, &t.y, ZI_SHAPE(tokens, heads * dim)));
    ZI_TRY(make(run, &t.k, ZI_SHAPE(tokens, heads * dim)));
    ZI_TRY(make(run, &t.v, ZI_SHAPE(tokens, heads * dim)));
    return fastest(run, run_attention, &t, seconds);
}

static zimage_status time_conv(zi_run *run, const zi_weight *weight, int64_t side, double *seconds)
{
    trial t = {.weight = *weight};
    ZI_TRY(make(run, &t.x, ZI_SHAPE(side, side, weight->shape[1])));
    ZI_TRY(make(run, &t.y, ZI_SHAPE(side, side, weight->shape[0])));
    t.conv = zi_conv_same(&t.weight, NULL);
    t.conv.image_rows = side;
    return fastest(run, run_conv, &t, seconds);
}

/* numbers: [size, size] stored as BF16 */
static zimage_status measure_with(zi_run *run, const uint8_t *numbers, int64_t size, zi_speed *speed)
{
    const int64_t many = size / 4, few = size / 32, side = size / 32, dim = 64, heads = size / 2 / dim,
                  channels = size / 8;
    zi_weight matrix = {.name = "a measurement", .dtype = ZI_BF16, .dims = 2, .shape = {size, size}, .data = numbers};
    zi_weight filter = {
        .name = "a measurement", .dtype = ZI_BF16, .dims = 4, .shape = {channels, channels, 3, 3}, .data = numbers};
    double short_run, long_run, attention, conv, weights = (double)size * (double)size;
    ZI_TRY(time_linear(run, &matrix, many, &long_run));
    ZI_TRY(time_linear(run, &matrix, few, &short_run));
    ZI_TRY(time_attention(run, many, heads, dim, &attention));
    ZI_TRY(time_conv(run, &filter, side, &conv));
    /* seconds = weights (2 tokens / linear + unpack) */
    double token = (long_run - short_run) / (double)(many - few);
    if (token <= 0) /* disturbed */
        token = long_run / (double)many;
    double rest = (long_run - token * (double)many) / weights;
    *speed = (zi_speed){
        .linear = 2 * weights / token,
        .attention = 4 * (double)(many * many * heads * dim) / attention,
        .conv = 2.0 * 9 * (double)(side * side * channels * channels) / conv,
        .unpack = rest > 0 ? rest : 0,
    };
    return ZIMAGE_OK;
}

/* seconds = latency + bytes / link */
static zimage_status measure_link(zi_run *run, zi_speed *speed)
{
    double few, many;
    ZI_TRY(zi_table(run)->exchange_seconds(run, EXCHANGED_FEW, &few));
    ZI_TRY(zi_table(run)->exchange_seconds(run, EXCHANGED, &many));
    speed->latency = few;
    double rest = many - few > LEAST_SECONDS ? many - few : LEAST_SECONDS; /* less: disturbed */
    speed->link = many > 0 ? (double)(EXCHANGED - EXCHANGED_FEW) / rest : 0;
    return ZIMAGE_OK;
}

static zimage_status measure(zi_ops *ops, zi_speed *speed, zimage_error *error)
{
    zi_run run = {.ops = ops, .error = error};
    int64_t size = zi_table(&run)->peak_rate(&run) > 0 ? LARGE : SMALL;
    size_t bytes = (size_t)(size * size) * 2;
    uint8_t *numbers = malloc(bytes);
    if (!numbers)
        return zi_fail_memory(error, "a measurement", bytes);
    for (size_t i = 0; i < bytes; i++)
        numbers[i] = i % 2 ? 0x3c : (uint8_t)(i * 13); /* BF16 near 0.01 */
    zi_arena_mark mark = zi_table(&run)->mark(&run);
    zimage_status status = measure_with(&run, numbers, size, speed);
    if (status == ZIMAGE_OK)
        status = zi_table(&run)->forget_weights(&run);
    zi_table(&run)->release(&run, mark);
    if (status == ZIMAGE_OK)
        status = measure_link(&run, speed);
    free(numbers);
    return status;
}

/* ---- keeping ----------------------------------------------------------------------------------------------------- */

static void speed_key(const zi_ops *ops, int threads, char *key, size_t size)
{
    char model[200], kernels[80];
    zi_cpu_model(model, sizeof model);
    ops->table->describe(ops, kernels, sizeof kernels);
    snprintf(key, size, "%s, %s, %d threads, zimage %d.%d.%d", model, kernels, threads, ZIMAGE_VERSION_MAJOR,
             ZIMAGE_VERSION_MINOR, ZIMAGE_VERSION_PATCH);
}

/* Figures that no machine measures are not believed: the file may hold anything. */
#define LEAST_RATE   1e5  /* floating-point operations a second: the reference backend in an emulator is faster */
#define MOST_RATE    1e18 /* several hundred of the fastest GPUs */
#define MOST_UNPACK  1e-3 /* seconds a number */
#define MOST_LATENCY 1.0  /* seconds an exchange */

static int is_within(double value, double low, double high)
{
    return value >= low && value <= high; /* also not a NaN */
}

static int is_plausible(const zi_speed *speed)
{
    return is_within(speed->linear, LEAST_RATE, MOST_RATE) && is_within(speed->attention, LEAST_RATE, MOST_RATE) &&
           is_within(speed->conv, LEAST_RATE, MOST_RATE) && is_within(speed->unpack, 0, MOST_UNPACK) &&
           is_within(speed->latency, 0, MOST_LATENCY) &&
           (speed->link == 0 || is_within(speed->link, LEAST_RATE, MOST_RATE));
}

static double number_of(const json_t *entry, const char *field)
{
    const json_t *value = json_object_get(entry, field);
    return json_is_number(value) ? json_number_value(value) : -1;
}

static int read_entry(const json_t *entry, zi_speed *speed)
{
    *speed = (zi_speed){.linear = number_of(entry, "linear"),
                        .attention = number_of(entry, "attention"),
                        .conv = number_of(entry, "conv"),
                        .unpack = number_of(entry, "unpack"),
                        .latency = number_of(entry, "latency"),
                        .link = number_of(entry, "link")};
    return is_plausible(speed);
}

static void write_all(const char *path, const json_t *all)
{
    zi_output output;
    char *text = json_dumps(all, JSON_INDENT(2));
    if (text && zi_output_open(&output, path, NULL) == ZIMAGE_OK) {
        zi_output_write(&output, text, strlen(text));
        zi_output_commit(&output, NULL);
    }
    free(text);
}

/* Adds the entry to what the file held. */
static void keep(json_t *all, const char *folder, const char *key, const zi_speed *speed)
{
    json_t *entry =
        json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "linear", speed->linear, "attention", speed->attention, "conv",
                  speed->conv, "unpack", speed->unpack, "latency", speed->latency, "link", speed->link);
    zi_folder_create(folder);
    char *path = zi_path_join(folder, CACHE_FILE);
    if (json_object_set_new(all, key, entry) == 0 && path)
        write_all(path, all);
    free(path);
}

/* What the file holds; an empty object if there is none. NULL: out of memory. */
static json_t *read_all(const char *folder)
{
    json_t *all = NULL;
    char *path = folder ? zi_path_join(folder, CACHE_FILE) : NULL;
    if (!path || zi_json_load_within(path, &zi_cache_limits, &all, NULL) != ZIMAGE_OK)
        all = json_object();
    free(path);
    return all;
}

zimage_status zi_speed_get(zi_ops *ops, int threads, const char *folder, zi_speed *speed, zimage_error *error)
{
    char key[400];
    json_t *all = read_all(folder);
    speed_key(ops, threads, key, sizeof key);
    zimage_status status = ZIMAGE_OK;
    if (!read_entry(json_object_get(all, key), speed)) {
        status = measure(ops, speed, error);
        if (status == ZIMAGE_OK && all && folder && is_plausible(speed))
            keep(all, folder, key, speed);
    }
    json_decref(all);
    return status;
}

double zi_speed_seconds(const zi_speed *speed, const zi_counts *counts)
{
    return counts->linear_flops / speed->linear + counts->unpacked * speed->unpack +
           counts->attention_flops / speed->attention + counts->conv_flops / speed->conv;
}

double zi_speed_divided(const zi_speed *speed, const zi_counts *counts, int devices, const zi_traffic *traffic)
{
    double seconds = zi_speed_seconds(speed, counts);
    if (devices < 2 || traffic->exchanges == 0)
        return seconds;
    double sending = speed->link > 0 ? (double)traffic->bytes / speed->link : 0;
    return seconds / devices + (double)traffic->exchanges * speed->latency + sending;
}
