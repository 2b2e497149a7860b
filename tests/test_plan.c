/* Plans: what --plan says, what --mem does, and how near the predicted memory comes to the measured. */
#include <sys/resource.h>

#include "engine/session.h"
#include "files.h"
#include "fixture.h"
#include "measure/synthetic.h"
#include "program.h"

#define TINY ZIMAGE_TEST_DATA "/tiny"

#define ARGUMENTS(...) ((const char *const[]){__VA_ARGS__, NULL})

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_IS_OURS 0 /* a sanitizer's shadow counts, too */
#else
#define MEMORY_IS_OURS 1
#endif

#define SLACK (2.0 * 1048576) /* pages of the program itself, which differ from process to process */

static outcome o;

/* A cache of its own beside the folder whose files are counted. */
static int group_make(void **state)
{
    char cache[PATH_MAX];
    if (folder_make(state))
        return -1;
    snprintf(cache, sizeof cache, "%s-cache", test_folder);
    return setenv("XDG_CACHE_HOME", cache, 1);
}

static int group_remove(void **state)
{
    run_shell("rm -rf '%s-cache'", test_folder);
    return folder_remove(state);
}

static json_t *run_json(const char *const *arguments)
{
    run_program(arguments, &o);
    if (o.code)
        fail_msg("%s", o.err);
    json_t *result = json_loads(o.out, 0, NULL);
    assert_non_null(result);
    return result;
}

/* Operations of a stage in a plan. */
static double flops_of(json_t *plan, size_t stage)
{
    return json_number_value(json_object_get(json_array_get(json_object_get(plan, "stages"), stage), "flops"));
}

#define IMAGE_TOKENS 16 /* of 64 x 64 pixels */

/* Operations of a step that passes in a batch share: products of one row with the matrices that read the timestep, and
 * of the image with its embedder. */
static double shared_flops(void)
{
    double flops = 0;
    zi_store *store = fixture_open("tiny/transformer/diffusion_pytorch_model.safetensors");
    for (size_t i = 0; i < zi_store_count(store); i++) {
        const zi_weight *weight = zi_store_at(store, i);
        int of_time = strstr(weight->name, "adaLN_modulation") || strstr(weight->name, "t_embedder");
        int of_image = strstr(weight->name, "x_embedder") != NULL;
        if (weight->dims == 2)
            flops += 2.0 * (double)zi_weight_count(weight) * (of_time + IMAGE_TOKENS * of_image);
    }
    zi_store_free(store);
    return flops;
}

static void plans_are_told(void **state)
{
    static const char *const names[] = {"text_encoder", "context", "denoise", "vae_decode"};
    /* In float32 the passes are a batch on every CPU. */
    json_t *one = run_json(ARGUMENTS("generate", "a red apple", "-m", TINY, "--plan", "--json", "-W", "64", "-H", "64",
                                     "--steps", "1", "--compute", "f32"));
    json_t *four =
        run_json(ARGUMENTS("generate", "a red apple", "-m", TINY, "--plan", "--json", "-W", "64", "-H", "64", "--steps",
                           "2", "--compute", "f32", "--guidance", "2", "--negative", "a red apple"));
    for (size_t i = 0; i < 4; i++) {
        json_t *stage = json_array_get(json_object_get(one, "stages"), i);
        assert_string_equal(json_string_value(json_object_get(stage, "name")), names[i]);
        static const char *const positive[] = {"flops", "seconds", "activation_bytes", "weight_bytes", "peak_bytes"};
        for (size_t k = 0; k < 5; k++)
            assert_true(json_number_value(json_object_get(stage, positive[k])) > 0);
    }
    /* Two steps of two passes. The program prints six digits. */
    double expected = 4 * flops_of(one, 2) - 2 * shared_flops();
    assert_true(fabs(flops_of(four, 2) - expected) < 1e-5 * expected);
    json_decref(one);
    json_decref(four);
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "--plan"), &o);
    assert_int_equal(o.code, 0);
    assert_non_null(strstr(o.out, "vae_decode"));
    assert_non_null(strstr(o.out, "--mem at least"));
    assert_int_equal(count_files(test_folder), 0);
}

/* Not "auto", which may choose another type when the machine is busy. */
#define PLAN_IN_F32 "generate", "x", "-m", TINY, "--plan", "--json", "--compute", "f32"

