/*
 * The encoders of both VAEs, and AutoencoderKLFlux2 in both directions, against diffusers, on the reference and the CPU
 * backend; files without an encoder and in mflux's layout; the memory that encoding takes.
 */
#include "vae_files.h"

#define KL    "tiny/vae"
#define FLUX2 "vae-flux2"
#define SMALL "vae-flux2-small"

static const struct {
    int rows, columns; /* of the latents */
} kl_sizes[] = {{3, 5}, {2, 2}, {8, 6}}, flux2_sizes[] = {{3, 5}, {1, 2}, {4, 3}};

static void open_vae(const char *folder, zi_store **store, zi_vae *model)
{
    open_golden_vae(folder, folder, store, model);
}

/* A golden folder's VAE with the weights of another file. */
static void open_edited(const char *folder, const char *file, zi_store **store, zi_vae *model)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *own;
    zi_vae golden;
    open_vae(folder, &own, &golden);
    const zi_vae_config config = golden.config;
    zi_vae_free(&golden);
    zi_store_free(own);
    if (zi_store_open_file(file, store, &error) != ZIMAGE_OK ||
        zi_vae_bind(model, &config, *store, NULL, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
}

static void close_vae(zi_store *store, zi_vae *model)
{
    zi_vae_free(model);
    zi_store_free(store);
}

static const char *named(const char *size, const char *what)
{
    static char names[4][64];
    static int next;
    char *name = names[next++ % 4];
    snprintf(name, sizeof names[0], "%s.%s", size, what);
    return name;
}

/* The moments of the golden image `size`; free() them. */
static float *moments_of(const zi_vae *model, zi_run *run, const zi_store *golden, const char *size, int64_t band_rows)
{
    const zi_weight *image = fixture_find(golden, named(size, "rgb"));
    int64_t scale = model->config.scale_factor, pixels = image->shape[0] / scale * (image->shape[1] / scale);
    float *moments = malloc((size_t)(2 * model->config.latent_channels * pixels) * sizeof *moments);
    assert_non_null(moments);
    table_ok(zi_vae_encode(model, run, image->data, image->shape[0], image->shape[1], band_rows, moments));
    return moments;
}

/* ---- against diffusers ------------------------------------------------------------------------------------------- */

static void compare_latents(zi_run *run, const zi_vae *model, const zi_store *golden, const char *size,
                            const float *moments, const char *noise, const char *want)
{
    const zi_weight *image = fixture_find(golden, named(size, "rgb"));
    int64_t rows = image->shape[0] / model->config.scale_factor, columns = image->shape[1] / model->config.scale_factor;
    size_t count = (size_t)(model->config.latent_channels * rows * columns);
    float *latents = malloc(count * sizeof *latents), *drawn = noise ? fixture_floats(golden, noise, NULL) : NULL;
    assert_non_null(latents);
    zi_vae_latents(model, moments, drawn, rows, columns, latents);
    compare(run, golden, "VAE encoder, latents", latents, count, want);
    free(latents);
    free(drawn);
}

static void encode_case(const zi_vae *model, zi_run *run, const zi_store *golden, const char *size)
{
    int64_t blocks = 0;
    run->block_done = count_block;
    run->user = &blocks;
    float *moments = moments_of(model, run, golden, size, 0);
    run->block_done = NULL;
    assert_int_equal(blocks, zi_vae_encode_blocks(model));
    compare(run, golden, model->config.patch == 1 ? "VAE encoder" : "FLUX.2 VAE encoder", moments,
            (size_t)zi_weight_count(fixture_find(golden, named(size, "moments"))), named(size, "moments"));
    if (model->config.patch == 1) {
        compare_latents(run, model, golden, size, moments, named(size, "noise"), named(size, "sample"));
        compare_latents(run, model, golden, size, moments, NULL, named(size, "mode"));
    } else {
        compare_latents(run, model, golden, size, moments, NULL, named(size, "latents"));
    }
    free(moments);
}

static void test_encode(void **state)
{
    zi_store *store, *golden = fixture_open("vae_encode.safetensors");
    zi_vae model;
    open_vae(KL, &store, &model);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        for (int i = 0; i < 3; i++) {
            char size[16];
            snprintf(size, sizeof size, "%dx%d", kl_sizes[i].rows, kl_sizes[i].columns);
            encode_case(&model, run, golden, size);
        }
        table_close(run);
    }
    close_vae(store, &model);
    zi_store_free(golden);
}

