/* zimage bench: its report, its options, and stores in memory. */
#include "base/free_memory.h"
#include "engine/plan.h"
#include "ops/tensor.h"
#include "program.h"
#include "session.h"
#include "weights/store.h"

#define TINY ZIMAGE_TEST_DATA "/tiny"

#define ARGUMENTS(...) ((const char *const[]){__VA_ARGS__, NULL})

static outcome o;

/* Exactly the promised fields; rates only where there are operations, and nothing of an encoder that is not there. */
static void check_report(const char *text, int has_encoder)
{
    static const char *const names[] = {"text_encoder", "transformer_step", "vae_decode", "vae_encode", "load"};
    json_t *all = json_loads(text, 0, NULL);
    assert_non_null(all);
    assert_int_equal(json_object_size(all), 3);
    json_t *stages = json_object_get(all, "stages");
    assert_int_equal(json_array_size(stages), 5);
    for (size_t i = 0; i < 5; i++) {
        json_t *stage = json_array_get(stages, i);
        assert_int_equal(json_object_size(stage), 5);
        assert_string_equal(json_string_value(json_object_get(stage, "name")), names[i]);
        int timed = i != 3 || has_encoder;
        assert_true(timed ? json_number_value(json_object_get(stage, "seconds")) > 0
                          : json_is_null(json_object_get(stage, "seconds")));
        json_t *tflops = json_object_get(stage, "tflops"), *peak = json_object_get(stage, "percent_of_peak");
        json_t *onednn = json_object_get(stage, "percent_of_onednn");
        if (i < 4 && timed) {
            assert_true(json_number_value(tflops) > 0);
            assert_true(json_number_value(peak) > 0);
            assert_true(json_is_null(onednn) || json_number_value(onednn) > 0);
        } else {
            assert_true(json_is_null(tflops) && json_is_null(peak) && json_is_null(onednn));
        }
    }
    assert_true(json_integer_value(json_object_get(all, "peak_rss_bytes")) > 1000000);
    assert_true(json_array_size(json_object_get(all, "tiers")) > 0);
    assert_true(json_is_string(json_array_get(json_object_get(all, "tiers"), 0)));
    json_decref(all);
}

static void times_a_model(void **state)
{
    run_program(ARGUMENTS("bench", "-m", TINY, "--json", "-q", "-W", "64", "-H", "48", "--steps", "2"), &o);
    if (o.code)
        fail_msg("%s", o.err);
    assert_string_equal(o.err, "");
    check_report(o.out, 1);
    run_program(ARGUMENTS("bench", "-m", TINY, "-W", "64", "-H", "64", "--steps", "1", "--layers", "1", "--tokens",
                          "20", "--threads", "1"),
                &o);
    if (o.code)
        fail_msg("%s", o.err);
    assert_non_null(strstr(o.out, "only 1 layers of the transformer and 1 of the text encoder"));
    assert_non_null(strstr(o.out, "64x64, 20 prompt tokens"));
    assert_non_null(strstr(o.out, "1 threads"));
    assert_non_null(strstr(o.err, "transformer_step: "));
    assert_int_equal(count_files(test_folder), 0);
}

static void times_random_weights(void **state)
{
    static const char *const formats[] = {"bf16", "f16", "f32", "q4", "q8"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        run_program(ARGUMENTS("bench", "--synthetic", "small", "--format", formats[i], "--json", "-q", "-W", "32", "-H",
                              "32", "--steps", "1", "--tokens", "8", "--layers", "1"),
                    &o);
        if (o.code)
            fail_msg("%s: %s", formats[i], o.err);
        check_report(o.out, 1);
    }
    run_program(ARGUMENTS("bench", "--synthetic", "klein-small", "--format", "q8", "--json", "-q", "-W", "32", "-H",
                          "48", "--steps", "1", "--layers", "1"),
                &o);
    if (o.code)
        fail_msg("klein-small: %s", o.err);
    check_report(o.out, 1);
    assert_int_equal(count_files(test_folder), 0);
}

static void refuse(const char *const *arguments, const char *word1, const char *word2)
{
    run_program(arguments, &o);
    if (o.code == 0 || o.code >= 126 || !strstr(o.err, word1) || !strstr(o.err, word2))
        fail_msg("exit code %d, expected \"%s\" and \"%s\" in: %s", o.code, word1, word2, o.err);
}

static void wrong_command_lines(void **state)
{
    run_program(ARGUMENTS("bench", "--help"), &o);
    assert_int_equal(o.code, 0);
    assert_non_null(strstr(o.out, "--synthetic"));
    refuse(ARGUMENTS("bench"), "--synthetic", "-m");
    refuse(ARGUMENTS("bench", "-m", TINY, "--synthetic", "small"), "--synthetic", "one of them");
    refuse(ARGUMENTS("bench", "-m", TINY, "--format", "bf16"), "--format", "--synthetic");
    refuse(ARGUMENTS("bench", "--synthetic", "huge"), "huge", "z-image-turbo");
    refuse(ARGUMENTS("bench", "--synthetic", "small", "--format", "q5"), "q5", "bf16");
    refuse(ARGUMENTS("bench", "--synthetic", "small", "-W", "100"), "100", "multiples of 16");
    refuse(ARGUMENTS("bench", "-m", TINY, "-W", "2048", "-H", "2048"), "axes_lens", "64");
    refuse(ARGUMENTS("bench", "-m", "no-such-model"), "no-such-model", "folder");
    refuse(ARGUMENTS("bench", "-m", TINY, "--steps", "0"), "--steps", "1 to 1000");
    refuse(ARGUMENTS("bench", "-m", TINY, "--tokens", "513"), "--tokens", "512");
    refuse(ARGUMENTS("bench", "-m", TINY, "more"), "more", "-m");
    refuse(ARGUMENTS("bench", "--frobnicate"), "frobnicate", "--help");
}