/* The measurement is kept; where it can't be, planning works all the same. */
static void machine_is_measured_once(void **state)
{
    char path[2 * PATH_MAX], first[4096], second[4096];
    snprintf(path, sizeof path, "%s/zimage/machine.json", getenv("XDG_CACHE_HOME"));
    json_decref(run_json(ARGUMENTS(PLAN_IN_F32)));
    read_text(path, first, sizeof first);
    assert_non_null(strstr(first, zimage_version()));
    json_decref(run_json(ARGUMENTS(PLAN_IN_F32)));
    read_text(path, second, sizeof second);
    assert_string_equal(first, second);
    json_decref(run_json(ARGUMENTS(PLAN_IN_F32, "--threads", "1")));
    read_text(path, second, sizeof second);
    assert_true(strlen(second) > strlen(first));
    run_shell("echo '{' >'%s'", path);
    json_decref(run_json(ARGUMENTS(PLAN_IN_F32)));
    read_text(path, second, sizeof second);
    assert_non_null(strstr(second, zimage_version()));
    char before[PATH_MAX];
    snprintf(before, sizeof before, "%s", getenv("XDG_CACHE_HOME"));
    setenv("XDG_CACHE_HOME", "/dev/null/nowhere", 1);
    json_decref(run_json(ARGUMENTS(PLAN_IN_F32)));
    setenv("XDG_CACHE_HOME", before, 1);
}

/* Figures that no machine measures, one at a time in an otherwise good file, are measured again. */
static void absurd_measurements_are_not_believed(void **state)
{
    static const char *const fields[] = {"linear", "attention", "conv", "unpack"};
    static const char *const values[] = {"1e-320", "0",    "-1", "1e300", "\"1e12\"",
                                         "null",   "1e-5", "[]", "1e19",  "true"};
    static const char *const plan[] = {"generate", "x", "-m", TINY, "--plan", "--json", NULL};
    char path[2 * PATH_MAX];
    snprintf(path, sizeof path, "%s/zimage/machine.json", getenv("XDG_CACHE_HOME"));
    unlink(path);
    json_decref(run_json(plan));
    json_t *good = json_load_file(path, 0, NULL);
    assert_int_equal(json_object_size(good), 1);
    const char *key = json_object_iter_key(json_object_iter(good));
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        const char *field = fields[i % 4];
        if (strcmp(values[i], "0") == 0 || strcmp(values[i], "1e-5") == 0)
            field = "linear"; /* an unpacking of no time is possible */
        json_t *bad = json_deep_copy(good);
        json_object_set_new(json_object_get(bad, key), field, json_loads(values[i], JSON_DECODE_ANY, NULL));
        assert_int_equal(json_dump_file(bad, path, 0), 0);
        json_decref(bad);
        json_t *made = run_json(plan);
        double seconds = json_number_value(json_object_get(made, "seconds"));
        if (!(seconds > 0 && seconds < 3600))
            fail_msg("%s %s: %g seconds", field, values[i], seconds);
        json_decref(made);
        json_t *mended = json_load_file(path, 0, NULL), *value = json_object_get(json_object_get(mended, key), field);
        if (!json_is_number(value) || json_number_value(value) < 0 ||
            (*field != 'u' && json_number_value(value) < 1e5) || json_number_value(value) > 1e18)
            fail_msg("%s %s: not mended", field, values[i]);
        json_decref(mended);
    }
    json_decref(good);
}

