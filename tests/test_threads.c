/* Sessions on several threads at once, on one model and on several, make the images that one makes alone. */
#include <pthread.h>

#include "files.h"
#include "session.h"

#define WIDTH  64
#define HEIGHT 48
#define BYTES  (WIDTH * HEIGHT * 3)

typedef struct worker {
    zimage_session *session; /* the worker closes it; NULL: the worker opens one */
    zimage_model *model;     /* of the session that the worker opens; NULL: the worker opens a model, too */
    int32_t threads;
    uint64_t seed;
    const zimage_image *input; /* NULL: none */
    uint8_t *pixels;
    char problem[256];
} worker;

static zimage_status make(worker *w, zimage_session *session, zimage_error *error)
{
    zimage_request request = {.struct_size = sizeof request};
    zimage_image *image = NULL;
    request.prompt = "a red apple";
    request.seed = w->seed;
    request.width = WIDTH;
    request.height = HEIGHT;
    request.release_weights = 1; /* must not disturb the others */
    request.images = &w->input;
    request.image_count = w->input != NULL;
    zimage_status status = zimage_generate(session, &request, &image, error);
    if (status == ZIMAGE_OK && (w->pixels = malloc(BYTES)))
        memcpy(w->pixels, zimage_image_pixels(image), BYTES);
    zimage_image_free(image);
    return status;
}

static void *make_image(void *argument)
{
    worker *w = argument;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_session_params params = {.struct_size = sizeof params, .threads = w->threads};
    zimage_session *session = w->session;
    zimage_status status = ZIMAGE_OK;
    if (!session)
        status = w->model ? zimage_session_open(w->model, &params, &session, &error)
                          : session_on(ZIMAGE_TEST_DATA "/tiny", NULL, &params, &session, &error);
    if (status == ZIMAGE_OK)
        make(w, session, &error);
    snprintf(w->problem, sizeof w->problem, "%.200s", error.message);
    zimage_session_close(session);
    return NULL;
}

/* The workers' images, made at the same time, equal those that one makes alone. Closes the model while they work. */
static void compare_with_alone(worker *together, int count, zimage_model *model)
{
    worker alone[2] = {{.threads = 1, .seed = 1}, {.threads = 1, .seed = 2}};
    pthread_t threads[8];
    for (int i = 0; i < 2; i++)
        make_image(&alone[i]);
    for (int i = 0; i < count; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, make_image, &together[i]), 0);
    zimage_model_close(model);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < count; i++) {
        if (!together[i].pixels || !alone[i & 1].pixels)
            fail_msg("%s%s", together[i].problem, alone[i & 1].problem);
        assert_memory_equal(together[i].pixels, alone[i & 1].pixels, BYTES);
        free(together[i].pixels);
    }
    assert_memory_not_equal(alone[0].pixels, alone[1].pixels, BYTES);
    free(alone[0].pixels);
    free(alone[1].pixels);
}

static void models_side_by_side(void **state)
{
    worker together[4] = {
        {.threads = 2, .seed = 1}, {.threads = 3, .seed = 2}, {.threads = 1, .seed = 1}, {.threads = 4, .seed = 2}};
    compare_with_alone(together, 4, NULL);
}

/* The caller's handle is closed while the sessions work: they keep the model. */
static void sessions_of_one_model(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_model *model = NULL;
    assert_int_equal(zimage_model_open(ZIMAGE_TEST_DATA "/tiny", NULL, &model, &error), ZIMAGE_OK);
    worker together[4] = {
        {.threads = 2, .seed = 1}, {.threads = 3, .seed = 2}, {.threads = 1, .seed = 1}, {.threads = 1, .seed = 2}};
    for (int i = 0; i < 4; i++) {
        const zimage_session_params params = {.struct_size = sizeof params, .threads = together[i].threads};
        assert_int_equal(zimage_session_open(model, &params, &together[i].session, &error), ZIMAGE_OK);
    }
    compare_with_alone(together, 4, model);
}

