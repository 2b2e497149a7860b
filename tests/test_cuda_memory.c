/*
 * Device memory: images are the same bytes however little of it may be taken, a byte less than the least is refused
 * with the numbers, and a backend on which memory ran out works on. On the emulated GPU.
 */
#include <dlfcn.h>

#include "base/numbers.h"
#include "cuda/cuda.h"
#include "engine/plan.h"
#include "engine/session.h"
#include "guidance.h"
#include "klein.h"
#include "measure/synthetic.h"
#include "session.h"
#include "support.h"

#define GPU_MIB "1024"

static zimage_error error = ZIMAGE_ERROR_INIT;

static void ok(zimage_status status)
{
    if (status != ZIMAGE_OK)
        fail_msg("%s", error.message);
}

/* ---- images ------------------------------------------------------------------------------------------------------ */

typedef struct ask {
    int32_t width, height, steps;
    float guidance;
    double truncation;
    int preview, wants_second; /* the second: of step 2 only */
    int cancel_at;             /* progress calls; 0: never */
    int input;                 /* of_noise, an image to start from; of_mask, with a mask */
} ask;

enum { of_noise, of_image, of_mask };

static const ask plain = {.width = 32, .height = 16, .steps = 2};

typedef struct answer {
    float *latents;
    uint8_t *pixels;
    size_t latent_count, pixel_count;
    zimage_memory_info memory;
} answer;

static zimage_session *open_with(uint64_t memory, zimage_compute compute)
{
    zimage_session_params params = {
        .struct_size = sizeof params, .device = "cuda", .device_memory = memory, .compute = compute};
    zimage_session *session = NULL;
    ok(session_on(ZIMAGE_TEST_DATA "/tiny", NULL, &params, &session, &error));
    return session;
}

static int calls_left;

static int on_progress(const zimage_progress *progress, void *user)
{
    return calls_left > 0 && --calls_left == 0;
}

static int wants_second(int32_t step, int32_t steps, void *user)
{
    return step == 2;
}

/* An input image, which is its own mask. It lives as long as the process. */
static const zimage_image *input(void)
{
    static zimage_image *image;
    uint8_t pixels[40 * 24 * 3];
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * 7 + i / 90);
    if (!image)
        ok(zimage_image_from_pixels(pixels, 40, 24, 120, 3, &image, &error));
    return image;
}

static zimage_request request_of(const ask *a)
{
    static const zimage_image *images[1];
    zimage_request r = {.struct_size = sizeof r};
    r.prompt = "a red apple";
    r.negative_prompt = "blue, square and much longer than the other";
    r.width = a->width;
    r.height = a->height;
    r.steps = a->steps;
    r.seed = 7;
    r.guidance_scale = a->guidance;
    r.cfg_truncation = a->truncation;
    r.preview = a->preview;
    r.wants_preview = a->wants_second ? wants_second : NULL;
    r.progress = on_progress;
    calls_left = a->cancel_at;
    images[0] = input();
    if (a->input != of_noise) {
        r.images = images;
        r.image_count = 1;
        r.strength = 1;
        r.mask = a->input == of_mask ? images[0] : NULL;
    }
    return r;
}