static void memory_limits(void **state)
{
    unsigned long long limit, need;
    char size[32];
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "-o", "a.png", "-W", "512", "-H", "512", "--steps", "1",
                          "--seed", "1", "-q"),
                &o);
    assert_int_equal(o.code, 0);
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "-o", "b.png", "-W", "512", "-H", "512", "--steps", "1",
                          "--seed", "1", "--mem", "3M"),
                &o);
    assert_int_equal(o.code, 1);
    assert_int_equal(count_files(test_folder), 1);
    assert_ptr_equal(strchr(o.err, '\n'), o.err + strlen(o.err) - 1);
    const char *numbers = strstr(o.err, "--mem: ");
    assert_non_null(numbers);
    assert_int_equal(sscanf(numbers, "--mem: %llu MiB, but this request needs %llu MiB", &limit, &need), 2);
    assert_int_equal(limit, 3);
    assert_non_null(strstr(o.err, "vae_decode"));

    snprintf(size, sizeof size, "%lluM", need);
    json_t *plan = run_json(ARGUMENTS("generate", "x", "-m", TINY, "-W", "512", "-H", "512", "--steps", "1", "--mem",
                                      size, "--plan", "--json"));
    assert_true(json_integer_value(json_object_get(plan, "band_rows")) > 0);
    json_decref(plan);
    json_t *made = run_json(ARGUMENTS("generate", "x", "-m", TINY, "-o", "b.png", "-W", "512", "-H", "512", "--steps",
                                      "1", "--seed", "1", "--mem", size, "-q", "--json"));
    json_int_t peak = json_integer_value(json_object_get(made, "peak_rss_bytes"));
    printf("--mem %s: peak %.1f MiB\n", size, (double)peak / 1048576);
    fflush(stdout);
    if (MEMORY_IS_OURS)
        assert_true((double)peak <= (double)(need << 20));
    json_decref(made);
    run_shell("cmp -s '%s' '%s'", in_folder("a.png"), in_folder("b.png"));

    /* With guidance the encoder is needed twice; what was given back is read again. */
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "-o", "a.png", "-W", "64", "-H", "64", "--steps", "2",
                          "--guidance", "3", "--negative", "b", "--seed", "1", "-q"),
                &o);
    assert_int_equal(o.code, 0);
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "-o", "b.png", "-W", "64", "-H", "64", "--steps", "2",
                          "--guidance", "3", "--negative", "b", "--seed", "1", "-q", "--mem", "1G"),
                &o);
    assert_int_equal(o.code, 0);
    run_shell("cmp -s '%s' '%s' && rm -f '%s'/*", in_folder("a.png"), in_folder("b.png"), test_folder);
}

/* CPU seconds of the children so far. Seconds of the clock would depend on what else the machine does. */
static double children_seconds(void)
{
    struct rusage u;
    assert_int_equal(getrusage(RUSAGE_CHILDREN, &u), 0);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

#define HUGE_SIDE "131072" /* the most that a VAE decodes */

/* What no machine has room for is refused before any of it is taken: within a second, by a process that stays small. */
static void no_memory_is_taken_before_the_plan(void **state)
{
    const char *model = copy_model("huge");
    struct rusage usage;
    spoil_json(model, "transformer/config.json", "axes_lens", "[2048, 8192, 8192]");
    FILE *batch = fopen(in_folder("huge.jsonl"), "w");
    fprintf(batch,
            "{\"prompt\": \"x\", \"output\": \"small.png\", \"width\": 64, \"height\": 64}\n"
            "{\"prompt\": \"x\", \"output\": \"huge.png\", \"width\": " HUGE_SIDE ", \"height\": " HUGE_SIDE "}\n");
    fclose(batch);
    const struct {
        const char *const *arguments;
        const char *says;
    } refused[] = {
        {ARGUMENTS("generate", "x", "-m", model, "-W", HUGE_SIDE, "-H", HUGE_SIDE, "-o", "a.png"), "none is set"},
        {ARGUMENTS("generate", "x", "-m", model, "-W", HUGE_SIDE, "-H", HUGE_SIDE, "-o", "a.png", "--mem", "64M"),
         "64 MiB, but"},
        {ARGUMENTS("generate", "-m", model, "--batch", "huge.jsonl", "--out-dir", "."), "line 2: "},
    };
    double start = children_seconds();
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        run_program(refused[i].arguments, &o);
        if (o.code == 0 || !strstr(o.err, refused[i].says) || !strstr(o.err, "MiB"))
            fail_msg("exit code %d: %s", o.code, o.err);
    }
    run_program(ARGUMENTS("generate", "x", "-m", model, "-W", HUGE_SIDE, "-H", HUGE_SIDE, "--plan"), &o);
    assert_int_equal(o.code, 0);
    assert_non_null(strstr(o.err, "MiB are free"));
    if (MEMORY_IS_OURS) {
        assert_true(children_seconds() - start < 5);
        assert_int_equal(getrusage(RUSAGE_CHILDREN, &usage), 0);
        assert_true(usage.ru_maxrss < 256 << 10); /* KiB; the largest of all children */
    }
    run_shell("cd '%s' && rm -r huge huge.jsonl", test_folder);
    assert_int_equal(count_files(test_folder), 0);
}

/* Runs the program with --mem LIMIT M and two more arguments; 1: the limit suffices. *need: what a refusal names. */
static int runs_within(unsigned long long limit, const char *side, const char *const more[2], unsigned long long *need)
{
    char size[32];
    unsigned long long named = 0;
    snprintf(size, sizeof size, "%lluM", limit);
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "-W", side, "-H", side, "-o", "a.png", "--json", "-q", "--steps",
                          "1", "--mem", size, more[0], more[1]),
                &o);
    if (o.code == 0)
        return 1;
    const char *numbers = strstr(o.err, "--mem: ");
    if (!numbers || sscanf(numbers, "--mem: %llu MiB, but this request needs %llu MiB", &named, need) != 2)
        fail_msg("exit code %d: %s", o.code, o.err);
    assert_int_equal(named, limit);
    return 0;
}

