/*
 * Sessions of one model: weights are in memory once, however many sessions read them; sessions and model are closed in
 * every order; a session that gives weights back does not disturb the others. The weights are a file of 17 MiB. (Of
 * several models: test_sharing.c.)
 */
#include <pthread.h>

#include "base/system.h"
#include "model_files.h"

#define LAYERS 60
#define SIDE   64
#define BYTES  (SIDE * SIDE * 3)
#define MIB    1048576.0

static double weight_bytes, other_bytes; /* of the transformer; of one with other numbers */

static int group_make(void **state)
{
    if (make_temporary_folder(state) || mkdir(temporary("transformer"), 0700) || mkdir(temporary("other"), 0700))
        return -1;
    weight_bytes = (double)write_transformer(temporary("transformer"), LAYERS, 32, ZI_F32);
    other_bytes = (double)write_transformer(temporary("other"), LAYERS, 32, ZI_BF16);
    return 0;
}

static zimage_model *open_with(const char *transformer)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_model *model = NULL;
    const zimage_model_params params = {.struct_size = sizeof params, .transformer = temporary(transformer)};
    if (zimage_model_open(ZIMAGE_TEST_DATA "/tiny", &params, &model, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return model;
}

static zimage_model *open_model(void)
{
    return open_with("transformer");
}

static zimage_session *open_session(zimage_model *model, int threads)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_session *session = NULL;
    const zimage_session_params params = {.struct_size = sizeof params, .threads = threads};
    if (zimage_session_open(model, &params, &session, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return session;
}

static zimage_request request_of(uint64_t seed)
{
    return (zimage_request){.struct_size = sizeof(zimage_request),
                            .prompt = "a red apple",
                            .width = SIDE,
                            .height = SIDE,
                            .steps = 2,
                            .seed = seed};
}

/* The image's pixels; fails the test where there is none. */
static void generate(zimage_session *session, const zimage_request *request, uint8_t pixels[BYTES])
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    if (zimage_generate(session, request, &image, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    memcpy(pixels, zimage_image_pixels(image), BYTES);
    zimage_image_free(image);
}

static uint8_t expected[2][BYTES]; /* of seeds 0 and 1, by a session that is alone */

static void assert_image(zimage_session *session, uint64_t seed, int release_weights)
{
    uint8_t pixels[BYTES];
    zimage_request request = request_of(seed);
    request.release_weights = release_weights;
    generate(session, &request, pixels);
    assert_memory_equal(pixels, expected[seed], BYTES);
}

static void alone(void **state)
{
    zimage_model *model = open_model();
    zimage_session *session = open_session(model, 2);
    zimage_model_close(model);
    for (uint64_t seed = 0; seed < 2; seed++) {
        const zimage_request request = request_of(seed);
        generate(session, &request, expected[seed]);
    }
    assert_memory_not_equal(expected[0], expected[1], BYTES);
    zimage_session_close(session);
}

/* ---- closing ----------------------------------------------------------------------------------------------------- */

/* Handle 0 is the model's, 1 and 2 are the sessions'. */
static void close_handle(zimage_model **model, zimage_session *sessions[2], int handle)
{
    if (handle == 0) {
        zimage_model_close(*model);
        *model = NULL;
    } else {
        zimage_session_close(sessions[handle - 1]);
        sessions[handle - 1] = NULL;
    }
}

/* After each closing, the sessions that are left make their images, and the model opens another one. */
static void closing_in_every_order(void **state)
{
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (int i = 0; i < 6; i += is_brief() ? 3 : 1) {
        zimage_model *model = open_model();
        zimage_session *sessions[2] = {open_session(model, 1), open_session(model, 2)};
        for (int k = 0; k < 3; k++) {
            close_handle(&model, sessions, orders[i][k]);
            for (uint64_t seed = 0; seed < 2; seed++)
                if (sessions[seed])
                    assert_image(sessions[seed], seed, k % 2);
            if (model) {
                zimage_session *third = open_session(model, 1);
                assert_image(third, 1, 1);
                zimage_session_close(third);
            }
        }
    }
    zimage_session_close(NULL);
    zimage_model_close(NULL);
}

/* ---- at the same time -------------------------------------------------------------------------------------------- */

typedef struct worker {
    zimage_model *model;
    uint64_t seed;
    int rounds, release_weights, cancel;
    int threads;
    char problem[200]; /* empty: every image was as expected */
} worker;

static int cancel_late(const zimage_progress *progress, void *user)
{
    return progress->stage == ZIMAGE_STAGE_DENOISE && progress->step == 2;
}

static zimage_status use_session(worker *w, zimage_session *session, zimage_error *error)
{
    zimage_image *image = NULL;
    zimage_request request = request_of(w->seed);
    request.release_weights = w->release_weights;
    request.progress = w->cancel ? cancel_late : NULL;
    zimage_status status = zimage_generate(session, &request, &image, error);
    if (w->cancel && status == ZIMAGE_ERROR_CANCELLED)
        return ZIMAGE_OK;
    if (status == ZIMAGE_OK && memcmp(zimage_image_pixels(image), expected[w->seed], BYTES) != 0)
        snprintf(w->problem, sizeof w->problem, "another image");
    zimage_image_free(image);
    return status;
}

/* No assertions: cmocka's belong to the main thread. */
static void *work(void *argument)
{
    worker *w = argument;
    const zimage_session_params params = {.struct_size = sizeof params, .threads = w->threads};
    for (int i = 0; i < w->rounds && !w->problem[0]; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_session *session = NULL;
        zimage_status status = zimage_session_open(w->model, &params, &session, &error);
        if (status == ZIMAGE_OK)
            status = use_session(w, session, &error);
        if (status != ZIMAGE_OK)
            snprintf(w->problem, sizeof w->problem, "%.190s", error.message);
        zimage_session_close(session);
    }
    return NULL;
}

/* Sessions come and go, give weights back and are cancelled; each makes the image that it makes alone. */
static void sessions_come_and_go(void **state)
{
    worker workers[] = {{.seed = 0, .rounds = 4, .threads = 1},
                        {.seed = 1, .rounds = 6, .threads = 1, .release_weights = 1},
                        {.seed = 0, .rounds = 3, .threads = 2, .release_weights = 1},
                        {.seed = 1, .rounds = 5, .threads = 1, .cancel = 1}};
    enum { WORKERS = sizeof workers / sizeof *workers };
    pthread_t threads[WORKERS];
    zimage_model *model = open_model();
    for (int i = 0; i < WORKERS; i++) {
        workers[i].model = model;
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    zimage_model_close(model);
    for (int i = 0; i < WORKERS; i++)
        if (workers[i].problem[0])
            fail_msg("worker %d: %s", i, workers[i].problem);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* MiB of memory that one session's image takes; that a second session adds; that a session of a model which was opened
 * from the same folder adds; that one of a model with other weights adds. */
static void measure_sharing(int ignored, double *numbers)
{
    zimage_model *model = open_model(), *again = open_model(), *other = open_with("other");
    const zimage_request request = request_of(1);
    uint8_t pixels[BYTES];
    double before = (double)zi_resident_bytes();
    zimage_session *first = open_session(model, 1);
    assert_image(first, 0, 0);
    double one = (double)zi_resident_bytes();
    zimage_session *second = open_session(model, 1);
    assert_image(second, 1, 0);
    double two = (double)zi_resident_bytes();
    zimage_session *third = open_session(again, 1);
    assert_image(third, 1, 0);
    double three = (double)zi_resident_bytes();
    zimage_session *fourth = open_session(other, 1);
    generate(fourth, &request, pixels);
    double four = (double)zi_resident_bytes();
    numbers[0] = (one - before) / MIB;
    numbers[1] = (two - one) / MIB;
    numbers[2] = (three - two) / MIB;
    numbers[3] = (four - three) / MIB;
    zimage_session_close(first);
    zimage_session_close(second);
    zimage_session_close(third);
    zimage_session_close(fourth);
    zimage_model_close(model);
    zimage_model_close(again);
    zimage_model_close(other);
}

static void weights_are_in_memory_once(void **state)
{
    double mib[4], weights = weight_bytes / MIB, others = other_bytes / MIB;
    in_a_process(measure_sharing, 0, mib, 4);
    printf("weights of %.1f MiB: one session %.1f MiB, a second one adds %.1f, one of the model opened again %.1f; one "
           "of a model with other weights of %.1f MiB adds %.1f\n",
           weights, mib[0], mib[1], mib[2], others, mib[3]);
    if (MEMORY_IS_OURS) {
        assert_true(mib[0] > weights);
        assert_true(mib[1] < 0.1 * weights);
        assert_true(mib[2] < 0.1 * weights);
        assert_true(mib[3] > 0.9 * others); /* the measurement sees weights */
    }
}

/*
 * MiB of memory that a request with release_weights gives back, compared with one without: while another session is
 * open, and after it was closed.
 */
static void measure_release(int ignored, double *numbers)
{
    zimage_model *model = open_model();
    zimage_session *sessions[2] = {open_session(model, 1), open_session(model, 1)};
    for (int i = 0; i < 2; i++)
        assert_image(sessions[i], (uint64_t)i, 0);
    double before = (double)zi_resident_bytes();
    assert_image(sessions[0], 0, 1);
    numbers[0] = (before - (double)zi_resident_bytes()) / MIB;
    assert_image(sessions[1], 1, 0);
    zimage_session_close(sessions[1]);
    assert_image(sessions[0], 0, 1);
    numbers[1] = (before - (double)zi_resident_bytes()) / MIB;
    assert_image(sessions[0], 0, 0);
    assert_image(sessions[0], 1, 0);
    zimage_session_close(sessions[0]);
    zimage_model_close(model);
}

static void weights_are_released_by_the_last_session(void **state)
{
    double mib[2], weights = weight_bytes / MIB;
    in_a_process(measure_release, 0, mib, 2);
    printf("weights of %.1f MiB: given back beside another session %.1f MiB, alone %.1f MiB\n", weights, mib[0],
           mib[1]);
    if (MEMORY_IS_OURS) {
        assert_true(mib[0] < 0.1 * weights);
        assert_true(mib[1] > 0.9 * weights);
    }
}

/* The planned peak of decoding with a limit; fails the test where there is no plan. */
static double planned_decoding(zimage_session *session, double *least)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_plan *plan = NULL;
    zimage_plan_info info = {.struct_size = sizeof info};
    zimage_stage_info stage = {.struct_size = sizeof stage};
    zimage_request request = request_of(0);
    request.memory_limit = (uint64_t)1 << 40;
    if (zimage_plan_make(session, &request, &plan, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    assert_int_equal(zimage_plan_get_info(plan, &info, &error), ZIMAGE_OK);
    assert_int_equal(zimage_plan_get_stage(plan, ZIMAGE_STAGE_DECODE, &stage, &error), ZIMAGE_OK);
    zimage_plan_free(plan);
    *least = (double)info.least_bytes;
    return (double)stage.peak_bytes;
}

/* Beside another session weights stay, so they count in the stages behind their own, too. */
static void plans_know_of_other_sessions(void **state)
{
    zimage_model *model = open_model();
    zimage_session *first = open_session(model, 1), *second = open_session(model, 1);
    double least[2], together = planned_decoding(first, &least[0]);
    zimage_session_close(second);
    double alone = planned_decoding(first, &least[1]);
    assert_true(together - alone > 0.9 * weight_bytes);
    assert_true(least[0] >= least[1]);
    zimage_session_close(first);
    zimage_model_close(model);
}

/* Blocks of text encoders in one image. */
static int count_text(const zimage_progress *p, void *user)
{
    if (p->stage == ZIMAGE_STAGE_TEXT && p->block == 0)
        *(int *)user += p->blocks;
    return 0;
}

/* A prompt of the last image is not encoded again, and the image is the one that a new session makes. */
static void known_texts(void **state)
{
    static const struct {
        const char *prompt, *negative;
        int texts, encoded; /* encoded: by a session that has made the images above it */
    } cases[] = {{"a red apple", NULL, 1, 1},      {"a red apple", NULL, 1, 0},     {"a tree", NULL, 1, 1},
                 {"a red apple", "a tree", 2, 1},  {"a tree", "a red apple", 2, 0}, {"a tree", "a tree", 2, 0},
                 {"a house", "a red apple", 2, 2}, {"a house", NULL, 1, 0}};
    zimage_model *model = open_model();
    zimage_session *old = open_session(model, 1);
    int blocks_of_one = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zimage_session *new = open_session(model, 1);
        uint8_t pixels[BYTES], again[BYTES];
        int blocks[2] = {0, 0};
        zimage_request request = request_of(i);
        request.prompt = cases[i].prompt;
        request.negative_prompt = cases[i].negative;
        request.guidance_scale = cases[i].negative ? 2 : 0;
        request.progress = count_text;
        request.progress_user = &blocks[0];
        generate(new, &request, pixels);
        request.progress_user = &blocks[1];
        generate(old, &request, again);
        assert_memory_equal(again, pixels, BYTES);
        blocks_of_one = i == 0 ? blocks[0] : blocks_of_one;
        assert_true(blocks_of_one > 1);
        assert_int_equal(blocks[0], cases[i].texts * blocks_of_one);
        assert_int_equal(blocks[1], cases[i].encoded * blocks_of_one + cases[i].texts - cases[i].encoded);
        zimage_session_close(new);
    }
    zimage_session_close(old);
    zimage_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone),
        cmocka_unit_test(closing_in_every_order),
        cmocka_unit_test(sessions_come_and_go),
        cmocka_unit_test(weights_are_in_memory_once),
        cmocka_unit_test(weights_are_released_by_the_last_session),
        cmocka_unit_test(plans_know_of_other_sessions),
        cmocka_unit_test(known_texts),
    };
    return cmocka_run_group_tests(tests, group_make, remove_temporary_folder);
}