static zimage_status generate(zimage_session *session, const ask *a, answer *result)
{
    zimage_image *image = NULL;
    zimage_request r = request_of(a);
    zimage_status status = zimage_generate(session, &r, &image, &error);
    if (status != ZIMAGE_OK)
        return status;
    int64_t shape[3];
    const float *latents = zimage_image_latents(image, shape);
    *result = (answer){.latent_count = (size_t)(shape[0] * shape[1] * shape[2]) * sizeof(float),
                       .pixel_count = (size_t)a->width * (size_t)a->height * 3,
                       .memory = {.struct_size = sizeof result->memory}};
    ok(zimage_image_get_memory(image, &result->memory, &error));
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

/* The same image; within the limit, and activations within what was planned. */
static void expect_same(zimage_session *session, const ask *a, const answer *expected, zimage_memory_info *memory)
{
    answer got;
    ok(generate(session, a, &got));
    *memory = got.memory;
    assert_int_equal(got.latent_count, expected->latent_count);
    assert_memory_equal(got.latents, expected->latents, got.latent_count);
    assert_memory_equal(got.pixels, expected->pixels, got.pixel_count);
    assert_true(memory->total_bytes <= memory->limit_bytes);
    assert_true(memory->total_bytes ==
                memory->activation_bytes + memory->workspace_bytes + memory->resident_bytes + memory->ring_bytes);
    assert_true(session->ops->table->peak_bytes(session->ops) <= memory->activation_bytes);
    answer_free(&got);
}

static zimage_memory_info plan_of(zimage_session *session, const ask *a)
{
    zimage_request r = request_of(a);
    zimage_plan *plan;
    zimage_memory_info memory = {.struct_size = sizeof memory};
    ok(zimage_plan_make(session, &r, &plan, &error));
    ok(zimage_plan_get_memory(plan, &memory, &error));
    zimage_plan_free(plan);
    return memory;
}

/* With `parts` limits from what all weights need down to the least. */
static void check_limits(const ask *a, zimage_compute compute, int parts)
{
    answer whole;
    zimage_memory_info plan;
    zimage_session *session = open_with(0, compute);
    ok(generate(session, a, &whole));
    assert_int_equal(whole.memory.step_bytes, 0);
    uint64_t most = whole.memory.total_bytes, least = whole.memory.least_bytes;
    assert_true(least < most);
    zimage_session_close(session);
    uint64_t streamed = 0;
    for (int i = 0; i < parts; i++) {
        uint64_t limit = most - (most - least) * (uint64_t)i / (uint64_t)(parts - 1);
        session = open_with(limit, compute);
        expect_same(session, a, &whole, &plan);
        assert_int_equal(plan.limit_bytes, limit);
        assert_true(plan.step_bytes >= streamed);
        streamed = plan.step_bytes;
        if (i == parts / 2)
            expect_same(session, a, &whole, &plan); /* once more, with what is there */
        zimage_session_close(session);
    }
    assert_true(streamed > 0);
    answer_free(&whole);
}

/* What the device gave away after an image, against what was planned before its first operation: within 3 %. */
static void memory_is_what_was_planned(void **state)
{
    static const ask asks[] = {{.width = 32, .height = 16, .steps = 1},
                               {.width = 64, .height = 32, .steps = 1},
                               {.width = 64, .height = 32, .steps = 1, .input = of_mask}};
    static const zimage_compute computes[] = {ZIMAGE_COMPUTE_F32, ZIMAGE_COMPUTE_BF16};
    for (size_t i = 0; i < 6; i++) {
        answer made;
        zimage_session *session = open_with(0, computes[i / 3]);
        ok(generate(session, &asks[i % 3], &made));
        uint64_t planned = made.memory.total_bytes;
        uint64_t measured = session->ops->table->device_bytes(session->ops);
        print_message("device memory: planned %.1f MiB, measured %.1f MiB\n", (double)planned / ZI_MIB,
                      (double)measured / ZI_MIB);
        assert_true(fabs((double)planned - (double)measured) <= 0.03 * (double)measured);
        answer_free(&made);
        zimage_session_close(session);
    }
}

static void same_bytes_in_less_memory(void **state)
{
    check_limits(&plain, ZIMAGE_COMPUTE_BF16, 3);
    check_limits(&plain, ZIMAGE_COMPUTE_FP8, 2);
}

static void same_bytes_with_guidance_and_previews(void **state)
{
    if (is_brief())
        skip();
    const ask both = {.width = 16, .height = 16, .steps = 2, .guidance = 2, .preview = 1};
    const ask cut = {.width = 16, .height = 16, .steps = 3, .guidance = 2, .truncation = 0.5};
    const ask some = {.width = 16, .height = 16, .steps = 3, .preview = 1, .wants_second = 1};
    check_limits(&both, ZIMAGE_COMPUTE_F32, 2);
    check_limits(&some, ZIMAGE_COMPUTE_F32, 2); /* weights of previews that are left out were sent for nothing */
    check_limits(&cut, ZIMAGE_COMPUTE_BF16, 2); /* truncation leaves out some of the rehearsed forward passes */
}

/* Both passes of a step with guidance as a batch: the same bytes, and streamed weights are copied once. */
static void a_batch_copies_weights_once(void **state)
{
    const guided_step steps[] = {guided_zimage[0], guided_klein[1]};
    const char *const folders[] = {ZIMAGE_TEST_DATA "/tiny", klein_base()};
    static const zimage_compute computes[] = {ZIMAGE_COMPUTE_F32, ZIMAGE_COMPUTE_BF16};
    for (int i = 0; i < 4; i++) {
        zi_memory_plan plans[3];
        zimage_session_params params = {.struct_size = sizeof params, .device = "cuda", .compute = computes[i / 2]};
        zi_job jobs[3];
        for (int k = 0; k < 3; k++) { /* one after the other; a batch; a batch in as little memory as it needs */
            params.device_memory = k == 2 ? plans[1].least : 0;
            zimage_session *session;
            ok(session_on(folders[i % 2], NULL, &params, &session, &error));
            jobs[k] = guided_job(session, &steps[i % 2], k > 0);
            guided_run(session, &jobs[k], &plans[k]);
            size_t count = guided_count(&jobs[k]);
            zimage_session_close(session);
            if (k > 0)
                guided_compare("emulated GPU", &jobs[0], &jobs[k], count, steps[i % 2].name);
        }
        uint64_t once = plans[1].weights[ZIMAGE_STAGE_DENOISE], streamed = plans[2].streamed[ZIMAGE_STAGE_DENOISE];
        print_message("%s: weights of a step: %.2f MiB one after the other, %.2f in a batch, %.2f of them streamed\n",
                      folders[i % 2], (double)plans[0].weights[ZIMAGE_STAGE_DENOISE] / ZI_MIB, (double)once / ZI_MIB,
                      (double)streamed / ZI_MIB);
        double twice = (double)plans[0].weights[ZIMAGE_STAGE_DENOISE]; /* but the tokens of pads, which prepare reads */
        assert_true(twice <= 2 * (double)once && twice > 1.99 * (double)once);
        assert_true(streamed > 0 && streamed <= once);
        for (int k = 0; k < 3; k++)
            guided_free(&jobs[k]);
    }
}

static void same_bytes_from_images(void **state)
{
    const ask changed = {.width = 32, .height = 16, .steps = 2, .input = of_image};
    const ask masked = {.width = 16, .height = 32, .steps = 1, .preview = 1, .input = of_mask};
    check_limits(&changed, ZIMAGE_COMPUTE_BF16, 3);
    check_limits(&masked, ZIMAGE_COMPUTE_F32, 2);
}

static void refuses_a_byte_less(void **state)
{
    char number[32];
    answer small, none;
    zimage_memory_info plan;
    const ask larger = {.width = 96, .height = 128, .steps = 1};
    zimage_session *session = open_with(0, ZIMAGE_COMPUTE_BF16);
    uint64_t least = plan_of(session, &larger).least_bytes;
    ok(generate(session, &plain, &small));
    zimage_session_close(session);

    session = open_with(least - 1, ZIMAGE_COMPUTE_BF16);
    assert_int_equal(generate(session, &larger, &none), ZIMAGE_ERROR_MEMORY);
    snprintf(number, sizeof number, "%llu MiB", zi_mib(least));
    assert_non_null(strstr(error.message, "device_memory"));
    assert_non_null(strstr(error.message, number));
    zimage_request r = request_of(&larger);
    zimage_plan *refused;
    assert_int_equal(zimage_plan_make(session, &r, &refused, &error), ZIMAGE_ERROR_MEMORY);
    expect_same(session, &plain, &small, &plan);
    zimage_session_close(session);
    answer_free(&small);
}

/* Cancelled at changing moments; another size in between, which needs more or less memory. */
static void goes_on_after_other_jobs(void **state)
{
    answer expected, large, none;
    zimage_memory_info plan;
    const ask larger = {.width = 48, .height = 32, .steps = 1};
    zimage_session *session = open_with(0, ZIMAGE_COMPUTE_BF16);
    ok(generate(session, &plain, &expected));
    uint64_t least = plan_of(session, &larger).least_bytes, most = plan_of(session, &larger).total_bytes;
    ok(generate(session, &larger, &large));
    zimage_session_close(session);
    session = open_with((least + most) / 2, ZIMAGE_COMPUTE_BF16);
    for (int at = 1; at < 20; at += 6) {
        ask cancelled = plain;
        cancelled.cancel_at = at;
        assert_int_equal(generate(session, &cancelled, &none), ZIMAGE_ERROR_CANCELLED);
    }
    expect_same(session, &plain, &expected, &plan);
    expect_same(session, &larger, &large, &plan);
    expect_same(session, &plain, &expected, &plan);
    zimage_session_close(session);
    answer_free(&expected);
    answer_free(&large);
}

/* ---- memory that runs out ---------------------------------------------------------------------------------------- */

static zi_run run_on(const zimage_session *session)
{
    return (zi_run){.ops = session->ops, .error = &error};
}

static void alloc_bytes(zimage_session *session, uint64_t bytes, zi_tensor *tensor)
{
    const int64_t shape[1] = {(int64_t)(bytes / sizeof(float))};
    zi_run run = run_on(session);
    ok(zi_table(&run)->alloc_f32(&run, tensor, 1, shape));
}

/* Another user of the GPU takes nearly all of its memory, then goes. */
static void waits_for_memory(void **state)
{
    answer expected, none;
    zimage_memory_info plan;
    zi_tensor taken;
    zimage_session *session = open_with(0, ZIMAGE_COMPUTE_BF16);
    ok(generate(session, &plain, &expected));
    zimage_session_close(session);

    session = open_with(0, ZIMAGE_COMPUTE_BF16);
    zimage_session *other = open_with(0, ZIMAGE_COMPUTE_BF16);
    zimage_memory_info now = plan_of(other, &plain);
    alloc_bytes(other, now.limit_bytes - now.workspace_bytes - 4096, &taken);
    assert_int_equal(generate(session, &plain, &none), ZIMAGE_ERROR_MEMORY);
    assert_non_null(strstr(error.message, "what is free"));
    zimage_session_close(other);
    expect_same(session, &plain, &expected, &plan);
    zimage_session_close(session);
    answer_free(&expected);
}

static void stack_says_what_is_missing(void **state)
{
    zi_tensor a, b;
    answer expected;
    zimage_memory_info plan;
    const int64_t much[1] = {(int64_t)1 << 28};
    zimage_session *session = open_with(200 << 20, ZIMAGE_COMPUTE_BF16);
    zi_run run = run_on(session);
    ok(generate(session, &plain, &expected));
    zi_arena_mark mark = zi_table(&run)->mark(&run);
    alloc_bytes(session, 1 << 20, &a);
    assert_int_equal(zi_table(&run)->alloc_f32(&run, &b, 1, much), ZIMAGE_ERROR_MEMORY);
    assert_non_null(strstr(error.message, "1024 MiB"));
    assert_non_null(strstr(error.message, "of the 200 MiB"));
    alloc_bytes(session, 1 << 20, &b);
    zi_table(&run)->release(&run, mark);
    expect_same(session, &plain, &expected, &plan);
    zimage_session_close(session);
    answer_free(&expected);
}

/* ---- rehearsals -------------------------------------------------------------------------------------------------- */

/* One imaginary stack over all stages: what a stage leaves there counts in the next one's peak. Nothing is
 * allocated. */
static void rehearsal_is_one_stack(void **state)
{
    zimage_session *session = open_with(0, ZIMAGE_COMPUTE_BF16);
    zi_run run = run_on(session);
    const zi_ops_table *t = zi_table(&run);
    zi_tensor kept, short_lived, more;
    size_t peaks[3], real = t->peak_bytes(session->ops), used = t->device_bytes(session->ops);
    int finite = 0;
    ok(t->rehearse_begin(&run));
    ok(t->alloc_f32(&run, &kept, 1, (const int64_t[]){1 << 28}));
    zi_arena_mark mark = t->mark(&run);
    ok(t->alloc_f32(&run, &short_lived, 1, (const int64_t[]){1 << 20}));
    ok(t->check_finite(&run, &short_lived, &finite));
    assert_int_equal(finite, 1);
    t->release(&run, mark);
    ok(t->rehearse_stage(&run, 0, &peaks[0]));
    ok(t->rehearse_stage(&run, 1, &peaks[1]));
    ok(t->alloc_f32(&run, &more, 1, (const int64_t[]){1 << 10}));
    ok(t->finish(&run));
    ok(t->rehearse_stage(&run, 2, &peaks[2]));
    t->rehearse_end(&run);
    t->rehearse_end(&run); /* also without one */
    assert_int_equal(peaks[0], ((size_t)1 << 30) + (1 << 22));
    assert_int_equal(peaks[1], (size_t)1 << 30);
    assert_int_equal(peaks[2], ((size_t)1 << 30) + (1 << 12));
    assert_int_equal(t->peak_bytes(session->ops), real);
    assert_int_equal(t->device_bytes(session->ops), used);
    zimage_session_close(session);
}

/* Two files that were mapped at one address, one after the other: the weights' ids tell them apart. */
static void weights_have_identities(void **state)
{
    enum { SIDE = 32 };
    uint16_t numbers[SIDE * SIDE];
    float one[SIDE], result[SIDE];
    zimage_session *session = open_with(0, ZIMAGE_COMPUTE_BF16);
    zi_run run = run_on(session);
    const zi_ops_table *t = zi_table(&run);
    const int64_t shape[2] = {1, SIDE};
    zi_tensor x, y;
    zi_weight w = {.name = "w", .dtype = ZI_BF16, .dims = 2, .shape = {SIDE, SIDE}};
    w.data = (const uint8_t *)numbers;
    zi_arena_mark mark = t->mark(&run);
    ok(t->alloc(&run, &x, 2, shape));
    ok(t->alloc(&run, &y, 2, shape));
    for (int i = 0; i < SIDE; i++)
        one[i] = 1;
    ok(t->upload(&run, &x, one));
    for (uint64_t id = 1; id <= 3; id++) {
        for (int i = 0; i < SIDE * SIDE; i++)
            numbers[i] = zi_f32_to_bf16((float)id);
        w.id = id;
        ok(t->linear(&run, &y, &x, &w, NULL, 0));
        ok(t->download(&run, result, &y));
        for (int i = 0; i < SIDE; i++)
            assert_true(result[i] == (float)(id * SIDE));
    }
    t->release(&run, mark);
    zimage_session_close(session);
}

/* ---- networks on a backend of their own -------------------------------------------------------------------------- */

/* The session's backend, replaced by one with these options. */
static void replace_ops(zimage_session *session, const zi_cuda_options *options)
{
    void *library = dlopen(ZIMAGE_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(library);
    zi_ops_cuda_new_fn *ops_new = (zi_ops_cuda_new_fn *)dlsym(library, "zi_ops_cuda_new");
    assert_non_null(ops_new);
    session->ops->table->free(session->ops);
    session->ops = NULL;
    ok(ops_new(options, &session->ops, &error));
    dlclose(library);
}

static zimage_session *open_synthetic(const char *format)
{
    const zi_synthetic synthetic = {.model = "small", .format = format, .layers = 1};
    zimage_session_params params = {.struct_size = sizeof params, .device = "cuda", .threads = 1};
    const unsigned all = (1u << ZI_COMPONENTS) - 1;
    zimage_session *session = NULL;
    zimage_model *model;
    zi_model *inner;
    zi_pool *pool;
    ok(zi_pool_new(1, &pool, &error));
    ok(zi_synthetic_new(&synthetic, all, pool, &inner, &error));
    zi_pool_free(pool);
    ok(zi_model_handle(inner, &model, &error));
    ok(zi_session_new(model, &params, &session, &error));
    zimage_model_close(model);
    return session;
}

enum { CHANNELS = 16, ROWS = 8, COLUMNS = 8, TOKENS = 32, IDS = 5 };

static void forward(zi_run *run, const zi_model *model, const float *values, float *out)
{
    const zi_ops_table *t = zi_table(run);
    const int64_t image[3] = {CHANNELS, ROWS, COLUMNS};
    int64_t shape[2];
    zi_tensor latents, context, result;
    void *inputs = calloc(1, model->family->inputs_size);
    assert_non_null(inputs);
    model->family->context_shape(model->networks, TOKENS, shape);
    ok(t->alloc_f32(run, &latents, 3, image));
    ok(t->alloc(run, &context, 2, shape));
    ok(t->alloc_f32(run, &result, 3, image));
    ok(t->upload(run, &latents, values));
    ok(t->upload(run, &context, values));
    ok(model->family->prepare(run, model->networks, &context, ROWS, COLUMNS, NULL, 0, inputs));
    ok(model->family->forward(run, (const void *const[]){inputs}, 1, &latents, 0.5f, &result));
    ok(t->download(run, out, &result));
    free(inputs);
}

/* A forward pass of the transformer, and behind it the text encoder, which the plan expects elsewhere. */
static void run_networks(zimage_session *session, float *out)
{
    zi_run run = run_on(session);
    const zi_model *model = session->inner;
    const int64_t features[2] = {IDS, model->facts.features};
    const int32_t ids[IDS] = {1, 2, 3, 4, 5};
    float values[TOKENS * 512];
    zi_tensor text;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        values[i] = (float)(i * 7919 % 1000) * 2e-3f - 1;
    zi_arena_mark mark = zi_table(&run)->mark(&run);
    forward(&run, model, values, out);
    zi_table(&run)->release(&run, mark);
    ok(zi_table(&run)->alloc(&run, &text, 2, features));
    ok(model->family->encode(&run, model->networks, ids, IDS, &text));
    ok(zi_table(&run)->download(&run, out + CHANNELS * ROWS * COLUMNS, &text));
    zi_table(&run)->release(&run, mark);
}

static void plan_networks(zimage_session *session, int commit, zi_memory_plan *memory)
{
    static const int32_t ids[TOKENS];
    const zi_job job = {.model = session->inner,
                        .rows = ROWS,
                        .columns = COLUMNS,
                        .prompts = 1,
                        .prompt = {{.tokens = TOKENS, .encoded = 1, .ids = ids}},
                        .steps = 2};
    zi_job_plan plan;
    ok(zi_plan_job(session, &job, &(zi_plan_limits){.commit = commit}, &plan, &error));
    *memory = plan.memory;
}

#define OUTPUTS (CHANNELS * ROWS * COLUMNS + IDS * 320)

/* Checks that the networks give the same bytes with streamed weights as with resident ones, with so many upload
 * threads and pieces of that size. limit_count: 1 = once in the least memory, 2 = twice, and in a little more. */
static void check_format(const char *format, zimage_compute compute, int threads, size_t piece, int limit_count)
{
    static float expected[OUTPUTS], got[OUTPUTS];
    zimage_session *session = open_synthetic(format);
    zi_memory_plan memory;
    assert_true(session->inner->facts.features <= 320);
    replace_ops(session, &(zi_cuda_options){.compute = compute});
    run_networks(session, expected); /* without a plan */
    plan_networks(session, 1, &memory);
    const uint64_t limits[] = {memory.least, (memory.least + 4 * memory.total) / 5};
    for (int i = 0; i < limit_count; i++) {
        replace_ops(session, &(zi_cuda_options){
                                 .compute = compute,
                                 .memory = limits[i],
                                 .upload_threads = threads,
                                 .upload_piece = piece,
                             });
        plan_networks(session, 1, &memory);
        assert_true(i > 0 || memory.streamed[ZIMAGE_STAGE_DENOISE] > 0);
        for (int repeat = 0; repeat < limit_count; repeat++) {
            run_networks(session, got);
            assert_memory_equal(got, expected, sizeof got);
        }
    }
    zimage_session_close(session);
}

/* A little less than everything: what is read once is copied again, not what each step reads. */
static void text_encoder_gives_way(void **state)
{
    zimage_session *session = open_synthetic("bf16");
    zi_memory_plan all, some;
    plan_networks(session, 0, &all);
    replace_ops(session, &(zi_cuda_options){.compute = ZIMAGE_COMPUTE_BF16, .memory = all.total - (1 << 20)});
    plan_networks(session, 0, &some);
    assert_true(some.resident < all.resident);
    assert_int_equal(some.streamed[ZIMAGE_STAGE_DENOISE], 0);
    zimage_session_close(session);
}

/* The plan of a step with guidance, whose latents have `side` rows and columns. memory 0: no limit. */
static zi_job_plan plan_guided(zimage_session *session, int64_t side, uint64_t memory)
{
    const guided_step step = {"one step", side, side, {40, 7}, 0};
    const zi_plan_limits limits = {.free = UINT64_MAX};
    zi_job job = guided_job(session, &step, 0);
    zi_job_plan plan;
    replace_ops(session, &(zi_cuda_options){.compute = ZIMAGE_COMPUTE_BF16, .memory = memory});
    ok(zi_plan_job(session, &job, &limits, &plan, &error));
    guided_free(&job);
    return plan;
}

/* Small steps are batches; large ones are only where weights are streamed, which a batch copies once. */
static void large_batches_save_copies(void **state)
{
    zimage_session *session = open_synthetic("bf16");
    assert_true(plan_guided(session, 16, 0).batched);
    zi_job_plan resident = plan_guided(session, 32, 0);
    zi_job_plan streamed = plan_guided(session, 32, resident.memory.total - ZI_MIB);
    print_message("%.1f MiB: batch %d; %.1f MiB: batch %d, %.2f MiB copied for a step\n",
                  (double)resident.memory.total / ZI_MIB, resident.batched, (double)streamed.memory.total / ZI_MIB,
                  streamed.batched, (double)streamed.memory.streamed[ZIMAGE_STAGE_DENOISE] / ZI_MIB);
    assert_false(resident.batched);
    assert_int_equal(resident.memory.streamed[ZIMAGE_STAGE_DENOISE], 0);
    assert_true(streamed.batched);
    assert_true(streamed.memory.streamed[ZIMAGE_STAGE_DENOISE] > 0);
    zimage_session_close(session);
}

static void every_format_passes_through(void **state)
{
    if (is_brief())
        skip();
    check_format("bf16", ZIMAGE_COMPUTE_BF16, 8, 100000, 2);
    check_format("q4", ZIMAGE_COMPUTE_BF16, 3, 4097, 1);
    check_format("q8", ZIMAGE_COMPUTE_FP8, 8, 30000, 1);
    check_format("f32", ZIMAGE_COMPUTE_FP8, 8, 65536, 1);
    check_format("bf16", ZIMAGE_COMPUTE_F32, 5, 50001, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_what_was_planned),
        cmocka_unit_test(same_bytes_in_less_memory),
        cmocka_unit_test(refuses_a_byte_less),
        cmocka_unit_test(goes_on_after_other_jobs),
        cmocka_unit_test(same_bytes_from_images),
        cmocka_unit_test(text_encoder_gives_way),
        cmocka_unit_test(waits_for_memory),
        cmocka_unit_test(stack_says_what_is_missing),
        cmocka_unit_test(rehearsal_is_one_stack),
        cmocka_unit_test(weights_have_identities),
        cmocka_unit_test(same_bytes_with_guidance_and_previews),
        cmocka_unit_test(a_batch_copies_weights_once),
        cmocka_unit_test(large_batches_save_copies),
        cmocka_unit_test(every_format_passes_through),
    };
    setenv("ZIMAGE_EMULATED_MIB", GPU_MIB, 1);
    return cmocka_run_group_tests(tests, klein_begin, klein_end);
}
