/* The transformer against diffusers on tests/golden/tiny, on the reference and the CPU backend; what it refuses. */
#include "model/zimage_dit.h"
#include "networks.h"

static void open_transformer(const char *folder, zi_store **store, zi_zimage_dit *model)
{
    char path[4096];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_zimage_dit_config config;
    golden_path(path, sizeof path, "tiny/transformer/config.json");
    if (zi_zimage_dit_config_read(path, NULL, &config, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    *store = open_component(folder, "diffusion_pytorch_model");
    if (zi_zimage_dit_bind(model, &config, *store, NULL, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
}

typedef struct dit_case {
    zi_tensor latents, features, caption, out;
    float t;
    size_t count;
} dit_case;

static zi_tensor golden_tensor(zi_run *run, const zi_store *golden, const char *which, const char *field)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%s", which, field);
    const zi_weight *weight = fixture_find(golden, name);
    float *values = fixture_floats(golden, name, NULL);
    zi_tensor tensor = table_tensor(run, weight->dims, weight->shape, values);
    free(values);
    return tensor;
}

static void load_case(dit_case *c, const zi_zimage_dit *model, zi_run *run, const zi_store *golden, const char *which)
{
    char name[64];
    snprintf(name, sizeof name, "%s.t", which);
    float *t = fixture_floats(golden, name, NULL);
    c->t = *t;
    free(t);
    c->latents = golden_tensor(run, golden, which, "latent");
    c->features = golden_tensor(run, golden, which, "caption");
    const int64_t caption_shape[] = {zi_zimage_dit_padded(c->features.shape[0]), model->config.dim};
    c->caption = table_tensor(run, 2, caption_shape, NULL);
    c->out = table_tensor(run, 3, c->latents.shape, NULL);
    c->count = (size_t)zi_tensor_count(&c->out);
}

static void transformer_case(const zi_zimage_dit *model, zi_run *run, const zi_store *golden, const char *which,
                             const char *output)
{
    dit_case c;
    int64_t blocks = 0;
    zi_arena_mark mark = zi_table(run)->mark(run);
    load_case(&c, model, run, golden, which);
    float *out = malloc(c.count * sizeof *out);
    assert_non_null(out);
    run->block_done = count_block;
    run->user = &blocks;
    table_ok(zi_zimage_dit_caption(model, run, &c.features, &c.caption));
    assert_int_equal(blocks, zi_zimage_dit_caption_blocks(model));
    table_ok(zi_zimage_dit_forward(model, run, &c.latents, c.t, &c.caption, &c.out));
    assert_int_equal(blocks, zi_zimage_dit_caption_blocks(model) + zi_zimage_dit_forward_blocks(model));
    run->block_done = NULL;
    table_ok(zi_table(run)->download(run, out, &c.out));
    compare(run, golden, "transformer", out, c.count, output);
    free(out);
    zi_table(run)->release(run, mark);
}

static void test_transformer(void **state)
{
    static const char *const cases[] = {"a", "b", "c", "d", "e"};
    zi_store *store, *golden = fixture_open("transformer.safetensors");
    zi_zimage_dit model;
    open_transformer("tiny/transformer", &store, &model);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        for (int i = 0; i < 5; i++) {
            char name[64];
            snprintf(name, sizeof name, "%s.output", cases[i]);
            transformer_case(&model, run, golden, cases[i], name);
        }
        table_close(run);
    }
    zi_zimage_dit_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
}

static void test_transformer_bf16_shards(void **state)
{
    zi_store *store, *golden = fixture_open("transformer.safetensors");
    zi_zimage_dit model;
    open_transformer("tiny-bf16-sharded/transformer", &store, &model);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        transformer_case(&model, run, golden, "a", "bf16.a.output");
        transformer_case(&model, run, golden, "b", "bf16.b.output");
        table_close(run);
    }
    zi_zimage_dit_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
}

/* What goes through one block, in the order of the calls. */
static void compare_block(zi_run *run, const zi_store *golden, const char *block, int index, int norm, int modulated)
{
    static const char *const kinds[] = {"q", "k", "v", "heads"};
    char name[96];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "a.%s.%s", block, kinds[i]);
        compare_record(run, golden, "transformer, layers", kinds[i], index, name);
    }
    snprintf(name, sizeof name, "a.%s.attention_in", block);
    compare_record(run, golden, "transformer, layers", "rms_norm", norm, name);
    snprintf(name, sizeof name, "a.%s.attention", block);
    compare_record(run, golden, "transformer, layers", "branch", 2 * index, name);
    snprintf(name, sizeof name, "a.%s.feed_forward_in", block);
    compare_record(run, golden, "transformer, layers", "next", index, name);
    snprintf(name, sizeof name, "a.%s.feed_forward", block);
    compare_record(run, golden, "transformer, layers", "branch", 2 * index + 1, name);
    if (!modulated)
        return;
    snprintf(name, sizeof name, "a.%s.adaln", block);
    compare_record(run, golden, "transformer, layers", "adaln", index, name);
}

