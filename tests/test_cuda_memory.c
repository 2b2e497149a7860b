/*
 * A card's memory: pictures are the same bytes however little of it may be taken, a byte less than the least is refused
 * with the numbers, and a table on which memory ran out works on. On the emulated card.
 */
#include <dlfcn.h>
#include <inttypes.h>

#include "cuda/cuda.h"
#include "engine/card.h"
#include "engine/context.h"
#include "engine/synthetic.h"
#include "support.h"

#define CARD_MIB "1024"

static zimage_error error = ZIMAGE_ERROR_INIT;

static void ok(zimage_status status)
{
    if (status != ZIMAGE_OK)
        fail_msg("%s", error.message);
}

/* ---- pictures ------------------------------------------------------------------------------------------------------ */

typedef struct ask {
    int32_t width, height, steps;
    float guidance;
    double truncation;
    int preview;
    int cancel_at; /* progress calls; 0: never */
} ask;

static const ask plain = {.width = 32, .height = 16, .steps = 2};

typedef struct answer {
    float *latents;
    uint8_t *pixels;
    size_t latent_count, pixel_count;
    zimage_device_plan plan;
} answer;

static zimage_context *open_with(uint64_t memory, zimage_compute compute)
{
    zimage_open_params params;
    zimage_context *context = NULL;
    zimage_open_params_init(&params);
    params.device = "cuda";
    params.device_memory = memory;
    params.compute = compute;
    ok(zimage_open(ZIMAGE_TEST_DATA "/tiny", &params, &context, &error));
    return context;
}

static int calls_left;

static int on_progress(const zimage_progress *progress, void *user)
{
    return calls_left > 0 && --calls_left == 0;
}

static zimage_request request_of(const zimage_context *context, const ask *a)
{
    zimage_request r;
    zimage_request_init(context, &r);
    r.prompt = "a red apple";
    r.negative_prompt = "blue, square and much longer than the other";
    r.width = a->width;
    r.height = a->height;
    r.steps = a->steps;
    r.seed = 7;
    r.guidance_scale = a->guidance;
    if (a->truncation > 0)
        r.cfg_truncation = a->truncation;
    r.preview = a->preview;
    r.progress = on_progress;
    calls_left = a->cancel_at;
    return r;
}

static zimage_status generate(zimage_context *context, const ask *a, answer *result)
{
    zimage_image *image = NULL;
    zimage_request r = request_of(context, a);
    zimage_status status = zimage_generate(context, &r, &image, &error);
    if (status != ZIMAGE_OK)
        return status;
    int64_t shape[3];
    const float *latents = zimage_image_latents(image, shape);
    *result = (answer){.latent_count = (size_t)(shape[0] * shape[1] * shape[2]) * sizeof(float),
                       .pixel_count = (size_t)a->width * (size_t)a->height * 3,
                       .plan = *zimage_image_device_plan(image)};
    result->latents = malloc(result->latent_count);
    result->pixels = malloc(result->pixel_count);
    memcpy(result->latents, latents, result->latent_count);
    memcpy(result->pixels, zimage_image_pixels(image), result->pixel_count);
    zimage_image_free(image);
    return ZIMAGE_OK;
}

static void answer_free(answer *a)
{
    free(a->latents);
    free(a->pixels);
}

/* The same picture; within the limit, and the values within what was planned. */
static void expect_same(zimage_context *context, const ask *a, const answer *expected, zimage_device_plan *plan)
{
    answer got;
    ok(generate(context, a, &got));
    *plan = got.plan;
    assert_int_equal(got.latent_count, expected->latent_count);
    assert_memory_equal(got.latents, expected->latents, got.latent_count);
    assert_memory_equal(got.pixels, expected->pixels, got.pixel_count);
    assert_true(got.plan.total_bytes <= got.plan.limit_bytes);
    assert_true(got.plan.total_bytes ==
                got.plan.value_bytes + got.plan.workspace_bytes + got.plan.resident_bytes + got.plan.ring_bytes);
    assert_true(context->ops->peak_bytes(context->ops) <= got.plan.value_bytes);
    answer_free(&got);
}

static zimage_device_plan plan_of(zimage_context *context, const ask *a)
{
    zimage_request r = request_of(context, a);
    zimage_plan_result plan;
    ok(zimage_plan(context, &r, &plan, &error));
    return plan.device;
}

