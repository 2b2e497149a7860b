/* The VAE against diffusers on tests/golden/tiny, on the reference and the CPU backend; what it refuses. */
#include "model/vae.h"
#include "ops/host.h"
#include "vae_files.h"

static void open_vae(const char *folder, zi_store **store, zi_vae *model)
{
    open_golden_vae("tiny/vae", folder, store, model);
}

/* The goldens' z is the decoder's own input. */
static void without_scaling(zi_vae *model)
{
    model->config.scaling_factor = 1;
    model->config.shift_factor = 0;
}

static const struct {
    int rows, columns;
} vae_sizes[] = {{3, 5}, {2, 2}, {8, 6}};

static void decode_case(const zi_vae *model, zi_run *run, const zi_store *golden, const char *z, const char *image,
                        int rows, int columns)
{
    int64_t blocks = 0;
    size_t count = (size_t)(rows * columns) * 64 * 3;
    float *latents = fixture_floats(golden, z, NULL), *rgb = malloc(count * sizeof *rgb);
    assert_non_null(rgb);
    run->block_done = count_block;
    run->user = &blocks;
    table_ok(zi_vae_decode(model, run, latents, rows, columns, 0, &(zi_vae_output){.rgb = rgb}));
    run->block_done = NULL;
    assert_int_equal(blocks, zi_vae_decode_blocks(model));
    fixture_channels_first(rgb, count);
    compare(run, golden, "VAE decoder", rgb, count, image);
    free(latents);
    free(rgb);
}

static void test_vae(void **state)
{
    zi_store *store, *golden = fixture_open("vae.safetensors");
    zi_vae model;
    open_vae("tiny/vae", &store, &model);
    without_scaling(&model);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        for (int i = 0; i < 3; i++) {
            char z[64], image[64];
            int rows = vae_sizes[i].rows, columns = vae_sizes[i].columns;
            snprintf(z, sizeof z, "decode.%dx%d.z", rows, columns);
            snprintf(image, sizeof image, "decode.%dx%d.image", rows, columns);
            decode_case(&model, run, golden, z, image, rows, columns);
        }
        table_close(run);
    }
    zi_vae_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
}

static void test_vae_f16(void **state)
{
    zi_store *store, *golden = fixture_open("vae.safetensors");
    zi_vae model;
    open_vae("tiny-f16/vae", &store, &model);
    without_scaling(&model);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        decode_case(&model, run, golden, "decode.2x2.z", "f16.2x2.image", 2, 2);
        table_close(run);
    }
    zi_vae_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
}

/* A recorded image [pixels, channels] against a golden [channels, rows, columns]. */
static void compare_image(zi_run *run, const zi_store *golden, int block, const char *name)
{
    const record *r = recorded("block", block);
    float *planes = malloc((size_t)r->count * sizeof *planes);
    assert_non_null(planes);
    fixture_to_planes(planes, r->data, (size_t)fixture_find(golden, name)->shape[0], (size_t)r->count);
    compare(run, golden, "VAE decoder, layers", planes, (size_t)r->count, name);
    free(planes);
}

static void test_vae_stages(void **state)
{
    /* blocks: conv_in, mid 0, attention, mid 1, then 2 resnets and an upsampler a level; the last upsampler's bands
     * (one band here) are checked on their own */
    static const struct {
        int block;
        const char *name;
    } stages[] = {
        {0, "3x5.conv_in"}, {1, "3x5.mid.resnet0"}, {2, "3x5.mid.attention"}, {3, "3x5.mid"},
        {6, "3x5.up.0"},    {9, "3x5.up.1"},        {12, "3x5.up.2"},         {14, "3x5.up.3"},
    };
    zi_store *store, *golden = fixture_open("vae.safetensors");
    zi_vae model;
    float rgb[24 * 40 * 3];
    open_vae("tiny/vae", &store, &model);
    without_scaling(&model);
    float *z = fixture_floats(golden, "decode.3x5.z", NULL);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        record_start(run);
        table_ok(zi_vae_decode(&model, run, z, 3, 5, 0, &(zi_vae_output){.rgb = rgb}));
        for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
            compare_image(run, golden, stages[i].block, stages[i].name);
        record_stop(run);
        table_close(run);
    }
    free(z);
    zi_vae_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
}

