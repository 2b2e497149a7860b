/* Two contexts on two threads at once make the pictures that one makes alone; the thread count changes no byte. */
#include <pthread.h>

#include "support.h"

typedef struct worker {
    int32_t threads;
    uint64_t seed;
    uint8_t *pixels; /* [48][64][3] */
    char problem[256];
} worker;

static void *make_picture(void *argument)
{
    worker *w = argument;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_open_params params;
    zimage_context *context = NULL;
    zimage_image *image = NULL;
    zimage_request request;
    zimage_open_params_init(&params);
    params.threads = w->threads;
    if (zimage_open(ZIMAGE_TEST_DATA "/tiny", &params, &context, &error) == ZIMAGE_OK) {
        zimage_request_init(context, &request);
        request.prompt = "a red apple";
        request.seed = w->seed;
        request.width = 64;
        request.height = 48;
        if (zimage_generate(context, &request, &image, &error) == ZIMAGE_OK && (w->pixels = malloc(64 * 48 * 3)))
            memcpy(w->pixels, zimage_image_pixels(image), 64 * 48 * 3);
    }
    snprintf(w->problem, sizeof w->problem, "%.200s", error.message);
    zimage_image_free(image);
    zimage_close(context);
    return NULL;
}

static void contexts_side_by_side(void **state)
{
    worker alone[2] = {{.threads = 1, .seed = 1}, {.threads = 1, .seed = 2}};
    worker together[4] = {
        {.threads = 2, .seed = 1}, {.threads = 3, .seed = 2}, {.threads = 1, .seed = 1}, {.threads = 4, .seed = 2}};
    pthread_t threads[4];
    for (int i = 0; i < 2; i++)
        make_picture(&alone[i]);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, make_picture, &together[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 4; i++) {
        if (!together[i].pixels || !alone[i & 1].pixels)
            fail_msg("%s%s", together[i].problem, alone[i & 1].problem);
        assert_memory_equal(together[i].pixels, alone[i & 1].pixels, 64 * 48 * 3);
    }
    assert_memory_not_equal(alone[0].pixels, alone[1].pixels, 64 * 48 * 3);
    for (int i = 0; i < 4; i++)
        free(together[i].pixels);
    free(alone[0].pixels);
    free(alone[1].pixels);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(contexts_side_by_side)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
