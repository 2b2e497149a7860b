/* The text encoder against transformers on tests/golden/tiny, on the reference and the CPU backend; what it refuses. */
#include "model/qwen3.h"
#include "networks.h"

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
    table_ok(zi_qwen3_encode(model, run, ids, tokens, tokens, &x));
    run->block_done = NULL;
    table_ok(zi_table(run)->download(run, out, &x));
    assert_int_equal(blocks, zi_qwen3_encode_blocks(model));
    for (int k = 0; tokens < 512 && k < 4; k++) {
        snprintf(name, sizeof name, "n%d.hidden_states.%d", tokens, k);
        compare_record(run, golden, "text encoder, layers", "block", k, name);
    }
    if (tokens == 512)
        compare(run, golden, "text encoder", out, (size_t)(shape[0] * shape[1]), "n512.prompt_embeds");
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
    assert_int_equal(zi_qwen3_layers(&model.config), 3);
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
        table_ok(zi_qwen3_encode(&model, run, ids, 8, 8, &x));
        table_ok(zi_table(run)->download(run, out, &x));
        compare(run, golden, "text encoder", out, 8 * 32, "f16.n8.prompt_embeds");
        table_close(run);
    }
    zi_qwen3_free(&model);
    zi_store_free(store);
    zi_store_free(golden);
}

/* Several states side by side, of a padded prompt: pads see the prompt's tokens and no pads. */
static void test_states_of_padded_prompt(void **state)
{
    zi_store *store, *golden = fixture_open("text_encoder.safetensors");
    zi_qwen3 model;
    int32_t ids[16];
    const int64_t shape[] = {16, 3 * 32};
    float out[16 * 3 * 32], part[16 * 32];
    char name[64];
    open_text_encoder("tiny/text_encoder", &store, &model);
    const zi_qwen3_config before = model.config;
    load_ids(golden, "padded.ids", ids, 16);
    for (int t = 0; t < TABLES; t++)
        for (int first = 0; first < 2; first++) {
            zi_run *run = table_open(t);
            zi_tensor x = table_tensor(run, 2, shape, NULL);
            model.config.state_count = 3;
            for (int i = 0; i < 3; i++)
                model.config.states[i] = first + i;
            assert_int_equal(zi_qwen3_layers(&model.config), first + 2);
            table_ok(zi_qwen3_encode(&model, run, ids, 16, 10, &x));
            table_ok(zi_table(run)->download(run, out, &x));
            for (int i = 0; i < 3; i++) {
                for (int row = 0; row < 16; row++)
                    memcpy(part + row * 32, out + (row * 3 + i) * 32, 32 * sizeof *out);
                snprintf(name, sizeof name, "padded.hidden_states.%d", first + i);
                compare(run, golden, "text encoder, padded", part, 16 * 32, name);
            }
            table_close(run);
        }
    model.config = before;
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
    assert_error(&table_error, zi_qwen3_encode(&model, run, beyond, 2, 2, &x), ZIMAGE_ERROR_MODEL, "768", "vocab_size",
                 NULL);
    assert_error(&table_error, zi_qwen3_encode(&model, run, beyond, 1, 2, &x), ZIMAGE_ERROR_ARGUMENT, "2 tokens", NULL,
                 NULL);
    assert_error(&table_error, zi_qwen3_encode(&model, run, negative, 2, 2, &x), ZIMAGE_ERROR_MODEL, "-1", NULL, NULL);
    table_close(run);
    zi_qwen3_free(&model);
    zi_store_free(store);
}

/* ---- configurations ---------------------------------------------------------------------------------------------- */

static zimage_status load_text_encoder(const char *path, zimage_error *error)
{
    zi_qwen3_config config;
    return zi_qwen3_config_read(path, NULL, &config, error);
}