/* Streaming in bands must give the same bits as the whole image. */
static void test_vae_bands(void **state)
{
    static const int64_t bands[] = {64, 1000, 1, 2, 4, 7, 33, 63};
    zi_store *store, *golden = fixture_open("vae.safetensors");
    zi_vae model;
    size_t count = 64 * 48 * 3;
    float *whole = malloc(count * sizeof *whole), *streamed = malloc(count * sizeof *streamed);
    assert_true(whole && streamed);
    open_vae("tiny/vae", &store, &model);
    float *z = fixture_floats(golden, "decode.8x6.z", NULL);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        table_ok(zi_vae_decode(&model, run, z, 8, 6, 0, &(zi_vae_output){.rgb = whole}));
        for (size_t i = 0; i < sizeof bands / sizeof *bands; i++) {
            memset(streamed, 0, count * sizeof *streamed);
            table_ok(zi_vae_decode(&model, run, z, 8, 6, bands[i], &(zi_vae_output){.rgb = streamed}));
            if (memcmp(whole, streamed, count * sizeof *whole) != 0)
                fail_msg("%s: bands of %d rows differ from the whole", zi_table(run)->name, (int)bands[i]);
        }
        table_close(run);
    }
    free(z);
    free(whole);
    free(streamed);
    zi_vae_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
}

/* From the sampler's latents to bytes: equal, or one off where the float lies within 1e-4 of a boundary. */
static void rgb_case(const zi_vae *model, zi_run *run, const zi_store *golden, int rows, int columns)
{
    char name[64];
    size_t count = (size_t)(rows * columns) * 64 * 3;
    float *rgb = malloc(count * sizeof *rgb);
    uint8_t *bytes = malloc(count);
    assert_true(rgb && bytes);
    snprintf(name, sizeof name, "rgb.%dx%d.latents", rows, columns);
    float *latents = fixture_floats(golden, name, NULL);
    table_ok(zi_vae_decode(model, run, latents, rows, columns, 0, &(zi_vae_output){.rgb = rgb, .rgb8 = bytes}));
    snprintf(name, sizeof name, "rgb.%dx%d.rgb", rows, columns);
    const uint8_t *want = fixture_find(golden, name)->data;
    for (size_t i = 0; i < count; i++) {
        double level = (rgb[i] * 0.5 + 0.5) * 255;
        if (bytes[i] != want[i] && (abs(bytes[i] - want[i]) > 1 || fabs(level - floor(level) - 0.5) > 1e-4))
            fail_msg("%s %s: value %zu is %d, expected %d", zi_table(run)->name, name, i, bytes[i], want[i]);
    }
    free(latents);
    free(rgb);
    free(bytes);
}

static void test_vae_rgb(void **state)
{
    zi_store *store, *golden = fixture_open("vae.safetensors");
    zi_vae model;
    open_vae("tiny/vae", &store, &model);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        for (int i = 0; i < 3; i++)
            rgb_case(&model, run, golden, vae_sizes[i].rows, vae_sizes[i].columns);
        table_close(run);
    }
    zi_vae_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
}

static void test_rounding(void **state)
{
    zi_store *golden = fixture_open("vae.safetensors");
    size_t count;
    float *x = fixture_floats(golden, "rounding.x", &count);
    const uint8_t *want = fixture_find(golden, "rounding.u8")->data;
    uint8_t *bytes = malloc(count);
    assert_non_null(bytes);
    zi_to_rgb8(x, count, bytes);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(bytes[i], want[i]);
    free(x);
    free(bytes);
    zi_store_free(golden);
}