/* With `parts` limits from what all weights need down to the least. */
static void check_limits(const ask *a, zimage_compute compute, int parts)
{
    answer whole;
    zimage_device_plan plan;
    zimage_context *context = open_with(0, compute);
    ok(generate(context, a, &whole));
    assert_int_equal(whole.plan.step_bytes, 0);
    uint64_t most = whole.plan.total_bytes, least = whole.plan.least_bytes;
    assert_true(least < most);
    zimage_close(context);
    uint64_t streamed = 0;
    for (int i = 0; i < parts; i++) {
        uint64_t limit = most - (most - least) * (uint64_t)i / (uint64_t)(parts - 1);
        context = open_with(limit, compute);
        expect_same(context, a, &whole, &plan);
        assert_int_equal(plan.limit_bytes, limit);
        assert_true(plan.step_bytes >= streamed);
        streamed = plan.step_bytes;
        if (i == parts / 2)
            expect_same(context, a, &whole, &plan); /* once more, with what is there */
        zimage_close(context);
    }
    assert_true(streamed > 0);
    answer_free(&whole);
}

static void same_bytes_in_less_memory(void **state)
{
    check_limits(&plain, ZIMAGE_COMPUTE_BF16, 3);
    check_limits(&plain, ZIMAGE_COMPUTE_FP8, 2);
}

/* Two thirds of the time, on the same ways through the code as the other tests. */
static void skip_where_slow(void)
{
#ifdef __SANITIZE_ADDRESS__
    skip();
#endif
}

static void same_bytes_with_guidance_and_previews(void **state)
{
    skip_where_slow();
    const ask both = {.width = 16, .height = 16, .steps = 2, .guidance = 2, .preview = 1};
    const ask cut = {.width = 16, .height = 16, .steps = 3, .guidance = 2, .truncation = 0.5};
    check_limits(&both, ZIMAGE_COMPUTE_F32, 2);
    check_limits(&cut, ZIMAGE_COMPUTE_BF16, 2); /* some evaluations that were expected do not come */
}

static void refuses_a_byte_less(void **state)
{
    char number[32];
    answer small, none;
    zimage_device_plan plan;
    const ask larger = {.width = 96, .height = 128, .steps = 1};
    zimage_context *context = open_with(0, ZIMAGE_COMPUTE_BF16);
    uint64_t least = plan_of(context, &larger).least_bytes;
    ok(generate(context, &plain, &small));
    zimage_close(context);

    context = open_with(least - 1, ZIMAGE_COMPUTE_BF16);
    assert_int_equal(generate(context, &larger, &none), ZIMAGE_ERROR_MEMORY);
    snprintf(number, sizeof number, "%" PRIu64 " MiB", (least + ((1 << 20) - 1)) >> 20);
    assert_non_null(strstr(error.message, "device_memory"));
    assert_non_null(strstr(error.message, number));
    zimage_request r = request_of(context, &larger);
    zimage_plan_result result;
    assert_int_equal(zimage_plan(context, &r, &result, &error), ZIMAGE_ERROR_MEMORY);
    expect_same(context, &plain, &small, &plan);
    zimage_close(context);
    answer_free(&small);
}

/* Cancelled at changing moments; another size in between, which needs more or less memory. */
static void goes_on_after_other_jobs(void **state)
{
    answer expected, large, none;
    zimage_device_plan plan;
    const ask larger = {.width = 48, .height = 32, .steps = 1};
    zimage_context *context = open_with(0, ZIMAGE_COMPUTE_BF16);
    ok(generate(context, &plain, &expected));
    uint64_t least = plan_of(context, &larger).least_bytes, most = plan_of(context, &larger).total_bytes;
    ok(generate(context, &larger, &large));
    zimage_close(context);
    context = open_with((least + most) / 2, ZIMAGE_COMPUTE_BF16);
    for (int at = 1; at < 20; at += 6) {
        ask cancelled = plain;
        cancelled.cancel_at = at;
        assert_int_equal(generate(context, &cancelled, &none), ZIMAGE_ERROR_CANCELLED);
    }
    expect_same(context, &plain, &expected, &plan);
    expect_same(context, &larger, &large, &plan);
    expect_same(context, &plain, &expected, &plan);
    zimage_close(context);
    answer_free(&expected);
    answer_free(&large);
}