/* The encoder of a VAE that mflux saved is copied by the first session that encodes (zi_store_copy_late). */
static void first_images_are_encoded(void **state)
{
    static const uint8_t pixels[64 * 64 * 3];
    const zimage_model_params params = {.struct_size = sizeof params,
                                        .transformer = ZIMAGE_TEST_DATA "/mlx/klein/transformer",
                                        .vae = ZIMAGE_TEST_DATA "/mlx/klein/vae"};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_model *model = NULL;
    zimage_image *input = NULL;
    pthread_t threads[2];
    if (zimage_model_open(ZIMAGE_TEST_DATA "/tiny-klein", &params, &model, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    assert_int_equal(zimage_image_from_pixels(pixels, 64, 64, sizeof pixels / 64, 3, &input, &error), ZIMAGE_OK);
    worker together[3] = {{.model = model, .threads = 1, .seed = 1, .input = input},
                          {.model = model, .threads = 1, .seed = 1, .input = input},
                          {.model = model, .threads = 1, .seed = 1, .input = input}};
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, make_image, &together[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    make_image(&together[2]);
    for (int i = 0; i < 3; i++) {
        if (!together[i].pixels)
            fail_msg("%s", together[i].problem);
        assert_memory_equal(together[i].pixels, together[2].pixels, BYTES);
    }
    for (int i = 0; i < 3; i++)
        free(together[i].pixels);
    zimage_image_free(input);
    zimage_model_close(model);
}

/* Asks a model for facts, checks and plans while other sessions work. The askers share a cache folder. */
typedef struct asker {
    zimage_model *model;
    const char *cache_folder;
    uint64_t peak_bytes[2]; /* of two plans of one session */
    zimage_status status;
    zimage_error error;
} asker;

static zimage_status ask_session(asker *a, zimage_session *session, const zimage_request *request)
{
    zimage_status status = zimage_request_check(session, request, &a->error);
    for (int i = 0; status == ZIMAGE_OK && i < 2; i++) {
        zimage_plan_info info = {.struct_size = sizeof info};
        zimage_plan *plan = NULL;
        status = zimage_plan_make(session, request, &plan, &a->error);
        if (status == ZIMAGE_OK)
            status = zimage_plan_get_info(plan, &info, &a->error);
        a->peak_bytes[i] = info.peak_bytes;
        zimage_plan_free(plan);
    }
    return status;
}

static void *ask(void *argument)
{
    asker *a = argument;
    const zimage_session_params params = {
        .struct_size = sizeof params, .threads = 1, .cpu_mask = "generic", .cache_folder = a->cache_folder};
    const zimage_request request = {
        .struct_size = sizeof request, .prompt = "a red apple", .width = WIDTH, .height = HEIGHT};
    zimage_model_info info = {.struct_size = sizeof info};
    zimage_device_list *list = NULL;
    zimage_session *session = NULL;
    a->error = (zimage_error)ZIMAGE_ERROR_INIT;
    a->status = zimage_model_get_info(a->model, &info, &a->error);
    if (a->status == ZIMAGE_OK)
        a->status = zimage_devices("generic", &list, &a->error);
    if (a->status == ZIMAGE_OK)
        a->status = zimage_session_open(a->model, &params, &session, &a->error);
    if (a->status == ZIMAGE_OK)
        a->status = ask_session(a, session, &request);
    zimage_session_close(session);
    zimage_device_list_free(list);
    return NULL;
}

/* Two threads ask while two sessions of the same model make images. */
static void plans_beside_images(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_model *model = NULL;
    assert_int_equal(zimage_model_open(ZIMAGE_TEST_DATA "/tiny", NULL, &model, &error), ZIMAGE_OK);
    worker together[2] = {{.model = model, .threads = 2, .seed = 1}, {.model = model, .threads = 1, .seed = 2}};
    const char *cache_folder = temporary("cache");
    asker askers[2];
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        askers[i] = (asker){.model = model, .cache_folder = cache_folder};
        assert_int_equal(pthread_create(&threads[i], NULL, ask, &askers[i]), 0);
    }
    compare_with_alone(together, 2, NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) {
        if (askers[i].status != ZIMAGE_OK)
            fail_msg("%s", askers[i].error.message);
        assert_true(askers[i].peak_bytes[0] > 0 && askers[i].peak_bytes[0] == askers[i].peak_bytes[1]);
    }
    assert_int_equal(files_in(cache_folder), 1); /* no temporary file is left */
    zimage_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_side_by_side),
        cmocka_unit_test(sessions_of_one_model),
        cmocka_unit_test(first_images_are_encoded),
        cmocka_unit_test(plans_beside_images),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