/* Ask, fill, ask again: the tensors are as they were asked for, and their numbers small and finite. */
static void bind_three(zi_store *store, const zi_weight **weights, zimage_status expected)
{
    zi_binder *binder;
    zimage_error error = ZIMAGE_ERROR_INIT;
    assert_int_equal(zi_binder_new(store, &binder, &error), ZIMAGE_OK);
    zi_bind(binder, &weights[0], 2, (const int64_t[]){40, 64}, "%s.weight", "b");
    zi_bind(binder, &weights[1], 1, (const int64_t[]){40}, "%s.bias", "b");
    zi_bind(binder, &weights[2], 2, (const int64_t[]){1, 64}, "a");
    assert_int_equal(zi_binder_finish(binder, NULL, &error), expected);
}

static void check_numbers(const zi_weight *weight)
{
    float values[40 * 64];
    double squares = 0;
    int64_t count = zi_weight_count(weight);
    zi_weight_unpack(weight, 0, count, values);
    for (int64_t i = 0; i < count; i++) {
        assert_true(fabsf(values[i]) < 2);
        squares += (double)values[i] * (double)values[i];
    }
    assert_true(squares / (double)count > 1e-6);
}

static void stores_in_memory(void **state)
{
    static const zi_memory_format formats[] = {
        {ZI_F32, 0, 0}, {ZI_F16, 0, 0}, {ZI_BF16, 0, 0}, {ZI_BF16, 4, 32}, {ZI_BF16, 8, 32}};
    zi_pool *pool;
    zimage_error error = ZIMAGE_ERROR_INIT;
    assert_int_equal(zi_pool_new(2, &pool, &error), ZIMAGE_OK);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        zi_store *store;
        const zi_weight *weights[3];
        assert_int_equal(zi_store_new_memory("random", &store, &error), ZIMAGE_OK);
        bind_three(store, weights, ZIMAGE_OK);
        assert_null(weights[0]);
        assert_int_equal(zi_store_fill(store, &formats[i], pool, &error), ZIMAGE_OK);
        assert_int_equal(zi_store_count(store), 3);
        bind_three(store, weights, ZIMAGE_OK);
        assert_int_equal(weights[0]->dtype, formats[i].bits ? ZI_GROUPED : formats[i].dtype);
        assert_int_equal(weights[1]->dtype, formats[i].dtype);
        assert_int_equal(weights[2]->dtype, formats[i].dtype); /* one row: not a matrix */
        zi_store_release_pages(store);                         /* the only copy: nothing happens */
        for (int k = 0; k < 3; k++)
            check_numbers(weights[k]);
        zi_store_free(store);
    }
    zi_pool_free(pool);
}

/* A tensor larger than any machine's memory. The whole file is described before anything is mapped. */
static void weights_that_do_not_fit_are_refused(void **state)
{
    static const zi_memory_format formats[] = {{ZI_F32, 0, 0}, {ZI_BF16, 4, 32}};
    zi_pool *pool;
    zimage_error error = ZIMAGE_ERROR_INIT;
    assert_int_equal(zi_pool_new(2, &pool, &error), ZIMAGE_OK);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        zi_store *store;
        zi_binder *binder;
        const zi_weight *small, *large;
        assert_int_equal(zi_store_new_memory("random", &store, &error), ZIMAGE_OK);
        assert_int_equal(zi_binder_new(store, &binder, &error), ZIMAGE_OK);
        zi_bind(binder, &small, 1, (const int64_t[]){64}, "a");
        zi_bind(binder, &large, 2, (const int64_t[]){1 << 24, 1 << 22}, "b");
        assert_int_equal(zi_binder_finish(binder, NULL, &error), ZIMAGE_OK);
        assert_int_equal(zi_store_fill(store, &formats[i], pool, &error), ZIMAGE_ERROR_MEMORY);
        if (!strstr(error.message, "random: the weights need") || !strstr(error.message, "MiB of memory are free"))
            fail_msg("%s", error.message);
        zi_store_free(store);
    }
    zi_pool_free(pool);
}

/* The same for the activations of a stage, which is rehearsed first. */
static void activations_that_do_not_fit_are_refused(void **state)
{
    zimage_session *session;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_memory_plan memory;
    size_t stack;
    assert_int_equal(session_on(TINY, NULL, NULL, &session, &error), ZIMAGE_OK);
    zi_job job = {.model = session->inner, .prompts = 1, .steps = 1, .single = 1, .single_stage = ZIMAGE_STAGE_DECODE};
    job.prompt[0].tokens = 1;
    job.rows = job.columns = 8;
    assert_int_equal(zi_plan_stage(session, &job, &stack, &memory, &error), ZIMAGE_OK);
    assert_true(stack > 0);
    job.rows = job.columns = 1 << 14; /* the largest: 1.3 TiB */
    if (zi_free_memory() >> 40 > 0)
        skip();
    zimage_status status = zi_plan_stage(session, &job, &stack, &memory, &error);
    if (status != ZIMAGE_ERROR_MEMORY || !strstr(error.message, "memory: this stage needs") ||
        !strstr(error.message, "MiB are free"))
        fail_msg("%s", error.message);
    zimage_session_close(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_a_model),
        cmocka_unit_test(times_random_weights),
        cmocka_unit_test(wrong_command_lines),
        cmocka_unit_test(stores_in_memory),
        cmocka_unit_test(weights_that_do_not_fit_are_refused),
        cmocka_unit_test(activations_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