/* ---- memory that runs out ------------------------------------------------------------------------------------------ */

static void alloc_bytes(zi_ops *ops, uint64_t bytes, zi_tensor *tensor)
{
    const int64_t shape[1] = {(int64_t)(bytes / sizeof(float))};
    ops->error = &error;
    ok(ops->table->alloc_f32(ops, tensor, 1, shape));
}

/* Another user of the card takes nearly all of it, then goes. */
static void waits_for_memory(void **state)
{
    answer expected, none;
    zimage_device_plan plan;
    zi_tensor taken;
    zimage_context *context = open_with(0, ZIMAGE_COMPUTE_BF16);
    ok(generate(context, &plain, &expected));
    zimage_close(context);

    context = open_with(0, ZIMAGE_COMPUTE_BF16);
    zimage_context *other = open_with(0, ZIMAGE_COMPUTE_BF16);
    zimage_device_plan now = plan_of(other, &plain);
    alloc_bytes(other->ops, now.limit_bytes - now.workspace_bytes - 4096, &taken);
    assert_int_equal(generate(context, &plain, &none), ZIMAGE_ERROR_MEMORY);
    assert_non_null(strstr(error.message, "what is free"));
    zimage_close(other);
    expect_same(context, &plain, &expected, &plan);
    zimage_close(context);
    answer_free(&expected);
}

static void stack_says_what_is_missing(void **state)
{
    zi_tensor a, b;
    answer expected;
    zimage_device_plan plan;
    const int64_t much[1] = {(int64_t)1 << 28};
    zimage_context *context = open_with(200 << 20, ZIMAGE_COMPUTE_BF16);
    zi_ops *ops = context->ops;
    ok(generate(context, &plain, &expected));
    zi_arena_mark mark = ops->table->mark(ops);
    alloc_bytes(ops, 1 << 20, &a);
    assert_int_equal(ops->table->alloc_f32(ops, &b, 1, much), ZIMAGE_ERROR_MEMORY);
    assert_non_null(strstr(error.message, "1024 MiB"));
    assert_non_null(strstr(error.message, "of the 200 MiB"));
    alloc_bytes(ops, 1 << 20, &b);
    ops->table->release(ops, mark);
    ops->error = NULL;
    expect_same(context, &plain, &expected, &plan);
    zimage_close(context);
    answer_free(&expected);
}

/* ---- networks on a table of their own ------------------------------------------------------------------------------ */

