/*
 * Text encoder, transformer and VAE against transformers and diffusers on tests/golden/tiny: whole networks, every
 * stage, every storage type; and what they say when something is wrong. Everything runs on both tables of operations.
 */
#include <jansson.h>

#include "files.h"
#include "fixture.h"
#include "model/qwen3.h"
#include "model/vae.h"
#include "model/zimage_dit.h"
#include "ops/host.h"
#include "record_ops.h"
#include "tables.h"

#define TOLERANCE 2e-5

static void golden_path(char *path, size_t size, const char *name)
{
    snprintf(path, size, "%s/%s", ZIMAGE_TEST_DATA, name);
}

static zi_store *open_component(const char *folder, const char *base)
{
    char path[4096];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *store = NULL;
    golden_path(path, sizeof path, folder);
    if (zi_store_open(path, base, &store, NULL, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return store;
}

/* "reference: transformer a q" against the golden NAME. */
static void compare(zi_run *run, const zi_store *golden, const char *stage, const float *ours, size_t count,
                    const char *name)
{
    char line[128];
    size_t total;
    float *want = fixture_floats(golden, name, &total);
    assert_true(count <= total); /* the first rows may be enough: fillers are not computed */
    snprintf(line, sizeof line, "%s: %s %s", recorder.inner ? recorder.inner->name : zi_table(run)->name, stage, name);
    parity(line, ours, want, count, TOLERANCE);
    free(want);
}

static void compare_record(zi_run *run, const zi_store *golden, const char *stage, const char *kind, int index,
                           const char *name)
{
    const record *r = recorded(kind, index);
    compare(run, golden, stage, r->data, (size_t)r->count, name);
}

static int count_block(void *user)
{
    ++*(int64_t *)user;
    return 0;
}

static int stop_at_block(void *user)
{
    return --*(int64_t *)user == 0;
}

/* ---- text encoder ------------------------------------------------------------------------------------------------ */

static void open_text_encoder(const char *folder, zi_store **store, zi_qwen3 *model)
{
    char path[4096];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_qwen3_config config;
    golden_path(path, sizeof path, "tiny/text_encoder/config.json");
    if (zi_qwen3_config_read(path, NULL, &config, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    *store = open_component(folder, "model");
    if (zi_qwen3_bind(model, &config, *store, NULL, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
}

static void load_ids(const zi_store *golden, const char *name, int32_t *ids, size_t count)
{
    const zi_weight *weight = fixture_find(golden, name);
    assert_int_equal(zi_weight_count(weight), count);
    memcpy(ids, weight->data, count * sizeof *ids);
}

static void encode_case(const zi_qwen3 *model, zi_run *run, const zi_store *golden, int tokens)
{
    int32_t ids[512];
    char name[128];
    int64_t blocks = 0;
    const int64_t shape[] = {tokens, model->config.hidden_size};
    float *out = malloc((size_t)(shape[0] * shape[1]) * sizeof *out);
    assert_non_null(out);
    snprintf(name, sizeof name, "n%d.ids", tokens);
    load_ids(golden, name, ids, (size_t)tokens);
    zi_arena_mark mark = zi_table(run)->mark(run);
    zi_tensor x = table_tensor(run, 2, shape, NULL);
    record_start(run);
    run->block_done = count_block;
    run->user = &blocks;
    table_ok(zi_qwen3_encode(model, run, ids, tokens, &x));
    run->block_done = NULL;
    table_ok(zi_table(run)->download(run, out, &x));
    assert_int_equal(blocks, zi_qwen3_encode_blocks(model));
    for (int k = 0; tokens < 512 && k < 4; k++) {
        snprintf(name, sizeof name, "n%d.hidden_states.%d", tokens, k);
        compare_record(run, golden, "text_encoder", "block", k, name);
    }
    if (tokens == 512)
        compare(run, golden, "text_encoder", out, (size_t)(shape[0] * shape[1]), "n512.prompt_embeds");
    record_stop(run);
    zi_table(run)->release(run, mark);
    free(out);
}

static void test_text_encoder(void **state)
{
    static const int tokens[] = {1, 8, 77, 512};
    zi_store *store, *golden = fixture_open("text_encoder.safetensors");
    zi_qwen3 model;
    open_text_encoder("tiny/text_encoder", &store, &model);
    assert_int_equal(model.layers_needed, 3);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        for (int i = 0; i < 4; i++)
            encode_case(&model, run, golden, tokens[i]);
        table_close(run);
    }
    zi_qwen3_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
}

static void test_text_encoder_f16(void **state)
{
    zi_store *store, *golden = fixture_open("text_encoder.safetensors");
    zi_qwen3 model;
    int32_t ids[8];
    float out[8 * 32];
    const int64_t shape[] = {8, 32};
    open_text_encoder("tiny-f16/text_encoder", &store, &model);
    load_ids(golden, "n8.ids", ids, 8);
    for (int t = 0; t < TABLES; t++) {
        zi_run *run = table_open(t);
        zi_tensor x = table_tensor(run, 2, shape, NULL);
        table_ok(zi_qwen3_encode(&model, run, ids, 8, &x));
        table_ok(zi_table(run)->download(run, out, &x));
        compare(run, golden, "text_encoder", out, 8 * 32, "f16.n8.prompt_embeds");
        table_close(run);
    }
    zi_qwen3_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
}

static void test_text_encoder_refuses_ids(void **state)
{
    zi_store *store;
    zi_qwen3 model;
    const int64_t shape[] = {2, 32};
    open_text_encoder("tiny/text_encoder", &store, &model);
    zi_run *run = table_open(0);
    zi_tensor x = table_tensor(run, 2, shape, NULL);
    const int32_t beyond[] = {3, 768}, negative[] = {-1, 3};
    assert_error(&table_error, zi_qwen3_encode(&model, run, beyond, 2, &x), ZIMAGE_ERROR_MODEL, "768", "vocab_size",
                 NULL);
    assert_error(&table_error, zi_qwen3_encode(&model, run, negative, 2, &x), ZIMAGE_ERROR_MODEL, "-1", NULL, NULL);
    table_close(run);
    zi_qwen3_free(&model);
    zi_store_free(store);
}

/* ---- transformer ------------------------------------------------------------------------------------------------- */

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
        compare_record(run, golden, "transformer", kinds[i], index, name);
    }
    snprintf(name, sizeof name, "a.%s.attention_in", block);
    compare_record(run, golden, "transformer", "rms_norm", norm, name);
    snprintf(name, sizeof name, "a.%s.attention", block);
    compare_record(run, golden, "transformer", "branch", 2 * index, name);
    snprintf(name, sizeof name, "a.%s.feed_forward_in", block);
    compare_record(run, golden, "transformer", "next", index, name);
    snprintf(name, sizeof name, "a.%s.feed_forward", block);
    compare_record(run, golden, "transformer", "branch", 2 * index + 1, name);
    if (!modulated)
        return;
    snprintf(name, sizeof name, "a.%s.adaln", block);
    compare_record(run, golden, "transformer", "adaln", index, name);
}

static void compare_caption_stages(zi_run *run, const zi_store *golden)
{
    compare(run, golden, "transformer", recorded("block", 0)->data, 7 * 64, "a.cap_embedder");
    compare_record(run, golden, "transformer", "block", 0, "a.context_refiner.0.input");
    compare_record(run, golden, "transformer", "cos", 0, "a.rope.caption_cos");
    compare_record(run, golden, "transformer", "sin", 0, "a.rope.caption_sin");
    compare_block(run, golden, "context_refiner.0", 0, 1, 0);
    compare_record(run, golden, "transformer", "block", 1, "a.context_refiner.0.output");
}

static void compare_forward_stages(zi_run *run, const zi_store *golden)
{
    compare_record(run, golden, "transformer", "upload", 0, "a.t_frequencies");
    compare_record(run, golden, "transformer", "block", 0, "a.t_embedder");
    compare_record(run, golden, "transformer", "patches", 0, "a.x_tokens");
    compare(run, golden, "transformer", recorded("block", 1)->data, 15 * 64, "a.x_embedder");
    compare_record(run, golden, "transformer", "block", 1, "a.noise_refiner.0.input");
    compare_record(run, golden, "transformer", "cos", 0, "a.rope.image_cos");
    compare_record(run, golden, "transformer", "sin", 0, "a.rope.image_sin");
    compare_block(run, golden, "noise_refiner.0", 0, 0, 1);
    compare_record(run, golden, "transformer", "block", 2, "a.noise_refiner.0.output");
    compare_block(run, golden, "layers.0", 1, 1, 1);
    compare_record(run, golden, "transformer", "block", 3, "a.layers.0.output");
    compare_record(run, golden, "transformer", "block", 4, "a.layers.1.output");
    compare_record(run, golden, "transformer", "linear", -1, "a.final_layer"); /* the 15 real rows */
    compare_record(run, golden, "transformer", "block", 5, "a.output");
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

/* A copy of a weight that ends in a NaN; free() the data. */
static zi_weight with_nan(const zi_weight *weight)
{
    zi_weight copy = *weight;
    uint8_t *data = malloc(weight->bytes);
    const float nan = NAN;
    assert_non_null(data);
    assert_int_equal(weight->dtype, ZI_F32);
    memcpy(data, weight->data, weight->bytes);
    memcpy(data + weight->bytes - sizeof nan, &nan, sizeof nan);
    copy.data = data;
    return copy;
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

/* ---- VAE --------------------------------------------------------------------------------------------------------- */

static void open_vae(const char *folder, zi_store **store, zi_vae *model)
{
    char path[4096];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_vae_config config;
    golden_path(path, sizeof path, "tiny/vae/config.json");
    if (zi_vae_config_read(path, NULL, &config, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    *store = open_component(folder, "diffusion_pytorch_model");
    if (zi_vae_bind(model, &config, *store, NULL, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
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
    compare(run, golden, "vae", rgb, count, image);
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
    int64_t channels = fixture_find(golden, name)->shape[0], pixels = r->count / channels;
    float *planes = malloc((size_t)r->count * sizeof *planes);
    assert_non_null(planes);
    for (int64_t i = 0; i < pixels; i++)
        for (int64_t c = 0; c < channels; c++)
            planes[c * pixels + i] = r->data[i * channels + c];
    compare(run, golden, "vae", planes, (size_t)r->count, name);
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
        {&model.conv_in.weight, "vae decoder.conv_in"},
        {&model.mid[0].norm2.bias, "vae decoder.mid_block.resnets.0"},
        {&model.attention.to_v.bias, "vae decoder.mid_block.attentions.0"},
        {&model.upsamplers[0].bias, "vae decoder.up_blocks.0.upsamplers.0"},
        {&model.up_resnets[2].conv1.bias, "vae decoder.up_blocks.1.resnets.0"},
        {&model.upsamplers[2].weight, "vae decoder.up_blocks.2.upsamplers.0"},
        {&model.up_resnets[6].conv_shortcut.weight, "vae decoder.up_blocks.3.resnets.0"},
        {&model.conv_out.weight, "vae decoder.conv_out"},
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

typedef zimage_status (*config_loader)(const char *path, zimage_error *error);

static zimage_status load_text_encoder(const char *path, zimage_error *error)
{
    zi_qwen3_config config;
    return zi_qwen3_config_read(path, NULL, &config, error);
}

static zimage_status load_transformer(const char *path, zimage_error *error)
{
    zi_zimage_dit_config config;
    return zi_zimage_dit_config_read(path, NULL, &config, error);
}

static zimage_status load_vae(const char *path, zimage_error *error)
{
    zi_vae_config config;
    return zi_vae_config_read(path, NULL, &config, error);
}

/* The golden configuration with one field replaced by a JSON value, or removed (NULL). */
static void expect_refusal(config_loader load, const char *golden, const char *field, const char *value,
                           zimage_status expected)
{
    char source[4096];
    zimage_error error = ZIMAGE_ERROR_INIT;
    const char *path = temporary("config.json");
    golden_path(source, sizeof source, golden);
    json_t *json = json_load_file(source, 0, NULL);
    assert_non_null(json);
    if (value)
        assert_int_equal(json_object_set_new(json, field, json_loads(value, JSON_DECODE_ANY, NULL)), 0);
    else
        json_object_del(json, field);
    assert_int_equal(json_dump_file(json, path, 0), 0);
    json_decref(json);
    zimage_status status = load(path, &error);
    if (status == ZIMAGE_OK)
        fail_msg("%s: %s = %s was accepted", golden, field, value ? value : "(missing)");
    assert_error(&error, status, expected, path, field, NULL);
}

typedef struct refusal {
    const char *field, *value;
    zimage_status status;
} refusal;

static void expect_refusals(config_loader load, const char *golden, const char *const *required,
                            const refusal *refusals, size_t count)
{
    for (; *required; required++) {
        expect_refusal(load, golden, *required, NULL, ZIMAGE_ERROR_MODEL);
        expect_refusal(load, golden, *required, "\"x\"", ZIMAGE_ERROR_MODEL);
        expect_refusal(load, golden, *required, "-1", ZIMAGE_ERROR_MODEL);
        expect_refusal(load, golden, *required, "1e300", ZIMAGE_ERROR_MODEL);
        expect_refusal(load, golden, *required, "9223372036854775807", ZIMAGE_ERROR_MODEL);
    }
    for (size_t i = 0; i < count; i++)
        expect_refusal(load, golden, refusals[i].field, refusals[i].value, refusals[i].status);
}

static void test_text_encoder_config(void **state)
{
    static const char *const required[] = {"hidden_size", "intermediate_size", "num_hidden_layers",
                                           "vocab_size",  "rms_norm_eps",      "num_attention_heads",
                                           NULL};
    static const refusal refusals[] = {
        {"num_key_value_heads", "3", ZIMAGE_ERROR_MODEL},
        {"num_key_value_heads", "0", ZIMAGE_ERROR_MODEL},
        {"num_attention_heads", "4.5", ZIMAGE_ERROR_MODEL},
        {"head_dim", "15", ZIMAGE_ERROR_MODEL},
        {"hidden_act", "\"gelu\"", ZIMAGE_ERROR_UNSUPPORTED},
        {"attention_bias", "true", ZIMAGE_ERROR_UNSUPPORTED},
        {"attention_bias", "0", ZIMAGE_ERROR_MODEL},
        {"use_sliding_window", "true", ZIMAGE_ERROR_UNSUPPORTED},
        {"layer_types", "[\"full_attention\", \"sliding_attention\"]", ZIMAGE_ERROR_UNSUPPORTED},
        {"rope_scaling", "{\"rope_type\": \"yarn\", \"factor\": 4}", ZIMAGE_ERROR_UNSUPPORTED},
        {"rope_parameters", "{\"rope_type\": \"yarn\", \"rope_theta\": 1e6}", ZIMAGE_ERROR_UNSUPPORTED},
        {"rope_parameters", "7", ZIMAGE_ERROR_MODEL},
        {"model_type", "\"llama\"", ZIMAGE_ERROR_UNSUPPORTED},
    };
    expect_refusals(load_text_encoder, "tiny/text_encoder/config.json", required, refusals,
                    sizeof refusals / sizeof *refusals);
}

static void test_transformer_config(void **state)
{
    static const char *const required[] = {
        "in_channels",      "dim",     "n_layers",   "n_refiner_layers", "n_heads",   "norm_eps",
        "cap_feat_dim",     "t_scale", "rope_theta", "axes_dims",        "axes_lens", "all_patch_size",
        "all_f_patch_size", "qk_norm", NULL};
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
        {"all_f_patch_size", "[1, 1]", ZIMAGE_ERROR_MODEL},
        {"all_patch_size", "[]", ZIMAGE_ERROR_MODEL},
        {"qk_norm", "false", ZIMAGE_ERROR_UNSUPPORTED},
        {"siglip_feat_dim", "1152", ZIMAGE_ERROR_UNSUPPORTED},
        {"_class_name", "\"FluxTransformer2DModel\"", ZIMAGE_ERROR_UNSUPPORTED},
    };
    expect_refusals(load_transformer, "tiny/transformer/config.json", required, refusals,
                    sizeof refusals / sizeof *refusals);
}

static void test_vae_config(void **state)
{
    static const char *const required[] = {"latent_channels",
                                           "out_channels",
                                           "layers_per_block",
                                           "norm_num_groups",
                                           "scaling_factor",
                                           "block_out_channels",
                                           NULL};
    static const refusal refusals[] = {
        {"shift_factor", "null", ZIMAGE_ERROR_MODEL},
        {"norm_num_groups", "8", ZIMAGE_ERROR_MODEL},
        {"block_out_channels", "[8, 0]", ZIMAGE_ERROR_MODEL},
        {"out_channels", "4", ZIMAGE_ERROR_UNSUPPORTED},
        {"act_fn", "\"relu\"", ZIMAGE_ERROR_UNSUPPORTED},
        {"latents_mean", "[0]", ZIMAGE_ERROR_UNSUPPORTED},
        {"decoder_block_out_channels", "[8]", ZIMAGE_ERROR_UNSUPPORTED},
        {"up_block_types", "[\"UpDecoderBlock2D\"]", ZIMAGE_ERROR_MODEL},
        {"up_block_types", "[\"A\", \"B\", \"C\", \"D\"]", ZIMAGE_ERROR_UNSUPPORTED},
        {"_class_name", "\"AutoencoderKLFlux2\"", ZIMAGE_ERROR_UNSUPPORTED},
        {"use_post_quant_conv", "1", ZIMAGE_ERROR_MODEL},
    };
    expect_refusals(load_vae, "tiny/vae/config.json", required, refusals, sizeof refusals / sizeof *refusals);
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
        cmocka_unit_test(test_text_encoder),
        cmocka_unit_test(test_text_encoder_f16),
        cmocka_unit_test(test_text_encoder_refuses_ids),
        cmocka_unit_test(test_transformer),
        cmocka_unit_test(test_transformer_bf16_shards),
        cmocka_unit_test(test_transformer_stages),
        cmocka_unit_test(test_transformer_positions),
        cmocka_unit_test(test_transformer_names_bad_block),
        cmocka_unit_test(test_transformer_cancel),
        cmocka_unit_test(test_vae),
        cmocka_unit_test(test_vae_f16),
        cmocka_unit_test(test_vae_stages),
        cmocka_unit_test(test_vae_bands),
        cmocka_unit_test(test_vae_rgb),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_vae_names_bad_block),
        cmocka_unit_test(test_text_encoder_config),
        cmocka_unit_test(test_transformer_config),
        cmocka_unit_test(test_vae_config),
        cmocka_unit_test(test_binding),
        cmocka_unit_test(test_precise),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