static void test_vae_names_bad_block(void **state)
{
    zi_store *store, *golden = fixture_open("vae.safetensors");
    zi_vae model;
    float rgb[16 * 16 * 3];
    open_vae("tiny/vae", &store, &model);
    float *z = fixture_floats(golden, "decode.2x2.z", NULL);
    const struct {
        const zi_weight **weight;
        const char *block;
    } cases[] = {
        {&model.decoder.conv_in.weight, "vae decoder.conv_in"},
        {&model.decoder.mid.resnets[0].norm2.bias, "vae decoder.mid_block.resnets.0"},
        {&model.decoder.mid.attention.to_v.bias, "vae decoder.mid_block.attentions.0"},
        {&model.decoder.samplers[0].bias, "vae decoder.up_blocks.0.upsamplers.0"},
        {&model.decoder.resnets[2].conv1.bias, "vae decoder.up_blocks.1.resnets.0"},
        {&model.decoder.samplers[2].weight, "vae decoder.up_blocks.2.upsamplers.0"},
        {&model.decoder.resnets[6].conv_shortcut.weight, "vae decoder.up_blocks.3.resnets.0"},
        {&model.decoder.conv_out.weight, "vae decoder.conv_out"},
    };
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            const zi_weight *good = *cases[i].weight, bad = with_nan(good);
            *cases[i].weight = &bad;
            assert_error(&table_error, zi_vae_decode(&model, run, z, 2, 2, 4, &(zi_vae_output){.rgb = rgb}),
                         ZIMAGE_ERROR_NOT_FINITE, cases[i].block, NULL, NULL);
            *cases[i].weight = good;
            free((void *)bad.data);
        }
        table_close(run);
    }
    free(z);
    zi_vae_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
}

/* ---- configurations ---------------------------------------------------------------------------------------------- */

static zimage_status load_vae(const char *path, zimage_error *error)
{
    zi_vae_config config;
    return zi_vae_config_read(path, NULL, &config, error);
}

static void test_vae_config(void **state)
{
    static const char *const numbers[] = {"latent_channels", "in_channels",    "out_channels",       "layers_per_block",
                                          "norm_num_groups", "scaling_factor", "block_out_channels", NULL};
    static const refusal refusals[] = {
        {"shift_factor", "null", ZIMAGE_ERROR_MODEL},
        {"shift_factor", NULL, ZIMAGE_ERROR_MODEL},
        {"up_block_types", "null", ZIMAGE_ERROR_MODEL},
        {"quantization_config", "{\"quant_method\": \"gguf\"}", ZIMAGE_ERROR_UNSUPPORTED},
        {"norm_num_groups", "8", ZIMAGE_ERROR_MODEL},
        {"block_out_channels", "[8, 0]", ZIMAGE_ERROR_MODEL},
        {"out_channels", "4", ZIMAGE_ERROR_UNSUPPORTED},
        {"in_channels", "4", ZIMAGE_ERROR_UNSUPPORTED},
        {"act_fn", "\"relu\"", ZIMAGE_ERROR_UNSUPPORTED},
        {"latents_mean", "[0]", ZIMAGE_ERROR_UNSUPPORTED},
        {"decoder_block_out_channels", "[8]", ZIMAGE_ERROR_UNSUPPORTED},
        {"up_block_types", "[\"UpDecoderBlock2D\"]", ZIMAGE_ERROR_MODEL},
        {"up_block_types", "[\"A\", \"B\", \"C\", \"D\"]", ZIMAGE_ERROR_UNSUPPORTED},
        {"_class_name", "\"AutoencoderKLFlux2\"", ZIMAGE_ERROR_UNSUPPORTED},
        {"use_post_quant_conv", "1", ZIMAGE_ERROR_MODEL},
        {"use_quant_conv", "\"no\"", ZIMAGE_ERROR_MODEL},
    };
    expect_refusals(load_vae, "tiny/vae/config.json", numbers, refusals, sizeof refusals / sizeof *refusals);
}