static void compare_caption_stages(zi_run *run, const zi_store *golden)
{
    compare(run, golden, "transformer, layers", recorded("block", 0)->data, 7 * 64, "a.cap_embedder");
    compare_record(run, golden, "transformer, layers", "block", 0, "a.context_refiner.0.input");
    compare_record(run, golden, "transformer, layers", "cos", 0, "a.rope.caption_cos");
    compare_record(run, golden, "transformer, layers", "sin", 0, "a.rope.caption_sin");
    compare_block(run, golden, "context_refiner.0", 0, 1, 0);
    compare_record(run, golden, "transformer, layers", "block", 1, "a.context_refiner.0.output");
}

static void compare_forward_stages(zi_run *run, const zi_store *golden)
{
    compare_record(run, golden, "transformer, layers", "upload", 0, "a.t_frequencies");
    compare_record(run, golden, "transformer, layers", "block", 0, "a.t_embedder");
    compare_record(run, golden, "transformer, layers", "patches", 0, "a.x_tokens");
    compare(run, golden, "transformer, layers", recorded("block", 1)->data, 15 * 64, "a.x_embedder");
    compare_record(run, golden, "transformer, layers", "block", 1, "a.noise_refiner.0.input");
    compare_record(run, golden, "transformer, layers", "cos", 0, "a.rope.image_cos");
    compare_record(run, golden, "transformer, layers", "sin", 0, "a.rope.image_sin");
    compare_block(run, golden, "noise_refiner.0", 0, 0, 1);
    compare_record(run, golden, "transformer, layers", "block", 2, "a.noise_refiner.0.output");
    compare_block(run, golden, "layers.0", 1, 1, 1);
    compare_record(run, golden, "transformer, layers", "block", 3, "a.layers.0.output");
    compare_record(run, golden, "transformer, layers", "block", 4, "a.layers.1.output");
    compare_record(run, golden, "transformer, layers", "linear", -1, "a.final_layer"); /* the 15 real rows */
    compare_record(run, golden, "transformer, layers", "block", 5, "a.output");
}

static void test_transformer_stages(void **state)
{
    zi_store *store, *golden = fixture_open("transformer.safetensors");
    zi_zimage_dit model;
    open_transformer("tiny/transformer", &store, &model);
    for (int t = 0; t < TABLES; t++) {
        dit_case c;
        zi_run *run = table_open(t);
        load_case(&c, &model, run, golden, "a");
        record_start(run);
        table_ok(zi_zimage_dit_caption(&model, run, &c.features, &c.caption));
        compare_caption_stages(run, golden);
        record_clear();
        table_ok(zi_zimage_dit_forward(&model, run, &c.latents, c.t, &c.caption, &c.out));
        compare_forward_stages(run, golden);
        record_stop(run);
        table_close(run);
    }
    zi_zimage_dit_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
}