/* The context's table, replaced by one with these options. */
static void replace_ops(zimage_context *context, const zi_cuda_options *options)
{
    void *library = dlopen(ZIMAGE_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(library);
    zi_ops_cuda_new_fn *ops_new = (zi_ops_cuda_new_fn *)dlsym(library, "zi_ops_cuda_new");
    assert_non_null(ops_new);
    context->ops->table->free(context->ops);
    context->ops = NULL;
    ok(ops_new(options, &context->ops, &error));
    dlclose(library);
}

/* One evaluation of the transformer, and behind it the text encoder, whose turn it is not. */
static void evaluate(zimage_context *context, float *out)
{
    zi_ops *ops = context->ops;
    zi_tensor latents, caption, result, text;
    const int64_t image[3] = {16, 8, 8}, tokens[2] = {32, context->transformer.config.dim};
    const int64_t features[2] = {5, context->text_encoder.config.hidden_size};
    const int32_t ids[5] = {1, 2, 3, 4, 5};
    float values[32 * 512];
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        values[i] = (float)(i * 7919 % 1000) * 2e-3f - 1;
    zi_arena_mark mark = ops->table->mark(ops);
    ops->error = &error;
    ok(ops->table->alloc_f32(ops, &latents, 3, image));
    ok(ops->table->alloc(ops, &caption, 2, tokens));
    ok(ops->table->alloc_f32(ops, &result, 3, image));
    ok(ops->table->upload(ops, &latents, values));
    ok(ops->table->upload(ops, &caption, values));
    ok(zi_zimage_dit_forward(&context->transformer, ops, &latents, 0.5f, &caption, &result));
    ok(ops->table->download(ops, out, &result));
    ops->table->release(ops, mark);
    ok(ops->table->alloc(ops, &text, 2, features));
    ok(zi_qwen3_encode(&context->text_encoder, ops, ids, 5, &text));
    ok(ops->table->download(ops, out + 16 * 64, &text));
    ops->table->release(ops, mark);
    ops->error = NULL;
}

static zi_job_size size_of_evaluation(void)
{
    return (zi_job_size){.rows = 8, .columns = 8, .prompts = 1, .tokens = {32}, .encoded = {1}, .steps = 2};
}

#define OUTPUTS (16 * 64 + 5 * 320)

/* Whether the evaluation's bytes are those of all weights staying, with so many threads and pieces of that size.
 * limit_count: 1 = in the least memory, 2 = in a little more, too. */
static void check_format(const char *format, zi_compute compute, int threads, size_t piece, int limit_count)
{
    static float expected[OUTPUTS], got[OUTPUTS];
    const zi_synthetic synthetic = {"small", format, 1, 1, ZIMAGE_COMPUTE_BF16, NULL, "cuda", 0};
    zi_job_size size = size_of_evaluation();
    zimage_device_plan plan;
    zimage_context *context = NULL;
    int64_t bands;
    ok(zi_context_new_synthetic(&synthetic, ZI_PARTS, &context, &error));
    replace_ops(context, &(zi_cuda_options){.compute = compute});
    evaluate(context, expected); /* nothing was announced */
    ok(zi_card_arrange(context, &size, 1, &bands, &plan, &error));
    evaluate(context, got);
    assert_memory_equal(got, expected, sizeof got);
    const uint64_t limits[] = {plan.least_bytes, (plan.least_bytes + 4 * plan.total_bytes) / 5};
    for (int i = 0; i < limit_count; i++) {
        replace_ops(context, &(zi_cuda_options){
                                 .compute = compute,
                                 .memory = limits[i],
                                 .upload_threads = threads,
                                 .upload_piece = piece,
                             });
        ok(zi_card_arrange(context, &size, 1, &bands, &plan, &error));
        assert_true(i > 0 || plan.step_bytes > 0);
        for (int repeat = 0; repeat < 2; repeat++) {
            evaluate(context, got);
            assert_memory_equal(got, expected, sizeof got);
        }
    }
    zimage_close(context);
}

/* A little less than everything: what is read once gives way, not what each step reads. */
static void text_encoder_gives_way(void **state)
{
    const zi_synthetic synthetic = {"small", "bf16", 0, 1, ZIMAGE_COMPUTE_BF16, NULL, "cuda", 0};
    zi_job_size size = size_of_evaluation();
    zimage_device_plan all, some;
    zimage_context *context = NULL;
    int64_t bands;
    ok(zi_context_new_synthetic(&synthetic, ZI_PARTS, &context, &error));
    ok(zi_card_arrange(context, &size, 0, &bands, &all, &error));
    replace_ops(context, &(zi_cuda_options){.compute = ZI_COMPUTE_BF16, .memory = all.total_bytes - (1 << 20)});
    ok(zi_card_arrange(context, &size, 0, &bands, &some, &error));
    assert_true(some.resident_bytes < all.resident_bytes);
    assert_int_equal(some.step_bytes, 0);
    zimage_close(context);
}

static void every_format_passes_through(void **state)
{
    skip_where_slow();
    check_format("bf16", ZI_COMPUTE_BF16, 8, 100000, 2);
    check_format("q4", ZI_COMPUTE_BF16, 3, 4097, 1);
    check_format("q8", ZI_COMPUTE_FP8, 8, 30000, 1);
    check_format("f32", ZI_COMPUTE_FP8, 8, 65536, 1);
    check_format("bf16", ZI_COMPUTE_F32, 5, 50001, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bytes_in_less_memory),
        cmocka_unit_test(refuses_a_byte_less),
        cmocka_unit_test(goes_on_after_other_jobs),
        cmocka_unit_test(text_encoder_gives_way),
        cmocka_unit_test(waits_for_memory),
        cmocka_unit_test(stack_says_what_is_missing),
        cmocka_unit_test(same_bytes_with_guidance_and_previews),
        cmocka_unit_test(every_format_passes_through),
    };
    setenv("ZIMAGE_EMULATED_MIB", CARD_MIB, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