static zi_vae_config read_vae(const char *text)
{
    zi_vae_config config;
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (zi_vae_config_read("config.json", text, &config, &error) != ZIMAGE_OK)
        fail_msg("%s: %s", text, error.message);
    return config;
}

/* A missing field has the default of AutoencoderKL; null is false, where a field is true or false. */
static void test_vae_defaults(void **state)
{
    zi_vae_config c = read_vae("{\"shift_factor\": 0.5}");
    assert_int_equal(c.levels, 1);
    assert_int_equal(c.block_out_channels[0], 64);
    assert_int_equal(c.layers_per_block, 1);
    assert_int_equal(c.latent_channels, 4);
    assert_int_equal(c.norm_num_groups, 32);
    assert_true(c.scaling_factor == 0.18215 && c.shift_factor == 0.5);
    assert_true(c.mid_block_add_attention && c.use_quant_conv && c.use_post_quant_conv);
    assert_int_equal(c.decoder_block_out_channels[0], 64);
    assert_int_equal(c.patch, 1);
    c = read_vae(
        "{\"shift_factor\": 0, \"act_fn\": \"SiLU\", \"mid_block_add_attention\": null, "
        "\"use_post_quant_conv\": null, \"scaling_factor\": 3, \"_use_default_values\": [\"scaling_factor\"]}");
    assert_true(!c.mid_block_add_attention && !c.use_post_quant_conv && c.scaling_factor == 0.18215);
}

static void to_outdated(vae_tensor *tensor)
{
    rename_part(tensor, ".attentions.0.to_q.", ".attentions.0.query.");
    rename_part(tensor, ".attentions.0.to_k.", ".attentions.0.key.");
    rename_part(tensor, ".attentions.0.to_v.", ".attentions.0.value.");
    rename_part(tensor, ".attentions.0.to_out.0.", ".attentions.0.proj_attn.");
}

/* Files of diffusers before 0.18 have other names of the attention's layers. diffusers renames them in single files. */
static void test_vae_outdated_names(void **state)
{
    char source[4096];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_vae_config config;
    zi_store *store, *other;
    zi_vae model, outdated;
    open_vae("tiny/vae", &store, &model);
    config = model.config;
    golden_path(source, sizeof source, "tiny/vae/diffusion_pytorch_model.safetensors");
    edit_tensors(source, temporary("outdated.safetensors"), to_outdated);
    assert_int_equal(zi_store_open_file(temporary("outdated.safetensors"), &other, &error), ZIMAGE_OK);
    if (zi_vae_bind(&outdated, &config, other, NULL, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    assert_memory_equal(outdated.decoder.mid.attention.to_k.weight->data, model.decoder.mid.attention.to_k.weight->data,
                        model.decoder.mid.attention.to_k.weight->bytes);
    assert_memory_equal(outdated.encoder.mid.attention.to_v.weight->data, model.encoder.mid.attention.to_v.weight->data,
                        model.encoder.mid.attention.to_v.weight->bytes);
    assert_memory_equal(outdated.decoder.mid.attention.to_out.bias->data, model.decoder.mid.attention.to_out.bias->data,
                        model.decoder.mid.attention.to_out.bias->bytes);
    zi_vae_free(&outdated);
    zi_store_free(other);
    zi_vae_free(&model);
    zi_store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vae),
        cmocka_unit_test(test_vae_f16),
        cmocka_unit_test(test_vae_stages),
        cmocka_unit_test(test_vae_bands),
        cmocka_unit_test(test_vae_rgb),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_vae_names_bad_block),
        cmocka_unit_test(test_vae_config),
        cmocka_unit_test(test_vae_defaults),
        cmocka_unit_test(test_vae_outdated_names),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