static void test_encode_f16(void **state)
{
    zi_store *store, *golden = fixture_open("vae_encode.safetensors");
    zi_vae model;
    open_golden_vae(KL, "tiny-f16/vae", &store, &model);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        float *moments = moments_of(&model, run, golden, "2x2", 0);
        compare(run, golden, "VAE encoder", moments, 2 * 4 * 2 * 2, "f16.2x2.moments");
        free(moments);
        table_close(run);
    }
    close_vae(store, &model);
    zi_store_free(golden);
}

/* A recorded image [pixels, channels] against a golden [channels, rows, columns]. */
static void compare_block(zi_run *run, const zi_store *golden, int block, const char *name)
{
    const record *r = recorded("block", block);
    float *planes = malloc((size_t)r->count * sizeof *planes);
    assert_non_null(planes);
    fixture_to_planes(planes, r->data, (size_t)fixture_find(golden, name)->shape[0], (size_t)r->count);
    compare(run, golden, "VAE encoder, layers", planes, (size_t)r->count, name);
    free(planes);
}

static void test_encode_stages(void **state)
{
    /* blocks: conv_in; a resnet and a downsampler a level, the last one without; mid 0, attention, mid 1 */
    static const struct {
        int block;
        const char *name;
    } stages[] = {{0, "conv_in"}, {2, "down.0"},      {4, "down.1"},        {6, "down.2"},
                  {7, "down.3"},  {8, "mid.resnet0"}, {9, "mid.attention"}, {10, "mid"}};
    zi_store *store, *golden = fixture_open("vae_encode.safetensors");
    zi_vae model;
    open_vae(KL, &store, &model);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        record_start(run);
        free(moments_of(&model, run, golden, "2x2", 0));
        for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
            compare_block(run, golden, stages[i].block, named("2x2.stage", stages[i].name));
        record_stop(run);
        table_close(run);
    }
    close_vae(store, &model);
    zi_store_free(golden);
}

static void decode_case(const zi_vae *model, zi_run *run, const zi_store *golden, int rows, int columns)
{
    char size[16];
    int64_t blocks = 0;
    size_t count =
        (size_t)(rows * columns * zi_vae_latent_size(&model->config) * zi_vae_latent_size(&model->config)) * 3;
    float *rgb = malloc(count * sizeof *rgb), *banded = malloc(count * sizeof *banded);
    assert_true(rgb && banded);
    snprintf(size, sizeof size, "%dx%d", rows, columns);
    float *latents = fixture_floats(golden, named(size, "z"), NULL);
    run->block_done = count_block;
    run->user = &blocks;
    table_ok(zi_vae_decode(model, run, latents, rows, columns, 0, &(zi_vae_output){.rgb = rgb}));
    run->block_done = NULL;
    assert_int_equal(blocks, zi_vae_decode_blocks(model));
    table_ok(zi_vae_decode(model, run, latents, rows, columns, 3, &(zi_vae_output){.rgb = banded}));
    assert_memory_equal(rgb, banded, count * sizeof *rgb);
    fixture_channels_first(rgb, count);
    compare(run, golden, "FLUX.2 VAE decoder", rgb, count, named(size, "image"));
    free(latents);
    free(banded);
    free(rgb);
}

static void flux2_case(const char *folder, const char *fixture)
{
    zi_store *store, *golden = fixture_open(fixture);
    zi_vae model;
    open_vae(folder, &store, &model);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        for (int i = 0; i < 3; i++) {
            char size[16];
            snprintf(size, sizeof size, "%dx%d", flux2_sizes[i].rows, flux2_sizes[i].columns);
            encode_case(&model, run, golden, size);
            decode_case(&model, run, golden, flux2_sizes[i].rows, flux2_sizes[i].columns);
        }
        table_close(run);
    }
    close_vae(store, &model);
    zi_store_free(golden);
}

static void test_flux2(void **state)
{
    flux2_case(FLUX2, "vae_flux2.safetensors");
}

static void test_flux2_small_decoder(void **state)
{
    flux2_case(SMALL, "vae_flux2_small.safetensors");
}

