/*
 * Sessions of one process on one GPU share weights: those of one model all of them, those of models with equal text
 * encoders these. Images are the same bytes as alone, in whatever order sessions open, arrange their memory and close,
 * and limits hold. On the emulated GPU; on a real one without measuring its memory.
 */
#include <pthread.h>

#include "base/numbers.h"
#include "engine/plan.h"
#include "engine/request.h"
#include "model_files.h"

#define GPU_MIB  "1024"
#define LAYERS   29 /* of the deep text encoder: Z-Image reads 28, FLUX.2-klein 27 */
#define FEATURES 12
#define BYTES    (32 * 16 * 3)

/* Two Z-Images with transformers of their own; the second one's text encoder is a copy. */
enum { FIRST, SECOND, MODELS };

typedef struct made {
    uint8_t pixels[BYTES];
    zimage_memory_info memory;
} made;

/* A small image of each model and a large one of the first, made alone. */
static made alone[MODELS][2];

/* ---- models ------------------------------------------------------------------------------------------------------ */

static void write_encoder(const char *folder)
{
    (void)write_network(&zi_family_zimage, ZI_TEXT_ENCODER, encoder_config(LAYERS), ZI_BF16, folder);
}

/* Folders in the temporary folder; NULL: the model's own. */
static zimage_session *open_parts(const char *model_folder, const char *encoder, const char *transformer,
                                  uint64_t limit)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_model *model = NULL;
    zimage_session *session = NULL;
    const zimage_model_params model_params = {.struct_size = sizeof model_params,
                                              .text_encoder = encoder ? temporary(encoder) : NULL,
                                              .transformer = transformer ? temporary(transformer) : NULL};
    const zimage_session_params params = {
        .struct_size = sizeof params, .device = "cuda", .threads = 1, .device_memory = limit};
    zimage_status status = zimage_model_open(model_folder, &model_params, &model, &error);
    if (status == ZIMAGE_OK)
        status = zimage_session_open(model, &params, &session, &error);
    zimage_model_close(model);
    if (status != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return session;
}

static zimage_session *open_session(int model, uint64_t limit)
{
    return model == FIRST ? open_parts(ZIMAGE_TEST_DATA "/tiny", NULL, "transformer", limit)
                          : open_parts(ZIMAGE_TEST_DATA "/tiny", "copy", "other", limit);
}

static zimage_request request_of(int large)
{
    return (zimage_request){.struct_size = sizeof(zimage_request),
                            .prompt = "a red apple",
                            .width = large ? 32 : 16,
                            .height = 16,
                            .steps = 1,
                            .seed = 7};
}

static zimage_status make(zimage_session *session, int large, made *result, zimage_error *error)
{
    const zimage_request request = request_of(large);
    zimage_image *image = NULL;
    memset(result, 0, sizeof *result);
    result->memory.struct_size = sizeof result->memory;
    zi_texts_forget(&session->texts); /* each image reads the weights of all networks */
    zimage_status status = zimage_generate(session, &request, &image, error);
    if (status != ZIMAGE_OK)
        return status;
    memcpy(result->pixels, zimage_image_pixels(image), (size_t)request.width * (size_t)request.height * 3);
    status = zimage_image_get_memory(image, &result->memory, error);
    zimage_image_free(image);
    return status;
}