static void test_text_encoder_config(void **state)
{
    static const char *const numbers[] = {"hidden_size", "intermediate_size", "num_hidden_layers",
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
        {"rope_scaling", "\"yarn\"", ZIMAGE_ERROR_MODEL},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 4}", ZIMAGE_ERROR_UNSUPPORTED},
        {"rope_parameters", "{\"type\": \"linear\", \"factor\": 4, \"rope_theta\": 1e6}", ZIMAGE_ERROR_UNSUPPORTED},
        {"rope_parameters", "{\"rope_type\": \"default\", \"type\": \"yarn\"}", ZIMAGE_ERROR_UNSUPPORTED},
        {"rope_parameters", "{\"rope_type\": null}", ZIMAGE_ERROR_UNSUPPORTED},
        {"rope_parameters", "{\"rope_type\": \"made_up\"}", ZIMAGE_ERROR_UNSUPPORTED},
        {"rope_parameters", "{\"full_attention\": {\"rope_type\": \"default\"}}", ZIMAGE_ERROR_UNSUPPORTED},
        {"is_causal", "false", ZIMAGE_ERROR_UNSUPPORTED},
        {"is_causal", "null", ZIMAGE_ERROR_UNSUPPORTED},
        {"layer_types", "[\"full_attention\"]", ZIMAGE_ERROR_MODEL},
        {"layer_types", "\"full_attention\"", ZIMAGE_ERROR_MODEL},
        {"_use_default_values", "[\"rms_norm_eps\"]", ZIMAGE_ERROR_UNSUPPORTED},
        {"transformers_weights", "\"other.safetensors\"", ZIMAGE_ERROR_UNSUPPORTED},
        {"quantization_config", "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 32}",
         ZIMAGE_ERROR_UNSUPPORTED},
        {"model_type", "\"llama\"", ZIMAGE_ERROR_UNSUPPORTED},
    };
    expect_refusals(load_text_encoder, "tiny/text_encoder/config.json", numbers, refusals,
                    sizeof refusals / sizeof *refusals);
}

static zi_qwen3_config read_text_encoder(const char *text)
{
    zi_qwen3_config config;
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (zi_qwen3_config_read("config.json", text, &config, &error) != ZIMAGE_OK)
        fail_msg("%s: %s", text, error.message);
    return config;
}

/* A missing field has the default of Qwen3Config. */
static void test_text_encoder_defaults(void **state)
{
    zi_qwen3_config c = read_text_encoder("{}");
    assert_int_equal(c.vocab_size, 151936);
    assert_int_equal(c.hidden_size, 4096);
    assert_int_equal(c.intermediate_size, 22016);
    assert_int_equal(c.num_hidden_layers, 32);
    assert_int_equal(c.num_attention_heads, 32);
    assert_int_equal(c.num_key_value_heads, 32);
    assert_int_equal(c.head_dim, 128);
    assert_true(c.rms_norm_eps == 1e-6 && c.rope_theta == 10000.0);
    assert_int_equal(read_text_encoder("{\"num_attention_heads\": 64}").num_key_value_heads, 32);
    assert_int_equal(
        read_text_encoder("{\"num_attention_heads\": 64, \"num_key_value_heads\": null}").num_key_value_heads, 64);
    read_text_encoder(
        "{\"hidden_act\": \"swish\", \"use_sliding_window\": null, \"layer_types\": null, \"made_up\": 7}");
    read_text_encoder("{\"quantization_config\": {\"group_size\": 64, \"bits\": 4}}"); /* MLX's */
}

/* rope_scaling goes before rope_parameters where it is not empty; rope_theta stands in the object, or beside it. */
static void test_rope_theta(void **state)
{
    static const struct {
        const char *text;
        double theta;
    } cases[] = {
        {"{\"rope_theta\": 700}", 700},
        {"{\"rope_theta\": 700, \"rope_scaling\": null}", 700},
        {"{\"rope_theta\": 700, \"rope_scaling\": {}, \"rope_parameters\": {}}", 700},
        {"{\"rope_theta\": 700, \"rope_scaling\": {\"rope_type\": \"default\"}}", 700},
        {"{\"rope_theta\": 700, \"rope_parameters\": {\"rope_theta\": 800}}", 800},
        {"{\"rope_theta\": 700, \"rope_parameters\": {\"type\": \"default\"}}", 700},
        {"{\"rope_parameters\": {\"rope_theta\": 800}, \"rope_scaling\": {\"rope_theta\": 900}}", 900},
        {"{\"rope_parameters\": {\"rope_type\": \"default\"}}", 10000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_true(read_text_encoder(cases[i].text).rope_theta == cases[i].theta);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_encoder),
        cmocka_unit_test(test_text_encoder_f16),
        cmocka_unit_test(test_states_of_padded_prompt),
        cmocka_unit_test(test_text_encoder_refuses_ids),
        cmocka_unit_test(test_text_encoder_config),
        cmocka_unit_test(test_text_encoder_defaults),
        cmocka_unit_test(test_rope_theta),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