/* ---- what does not change the result ----------------------------------------------------------------------------- */

static void test_encode_bands(void **state)
{
    static const int64_t bands[] = {64, 1000, 1, 2, 4, 7, 33, 63};
    zi_store *store, *golden = fixture_open("vae_encode.safetensors");
    zi_vae model;
    open_vae(KL, &store, &model);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        float *whole = moments_of(&model, run, golden, "8x6", 0);
        for (size_t i = 0; i < sizeof bands / sizeof *bands; i++) {
            float *banded = moments_of(&model, run, golden, "8x6", bands[i]);
            if (memcmp(whole, banded, 2 * 4 * 8 * 6 * sizeof *whole) != 0)
                fail_msg("%s: bands of %d rows differ from the whole", zi_table(run)->name, (int)bands[i]);
            free(banded);
        }
        free(whole);
        table_close(run);
    }
    close_vae(store, &model);
    zi_store_free(golden);
}

static void to_mflux_kl(vae_tensor *tensor)
{
    rename_part(tensor, "encoder.conv_in.", "encoder.conv_in.conv2d.");
    rename_part(tensor, "encoder.conv_out.", "encoder.conv_out.conv2d.");
    rename_part(tensor, "decoder.conv_in.", "decoder.conv_in.conv.");
    rename_part(tensor, "decoder.conv_out.", "decoder.conv_out.conv.");
    rename_part(tensor, "conv_norm_out.", "conv_norm_out.norm.");
    turn_channels_last(tensor);
}

static void to_mflux_flux2(vae_tensor *tensor)
{
    rename_part(tensor, ".to_out.0.", ".to_out.");
    rename_part(tensor, "bn.num_batches_tracked", "");
    turn_channels_last(tensor);
}

static void mflux_case(const char *folder, const char *fixture, void (*edit)(vae_tensor *tensor))
{
    char name[256], source[4096];
    zi_store *store, *turned_store, *golden = fixture_open(fixture);
    zi_vae model, turned;
    snprintf(name, sizeof name, "%s/diffusion_pytorch_model.safetensors", folder);
    golden_path(source, sizeof source, name);
    edit_tensors(source, temporary("mflux.safetensors"), edit);
    open_vae(folder, &store, &model);
    open_edited(folder, temporary("mflux.safetensors"), &turned_store, &turned);
    zi_run *run = table_open(1);
    float *want = moments_of(&model, run, golden, "3x5", 0), *got = moments_of(&turned, run, golden, "3x5", 0);
    size_t count = (size_t)zi_weight_count(fixture_find(golden, "3x5.moments"));
    assert_memory_equal(got, want, count * sizeof *want);
    table_close(run);
    free(want);
    free(got);
    close_vae(turned_store, &turned);
    close_vae(store, &model);
    zi_store_free(golden);
}