static void test_transformer_positions(void **state)
{
    zi_store *store;
    zi_zimage_dit model;
    zimage_error error = ZIMAGE_ERROR_INIT;
    open_transformer("tiny/transformer", &store, &model); /* axes_lens 640, 64, 64 */
    assert_int_equal(zi_zimage_dit_check_positions(&model, 608, 64, 64, &error), ZIMAGE_OK);
    assert_error(&error, zi_zimage_dit_check_positions(&model, 609, 64, 64, &error), ZIMAGE_ERROR_ARGUMENT, "609",
                 "608", "axes_lens");
    assert_error(&error, zi_zimage_dit_check_positions(&model, 1, 65, 64, &error), ZIMAGE_ERROR_ARGUMENT, "64 x 65",
                 "axes_lens", NULL);
    assert_error(&error, zi_zimage_dit_check_positions(&model, 1, 64, 100000, &error), ZIMAGE_ERROR_ARGUMENT, "100000",
                 "axes_lens", NULL);
    zi_zimage_dit_free(&model);
    zi_store_free(store);
}

static void expect_transformer_nan(zi_zimage_dit *model, zi_run *run, const zi_store *golden, const zi_weight **weight,
                                   const char *block)
{
    dit_case c;
    const zi_weight *good = *weight, bad = with_nan(good);
    zi_arena_mark mark = zi_table(run)->mark(run);
    *weight = &bad;
    load_case(&c, model, run, golden, "a");
    zimage_status status = zi_zimage_dit_caption(model, run, &c.features, &c.caption);
    if (status == ZIMAGE_OK)
        status = zi_zimage_dit_forward(model, run, &c.latents, c.t, &c.caption, &c.out);
    assert_error(&table_error, status, ZIMAGE_ERROR_NOT_FINITE, block, NULL, NULL);
    *weight = good;
    free((void *)bad.data);
    zi_table(run)->release(run, mark);
}

static void test_transformer_names_bad_block(void **state)
{
    zi_store *store, *golden = fixture_open("transformer.safetensors");
    zi_zimage_dit model;
    open_transformer("tiny/transformer", &store, &model);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        expect_transformer_nan(&model, run, golden, &model.cap_embedder, "transformer cap_embedder");
        expect_transformer_nan(&model, run, golden, &model.context_refiner[0].w2, "transformer context_refiner.0");
        expect_transformer_nan(&model, run, golden, &model.t_mlp0, "transformer t_embedder");
        expect_transformer_nan(&model, run, golden, &model.x_pad_token, "transformer x_embedder");
        expect_transformer_nan(&model, run, golden, &model.noise_refiner[0].adaln, "transformer noise_refiner.0");
        expect_transformer_nan(&model, run, golden, &model.layers[1].norm_k, "transformer layers.1");
        expect_transformer_nan(&model, run, golden, &model.final_linear, "transformer final_layer");
        table_close(run);
    }
    zi_zimage_dit_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
}

static int stop_at_block(void *user)
{
    return --*(int64_t *)user == 0;
}

static void test_transformer_cancel(void **state)
{
    zi_store *store, *golden = fixture_open("transformer.safetensors");
    zi_zimage_dit model;
    dit_case c;
    open_transformer("tiny/transformer", &store, &model);
    zi_run *run = table_open(0);
    load_case(&c, &model, run, golden, "a");
    table_ok(zi_zimage_dit_caption(&model, run, &c.features, &c.caption));
    run->block_done = stop_at_block;
    for (int64_t block = 1; block <= zi_zimage_dit_forward_blocks(&model); block++) {
        int64_t left = block;
        run->user = &left;
        zi_arena_mark before = zi_table(run)->mark(run);
        assert_int_equal(zi_zimage_dit_forward(&model, run, &c.latents, c.t, &c.caption, &c.out),
                         ZIMAGE_ERROR_CANCELLED);
        zi_arena_mark after = zi_table(run)->mark(run);
        assert_int_equal(left, 0);
        assert_true(before.chunk == after.chunk && before.used == after.used);
    }
    table_close(run);
    zi_zimage_dit_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
}