/* The smallest limit that is accepted is kept, and the limit that a refusal names is accepted. Brief tests leave out
 * the largest side. */
static void limits_are_kept(void **state)
{
    static const char *const sides[] = {"64", "256", "512"};
    static const char *const options[][2] = {{"--compute", "f32"}, {"--compute", "bf16"}, {"--guidance", "3"}};
    for (size_t i = 0; i < (is_brief() ? 6 : 9); i++) {
        unsigned long long need = 0, low, ignored;
        const char *side = sides[i / 3], *const *more = options[i % 3];
        assert_false(runs_within(1, side, more, &need));
        for (low = need; runs_within(low, side, more, &ignored); low--) {
            json_t *made = json_loads(o.out, 0, NULL);
            double peak = json_number_value(json_object_get(made, "peak_rss_bytes")) / 1048576;
            json_decref(made);
            if (MEMORY_IS_OURS && peak > (double)low)
                fail_msg("%s %s %s: --mem %lluM, but the peak is %.1f MiB", side, more[0], more[1], low, peak);
        }
        assert_true(low < need && need - low <= 4); /* what is named is not much more than what is needed */
    }
    unlink(in_folder("a.png"));
}

static void wrong_sizes(void **state)
{
    static const char *const sizes[] = {"", "0", "-5M", "+5M", "6X", "6GB", "much", "M", "1e400", "nan", "inf", "0.1"};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        run_program(ARGUMENTS("generate", "x", "-m", TINY, "-o", "a.png", "--mem", sizes[i]), &o);
        if (o.code != 2 || !strstr(o.err, "--mem") || !strstr(o.err, "6G"))
            fail_msg("--mem \"%s\": exit code %d: %s", sizes[i], o.code, o.err);
    }
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "-o", "a.png", "--plan"), &o);
    assert_int_equal(o.code, 2);
    assert_non_null(strstr(o.err, "--plan"));
    run_program(ARGUMENTS("generate", "x", "-m", TINY, "--plan", "-W", "100"), &o);
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.err, "multiple of 16"));
    assert_int_equal(count_files(test_folder), 0);
}

static void compare_memory(const char *what, double predicted, double measured)
{
    printf("memory of %s: predicted %.1f MiB, measured %.1f MiB (%+.1f %%)\n", what, predicted / 1048576,
           measured / 1048576, 100 * (predicted / measured - 1));
    fflush(stdout); /* before the next fork */
    assert_true(fabs(predicted - measured) < fmax(0.03 * measured, SLACK));
}

static void memory_of_the_tiny_model(void **state)
{
    static const char *const sides[] = {"256", "512", "1024"};
    if (!MEMORY_IS_OURS)
        skip();
    for (size_t i = 0; i < 3; i++) {
        char what[32];
        json_t *plan = run_json(
            ARGUMENTS("generate", "x", "-m", TINY, "-W", sides[i], "-H", sides[i], "--plan", "--json", "--steps", "1"));
        json_t *made = run_json(ARGUMENTS("generate", "x", "-m", TINY, "-W", sides[i], "-H", sides[i], "-o", "a.png",
                                          "--json", "--steps", "1", "-q"));
        snprintf(what, sizeof what, "tiny at %s", sides[i]);
        compare_memory(what, json_number_value(json_object_get(plan, "peak_bytes")),
                       json_number_value(json_object_get(made, "peak_rss_bytes")));
        json_decref(plan);
        json_decref(made);
    }
    unlink(in_folder("a.png"));
}