/* docs/spec/formats.md 3: other names, convolutions with channels last. */
static void test_mflux(void **state)
{
    mflux_case(KL, "vae_encode.safetensors", to_mflux_kl);
    mflux_case(FLUX2, "vae_flux2.safetensors", to_mflux_flux2);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* Bytes of the stack that encoding and decoding take at most, by rehearsal. */
static void rehearse(const zi_vae *model, int64_t side, size_t *encoding, size_t *decoding)
{
    zi_run *run = table_open(1);
    const zi_ops_table *table = zi_table(run);
    table_ok(table->rehearse_begin(run));
    table_ok(zi_vae_encode(model, run, NULL, side, side, 0, NULL));
    table_ok(table->rehearse_stage(run, 0, encoding));
    int64_t latents = side / zi_vae_latent_size(&model->config);
    table_ok(zi_vae_decode(model, run, NULL, latents, latents, 0, &(zi_vae_output){0}));
    table_ok(table->rehearse_stage(run, 1, decoding));
    table->rehearse_end(run);
    table_close(run);
}

/* Random weights of the published widths, which are the defaults. */
static void open_published(zi_store **store, zi_vae *model)
{
    const zi_memory_format format = {ZI_BF16, 0, 0};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_vae_config config;
    zi_pool *pool;
    assert_int_equal(zi_vae_flux2_config_read("published", "{}", &config, &error), ZIMAGE_OK);
    assert_int_equal(zi_pool_new(1, &pool, &error), ZIMAGE_OK);
    assert_int_equal(zi_store_new_memory("published", store, &error), ZIMAGE_OK);
    assert_int_equal(zi_vae_bind(model, &config, *store, NULL, &error), ZIMAGE_OK);
    zi_vae_free(model);
    assert_int_equal(zi_store_fill(*store, &format, pool, &error), ZIMAGE_OK);
    if (zi_vae_bind(model, &config, *store, NULL, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    zi_pool_free(pool);
}

/* The figures at the heads of vae_encode.c and vae_decode.c; above them there are the convolutions' packed weights. */
static void test_memory(void **state)
{
    static const int64_t sides[] = {512, 1024, 2048};
    zi_store *store;
    zi_vae model;
    size_t encoding, decoding;
    open_published(&store, &model);
    assert_true(model.has_encoder && model.deviation[5] > 0);
    for (int i = 0; i < 3; i++) {
        size_t pixels = (size_t)(sides[i] * sides[i]);
        rehearse(&model, sides[i], &encoding, &decoding);
        print_message("%d x %d: encoding takes %zu MiB, decoding %zu MiB\n", (int)sides[i], (int)sides[i],
                      encoding >> 20, decoding >> 20);
        assert_in_range(encoding, 1024 * pixels, 1120 * pixels + ((size_t)32 << 20));
        assert_in_range(decoding, encoding, 1280 * pixels + ((size_t)384 << 20));
    }
    close_vae(store, &model);
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

static void without_encoder(vae_tensor *tensor)
{
    if (strncmp(tensor->name, "encoder.", strlen("encoder.")) == 0 || strncmp(tensor->name, "quant_conv.", 11) == 0)
        tensor->name[0] = 0;
}

/* Decoding needs no encoder. */
static void decode_only_case(const char *folder, const char *fixture, const char *z, int rows, int columns)
{
    char name[256], source[4096];
    zi_store *store, *golden = fixture_open(fixture);
    zi_vae model;
    uint8_t image[64 * 64 * 3] = {0};
    float rgb[64 * 64 * 3], moments[64];
    snprintf(name, sizeof name, "%s/diffusion_pytorch_model.safetensors", folder);
    golden_path(source, sizeof source, name);
    edit_tensors(source, temporary("decoder.safetensors"), without_encoder);
    open_edited(folder, temporary("decoder.safetensors"), &store, &model);
    zi_run *run = table_open(1);
    float *latents = fixture_floats(golden, z, NULL);
    table_ok(zi_vae_decode(&model, run, latents, rows, columns, 0, &(zi_vae_output){.rgb = rgb}));
    assert_false(model.has_encoder);
    assert_error(&table_error, zi_vae_encode(&model, run, image, 16, 16, 0, moments), ZIMAGE_ERROR_MODEL,
                 "decoder.safetensors", "encoder.conv_out.weight", NULL);
    assert_error(&table_error, zi_vae_check_encoder(&model, &table_error), ZIMAGE_ERROR_MODEL, "decoder.safetensors",
                 "encoder.conv_out.weight", NULL);
    free(latents);
    table_close(run);
    close_vae(store, &model);
    zi_store_free(golden);
}

static void test_without_encoder(void **state)
{
    decode_only_case(KL, "vae.safetensors", "decode.2x2.z", 2, 2);
    decode_only_case(FLUX2, "vae_flux2.safetensors", "3x5.z", 3, 5);
}

static void without_downsampler(vae_tensor *tensor)
{
    if (strcmp(tensor->name, "encoder.down_blocks.0.downsamplers.0.conv.bias") == 0)
        tensor->name[0] = 0;
}

/* An encoder with a gap is a broken file. */
static void test_incomplete_encoder(void **state)
{
    char source[4096];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *store, *broken;
    zi_vae model;
    open_vae(KL, &store, &model);
    const zi_vae_config config = model.config;
    close_vae(store, &model);
    golden_path(source, sizeof source, KL "/diffusion_pytorch_model.safetensors");
    edit_tensors(source, temporary("broken.safetensors"), without_downsampler);
    assert_int_equal(zi_store_open_file(temporary("broken.safetensors"), &broken, &error), ZIMAGE_OK);
    assert_error(&error, zi_vae_bind(&model, &config, broken, NULL, &error), ZIMAGE_ERROR_MODEL, "broken.safetensors",
                 "encoder.down_blocks.0.downsamplers.0.conv.bias", "missing");
    zi_store_free(broken);
}

static void test_sizes_refused(void **state)
{
    static const int64_t sizes[][2] = {{0, 8}, {8, -8}, {12, 8}, {8, 4}, {8, (int64_t)1 << 40}};
    zi_store *store;
    zi_vae model;
    const uint8_t image[3] = {0};
    float moments[1];
    open_vae(FLUX2, &store, &model);
    zi_run *run = table_open(0);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        assert_error(&table_error, zi_vae_encode(&model, run, image, sizes[i][0], sizes[i][1], 0, moments),
                     ZIMAGE_ERROR_ARGUMENT, "multiples of 8", NULL, NULL);
    table_close(run);
    close_vae(store, &model);
}

static void test_names_bad_block(void **state)
{
    zi_store *store, *golden = fixture_open("vae_encode.safetensors");
    zi_vae model;
    float moments[2 * 4 * 2 * 2];
    open_vae(KL, &store, &model);
    zi_vae_half *half = &model.encoder;
    const struct {
        const zi_weight **weight;
        const char *block;
    } cases[] = {
        {&half->conv_in.weight, "vae encoder.conv_in"},
        {&half->resnets[1].conv_shortcut.weight, "vae encoder.down_blocks.1.resnets.0"},
        {&half->samplers[2].bias, "vae encoder.down_blocks.2.downsamplers.0"},
        {&half->mid.resnets[0].norm2.bias, "vae encoder.mid_block.resnets.0"},
        {&half->mid.attention.to_v.bias, "vae encoder.mid_block.attentions.0"},
        {&half->conv_out.weight, "vae encoder.conv_out"},
    };
    const uint8_t *image = fixture_find(golden, "2x2.rgb")->data;
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            const zi_weight *good = *cases[i].weight, bad = with_nan(good);
            *cases[i].weight = &bad;
            assert_error(&table_error, zi_vae_encode(&model, run, image, 16, 16, 5, moments), ZIMAGE_ERROR_NOT_FINITE,
                         cases[i].block, NULL, NULL);
            *cases[i].weight = good;
            free((void *)bad.data);
        }
        table_close(run);
    }
    close_vae(store, &model);
    zi_store_free(golden);
}

/* A copy of a float32 weight with another first and last number; free() the data. */
static zi_weight with_ends(const zi_weight *weight, float first, float last)
{
    zi_weight copy = *weight;
    uint8_t *data = malloc(weight->bytes);
    assert_non_null(data);
    assert_int_equal(weight->dtype, ZI_F32);
    memcpy(data, weight->data, weight->bytes);
    memcpy(data, &first, sizeof first);
    memcpy(data + weight->bytes - sizeof last, &last, sizeof last);
    copy.data = data;
    return copy;
}

/* The logarithms of variances have limits, the means have none. */
static void test_variance_limits(void **state)
{
    static const float far[] = {1000, -1000}, limits[] = {20, -30};
    zi_store *store, *golden = fixture_open("vae_encode.safetensors");
    zi_vae model;
    open_vae(KL, &store, &model);
    zi_run *run = table_open(1);
    for (int i = 0; i < 2; i++) {
        const zi_weight *good = model.encoder.conv_out.bias, bad = with_ends(good, far[i], far[i]);
        model.encoder.conv_out.bias = &bad;
        float *moments = moments_of(&model, run, golden, "2x2", 0);
        assert_true(fabsf(moments[0] - far[i]) < 100);
        for (int pixel = 0; pixel < 4; pixel++)
            assert_true(moments[7 * 4 + pixel] == limits[i]);
        model.encoder.conv_out.bias = good;
        free((void *)bad.data);
        free(moments);
    }
    table_close(run);
    close_vae(store, &model);
    zi_store_free(golden);
}

static float bad_variance;

static void with_bad_variance(vae_tensor *tensor)
{
    if (strcmp(tensor->name, "bn.running_var") == 0)
        memcpy(tensor->data + 3 * sizeof bad_variance, &bad_variance, sizeof bad_variance);
}

static void test_bad_statistics(void **state)
{
    static const float variances[] = {-1, -1e-4f, INFINITY, NAN};
    char source[4096];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *store, *bad;
    zi_vae model;
    open_vae(FLUX2, &store, &model);
    const zi_vae_config config = model.config;
    close_vae(store, &model);
    golden_path(source, sizeof source, FLUX2 "/diffusion_pytorch_model.safetensors");
    for (size_t i = 0; i < sizeof variances / sizeof *variances; i++) {
        bad_variance = variances[i];
        edit_tensors(source, temporary("bad.safetensors"), with_bad_variance);
        assert_int_equal(zi_store_open_file(temporary("bad.safetensors"), &bad, &error), ZIMAGE_OK);
        assert_error(&error, zi_vae_bind(&model, &config, bad, NULL, &error), ZIMAGE_ERROR_MODEL, "bad.safetensors",
                     "bn.running_var", "channel 3");
        zi_store_free(bad);
    }
}

/* ---- configurations ---------------------------------------------------------------------------------------------- */

static zimage_status load_flux2(const char *path, zimage_error *error)
{
    zi_vae_config config;
    return zi_vae_flux2_config_read(path, NULL, &config, error);
}

static void test_flux2_config(void **state)
{
    static const char *const numbers[] = {"latent_channels",    "in_channels",     "out_channels",
                                          "layers_per_block",   "norm_num_groups", "batch_norm_eps",
                                          "block_out_channels", "patch_size",      NULL};
    static const refusal refusals[] = {
        {"_class_name", "\"AutoencoderKL\"", ZIMAGE_ERROR_UNSUPPORTED},
        {"patch_size", "[1, 1]", ZIMAGE_ERROR_UNSUPPORTED},
        {"patch_size", "[2, 4]", ZIMAGE_ERROR_UNSUPPORTED},
        {"patch_size", "[2]", ZIMAGE_ERROR_MODEL},
        {"decoder_block_out_channels", "[4, 4]", ZIMAGE_ERROR_MODEL},
        {"decoder_block_out_channels", "[4, 5, 6]", ZIMAGE_ERROR_MODEL},
        {"decoder_block_out_channels", "7", ZIMAGE_ERROR_MODEL},
        {"act_fn", "\"relu\"", ZIMAGE_ERROR_UNSUPPORTED},
        {"in_channels", "4", ZIMAGE_ERROR_UNSUPPORTED},
    };
    expect_refusals(load_flux2, FLUX2 "/config.json", numbers, refusals, sizeof refusals / sizeof *refusals);
}

/* A missing field has the default of AutoencoderKLFlux2. */
static void test_flux2_defaults(void **state)
{
    static const int64_t channels[] = {128, 256, 512, 512};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_vae_config c;
    assert_int_equal(zi_vae_flux2_config_read("config.json", "{}", &c, &error), ZIMAGE_OK);
    assert_int_equal(c.levels, 4);
    assert_memory_equal(c.block_out_channels, channels, sizeof channels);
    assert_memory_equal(c.decoder_block_out_channels, channels, sizeof channels);
    assert_int_equal(c.layers_per_block, 2);
    assert_int_equal(c.latent_channels, 32);
    assert_int_equal(c.norm_num_groups, 32);
    assert_true(c.use_quant_conv && c.use_post_quant_conv && c.mid_block_add_attention);
    assert_true(c.batch_norm_eps == 1e-4);
    assert_int_equal(zi_vae_latent_channels(&c), 128);
    assert_int_equal(zi_vae_latent_size(&c), 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encode),
        cmocka_unit_test(test_encode_f16),
        cmocka_unit_test(test_encode_stages),
        cmocka_unit_test(test_flux2),
        cmocka_unit_test(test_flux2_small_decoder),
        cmocka_unit_test(test_encode_bands),
        cmocka_unit_test(test_mflux),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_without_encoder),
        cmocka_unit_test(test_incomplete_encoder),
        cmocka_unit_test(test_sizes_refused),
        cmocka_unit_test(test_names_bad_block),
        cmocka_unit_test(test_variance_limits),
        cmocka_unit_test(test_bad_statistics),
        cmocka_unit_test(test_flux2_config),
        cmocka_unit_test(test_flux2_defaults),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