/* ---- configurations and weights ---------------------------------------------------------------------------------- */

static zimage_status load_transformer(const char *path, zimage_error *error)
{
    zi_zimage_dit_config config;
    return zi_zimage_dit_config_read(path, NULL, &config, error);
}

static void test_transformer_config(void **state)
{
    static const char *const numbers[] = {"in_channels",      "dim",       "n_layers",     "n_refiner_layers",
                                          "n_heads",          "norm_eps",  "cap_feat_dim", "t_scale",
                                          "rope_theta",       "axes_dims", "axes_lens",    "all_patch_size",
                                          "all_f_patch_size", NULL};
    static const refusal refusals[] = {
        {"n_heads", "3", ZIMAGE_ERROR_MODEL},
        {"n_heads", "2.0", ZIMAGE_ERROR_MODEL},
        {"axes_dims", "[8, 12, 14]", ZIMAGE_ERROR_MODEL},
        {"axes_dims", "[9, 11, 12]", ZIMAGE_ERROR_MODEL},
        {"axes_dims", "[8, 24]", ZIMAGE_ERROR_MODEL},
        {"axes_dims", "[8, 12, -12]", ZIMAGE_ERROR_MODEL},
        {"axes_lens", "[64, 64]", ZIMAGE_ERROR_MODEL},
        {"axes_lens", "[64, 64, 0]", ZIMAGE_ERROR_MODEL},
        {"all_f_patch_size", "[2]", ZIMAGE_ERROR_UNSUPPORTED},
        {"all_patch_size", "[1]", ZIMAGE_ERROR_UNSUPPORTED},
        {"all_f_patch_size", "[1, 1]", ZIMAGE_ERROR_MODEL},
        {"all_patch_size", "[]", ZIMAGE_ERROR_MODEL},
        {"qk_norm", "false", ZIMAGE_ERROR_UNSUPPORTED},
        {"qk_norm", "null", ZIMAGE_ERROR_UNSUPPORTED},
        {"qk_norm", "1", ZIMAGE_ERROR_MODEL},
        {"quantization_config", "{\"quant_method\": \"bitsandbytes\"}", ZIMAGE_ERROR_UNSUPPORTED},
        {"quantization_config", "{}", ZIMAGE_ERROR_UNSUPPORTED},
        {"siglip_feat_dim", "1152", ZIMAGE_ERROR_UNSUPPORTED},
        {"_class_name", "\"FluxTransformer2DModel\"", ZIMAGE_ERROR_UNSUPPORTED},
    };
    expect_refusals(load_transformer, "tiny/transformer/config.json", numbers, refusals,
                    sizeof refusals / sizeof *refusals);
}

static zi_zimage_dit_config read_transformer(const char *text)
{
    zi_zimage_dit_config config;
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (zi_zimage_dit_config_read("config.json", text, &config, &error) != ZIMAGE_OK)
        fail_msg("%s: %s", text, error.message);
    return config;
}

/* A missing field, and one that _use_default_values names, has the default of ZImageTransformer2DModel. */
static void test_transformer_defaults(void **state)
{
    const char *const texts[] = {
        "{}",
        "{\"siglip_feat_dim\": null, \"n_kv_heads\": 1, \"quantization_config\": null, \"made_up\": [7]}",
        ("{\"t_scale\": 10.0, \"all_patch_size\": [4], \"axes_lens\": [7, 7, 7], \"_use_default_values\": "
         "[\"t_scale\", "
         "\"all_patch_size\", \"axes_lens\"]}"),
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        zi_zimage_dit_config c = read_transformer(texts[i]);
        assert_int_equal(c.patch, 2);
        assert_int_equal(c.f_patch, 1);
        assert_int_equal(c.in_channels, 16);
        assert_int_equal(c.dim, 3840);
        assert_int_equal(c.n_layers, 30);
        assert_int_equal(c.n_refiner_layers, 2);
        assert_int_equal(c.n_heads, 30);
        assert_int_equal(c.cap_feat_dim, 2560);
        assert_true(c.norm_eps == 1e-5 && c.rope_theta == 256.0 && c.t_scale == 1000.0);
        assert_memory_equal(c.axes_dims, ((int64_t[]){32, 48, 48}), sizeof c.axes_dims);
        assert_memory_equal(c.axes_lens, ((int64_t[]){1024, 512, 512}), sizeof c.axes_lens);
    }
    /* Of several patch sizes the pipeline calls the pair (2, 1). */
    zi_zimage_dit_config pairs = read_transformer("{\"all_patch_size\": [1, 2, 4], \"all_f_patch_size\": [1, 1, 2]}");
    assert_int_equal(pairs.patch, 2);
    assert_int_equal(pairs.patch_pairs, 3);
}