/* An input image of another size than the result's, which the VAE encodes; with a mask, and with narrow bands. */
static void memory_of_input_images(void **state)
{
    static const struct {
        const char *side;
        int masked;
    } cases[] = {{"256", 0}, {"512", 1}, {"1024", 0}};
    if (!MEMORY_IS_OURS)
        skip();
    put_picture("in.png", 700, 500, 0);
    put_picture("mask.png", 700, 500, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char what[64];
        const char *side = cases[i].side;
        int masked = cases[i].masked;
        unsigned long long least = 0;
#define FROM_IMAGE                                                                                                     \
    "generate", "x", "-m", TINY, "-W", side, "-H", side, "--json", "--steps", "1", "-i", "in.png", "--strength", "1",  \
        masked ? "--mask" : "--background", masked ? "mask.png" : "black"
        json_t *plan = run_json(ARGUMENTS(FROM_IMAGE, "--plan"));
        json_t *made = run_json(ARGUMENTS(FROM_IMAGE, "-o", "a.png", "-q"));
        snprintf(what, sizeof what, "tiny at %s from an image%s", side, masked ? " and a mask" : "");
        compare_memory(what, json_number_value(json_object_get(plan, "peak_bytes")),
                       json_number_value(json_object_get(made, "peak_rss_bytes")));
        least = (unsigned long long)json_number_value(json_object_get(plan, "least_bytes"));
        char limit[32];
        snprintf(limit, sizeof limit, "%lluM", (least + 1048575) / 1048576);
        json_decref(made);
        made = run_json(ARGUMENTS(FROM_IMAGE, "-o", "a.png", "-q", "--mem", limit));
        double peak = json_number_value(json_object_get(made, "peak_rss_bytes"));
        if (peak > (double)least)
            fail_msg("--mem %s, but the peak is %.1f MiB", limit, peak / 1048576);
        json_decref(plan);
        json_decref(made);
    }
    run_shell("rm '%s'/*.png", test_folder);
}

/* A session on the toy with random weights. */
static zimage_status open_synthetic(zimage_session **session, zimage_error *error)
{
    const zi_synthetic synthetic = {.model = "small", .format = "bf16"};
    const zimage_session_params params = {.struct_size = sizeof params, .threads = 2, .compute = ZIMAGE_COMPUTE_F32};
    zi_pool *pool;
    zi_model *inner;
    zimage_model *model = NULL;
    ZI_TRY(zi_pool_new(2, &pool, error));
    zimage_status status = zi_synthetic_new(&synthetic, 1u << ZI_TRANSFORMER | 1u << ZI_VAE, pool, &inner, error);
    zi_pool_free(pool);
    if (status == ZIMAGE_OK)
        status = zi_model_handle(inner, &model, error);
    if (status == ZIMAGE_OK)
        status = zimage_session_open(model, &params, session, error);
    zimage_model_close(model);
    return status;
}

/* Predicted and measured bytes of one image with random weights. */
static void measure_synthetic(int side, double *bytes)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_session *session = NULL;
    zimage_request request = {.struct_size = sizeof request};
    zimage_plan *plan = NULL;
    zimage_plan_info info = {.struct_size = sizeof info};
    zimage_image *image = NULL;
    struct rusage usage;
    bytes[0] = bytes[1] = 0;
    if (open_synthetic(&session, &error) != ZIMAGE_OK)
        return;
    float *embeds = calloc(40 * 320, sizeof *embeds);
    request.width = request.height = side;
    request.steps = 1;
    request.prompt_embeds = embeds;
    request.prompt_tokens = 40;
    request.prompt_embeds_dim = 320;
    if (zimage_plan_make(session, &request, &plan, &error) == ZIMAGE_OK &&
        zimage_plan_get_info(plan, &info, &error) == ZIMAGE_OK &&
        zimage_generate(session, &request, &image, &error) == ZIMAGE_OK) {
        getrusage(RUSAGE_SELF, &usage);
        bytes[0] = (double)info.peak_bytes;
        bytes[1] = (double)usage.ru_maxrss * 1024;
    }
    zimage_plan_free(plan);
    zimage_image_free(image);
    zimage_session_close(session);
    free(embeds);
}

static void memory_of_random_weights(void **state)
{
    static const int sides[] = {256, 512};
    if (!MEMORY_IS_OURS)
        skip();
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        char what[40];
        double bytes[2] = {0, 0};
        in_a_process(measure_synthetic, sides[i], bytes, 2);
        assert_true(bytes[0] > 0);
        snprintf(what, sizeof what, "random weights at %d", sides[i]);
        compare_memory(what, bytes[0], bytes[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_are_told),
        cmocka_unit_test(machine_is_measured_once),
        cmocka_unit_test(absurd_measurements_are_not_believed),
        cmocka_unit_test(memory_limits),
        cmocka_unit_test(limits_are_kept),
        cmocka_unit_test(wrong_sizes),
        cmocka_unit_test(no_memory_is_taken_before_the_plan),
        cmocka_unit_test(memory_of_the_tiny_model),
        cmocka_unit_test(memory_of_input_images),
        cmocka_unit_test(memory_of_random_weights),
    };
    return cmocka_run_group_tests(tests, group_make, group_remove);
}
