/*
 * Images that several GPUs make together, on emulated ones in this process: the same as the CPU's and as one GPU's, for
 * numbers of tokens that the GPUs do not divide. Then the messages where GPUs can't work together.
 */
#include <dlfcn.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>

#include <jansson.h>

#include "base/numbers.h"
#include "device_images.h"

static const device sets[] = {
    {"cuda:0,1", "2 emulated GPUs"},
    {"cuda:2,0,1", "3 emulated GPUs"},
    {"cuda:0,1,2,3", "4 emulated GPUs"},
};

#define SETS (sizeof sets / sizeof *sets)

static const bounds near_fp8 = {0.1, 25}; /* as of one GPU: test_cuda_pipeline.c */

/* Exchanges between the emulated GPUs so far. */
static int64_t (*exchanges)(void);

static void float32_is_the_same_image(void **state)
{
    for (size_t i = 0; i < SETS; i++)
        compare_images(&sets[i], TINY, "f32", ZIMAGE_COMPUTE_F32, IMAGE_CASES, &same);
}

static void bf16_is_near(void **state)
{
    for (size_t i = 0; i < SETS; i++)
        compare_images(&sets[i], TINY, "bf16", ZIMAGE_COMPUTE_BF16, IMAGE_CASES, &near_bf16);
}

static void fp8_and_packed_models_are_near(void **state)
{
    compare_images(&sets[0], TINY, "fp8", ZIMAGE_COMPUTE_FP8, 1, &near_fp8);
    compare_images(&sets[1], TINY, "fp8", ZIMAGE_COMPUTE_FP8, 1, &near_fp8);
    compare_images(&sets[2], packed_model("uqer1244"), "q4, f32", ZIMAGE_COMPUTE_F32, 1, &same);
    compare_images(&sets[0], packed_model("mflux"), "q8, bf16", ZIMAGE_COMPUTE_BF16, 1, &near_bf16);
}

static void images_from_images_equal_the_reference(void **state)
{
    zi_store *store = fixture_open("img2img.safetensors");
    zimage_session *gpu = img2img_session("cuda:0,1", ZIMAGE_COMPUTE_F32, 0, NULL);
    img2img_size(gpu, "2 emulated GPUs", store, "low");
    zimage_session_close(gpu);
    zi_store_free(store);
}

/* Whatever one GPU computes of a row does not depend on the rows beside it, on the emulated GPU: so the latents are
 * those of one GPU, but for the order of sums. */
static void one_gpu_makes_the_same_image(void **state)
{
    static const zimage_compute computes[] = {ZIMAGE_COMPUTE_F32, ZIMAGE_COMPUTE_BF16};
    static const bounds nearest[] = {{1e-5, 1}, {0.01, 4}};
    for (size_t k = 0; k < 2; k++) {
        zimage_session *one = open_model(TINY, "cuda:3", computes[k]),
                       *four = open_model(TINY, sets[2].name, computes[k]);
        for (int i = 0; i < IMAGE_CASES; i++) {
            zimage_image *a = generate(four, &image_cases[i]), *b = generate(one, &image_cases[i]);
            compare(&sets[2], k ? "bf16, beside one GPU" : "f32, beside one GPU", a, b, &nearest[k]);
            zimage_image_free(a);
            zimage_image_free(b);
        }
        zimage_session_close(one);
        zimage_session_close(four);
    }
}

/* What a progress callback counts: exchanges until decoding began. */
static int count_until_decoding(const zimage_progress *progress, void *user)
{
    int64_t *made = user;
    if (progress->stage == ZIMAGE_STAGE_DECODE && *made < 0)
        *made = exchanges();
    return 0;
}

