/*
 * The VAE on several GPUs, emulated ones in this process: each decodes and encodes some of the rows, in bands of any
 * width, and the result is that of one GPU.
 */
#include "gpu.h"
#include "networks.h"
#include "vae_files.h"

static const char *const sets[] = {"0,1", "2,0,1", "0,1,2,3"};
static const char *const folders[] = {"tiny/vae", "vae-flux2", "vae-flux2-small"};

/* Exchanges between the emulated GPUs so far. */
static int64_t (*exchanges)(void);

/* Rows and columns of latents; rows that 2, 3 and 4 do not divide, and few of them. */
typedef struct grid {
    int64_t rows, columns;
} grid;

static const grid grids[] = {{11, 3}, {4, 6}, {1, 2}, {13, 1}};
static const int64_t bands[] = {0, 1, 3, 7, 16};

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))
#define SETS         COUNT(sets)
#define GRIDS        COUNT(grids)
#define BANDS        COUNT(bands)
#define INPUTS       (COUNT(folders) * GRIDS)

typedef struct vae_input {
    zi_vae model;
    zi_store *store;
    int64_t latent_size, rows, columns; /* of an image, in pixels */
    const grid *grid;
    float *latents;
    uint8_t *pixels;
    size_t values, moments; /* of the decoded image; of the encoded one */
} vae_input;

static float next_value(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1 << 23) - 1;
}

static vae_input open_input(const char *folder, const grid *g)
{
    vae_input in = {.grid = g};
    uint32_t state = 5;
    open_golden_vae(folder, folder, &in.store, &in.model);
    in.latent_size = zi_vae_latent_size(&in.model.config);
    in.rows = g->rows * in.latent_size;
    in.columns = g->columns * in.latent_size;
    in.values = (size_t)(in.rows * in.columns * 3);
    int64_t scale = in.model.config.scale_factor;
    in.moments = (size_t)(2 * in.model.config.latent_channels * (in.rows / scale) * (in.columns / scale));
    size_t count = (size_t)(zi_vae_latent_channels(&in.model.config) * g->rows * g->columns);
    in.latents = malloc(count * sizeof *in.latents);
    in.pixels = malloc(in.values);
    assert_true(in.latents && in.pixels);
    for (size_t i = 0; i < count; i++)
        in.latents[i] = 2 * next_value(&state);
    for (size_t i = 0; i < in.values; i++)
        in.pixels[i] = (uint8_t)(128 + 127 * next_value(&state));
    return in;
}

static void close_input(vae_input *in)
{
    zi_vae_free(&in->model);
    zi_store_free(in->store);
    free(in->latents);
    free(in->pixels);
}

/* What a backend makes of an input. */
typedef struct vae_result {
    float *rgb, *moments;
    uint8_t *rgb8;
    int64_t exchanges;
} vae_result;

/* By the backend that is open. */
static vae_result make_result(const vae_input *in, int64_t band_rows)
{
    vae_result r = {malloc(in->values * sizeof *r.rgb), malloc(in->moments * sizeof *r.moments), malloc(in->values), 0};
    const zi_vae_output out = {r.rgb, r.rgb8};
    int64_t before = exchanges();
    assert_true(r.rgb && r.moments && r.rgb8);
    ok(zi_vae_decode(&in->model, gpu, in->latents, in->grid->rows, in->grid->columns, band_rows, &out));
    ok(zi_vae_encode(&in->model, gpu, in->pixels, in->rows, in->columns, band_rows, r.moments));
    r.exchanges = exchanges() - before;
    return r;
}

static void free_result(vae_result *r)
{
    free(r->rgb);
    free(r->moments);
    free(r->rgb8);
}

static void compare_with_one(const vae_input *in, const vae_result *one, int set, int64_t band_rows)
{
    vae_result all = make_result(in, band_rows);
    const char *other = memcmp(one->rgb, all.rgb, in->values * sizeof *all.rgb) != 0     ? "image"
                        : memcmp(one->rgb8, all.rgb8, in->values) != 0                   ? "bytes of the image"
                        : memcmp(one->moments, all.moments, in->moments * sizeof(float)) ? "moments"
                                                                                         : NULL;
    if (other)
        fail_msg("cuda:%s, %d x %d pixels, bands of %d: other %s", sets[set], (int)in->columns, (int)in->rows,
                 (int)band_rows, other);
    assert_int_equal(all.exchanges > 0, in->rows >= 8 * (set + 2)); /* the largest form of the image is divided */
    free_result(&all);
}

/* Each input with bands of one width, the first one with all widths. Brief tests leave out the latter. */
static void compare_set(const vae_input *in, const vae_result *one, int set, zimage_compute compute)
{
    (void)open_gpu(&(zi_cuda_options){.compute = compute, .devices = sets[set]});
    for (int i = 0; i < INPUTS; i++)
        compare_with_one(&in[i], &one[i], set, bands[(i + set) % BANDS]);
    for (int i = 0; i < BANDS && !is_brief(); i++)
        compare_with_one(&in[0], &one[0], set, bands[i]);
    ok(zi_table(gpu)->forget_weights(gpu));
    close_gpu();
}

/* An emulated GPU computes a row in the same way wherever it lies. The sums of a group norm are float64 and add up in
 * another order, but what they become is float32. brief_set: the only set of brief tests. */
static void compare_all(zimage_compute compute, int brief_set)
{
    vae_input in[INPUTS];
    vae_result one[INPUTS];
    (void)open_gpu(&(zi_cuda_options){.compute = compute, .device = 3});
    for (int i = 0; i < INPUTS; i++) {
        in[i] = open_input(folders[i / GRIDS], &grids[i % GRIDS]);
        one[i] = make_result(&in[i], 0);
    }
    ok(zi_table(gpu)->forget_weights(gpu));
    close_gpu();
    for (int set = 0; set < SETS; set++)
        if (!is_brief() || set == brief_set)
            compare_set(in, one, set, compute);
    for (int i = 0; i < INPUTS; i++) {
        close_input(&in[i]);
        free_result(&one[i]);
    }
}

static void float32_bytes_are_those_of_one_gpu(void **state)
{
    compare_all(ZIMAGE_COMPUTE_F32, 1);
}

static void bf16_bytes_are_those_of_one_gpu(void **state)
{
    compare_all(ZIMAGE_COMPUTE_BF16, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_bytes_are_those_of_one_gpu),
        cmocka_unit_test(bf16_bytes_are_those_of_one_gpu),
    };
    setenv("ZIMAGE_EMULATED_GPUS", "4", 1);
    const char *why = why_not();
    void *library = dlopen(ZIMAGE_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    exchanges = library ? (int64_t(*)(void))dlsym(library, "zi_emulated_exchanges") : NULL;
    if (why || !exchanges) {
        fprintf(stderr, "%s\n", why ? why : dlerror());
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
