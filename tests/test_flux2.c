/* The FLUX.2 transformer against diffusers, on the reference backend and every set of CPU kernels; what it refuses. */
#include "cpu/features.h"
#include "cpu/selftest.h"
#include "flux2_cases.h"
#include "ops/host.h"

/* float32: as the reference. The others: what diffusers itself is off in bf16 (below), and for int8
 * twice that. */
#define F32_TOLERANCE  2e-5
#define BF16_TOLERANCE 1.1e-2
#define INT8_TOLERANCE 2.2e-2

static zi_store *store, *golden;
static zi_flux2_dit model;

static int set_up(void **state)
{
    if (make_temporary_folder(state) != 0)
        return -1;
    golden = fixture_open("flux2.safetensors");
    open_flux2(&store, &model);
    return 0;
}

static int tear_down(void **state)
{
    zi_flux2_dit_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
    return remove_temporary_folder(state);
}

/* ---- outputs ----------------------------------------------------------------------------------------------------- */

static void test_reference(void **state)
{
    zi_run *run = table_open(0);
    for (int i = 0; i < FLUX2_CASES; i++)
        flux2_compare(&model, run, golden, "reference", &flux2_cases[i], 1, F32_TOLERANCE);
    table_close(run);
}

static double tolerance_of(const zi_cpu_set *set)
{
    zi_cases_options options = zi_cpu_cases_options(set);
    return options.compute == ZIMAGE_COMPUTE_F32    ? F32_TOLERANCE
           : options.compute == ZIMAGE_COMPUTE_BF16 ? BF16_TOLERANCE
                                                    : INT8_TOLERANCE;
}

static void test_cpu(void **state)
{
    zi_cpu_set set;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_run run = {.error = &error};
    zi_pool *pool;
    assert_int_equal(zi_pool_new(2, &pool, &error), ZIMAGE_OK);
    for (int i = 0; zi_cpu_set_at(i, zi_cpu_features(), &set); i++) {
        char name[64];
        if (!set.usable)
            continue;
        assert_int_equal(zi_cpu_new_with_set(pool, &set, &run.ops, &error), ZIMAGE_OK);
        snprintf(name, sizeof name, "cpu %s", set.name);
        for (int j = 0; j < FLUX2_CASES; j++)
            flux2_compare(&model, &run, golden, name, &flux2_cases[j], 1, tolerance_of(&set));
        zi_table(&run)->free(run.ops);
    }
    zi_pool_free(pool);
}

/* What bf16 costs diffusers, as BF16_TOLERANCE says. */
static void test_bf16_of_the_reference(void **state)
{
    size_t count;
    float *want = fixture_floats(golden, "two.output.rounded", &count),
          *half = fixture_floats(golden, "two.output.bf16", NULL);
    double error = relative_error(half, want, count);
    assert_true(error < BF16_TOLERANCE && error > 0.9 * BF16_TOLERANCE);
    free(want);
    free(half);
}

/* ---- stages ------------------------------------------------------------------------------------------------------ */

static void compare_stage(zi_run *run, const char *kind, int index, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "one.%s", name);
    compare_record(run, golden, "FLUX.2 transformer, layers", kind, index, full);
}

/* Text rows, and those of the image and of the reference, of the sequence. */
static void compare_halves(zi_run *run, int block, const char *text, const char *image)
{
    compare_stage(run, "block", block, text);
    compare_stage(run, "block", block + 1, image);
}

/* The last block's result, of which only the rows of the image are computed. */
static void compare_last(zi_run *run, const flux2_case *c, int index)
{
    const record *r = recorded("block", index);
    int64_t dim = model.config.dim;
    assert_int_equal(r->count, c->rows * c->columns * dim);
    compare_part(run, golden, "FLUX.2 transformer, layers", r->data, (size_t)(c->text * dim), (size_t)r->count,
                 "one.single.1");
}

