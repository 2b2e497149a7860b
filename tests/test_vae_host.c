/*
 * What the VAEs do in host memory, a part of a large image at a time: the numbers that go to a backend and come from
 * it, each compared with its formula (docs/spec/vae.md 4, 5). The counting backend runs the networks; it computes
 * nothing, and here keeps what is uploaded.
 */
#include "ops/ops_count.h"
#include "vae_files.h"

#define KL    "tiny/vae"
#define FLUX2 "vae-flux2"

/* What was uploaded, at its place in the image; how many parts came and went. */
static struct {
    float *values;
    size_t count;
    int uploads, downloads;
} kept;

static zimage_status keep_upload(zi_run *run, zi_tensor *dst, const float *src)
{
    size_t first = (size_t)dst->offset, count = (size_t)zi_tensor_count(dst);
    assert_true(zi_tensor_is_dense(dst) && first + count <= kept.count);
    memcpy(kept.values + first, src, count * sizeof(float));
    kept.uploads++;
    return ZIMAGE_OK;
}

/* What the encoder computed at a place; often beyond the limits of the logarithms. */
static float moment(int64_t i)
{
    return (float)(i * 7919 % 997 - 498) / 8;
}

static zimage_status make_download(zi_run *run, float *dst, const zi_tensor *src)
{
    for (int64_t i = 0; i < zi_tensor_count(src); i++)
        dst[i] = moment(src->offset + i);
    kept.downloads++;
    return ZIMAGE_OK;
}

static void open_keeping(zi_run *run, zi_ops_table *table, zimage_error *error)
{
    *run = (zi_run){.error = error};
    assert_int_equal(zi_ops_count_new(&run->ops, error), ZIMAGE_OK);
    *table = *run->ops->table;
    table->upload = keep_upload;
    table->download = make_download;
    run->ops->table = table;
}

static float *floats(size_t count)
{
    float *values = malloc(count * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)((int)(i * 31 % 1009) - 504) / 128;
    return values;
}

static void keep(size_t count)
{
    kept.values = floats(count);
    kept.count = count;
    kept.uploads = kept.downloads = 0;
}

/* The latent of a place in the encoder's grid [rows, columns]: channel, row and column of latents [.., h, w]. */
static int64_t latent_of(const zi_vae *model, int64_t c, int64_t y, int64_t x, int64_t rows, int64_t columns,
                         int64_t *channel)
{
    int64_t p = model->config.patch;
    *channel = c * p * p + y % p * p + x % p;
    return (*channel * (rows / p) + y / p) * (columns / p) + x / p;
}

/* Latents that are uploaded in several parts, the last one a shorter one, and in one. */
static void decode_size(const zi_vae *model, zi_run *run, int64_t rows, int64_t columns, int parts)
{
    const zi_vae_config *config = &model->config;
    int64_t channels = config->latent_channels, p = config->patch, channel;
    uint8_t nothing = 0;
    float *latents = floats((size_t)(channels * rows * columns));
    keep((size_t)(channels * rows * columns));
    table_ok(zi_vae_decode(model, run, latents, rows / p, columns / p, 0, &(zi_vae_output){.rgb8 = &nothing}));
    assert_int_equal(kept.uploads, parts);
    for (int64_t i = 0; i < channels * rows * columns; i++) {
        int64_t place = i / channels;
        float z = latents[latent_of(model, i % channels, place / columns, place % columns, rows, columns, &channel)];
        float want = p == 1 ? z / (float)config->scaling_factor + (float)config->shift_factor
                            : z * model->deviation[channel] + model->mean[channel];
        if (kept.values[i] != want)
            fail_msg("%d x %d latents: number %d is %g, expected %g", (int)rows, (int)columns, (int)i, kept.values[i],
                     want);
    }
    free(latents);
    free(kept.values);
}

static void check_pixels(const uint8_t *rgb8, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        assert_true(kept.values[i] == (float)rgb8[i] / 255.0f * 2.0f - 1.0f);
}

/* The latents of those moments, without and with noise. */
static void check_latents(const zi_vae *model, const float *moments, int64_t rows, int64_t columns)
{
    const zi_vae_config *config = &model->config;
    int64_t count = config->latent_channels * rows * columns, channel;
    float *noise = floats((size_t)count), *latents = floats((size_t)count);
    for (int noisy = 0; noisy < 2; noisy++) {
        zi_vae_latents(model, moments, noisy ? noise : NULL, rows, columns, latents);
        for (int64_t i = 0; i < count; i++) {
            int64_t at =
                latent_of(model, i / (rows * columns), i / columns % rows, i % columns, rows, columns, &channel);
            float z = moments[i] + (noisy ? expf(0.5f * moments[count + i]) * noise[i] : 0);
            float want = config->patch == 1 ? (z - (float)config->shift_factor) * (float)config->scaling_factor
                                            : (z - model->mean[channel]) / model->deviation[channel];
            assert_true(latents[at] == want);
        }
    }
    free(noise);
    free(latents);
}

static void encode_size(const zi_vae *model, zi_run *run, int64_t rows, int64_t columns, int uploads, int downloads)
{
    int64_t scale = model->config.scale_factor, pixels = rows * scale * columns * scale * 3;
    int64_t places = rows * columns, channels = 2 * model->config.latent_channels;
    uint8_t *rgb8 = malloc((size_t)pixels);
    float *moments = floats((size_t)(channels * places));
    assert_non_null(rgb8);
    for (int64_t i = 0; i < pixels; i++)
        rgb8[i] = (uint8_t)(i * 7919 >> 4);
    keep((size_t)pixels);
    table_ok(zi_vae_encode(model, run, rgb8, rows * scale, columns * scale, rows * scale, moments));
    assert_int_equal(kept.uploads, uploads);
    assert_int_equal(kept.downloads, downloads);
    check_pixels(rgb8, pixels);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < places; i++) {
            float value = moment(i * channels + c), limited = fminf(fmaxf(value, -30), 20);
            assert_true(moments[c * places + i] == (c < channels / 2 ? value : limited));
        }
    check_latents(model, moments, rows, columns);
    free(moments);
    free(rgb8);
    free(kept.values);
}

/* A part has at most 2^18 numbers. */
static void test_parts(void **state)
{
    static const char *const folders[] = {KL, FLUX2};
    for (int i = 0; i < 2; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_store *store;
        zi_ops_table table;
        zi_vae model;
        zi_run run;
        open_golden_vae(folders[i], folders[i], &store, &model);
        open_keeping(&run, &table, &error);
        int64_t channels = model.config.latent_channels, scale = model.config.scale_factor;
        int64_t part = (1 << 18) / (128 * channels), pixel_rows = (1 << 18) / (128 * scale * 3);
        decode_size(&model, &run, 6, 10, 1);
        decode_size(&model, &run, part, 128, 1);
        decode_size(&model, &run, 2 * part + 6, 128, 3);
        encode_size(&model, &run, 4, 2, 1, 1);
        int64_t rows = part + 2; /* moments have twice the channels: three parts, the last one of two rows */
        encode_size(&model, &run, rows, 128, (int)((rows * scale + pixel_rows - 1) / pixel_rows), 3);
        run.ops->table->free(run.ops);
        zi_vae_free(&model);
        zi_store_free(store);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_parts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