/* The image that the model makes alone, within the limit. */
static zimage_memory_info expect(zimage_session *session, int model, int large)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    made result;
    if (make(session, large, &result, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    assert_memory_equal(result.pixels, alone[model][large].pixels, BYTES);
    const zimage_memory_info *m = &result.memory;
    assert_true(m->total_bytes <= m->limit_bytes);
    assert_true(m->total_bytes == m->activation_bytes + m->workspace_bytes + m->resident_bytes + m->ring_bytes);
    return *m;
}

/* Of the small image. Without the prediction of seconds, which takes some on the emulated GPU. */
static zi_memory_plan plan_of(zimage_session *session)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    const zimage_request request = request_of(0);
    const zi_plan_limits limits = {.free = UINT64_MAX};
    zimage_request own;
    zi_tokens tokens = {{NULL}, {0}};
    zi_job job;
    zi_job_plan plan;
    assert_int_equal(zi_request_take(session, &request, &own, &error), ZIMAGE_OK);
    assert_int_equal(zi_request_tokens(session, &own, &tokens, &error), ZIMAGE_OK);
    zi_request_job(session, &own, &tokens, &job);
    if (zi_plan_job(session, &job, &limits, &plan, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    zi_tokens_free(&tokens);
    return plan.memory;
}

/* Bytes of the emulated GPU that are in use, by all sessions. 0: the GPU is a real one, where the driver, the libraries
 * and other processes use memory, too. */
static uint64_t in_use(const zimage_session *session)
{
    char name[200];
    session->ops->table->describe(session->ops, name, sizeof name);
    if (strstr(name, "emulated"))
        return session->ops->table->device_bytes(session->ops);
    print_message("%s: memory in use is not compared with plans, since not only sessions use it\n", name);
    return 0;
}

/* The sessions' plans add up to what is in use, within 3 %. */
static void expect_in_use(const zimage_session *session, uint64_t planned)
{
    uint64_t measured = in_use(session);
    if (measured == 0)
        return;
    print_message("device memory of all sessions: planned %.2f MiB, measured %.2f MiB\n", (double)planned / ZI_MIB,
                  (double)measured / ZI_MIB);
    assert_true(fabs((double)planned - (double)measured) <= 0.03 * (double)measured);
}

static int group_make(void **state)
{
    char command[2 * PATH_MAX + 200];
    if (make_temporary_folder(state) || mkdir(temporary("transformer"), 0700) || mkdir(temporary("narrow"), 0700) ||
        mkdir(temporary("other"), 0700) || mkdir(temporary("deep"), 0700) || mkdir(temporary("deep-copy"), 0700))
        return -1;
    snprintf(command, sizeof command, "cp -r '%s' '%s'", ZIMAGE_TEST_DATA "/tiny/text_encoder", temporary("copy"));
    (void)write_transformer(temporary("transformer"), 1, 32, ZI_BF16);
    (void)write_transformer(temporary("other"), 1, 32, ZI_F16);
    (void)write_transformer(temporary("narrow"), 1, FEATURES, ZI_BF16);
    write_encoder(temporary("deep"));
    write_encoder(temporary("deep-copy"));
    return system(command);
}

static void images_alone(void **state)
{
    for (int model = 0; model < MODELS; model++)
        for (int large = 0; large < (model == FIRST ? 2 : 1); large++) {
            zimage_error error = ZIMAGE_ERROR_INIT;
            zimage_session *session = open_session(model, 0);
            assert_int_equal(make(session, large, &alone[model][large], &error), ZIMAGE_OK);
            assert_int_equal(alone[model][large].memory.shared_bytes, 0);
            assert_int_equal(alone[model][large].memory.step_bytes, 0);
            zimage_session_close(session);
        }
}

/* ---- two sessions ------------------------------------------------------------------------------------------------ */

static void one_model_is_there_once(void **state)
{
    zimage_session *first = open_session(FIRST, 0), *second = open_session(FIRST, 0);
    zimage_memory_info one = expect(first, FIRST, 0), planned = {.struct_size = sizeof planned};
    const zimage_request request = request_of(0);
    assert_int_equal(zimage_request_memory(second, &request, &planned, NULL), ZIMAGE_OK);
    zimage_memory_info two = expect(second, FIRST, 0);
    assert_int_equal(planned.total_bytes, two.total_bytes);
    assert_int_equal(planned.shared_bytes, two.shared_bytes);
    assert_int_equal(two.shared_bytes, one.resident_bytes);
    assert_int_equal(two.resident_bytes, 0);
    assert_int_equal(two.step_bytes, 0);
    expect_in_use(first, one.total_bytes + two.total_bytes);
    zimage_session_close(first);
    two = expect(second, FIRST, 0); /* the second session is the owner now */
    assert_int_equal(two.shared_bytes, 0);
    assert_int_equal(two.resident_bytes, one.resident_bytes);
    expect_in_use(second, two.total_bytes);
    zimage_session_close(second);
}

/* Text encoder and VAE are shared; the owner arranges its memory again, then it goes. */
static void models_share_what_is_equal(void **state)
{
    zimage_session *first = open_session(FIRST, 0), *second = open_session(SECOND, 0);
    zimage_memory_info one = expect(first, FIRST, 0), two = expect(second, SECOND, 0);
    assert_true(two.shared_bytes > 0);
    assert_true(two.resident_bytes > 0);
    assert_int_equal(two.shared_bytes + two.resident_bytes, alone[SECOND][0].memory.resident_bytes);
    expect_in_use(first, one.total_bytes + two.total_bytes);
    uint64_t shared = two.shared_bytes;
    one = expect(first, FIRST, 1); /* what the second one holds stays where it is */
    two = expect(second, SECOND, 0);
    assert_int_equal(two.shared_bytes, shared);
    expect_in_use(first, one.total_bytes + two.total_bytes);
    zimage_session_close(first);
    two = expect(second, SECOND, 0);
    assert_int_equal(two.shared_bytes, 0);
    expect_in_use(second, two.total_bytes);
    zimage_session_close(second);
}

/* What a FLUX.2-klein finds of its encoder once a Z-Image has made an image: the 27 layers that it reads. */
static void families_share_an_encoder(void **state)
{
    const uint64_t layer = 2 * (3 * 16 + 2 * 16 + 2 * 8) * FEATURES; /* bytes of a layer's matrices */
    zimage_error error = ZIMAGE_ERROR_INIT;
    made result;
    zimage_session *klein = open_parts(ZIMAGE_TEST_DATA "/tiny-klein", "deep-copy", NULL, 0);
    zimage_session *other = open_parts(ZIMAGE_TEST_DATA "/tiny-klein", NULL, NULL, 0);
    zimage_session *z_image = open_parts(ZIMAGE_TEST_DATA "/tiny", "deep", "narrow", 0);
    zi_memory_plan before = plan_of(klein);
    assert_int_equal(before.shared, 0);
    if (make(z_image, 0, &result, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    zi_memory_plan after = plan_of(klein);
    assert_true(after.shared >= 27 * layer);
    assert_true(after.shared <= 27 * (layer + 11 * 256)); /* vectors, and all rounded up */
    assert_int_equal(after.shared + after.resident, before.resident);
    assert_int_equal(plan_of(other).shared, 0);
    zimage_session_close(z_image);
    assert_int_equal(plan_of(klein).shared, 0);
    zimage_session_close(klein);
    zimage_session_close(other);
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

/* With a limit that suffices for all weights beside the other session only: without it they are streamed. */
static void limits_hold_when_the_owner_goes(void **state)
{
    zimage_session *first = open_session(SECOND, 0), *second = open_session(FIRST, 0);
    (void)expect(first, SECOND, 0);
    uint64_t limit = alone[FIRST][0].memory.least_bytes;
    assert_true(plan_of(second).total <= limit);
    zimage_session_close(second);
    second = open_session(FIRST, limit);
    zimage_memory_info two = expect(second, FIRST, 0);
    assert_int_equal(two.shared_bytes + two.resident_bytes, alone[FIRST][0].memory.resident_bytes);
    zimage_session_close(first);
    two = expect(second, FIRST, 0);
    assert_int_equal(two.shared_bytes, 0);
    assert_true(two.resident_bytes < alone[FIRST][0].memory.resident_bytes);
    assert_true(in_use(second) <= limit + 4096); /* allocations are rounded up */
    zimage_session_close(second);
}

/* The owner needs the bytes of what it shares, for activations. */
static void owners_let_go(void **state)
{
    const zi_stage_runs runs[] = {
        {ZIMAGE_STAGE_TEXT, 1}, {ZIMAGE_STAGE_CONTEXT, 1}, {ZIMAGE_STAGE_DENOISE, 1}, {ZIMAGE_STAGE_DECODE, 1}};
    const zimage_memory_info *m = &alone[FIRST][0].memory;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_memory_plan plan;
    zimage_session *owner = open_session(FIRST, m->total_bytes), *other = open_session(FIRST, 0);
    zi_run run = {.ops = owner->ops, .error = &error};
    assert_int_equal(expect(owner, FIRST, 0).resident_bytes, m->resident_bytes);
    assert_int_equal(expect(other, FIRST, 0).shared_bytes, m->resident_bytes);
    size_t most = (size_t)(m->total_bytes - m->workspace_bytes - m->resident_bytes); /* beside all weights */
    assert_int_equal(zi_table(&run)->arrange(&run, runs, 4, most, 0, 0, &plan), ZIMAGE_OK);
    assert_int_equal(plan.resident, m->resident_bytes);
    if (zi_table(&run)->arrange(&run, runs, 4, most + 1, 0, 1, &plan) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    assert_true(plan.total <= m->total_bytes && plan.resident < m->resident_bytes && plan.shared == 0);
    zimage_memory_info two = expect(other, FIRST, 0); /* which owns all now */
    assert_int_equal(two.shared_bytes, 0);
    assert_int_equal(two.resident_bytes, m->resident_bytes);
    expect_in_use(owner, plan.total + two.total_bytes);
    assert_int_equal(expect(owner, FIRST, 0).shared_bytes, m->resident_bytes);
    zimage_session_close(owner);
    zimage_session_close(other);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

typedef struct worker {
    zimage_session *session;
    int model, images;
    char problem[200]; /* empty: every image was as expected */
} worker;

/* No assertions: cmocka's belong to the main thread. */
static void *work(void *argument)
{
    worker *w = argument;
    for (int i = 0; i < w->images && !w->problem[0]; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        made result;
        if (make(w->session, 0, &result, &error) != ZIMAGE_OK)
            snprintf(w->problem, sizeof w->problem, "%.190s", error.message);
        else if (memcmp(result.pixels, alone[w->model][0].pixels, BYTES) != 0)
            snprintf(w->problem, sizeof w->problem, "another image");
    }
    return NULL;
}

/* Sessions whose first images begin at the same time copy the encoder once each, and end with one copy of it. */
static void at_the_same_time(void **state)
{
    worker workers[2] = {{.model = FIRST, .images = 1}, {.model = SECOND, .images = 1}};
    pthread_t threads[2];
    uint64_t shared = 0, planned = 0;
    for (int i = 0; i < 2; i++)
        workers[i].session = open_session(workers[i].model, 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++)
        if (workers[i].problem[0])
            fail_msg("worker %d: %s", i, workers[i].problem);
    for (int i = 0; i < 2; i++) {
        zimage_memory_info memory = expect(workers[i].session, workers[i].model, 0);
        shared += memory.shared_bytes;
        planned += memory.total_bytes;
    }
    assert_true(shared > 0);
    expect_in_use(workers[0].session, planned);
    for (int i = 0; i < 2; i++)
        zimage_session_close(workers[i].session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_alone),
        cmocka_unit_test(one_model_is_there_once),
        cmocka_unit_test(models_share_what_is_equal),
        cmocka_unit_test(families_share_an_encoder),
        cmocka_unit_test(limits_hold_when_the_owner_goes),
        cmocka_unit_test(owners_let_go),
        cmocka_unit_test(at_the_same_time),
    };
    setenv("ZIMAGE_EMULATED_MIB", GPU_MIB, 1);
    return cmocka_run_group_tests(tests, group_make, remove_temporary_folder);
}