/* Records are in the order of calls; text goes before the image. */
static void test_stages(void **state)
{
    for (int t = 0; t < TABLES; t++) {
        flux2_job job;
        zi_run *run = table_open(t);
        table_ok(flux2_begin(&job, &model, run, flux2_case_of("one")));
        record_start(run);
        table_ok(zi_flux2_dit_context(&model, run, &job.features, &job.context));
        compare_stage(run, "block", 0, "context_embedder");
        table_ok(flux2_prepare(&job));
        record_clear();
        table_ok(flux2_pass(&job, 0, NULL));
        compare_stage(run, "upload", 1, "sinusoid");
        compare_stage(run, "adaln", 0, "modulation_img");
        compare_stage(run, "adaln", 1, "modulation_txt");
        compare_stage(run, "adaln", 2, "modulation_single");
        compare_stage(run, "adaln", 3, "norm_out.linear");
        compare_stage(run, "cos", 0, "cos.text");
        compare_stage(run, "sin", 0, "sin.text");
        compare_stage(run, "cos", 1, "cos.image");
        compare_stage(run, "sin", 1, "sin.image");
        compare_halves(run, 2, "double.0.text", "double.0.image");
        compare_halves(run, 4, "double.1.text", "double.1.image");
        compare_stage(run, "block", 6, "single.0");
        compare_last(run, flux2_case_of("one"), 7);
        compare_stage(run, "layer_norm", -1, "norm_out"); /* of the image's rows */
        compare_stage(run, "block", 8, "output");
        record_stop(run);
        flux2_end(&job);
        table_close(run);
    }
}