/* Weights that do not fit a configuration: the names are in the message. */
static void test_binding(void **state)
{
    zi_store *store;
    zi_zimage_dit model, other;
    zimage_error error = ZIMAGE_ERROR_INIT;
    open_transformer("tiny/transformer", &store, &model);
    zi_zimage_dit_config config = model.config;
    config.n_layers = 3;
    assert_error(&error, zi_zimage_dit_bind(&other, &config, store, NULL, &error), ZIMAGE_ERROR_MODEL,
                 "layers.2.attention.to_q.weight", NULL, NULL);
    config.n_layers = 2;
    config.cap_feat_dim = 24;
    assert_error(&error, zi_zimage_dit_bind(&other, &config, store, NULL, &error), ZIMAGE_ERROR_MODEL,
                 "cap_embedder.1.weight", NULL, NULL);
    zi_zimage_dit_free(&model);
    zi_store_free(store);
}

/* What computation in 8 bits leaves alone, unless it is packed in 4 bits. */
static void test_precise(void **state)
{
    static const char *const precise[] = {"all_x_embedder.2-1.weight", "cap_embedder.1.weight",
                                          "all_final_layer.2-1.linear.weight"};
    zi_store *store;
    zi_zimage_dit model;
    zimage_error error = ZIMAGE_ERROR_INIT;
    open_transformer("tiny/transformer", &store, &model);
    for (size_t i = 0; i < zi_store_count(store); i++) {
        const zi_weight *weight = zi_store_at(store, i);
        int expected = strstr(weight->name, ".w2.") != NULL ? ZI_PRECISE_INT8 : 0;
        for (size_t j = 0; j < sizeof precise / sizeof *precise; j++)
            expected |= strcmp(weight->name, precise[j]) == 0 ? ZI_PRECISE : 0;
        assert_int_equal(weight->precise, expected);
    }
    zi_zimage_dit_free(&model);
    zi_store_free(store);

    zi_zimage_dit_config config;
    char path[4096];
    golden_path(path, sizeof path, "mlx/uqer1244/transformer/config.json");
    assert_int_equal(zi_zimage_dit_config_read(path, NULL, &config, &error), ZIMAGE_OK);
    store = open_component("mlx/uqer1244/transformer", "diffusion_pytorch_model");
    assert_int_equal(zi_zimage_dit_bind(&model, &config, store, NULL, &error), ZIMAGE_OK);
    assert_int_equal(model.cap_embedder->bits, 4);
    assert_false(model.cap_embedder->precise);
    zi_zimage_dit_free(&model);
    zi_store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transformer),
        cmocka_unit_test(test_transformer_bf16_shards),
        cmocka_unit_test(test_transformer_stages),
        cmocka_unit_test(test_transformer_positions),
        cmocka_unit_test(test_transformer_names_bad_block),
        cmocka_unit_test(test_transformer_cancel),
        cmocka_unit_test(test_transformer_config),
        cmocka_unit_test(test_transformer_defaults),
        cmocka_unit_test(test_binding),
        cmocka_unit_test(test_precise),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
