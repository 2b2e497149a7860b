/*
 * Networks whose weights are made by a formula (spec golden.md, section 0), so that nothing but numbers is needed:
 * against tests/golden/formula.safetensors and the values printed in the specification.
 */
#include "fixture.h"
#include "flux2_weights.h"
#include "model/qwen3.h"
#include "model/vae.h"
#include "model/zimage_dit.h"
#include "record_ops.h"
#include "tables.h"

/* ---- the generator ----------------------------------------------------------------------------------------------- */

/* G(name, shape, scale, base): float32(base + scale sin(0.7 k + phase)), k = 1 .. count */
static void generate(const char *name, float *out, int64_t count, double scale, double base)
{
    double phase = crc32_of(name) % 10007 * 0.001;
    for (int64_t k = 1; k <= count; k++)
        out[k - 1] = (float)(base + scale * sin(0.7 * (double)k + phase));
}

static void generate_weight(const char *name, int dims, const int64_t *shape, float *out)
{
    size_t length = strlen(name);
    int64_t count = 1;
    for (int i = 0; i < dims; i++)
        count *= shape[i];
    if (dims > 1)
        generate(name, out, count, 1 / sqrt((double)(count / shape[0])), 0);
    else if (length >= 6 && strcmp(name + length - 6, "weight") == 0)
        generate(name, out, count, 0.1, 1);
    else
        generate(name, out, count, 0.05, 0);
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static zi_store *golden;

static int set_up(void **state)
{
    golden = fixture_open("formula.safetensors");
    return make_temporary_folder(state);
}

static int tear_down(void **state)
{
    zi_store_free(golden);
    return remove_temporary_folder(state);
}

static void compare(const char *table, const char *name, const float *ours, size_t count)
{
    char line[128];
    float *want = fixture_floats(golden, name, NULL);
    snprintf(line, sizeof line, "%s: networks with weights of a formula: %s", table, name);
    parity(line, ours, want, count, 2e-5);
    free(want);
}

/* The first values, the sum and the sum of absolute values that golden.md prints, with its tolerances. */
static void compare_printed(const float *ours, size_t count, const float first[4], double sum, double sum_abs)
{
    double total = 0, total_abs = 0;
    for (int i = 0; i < 4; i++)
        assert_true(fabsf(ours[i] - first[i]) <= 2e-5f);
    for (size_t i = 0; i < count; i++) {
        total += ours[i];
        total_abs += fabs(ours[i]);
    }
    assert_true(fabs(total - sum) <= 1e-4 * sum_abs);
    assert_true(fabs(total_abs - sum_abs) <= 1e-4 * sum_abs);
}

static void test_generator(void **state)
{
    static const struct {
        const char *name;
        int dims;
        int64_t shape[2];
        float first[4];
    } cases[] = {
        {"x_pad_token", 2, {1, 64}, {-0.1153933f, -0.0572990f, 0.0277438f, 0.0997384f}},
        {"t_embedder.mlp.0.weight", 2, {1024, 256}, {-0.0548905f, -0.0227282f, 0.0201234f, 0.0535107f}},
        {"layers.0.attention.norm_q.weight", 1, {32}, {1.0922146f, 1.0456086f, 0.9775522f, 0.9200533f}},
        {"all_x_embedder.2-1.bias", 1, {64}, {-0.0133080f, -0.0412275f, -0.0497571f, -0.0348851f}},
        {"cap_embedder.0.weight", 1, {24}, {0.9087569f, 0.9565768f, 1.0248194f, 1.0813890f}},
    };
    float *values = malloc(1024 * 256 * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        generate_weight(cases[i].name, cases[i].dims, cases[i].shape, values);
        for (int k = 0; k < 4; k++)
            assert_true(fabsf(values[k] - cases[i].first[k]) <= 1e-7f);
    }
    free(values);
}

/* ---- transformer (golden.md 1) ----------------------------------------------------------------------------------- */

static void add_block(weights_file *file, const zi_zimage_dit_config *config, const char *stack, int index,
                      int modulated)
{
    char prefix[64];
    int64_t dim = config->dim, ffn = config->ffn_dim;
    snprintf(prefix, sizeof prefix, "%s.%d.", stack, index);
    add2(file, prefix, "attention.to_q.weight", dim, dim);
    add2(file, prefix, "attention.to_k.weight", dim, dim);
    add2(file, prefix, "attention.to_v.weight", dim, dim);
    add2(file, prefix, "attention.to_out.0.weight", dim, dim);
    add1(file, prefix, "attention.norm_q.weight", config->head_dim);
    add1(file, prefix, "attention.norm_k.weight", config->head_dim);
    add2(file, prefix, "feed_forward.w1.weight", ffn, dim);
    add2(file, prefix, "feed_forward.w2.weight", dim, ffn);
    add2(file, prefix, "feed_forward.w3.weight", ffn, dim);
    add1(file, prefix, "attention_norm1.weight", dim);
    add1(file, prefix, "attention_norm2.weight", dim);
    add1(file, prefix, "ffn_norm1.weight", dim);
    add1(file, prefix, "ffn_norm2.weight", dim);
    if (modulated)
        add_pair(file, prefix, "adaLN_modulation.0", 4 * dim, config->adaln_dim, 0);
}

static zi_store *open_transformer(const zi_zimage_dit_config *config)
{
    weights_file *file = weights_new(generate_weight);
    add2(file, "", "x_pad_token", 1, config->dim);
    add2(file, "", "cap_pad_token", 1, config->dim);
    add_pair(file, "", "all_x_embedder.2-1", config->dim, 16, 0);
    add1(file, "", "cap_embedder.0.weight", config->cap_feat_dim);
    add_pair(file, "", "cap_embedder.1", config->dim, config->cap_feat_dim, 0);
    add_pair(file, "", "t_embedder.mlp.0", config->t_hidden, 256, 0);
    add_pair(file, "", "t_embedder.mlp.2", config->adaln_dim, config->t_hidden, 0);
    add_pair(file, "", "all_final_layer.2-1.linear", 16, config->dim, 0);
    add_pair(file, "", "all_final_layer.2-1.adaLN_modulation.1", config->dim, config->adaln_dim, 0);
    add_block(file, config, "noise_refiner", 0, 1);
    add_block(file, config, "context_refiner", 0, 0);
    add_block(file, config, "layers", 0, 1);
    add_block(file, config, "layers", 1, 1);
    return weights_open(file);
}

static void run_transformer(const zi_zimage_dit *model, zi_run *run)
{
    static const float t_first[] = {-0.119548f, -0.320818f, -0.436345f, -0.429780f};
    static const float layer_first[] = {0.396527f, -0.349188f, -0.912770f, -0.358671f};
    static const float out_first[] = {-0.679554f, 0.599488f, -0.670396f, 0.594973f};
    const int64_t latent_shape[] = {4, 10, 6}, feature_shape[] = {7, 24}, caption_shape[] = {32, 64};
    float latents[240], features[7 * 24];
    generate("latent", latents, 240, 1, 0);
    generate("caption", features, 7 * 24, 1, 0);
    zi_tensor x = table_tensor(run, 3, latent_shape, latents), out = table_tensor(run, 3, latent_shape, NULL);
    zi_tensor f = table_tensor(run, 2, feature_shape, features), caption = table_tensor(run, 2, caption_shape, NULL);
    const char *table = zi_table(run)->name;

    record_start(run);
    table_ok(zi_zimage_dit_caption(model, run, &f, &caption));
    compare(table, "z_image.context_refiner.0", recorded("block", 1)->data, 32 * 64);
    record_clear();
    table_ok(zi_zimage_dit_forward(model, run, &x, 0.3f, &caption, &out));
    compare(table, "z_image.t_embedder", recorded("block", 0)->data, 64);
    compare_printed(recorded("block", 0)->data, 64, t_first, -0.91650, 16.53087);
    compare(table, "z_image.noise_refiner.0", recorded("block", 2)->data, 32 * 64);
    compare_printed(recorded("block", 4)->data, 64 * 64, layer_first, 579.09505, 3649.14585);
    compare(table, "z_image.output", recorded("block", 5)->data, 240);
    compare_printed(recorded("block", 5)->data, 240, out_first, -7.62453, 111.20229);
    record_stop(run);
}

static void test_transformer(void **state)
{
    zi_zimage_dit_config config = {
        .patch = 2,
        .f_patch = 1,
        .in_channels = 4,
        .dim = 64,
        .n_layers = 2,
        .n_refiner_layers = 1,
        .n_heads = 2,
        .cap_feat_dim = 24,
        .norm_eps = 1e-5,
        .rope_theta = 256,
        .t_scale = 1000,
        .axes_dims = {8, 12, 12},
        .axes_lens = {256, 64, 64},
    };
    zi_zimage_dit model;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_zimage_dit_config_derive(&config);
    assert_int_equal(config.ffn_dim, 170);
    zi_store *store = open_transformer(&config);
    if (zi_zimage_dit_bind(&model, &config, store, NULL, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        run_transformer(&model, run);
        table_close(run);
    }
    zi_zimage_dit_free(&model);
    zi_store_free(store);
}

/* int(dim / 3 * 8) in floating point, as the reference computes it. */
static void test_ffn_dim(void **state)
{
    static const int64_t pairs[][2] = {{3840, 10240}, {64, 170}, {32, 85}, {16, 42}, {384, 1024}, {3, 8}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        zi_zimage_dit_config config = {.dim = pairs[i][0], .n_heads = 1};
        zi_zimage_dit_config_derive(&config);
        assert_int_equal(config.ffn_dim, pairs[i][1]);
    }
}

/* ---- FLUX.2 transformer (golden.md 2) ---------------------------------------------------------------------------- */

static void run_flux2(const zi_flux2_dit *model, zi_run *run)
{
    static const float text_first[] = {-0.384104f, -1.993798f, 2.219868f, -0.052267f};
    const int64_t shape[] = {16, 3, 4}, feature_shape[] = {5, 24}, context_shape[] = {5, 64};
    float tokens[16 * 16], latents[16 * 12], reference[16 * 4], features[5 * 24], want[16 * 12];
    generate("latent", tokens, 16 * 16, 1, 0);
    generate("text", features, 5 * 24, 1, 0);
    float *output = fixture_floats(golden, "klein.output", NULL);
    for (int channel = 0; channel < 16; channel++) {
        for (int i = 0; i < 12; i++) {
            latents[channel * 12 + i] = tokens[i * 16 + channel];
            want[channel * 12 + i] = output[i * 16 + channel];
        }
        for (int i = 0; i < 4; i++)
            reference[channel * 4 + i] = tokens[(12 + i) * 16 + channel];
    }
    free(output);
    zi_tensor x = table_tensor(run, 3, shape, latents), out = table_tensor(run, 3, shape, NULL);
    zi_tensor f = table_tensor(run, 2, feature_shape, features), context = table_tensor(run, 2, context_shape, NULL);
    const zi_reference image = {2, 2, reference};
    const zi_flux2_references references = {.images = &image, .count = 1};
    zi_flux2_dit_inputs inputs;
    const zi_flux2_dit_inputs *const list[] = {&inputs};

    table_ok(zi_flux2_dit_context(model, run, &f, &context));
    table_ok(zi_flux2_dit_prepare(model, run, &context, 3, 4, &references, &inputs));
    const char *table = zi_table(run)->name;
    record_start(run);
    table_ok(zi_flux2_dit_forward_passes(list, 1, run, &x, zi_flux2_timestep(0.75f, 0), &out));
    compare_printed(recorded("block", -3)->data, 21 * 64, text_first, -1.79170, 1811.19912);
    /* of the last block golden.md prints what begins with the text, whose rows are not computed */
    assert_int_equal(recorded("block", -2)->count, 12 * 64);
    char line[128];
    snprintf(line, sizeof line, "%s: networks with weights of a formula: klein.output", table);
    parity(line, recorded("block", -1)->data, want, 16 * 12, 2e-5);
    record_stop(run);
}

static void test_flux2(void **state)
{
    zi_flux2_dit_config config = {
        .in_channels = 16,
        .num_layers = 2,
        .num_single_layers = 2,
        .heads = 2,
        .head_dim = 32,
        .joint_dim = 24,
        .time_channels = 256,
        .axes_dims = {8, 8, 8, 8},
        .mlp_ratio = 3,
        .rope_theta = 2000,
        .eps = 1e-6,
    };
    zi_flux2_dit model;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_flux2_dit_config_derive(&config);
    weights_file *file = weights_new(generate_weight);
    add_flux2(file, &config);
    zi_store *store = weights_open(file);
    if (zi_flux2_dit_bind(&model, &config, store, NULL, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        run_flux2(&model, run);
        table_close(run);
    }
    zi_flux2_dit_free(&model);
    zi_store_free(store);
}

/* ---- text encoder (golden.md 4) ---------------------------------------------------------------------------------- */

static zi_store *open_text_encoder(const zi_qwen3_config *config)
{
    weights_file *file = weights_new(generate_weight);
    int64_t hidden = config->hidden_size, q = config->num_attention_heads * config->head_dim;
    int64_t kv = config->num_key_value_heads * config->head_dim;
    add2(file, "", "embed_tokens.weight", config->vocab_size, hidden); /* no "model." prefix here */
    for (int i = 0; i < 3; i++) { /* the last layer is not needed, nor even there */
        char prefix[64];
        snprintf(prefix, sizeof prefix, "layers.%d.", i);
        add1(file, prefix, "input_layernorm.weight", hidden);
        add2(file, prefix, "self_attn.q_proj.weight", q, hidden);
        add2(file, prefix, "self_attn.k_proj.weight", kv, hidden);
        add2(file, prefix, "self_attn.v_proj.weight", kv, hidden);
        add2(file, prefix, "self_attn.o_proj.weight", hidden, q);
        add1(file, prefix, "self_attn.q_norm.weight", config->head_dim);
        add1(file, prefix, "self_attn.k_norm.weight", config->head_dim);
        add1(file, prefix, "post_attention_layernorm.weight", hidden);
        add2(file, prefix, "mlp.gate_proj.weight", config->intermediate_size, hidden);
        add2(file, prefix, "mlp.up_proj.weight", config->intermediate_size, hidden);
        add2(file, prefix, "mlp.down_proj.weight", hidden, config->intermediate_size);
    }
    add1(file, "", "norm.weight", hidden);
    return weights_open(file);
}

static void test_text_encoder(void **state)
{
    static const float first[] = {-0.460167f, 0.547598f, -0.704573f, -0.556980f};
    static const int32_t ids[] = {3, 14, 15, 9, 26, 5};
    const int64_t shape[] = {6, 32};
    const zi_qwen3_config config = {
        .hidden_size = 32,
        .intermediate_size = 48,
        .num_hidden_layers = 4,
        .num_attention_heads = 4,
        .num_key_value_heads = 2,
        .head_dim = 16,
        .vocab_size = 50,
        .rms_norm_eps = 1e-6,
        .rope_theta = 1e6,
        .states = {3},
        .state_count = 1,
    };
    zi_qwen3 model;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *store = open_text_encoder(&config);
    if (zi_qwen3_bind(&model, &config, store, NULL, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        const char *table = zi_table(run)->name;
        zi_tensor out = table_tensor(run, 2, shape, NULL);
        record_start(run);
        table_ok(zi_qwen3_encode(&model, run, ids, 6, 6, &out));
        compare(table, "qwen3.hidden_states.0", recorded("block", 0)->data, 6 * 32);
        compare(table, "qwen3.hidden_states.1", recorded("block", 1)->data, 6 * 32);
        compare(table, "qwen3.hidden_states.2", recorded("block", 2)->data, 6 * 32);
        compare(table, "qwen3.hidden_states.3", recorded("block", 3)->data, 6 * 32);
        compare_printed(recorded("block", 3)->data, 6 * 32, first, -1.18177, 101.71833);
        record_stop(run);
        table_close(run);
    }
    zi_qwen3_free(&model);
    zi_store_free(store);
}

/* ---- VAE (golden.md 3) ------------------------------------------------------------------------------------------- */

static void add_resnet(weights_file *file, const char *prefix, int64_t in, int64_t out)
{
    add_pair(file, prefix, "norm1", in, 0, 0);
    add_pair(file, prefix, "conv1", out, in, 3);
    add_pair(file, prefix, "norm2", out, 0, 0);
    add_pair(file, prefix, "conv2", out, out, 3);
    if (in != out)
        add_pair(file, prefix, "conv_shortcut", out, in, 1);
}

static void add_mid_block(weights_file *file, const char *half)
{
    char prefix[64];
    for (int i = 0; i < 2; i++) {
        snprintf(prefix, sizeof prefix, "%s.mid_block.resnets.%d.", half, i);
        add_resnet(file, prefix, 32, 32);
    }
    snprintf(prefix, sizeof prefix, "%s.mid_block.attentions.0.", half);
    add_pair(file, prefix, "group_norm", 32, 0, 0);
    add_pair(file, prefix, "to_q", 32, 32, 0);
    add_pair(file, prefix, "to_k", 32, 32, 0);
    add_pair(file, prefix, "to_v", 32, 32, 0);
    add_pair(file, prefix, "to_out.0", 32, 32, 0);
}

static void add_encoder(weights_file *file)
{
    add_pair(file, "encoder.", "conv_in", 16, 3, 3);
    add_resnet(file, "encoder.down_blocks.0.resnets.0.", 16, 16);
    add_pair(file, "encoder.down_blocks.0.downsamplers.0.", "conv", 16, 16, 3);
    add_resnet(file, "encoder.down_blocks.1.resnets.0.", 16, 32);
    add_mid_block(file, "encoder");
    add_pair(file, "encoder.", "conv_norm_out", 32, 0, 0);
    add_pair(file, "encoder.", "conv_out", 8, 32, 3);
}

static zi_store *open_vae(const zi_vae_config *config)
{
    weights_file *file = weights_new(generate_weight);
    if (config->use_post_quant_conv)
        add_pair(file, "", "post_quant_conv", 4, 4, 1);
    if (config->use_quant_conv)
        add_pair(file, "", "quant_conv", 8, 8, 1);
    add_encoder(file);
    add_pair(file, "decoder.", "conv_in", 32, 4, 3);
    add_mid_block(file, "decoder");
    add_resnet(file, "decoder.up_blocks.0.resnets.0.", 32, 32);
    add_resnet(file, "decoder.up_blocks.0.resnets.1.", 32, 32);
    add_pair(file, "decoder.up_blocks.0.upsamplers.0.", "conv", 32, 32, 3);
    add_resnet(file, "decoder.up_blocks.1.resnets.0.", 32, 16);
    add_resnet(file, "decoder.up_blocks.1.resnets.1.", 16, 16);
    add_pair(file, "decoder.", "conv_norm_out", 16, 0, 0);
    add_pair(file, "decoder.", "conv_out", 3, 16, 3);
    return weights_open(file);
}

/* What the specification prints of a result. */
typedef struct printed {
    const char *name;
    float first[4];
    double sum, sum_abs;
} printed;

static zimage_status upload_formula(zi_run *run, zi_tensor *dst, const float *src)
{
    static const int64_t shape[] = {8, 12, 3};
    float planes[3 * 8 * 12], pixels[3 * 8 * 12];
    assert_int_equal(dst->dims, 3);
    assert_memory_equal(dst->shape, shape, sizeof shape);
    generate("img", planes, 3 * 8 * 12, 1, 0);
    for (int i = 0; i < 3 * 8 * 12; i++)
        pixels[i] = planes[i % 3 * 8 * 12 + i / 3];
    return recorder.inner->upload(run, dst, pixels);
}

/* The image is made by the formula, so that its values are no bytes: it takes the place of the uploaded image. */
static void encode_case(const zi_vae *model, zi_run *run, const printed *want)
{
    static const uint8_t image[8 * 12 * 3];
    float moments[8 * 4 * 6];
    record_start(run);
    recorder.table.upload = upload_formula;
    table_ok(zi_vae_encode(model, run, image, 8, 12, 0, moments));
    record_stop(run);
    compare(zi_table(run)->name, want->name, moments, 8 * 4 * 6);
    compare_printed(moments, 8 * 4 * 6, want->first, want->sum, want->sum_abs);
}

static void vae_case(int quant_convs, const printed *decoded, const printed *encoded)
{
    const zi_vae_config config = {
        .latent_channels = 4,
        .layers_per_block = 1,
        .norm_num_groups = 8,
        .levels = 2,
        .block_out_channels = {16, 32},
        .decoder_block_out_channels = {16, 32},
        .mid_block_add_attention = 1,
        .use_quant_conv = quant_convs,
        .use_post_quant_conv = quant_convs,
        .scaling_factor = 1,
        .shift_factor = 0,
        .scale_factor = 2,
        .patch = 1,
    };
    zi_vae model;
    float z[4 * 3 * 5], rgb[3 * 6 * 10];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *store = open_vae(&config);
    if (zi_vae_bind(&model, &config, store, NULL, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    generate("z", z, 4 * 3 * 5, 1, 0);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        table_ok(zi_vae_decode(&model, run, z, 3, 5, 0, &(zi_vae_output){.rgb = rgb}));
        fixture_channels_first(rgb, 3 * 6 * 10);
        compare(zi_table(run)->name, decoded->name, rgb, 3 * 6 * 10);
        compare_printed(rgb, 3 * 6 * 10, decoded->first, decoded->sum, decoded->sum_abs);
        encode_case(&model, run, encoded);
        table_close(run);
    }
    zi_vae_free(&model);
    zi_store_free(store);
}

static void test_vae(void **state)
{
    static const printed a[] = {
        {"vae_a.decode", {0.541873f, 0.577389f, 0.750606f, 0.853782f}, -4.59838, 111.97377},
        {"vae_a.encode", {0.451652f, 1.357874f, 1.536658f, 1.035666f}, 17.32683, 108.28299},
    };
    static const printed b[] = {
        {"vae_b.decode", {0.981129f, 1.591034f, 2.351632f, 2.765601f}, -22.57541, 155.88630},
        {"vae_b.encode", {1.572101f, 1.895474f, 1.610388f, 1.035585f}, 13.11775, 142.45059},
    };
    vae_case(0, &a[0], &a[1]);
    vae_case(1, &b[0], &b[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generator), cmocka_unit_test(test_transformer),  cmocka_unit_test(test_ffn_dim),
        cmocka_unit_test(test_flux2),     cmocka_unit_test(test_text_encoder), cmocka_unit_test(test_vae),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