/* Exchanges of an evaluation of one image with these GPUs. */
static int64_t exchanges_of(const char *gpus, const image_case *c)
{
    zimage_session *session = open_model(TINY, gpus, ZIMAGE_COMPUTE_F32);
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request = request_of(c);
    zimage_image *image = NULL;
    int64_t before = exchanges(), made = -1;
    request.progress = count_until_decoding;
    request.progress_user = &made;
    if (zimage_generate(session, &request, &image, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    zimage_image_free(image);
    zimage_session_close(session);
    assert_true(made >= before);
    assert_int_equal((made - before) % c->steps, 0);
    return (made - before) / c->steps;
}

/* Each of two GPUs has a pass of guidance, whose attention needs no other rows. */
static void guided_passes_need_few_exchanges(void **state)
{
    static const image_case one = {"a green pear on a table", NULL, 64, 64, 2, 0};
    static const image_case two = {"a green pear on a table", "a brown pear on a table", 64, 64, 2, 4};
    /* The attention of a refiner and of two layers; before the layers, and behind the last one, all rows. */
    assert_int_equal(exchanges_of("cuda:0,1", &one), 3 + 2);
    assert_int_equal(exchanges_of("cuda:0,1", &two), 0 + 1 + 2);
    assert_int_equal(exchanges_of("cuda:0,1,2,3", &two), 3 + 1 + 2);
}

/* ---- two sessions on the same GPUs ------------------------------------------------------------------------------- */

#define SHARED_IMAGES 3 /* of each session; the last one is not cancelled */

typedef struct sharer {
    const char *gpus;
    const zimage_image *alone; /* what the session makes by itself */
    uint64_t state;
    char problem[256];
} sharer;

static void make_shared(sharer *s, zimage_session *session, int cancel_at)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request = request_of(&image_cases[0]);
    zimage_image *image = NULL;
    watch w = {.cancel_at = cancel_at};
    request.progress = count_calls;
    request.progress_user = &w;
    zimage_status status = zimage_generate(session, &request, &image, &error);
    size_t bytes = (size_t)request.width * (size_t)request.height * 3;
    if (status != ZIMAGE_OK && (cancel_at == 0 || status != ZIMAGE_ERROR_CANCELLED))
        snprintf(s->problem, sizeof s->problem, "%.200s", error.message);
    else if (image && memcmp(zimage_image_pixels(image), zimage_image_pixels(s->alone), bytes) != 0)
        snprintf(s->problem, sizeof s->problem, "%s: another image than alone", s->gpus);
    zimage_image_free(image);
}

static void *share_gpus(void *argument)
{
    sharer *s = argument;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_session_params params = {.struct_size = sizeof params, .device = s->gpus, .compute = ZIMAGE_COMPUTE_F32};
    zimage_session *session = NULL;
    if (session_on(TINY, NULL, &params, &session, &error) != ZIMAGE_OK)
        snprintf(s->problem, sizeof s->problem, "%.200s", error.message);
    for (int i = 0; session && i < SHARED_IMAGES && !*s->problem; i++)
        make_shared(s, session, i == SHARED_IMAGES - 1 ? 0 : 1 + (int)(zi_random_bits(&s->state) % 40));
    zimage_session_close(session);
    return NULL;
}

/* Sets that are equal, that have one GPU in common, and that have none. */
static void sessions_take_turns(void **state)
{
    sharer sharers[] = {{.gpus = "cuda:0,1"}, {.gpus = "cuda:0,1"}, {.gpus = "cuda:3,1"}, {.gpus = "cuda:2,3"}};
    enum { SHARERS = sizeof sharers / sizeof *sharers };
    pthread_t threads[SHARERS];
    zimage_session *session = open_model(TINY, "cuda:0,1", ZIMAGE_COMPUTE_F32);
    zimage_image *alone = generate(session, &image_cases[0]);
    zimage_session_close(session);
    for (int i = 0; i < SHARERS; i++) {
        sharers[i].alone = alone;
        sharers[i].state = ZI_RANDOM_SEED + (uint64_t)i;
        assert_int_equal(pthread_create(&threads[i], NULL, share_gpus, &sharers[i]), 0);
    }
    for (int i = 0; i < SHARERS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < SHARERS; i++)
        if (*sharers[i].problem)
            fail_msg("%s", sharers[i].problem);
    zimage_image_free(alone);
}

static void cancelling_leaves_the_gpus_usable(void **state)
{
    cancel_images(&sets[1]);
}

static void not_finite_names_the_block(void **state)
{
    spoil_blocks(&sets[0]);
}

static void refuse(const char *gpus, const char *word1, const char *word2)
{
    expect_refused(
        ARGUMENTS("generate", "a", "-m", TINY, "-o", "a.png", "-W", "32", "-H", "32", "--steps", "1", "--device", gpus),
        word1, word2);
}

static void wrong_sets_are_refused(void **state)
{
    refuse("cuda:0,0", "cuda:0,0", "each GPU once");
    refuse("cuda:0,1,4", "cuda:4", "there are 4 GPUs");
    refuse("cuda:0,", "\"cuda:0,\"", "numbers of GPUs");
    refuse("cuda:0,1,x", "\"cuda:0,1,x\"", "numbers of GPUs");
    refuse("cuda:0,1,2,3,4,5,6,7,8", "expected 1 to 8", "numbers of GPUs");
    refuse("cuda:0,cuda:1", "\"cuda:0,cuda:1\"", "numbers of GPUs");
    setenv("ZIMAGE_EMULATED_NCCL", "none", 1);
    refuse("cuda:0,1", "several GPUs need NVIDIA's NCCL", "libnccl.so.2");
    unsetenv("ZIMAGE_EMULATED_NCCL");
    setenv("ZIMAGE_EMULATED_OTHER", "1", 1);
    refuse("cuda:0,1", "cuda:1 an emulated otherwise", "GPUs of one model");
    unsetenv("ZIMAGE_EMULATED_OTHER");
    setenv("ZIMAGE_EMULATED_MIB", "65", 1);
    refuse("cuda:0,1", "cuda:0: out of device memory", "MiB");
    unsetenv("ZIMAGE_EMULATED_MIB");
}

static void the_plan_speaks_of_each_gpu(void **state)
{
    run_program(
        ARGUMENTS("generate", "--plan", "a", "-m", TINY, "-W", "32", "-H", "32", "--device", "cuda:0,1", "--no-cache"),
        &o);
    assert_int_equal(o.code, 0);
    assert_contains(o.out, "on each GPU ");
    assert_contains(o.out, "each GPU sends or receives ");
}

/* ---- predicted seconds ------------------------------------------------------------------------------------------- */

/* Writes these rates into the entries of the session's cache folder. */
static void set_rates(const char *folder, double latency, double link)
{
    static const char *const rates[] = {"linear", "attention", "conv"};
    char path[PATH_MAX];
    json_t *entry;
    const char *key;
    snprintf(path, sizeof path, "%s/machine.json", folder);
    json_t *all = json_load_file(path, 0, NULL);
    assert_non_null(all);
    json_object_foreach(all, key, entry)
    {
        for (size_t i = 0; i < sizeof rates / sizeof *rates; i++)
            json_object_set_new(entry, rates[i], json_real(1e9));
        json_object_set_new(entry, "unpack", json_real(0));
        json_object_set_new(entry, "latency", json_real(latency));
        json_object_set_new(entry, "link", json_real(link));
    }
    assert_int_equal(json_dump_file(all, path, 0), 0);
    json_decref(all);
}

typedef struct prediction {
    zimage_stage_info text, denoise, decode;
    zimage_memory_info memory;
} prediction;

static prediction predict(const char *gpus, const char *folder, int32_t steps)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_session_params params = {
        .struct_size = sizeof params, .device = gpus, .compute = ZIMAGE_COMPUTE_F32, .cache_folder = folder};
    zimage_request request = request_of(&image_cases[0]);
    zimage_session *session = NULL;
    zimage_plan *plan = NULL;
    prediction p = {{.struct_size = sizeof p.text},
                    {.struct_size = sizeof p.text},
                    {.struct_size = sizeof p.text},
                    {.struct_size = sizeof p.memory}};
    request.width = request.height = 64; /* as in guided_passes_need_few_exchanges */
    request.steps = steps;
    if (session_on(TINY, NULL, &params, &session, &error) != ZIMAGE_OK ||
        zimage_plan_make(session, &request, &plan, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    zimage_plan_get_stage(plan, ZIMAGE_STAGE_TEXT, &p.text, NULL);
    zimage_plan_get_stage(plan, ZIMAGE_STAGE_DENOISE, &p.denoise, NULL);
    zimage_plan_get_stage(plan, ZIMAGE_STAGE_DECODE, &p.decode, NULL);
    zimage_plan_get_memory(plan, &p.memory, NULL);
    zimage_plan_free(plan);
    zimage_session_close(session);
    return p;
}

/* seconds of one GPU / GPUs + exchanges latency + bytes / link, where GPUs exchange something. */
static void predicted_seconds_follow_the_formula(void **state)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", in_folder("rates"));
    (void)predict("cuda:0,1", folder, 2); /* measures, and keeps what it measured */
    set_rates(folder, 0, 0);
    const prediction free = predict("cuda:0,1", folder, 2);
    set_rates(folder, 0, 1e6);
    const prediction link = predict("cuda:0,1", folder, 2);
    set_rates(folder, 0.5, 0);
    const prediction latency = predict("cuda:0,1", folder, 2), four = predict("cuda:0,1", folder, 4);
    const double small = 1e-9;
    assert_true(fabs(free.text.seconds - free.text.flops / 1e9) < small);
    assert_true(fabs(free.denoise.seconds - free.denoise.flops / 2e9) < small);
    assert_true(fabs(free.decode.seconds - free.decode.flops / 2e9) < small);
    assert_true(link.memory.exchange_bytes > 0);
    assert_true(fabs(link.denoise.seconds - free.denoise.seconds - 2e-6 * (double)link.memory.exchange_bytes) < small);
    assert_true(link.decode.seconds > free.decode.seconds);
    assert_true(fabs(link.text.seconds - free.text.seconds) < small);
    /* Five exchanges in a step: as many as take place. */
    assert_true(fabs(latency.denoise.seconds - free.denoise.seconds - 0.5 * 2 * 5) < small);
    assert_true(fabs(four.denoise.seconds - 2 * latency.denoise.seconds) < small);
    assert_int_equal(predict("cuda:0", folder, 2).memory.exchange_bytes, 0);
}

/* Little memory: weights are copied to each GPU at every step. */
static void weights_may_be_streamed(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_session_params params = {.struct_size = sizeof params,
                                    .device = "cuda:0,1,2",
                                    .compute = ZIMAGE_COMPUTE_F32,
                                    .device_memory = (uint64_t)67 << 20};
    zimage_session *session = NULL, *cpu = open_model(TINY, NULL, ZIMAGE_COMPUTE_F32);
    if (session_on(TINY, NULL, &params, &session, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    zimage_image *ours = generate(session, &image_cases[0]), *reference = generate(cpu, &image_cases[0]);
    compare(&sets[1], "f32, little memory", ours, reference, &same);
    zimage_image_free(ours);
    zimage_image_free(reference);
    zimage_session_close(session);
    zimage_session_close(cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_is_the_same_image),
        cmocka_unit_test(bf16_is_near),
        cmocka_unit_test(fp8_and_packed_models_are_near),
        cmocka_unit_test(images_from_images_equal_the_reference),
        cmocka_unit_test(one_gpu_makes_the_same_image),
        cmocka_unit_test(guided_passes_need_few_exchanges),
        cmocka_unit_test(sessions_take_turns),
        cmocka_unit_test(cancelling_leaves_the_gpus_usable),
        cmocka_unit_test(not_finite_names_the_block),
        cmocka_unit_test(wrong_sets_are_refused),
        cmocka_unit_test(the_plan_speaks_of_each_gpu),
        cmocka_unit_test(predicted_seconds_follow_the_formula),
        cmocka_unit_test(weights_may_be_streamed),
    };
    setenv("ZIMAGE_EMULATED_GPUS", "4", 1);
    void *library = dlopen(ZIMAGE_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    exchanges = library ? (int64_t(*)(void))dlsym(library, "zi_emulated_exchanges") : NULL;
    if (!exchanges) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