/* Section 3 of docs/spec/scheduler.md. */
static void test_timestep(void **state)
{
    static const float sigmas[] = {1, 0.967384f, 0.908144f, 0.767200f}, in_bf16[] = {1000, 968, 908, 768};
    for (int i = 0; i < 4; i++) {
        assert_true(zi_flux2_timestep(sigmas[i], 1) == in_bf16[i]);
        assert_true(fabsf(zi_flux2_timestep(sigmas[i], 0) - 1000 * sigmas[i]) < 1e-4f);
    }
    assert_true(zi_flux2_timestep(0, 0) == 0);
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

static void test_blocks_are_counted(void **state)
{
    zi_run *run = table_open(0);
    for (int i = 0; i < FLUX2_CASES; i++) {
        flux2_job job;
        int64_t blocks = 0, expected = zi_flux2_dit_context_blocks(&model);
        table_ok(flux2_begin(&job, &model, run, &flux2_cases[i]));
        run->block_done = count_block;
        run->user = &blocks;
        table_ok(flux2_prepare(&job));
        expected += zi_flux2_dit_prepare_blocks(&model, &job.references);
        assert_int_equal(blocks, expected);
        table_ok(flux2_pass(&job, 0, NULL));
        assert_int_equal(blocks, expected + zi_flux2_dit_forward_blocks(&model));
        run->block_done = NULL;
        flux2_end(&job);
    }
    assert_int_equal(zi_flux2_dit_prepare_blocks(&model, NULL), 0);
    table_close(run);
}

static int stop_at_block(void *user)
{
    return --*(int64_t *)user == 0;
}

/* What prepare and a forward pass took of the stack is given back when they are cancelled. */
static void cancel_at(zi_run *run, const flux2_case *c, int64_t block)
{
    flux2_job job;
    int64_t left = block;
    table_ok(flux2_begin(&job, &model, run, c));
    table_ok(zi_flux2_dit_context(&model, run, &job.features, &job.context));
    zi_arena_mark before = zi_table(run)->mark(run);
    run->block_done = stop_at_block;
    run->user = &left;
    zimage_status status =
        zi_flux2_dit_prepare(&model, run, &job.context, c->rows, c->columns, &job.references, &job.inputs);
    zi_arena_mark prepared = zi_table(run)->mark(run);
    if (status == ZIMAGE_OK)
        status = flux2_pass(&job, 0, NULL);
    assert_int_equal(status, ZIMAGE_ERROR_CANCELLED);
    assert_int_equal(left, 0);
    assert_int_equal(zi_table(run)->mark(run).in_use, prepared.in_use);
    run->block_done = NULL;
    zi_table(run)->release(run, before);
    flux2_end(&job);
}

static void test_cancel(void **state)
{
    static const char *const cases[] = {"one", "kv_one"};
    for (int i = 0; i < 2; i++) {
        const flux2_case *c = flux2_case_of(cases[i]);
        const zi_flux2_references references = {NULL, c->reference_count, c->once};
        zi_run *run = table_open(0);
        int64_t blocks = zi_flux2_dit_prepare_blocks(&model, &references) + zi_flux2_dit_forward_blocks(&model);
        for (int64_t block = 1; block <= blocks; block++)
            cancel_at(run, c, block);
        table_close(run);
    }
}

/* Computes a case: the message names the block that holds a NaN. */
static void expect_bad_block(zi_run *run, const char *name, const char *block)
{
    flux2_job job;
    zi_arena_mark mark = zi_table(run)->mark(run);
    zimage_status status = flux2_begin(&job, &model, run, flux2_case_of(name));
    if (status == ZIMAGE_OK)
        status = flux2_prepare(&job);
    if (status == ZIMAGE_OK)
        status = flux2_pass(&job, 0, NULL);
    assert_error(&table_error, status, ZIMAGE_ERROR_NOT_FINITE, block, NULL, NULL);
    flux2_end(&job);
    zi_table(run)->release(run, mark);
}

static void expect_nan(zi_run *run, const char *name, const zi_weight **weight, const char *block)
{
    const zi_weight *good = *weight, bad = with_nan(good);
    *weight = &bad;
    expect_bad_block(run, name, block);
    *weight = good;
    free((void *)bad.data);
}

static void expect_nan_rows(zi_run *run, const char *name, zi_weight *rows, const char *block)
{
    const zi_weight good = *rows, bad = with_nan(&good);
    *rows = bad;
    expect_bad_block(run, name, block);
    *rows = good;
    free((void *)bad.data);
}

static void test_names_bad_block(void **state)
{
    zi_flux2_double_block *doubles = model.double_blocks;
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        expect_nan(run, "none", &model.context_embedder, "transformer context_embedder ");
        expect_nan(run, "none", &model.time_linear1, "transformer modulation ");
        expect_nan(run, "none", &model.norm_out, "transformer modulation ");
        expect_nan(run, "none", &model.x_embedder, "transformer x_embedder ");
        expect_nan(run, "one", &model.x_embedder, "transformer x_embedder of the references");
        expect_nan(run, "none", &doubles[0].text.norm_k, "transformer transformer_blocks.0 ");
        expect_nan(run, "none", &doubles[1].text.linear_out, "transformer transformer_blocks.1 ");
        expect_nan(run, "none", &doubles[1].image.to_out, "transformer transformer_blocks.1 ");
        expect_nan_rows(run, "none", &doubles[1].image.up, "transformer transformer_blocks.1 ");
        expect_nan(run, "none", &model.single_blocks[1].to_out, "transformer single_transformer_blocks.1 ");
        expect_nan_rows(run, "none", &model.single_blocks[0].to_v, "transformer single_transformer_blocks.0 ");
        expect_nan(run, "none", &model.proj_out, "transformer proj_out ");
        expect_nan(run, "kv_one", &model.time_linear2, "transformer modulation of the references");
        expect_nan(run, "kv_one", &doubles[0].image.to_v, "transformer transformer_blocks.0 of the references");
        expect_nan(run, "kv_one", &model.single_blocks[0].norm_q,
                   "transformer single_transformer_blocks.0 of the references");
        /* of the last block the references only leave keys and values, which the image then reads */
        expect_nan_rows(run, "kv_one", &model.single_blocks[1].to_v, "transformer single_transformer_blocks.1 ");
        table_close(run);
    }
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static size_t peak_of(zi_run *run, const flux2_case *c, int rehearsal)
{
    size_t peak;
    flux2_job job;
    zi_arena *arena = ((zi_host_ops *)run->ops)->arena;
    zi_arena_reset_peak(arena);
    if (rehearsal)
        table_ok(zi_table(run)->rehearse_begin(run));
    table_ok(flux2_begin(&job, &model, run, c));
    for (int i = 0; rehearsal && i < c->reference_count; i++)
        job.images[i].latents = NULL;
    table_ok(flux2_prepare(&job));
    for (int pass = 0; pass < c->passes; pass++)
        table_ok(flux2_pass(&job, pass, NULL));
    flux2_end(&job);
    if (!rehearsal)
        return zi_arena_peak(arena);
    table_ok(zi_table(run)->rehearse_stage(run, 0, &peak));
    zi_table(run)->rehearse_end(run);
    return peak;
}

static void test_rehearsal(void **state)
{
    for (int t = 0; t < TABLES; t++)
        for (int i = 0; i < FLUX2_CASES; i++) {
            zi_run *run = table_open(t);
            size_t rehearsed = peak_of(run, &flux2_cases[i], 1), real = peak_of(run, &flux2_cases[i], 0);
            assert_int_equal(rehearsed, real);
            table_close(run);
        }
}

/* ---- configurations and weights ---------------------------------------------------------------------------------- */

static zimage_status load_config(const char *path, zimage_error *error)
{
    zi_flux2_dit_config config;
    return zi_flux2_dit_config_read(path, NULL, &config, error);
}

static void test_config(void **state)
{
    static const char *const numbers[] = {"patch_size",
                                          "in_channels",
                                          "num_layers",
                                          "num_single_layers",
                                          "attention_head_dim",
                                          "num_attention_heads",
                                          "joint_attention_dim",
                                          "timestep_guidance_channels",
                                          "mlp_ratio",
                                          "axes_dims_rope",
                                          "rope_theta",
                                          "eps",
                                          NULL};
    static const refusal refusals[] = {
        {"_class_name", "\"FluxTransformer2DModel\"", ZIMAGE_ERROR_UNSUPPORTED},
        {"guidance_embeds", "true", ZIMAGE_ERROR_UNSUPPORTED},
        {"guidance_embeds", NULL, ZIMAGE_ERROR_UNSUPPORTED},
        {"guidance_embeds", "1", ZIMAGE_ERROR_MODEL},
        {"patch_size", "2", ZIMAGE_ERROR_UNSUPPORTED},
        {"out_channels", "9", ZIMAGE_ERROR_UNSUPPORTED},
        {"out_channels", "\"8\"", ZIMAGE_ERROR_MODEL},
        {"axes_dims_rope", "[4, 12, 10, 8]", ZIMAGE_ERROR_MODEL},
        {"axes_dims_rope", "[5, 11, 10, 6]", ZIMAGE_ERROR_MODEL},
        {"axes_dims_rope", "[16, 8, 8]", ZIMAGE_ERROR_MODEL},
        {"axes_dims_rope", "[4, 12, 10, 4, 2]", ZIMAGE_ERROR_MODEL},
        {"attention_head_dim", "2.0", ZIMAGE_ERROR_MODEL},
        {"timestep_guidance_channels", "33", ZIMAGE_ERROR_UNSUPPORTED},
        {"mlp_ratio", "0.001", ZIMAGE_ERROR_MODEL},
        {"quantization_config", "{\"quant_method\": \"bitsandbytes\"}", ZIMAGE_ERROR_UNSUPPORTED},
    };
    expect_refusals(load_config, "flux2/config.json", numbers, refusals, sizeof refusals / sizeof *refusals);
}

static zi_flux2_dit_config read_text(const char *text)
{
    zi_flux2_dit_config config;
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (zi_flux2_dit_config_read("config.json", text, &config, &error) != ZIMAGE_OK)
        fail_msg("%s: %s", text, error.message);
    return config;
}

/* A missing field has the default of Flux2Transformer2DModel; 0 and null out_channels are in_channels. */
static void test_defaults(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_flux2_dit_config c = read_text("{\"guidance_embeds\": false}");
    assert_int_equal(c.in_channels, 128);
    assert_int_equal(c.num_layers, 8);
    assert_int_equal(c.num_single_layers, 48);
    assert_int_equal(c.heads, 48);
    assert_int_equal(c.head_dim, 128);
    assert_int_equal(c.dim, 6144);
    assert_int_equal(c.mlp_dim, 18432);
    assert_int_equal(c.joint_dim, 15360);
    assert_int_equal(c.time_channels, 256);
    assert_true(c.rope_theta == 2000 && c.eps == 1e-6);
    for (int i = 0; i < ZI_FLUX2_AXES; i++)
        assert_int_equal(c.axes_dims[i], 32);
    c = read_text("{\"guidance_embeds\": null, \"out_channels\": 0, \"in_channels\": 16, \"mlp_ratio\": 2.7}");
    assert_int_equal(c.mlp_dim, 16588); /* int(6144 * 2.7) */
    c = read_text("{\"guidance_embeds\": false, \"out_channels\": 128}");
    const char *odd = "{\"guidance_embeds\": false, \"num_attention_heads\": 3, \"attention_head_dim\": 12, "
                      "\"axes_dims_rope\": [2, 2, 4, 4]}";
    assert_error(&error, zi_flux2_dit_config_read("config.json", odd, &c, &error), ZIMAGE_ERROR_UNSUPPORTED, "is 36",
                 "multiples of 32", NULL);
}

static void test_binding(void **state)
{
    zi_flux2_dit other;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_flux2_dit_config config = flux2_config();
    config.num_single_layers = 3;
    assert_error(&error, zi_flux2_dit_bind(&other, &config, store, NULL, &error), ZIMAGE_ERROR_MODEL,
                 "single_transformer_blocks.2.attn.norm_k.weight", NULL, NULL);
    config = flux2_config();
    config.joint_dim = 25;
    assert_error(&error, zi_flux2_dit_bind(&other, &config, store, NULL, &error), ZIMAGE_ERROR_MODEL,
                 "context_embedder.weight: [96, 24], expected [96, 25]", NULL, NULL);
    assert_null(other.double_blocks);
    assert_null(other.single_blocks);
}

/* What computation in 8 bits leaves alone; rows of a weight are as their weight. */
static void test_precise(void **state)
{
    for (size_t i = 0; i < zi_store_count(store); i++) {
        const zi_weight *weight = zi_store_at(store, i);
        int ends = strcmp(weight->name, "x_embedder.weight") == 0 ||
                   strcmp(weight->name, "context_embedder.weight") == 0 || strcmp(weight->name, "proj_out.weight") == 0;
        int gated = strstr(weight->name, "linear_out") ||
                    (strstr(weight->name, "single_transformer_blocks") && strstr(weight->name, "to_out"));
        assert_int_equal(weight->precise, ends ? ZI_PRECISE : gated ? ZI_PRECISE_INT8 : 0);
    }
    const zi_flux2_single_block *single = &model.single_blocks[1];
    assert_int_equal(single->to_q.shape[0], 96);
    assert_int_equal(single->up.shape[0], 240);
    assert_ptr_equal(single->to_q.data, single->to_qkv_mlp_proj->data);
    assert_ptr_equal(single->up.data + single->up.bytes,
                     single->to_qkv_mlp_proj->data + single->to_qkv_mlp_proj->bytes);
    assert_int_equal(single->gate.precise, single->to_qkv_mlp_proj->precise);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_cpu),
        cmocka_unit_test(test_bf16_of_the_reference),
        cmocka_unit_test(test_stages),
        cmocka_unit_test(test_timestep),
        cmocka_unit_test(test_blocks_are_counted),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_names_bad_block),
        cmocka_unit_test(test_rehearsal),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_binding),
        cmocka_unit_test(test_precise),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
