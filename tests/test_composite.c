/* Inpainting with request.composite: outside of the mask the pixels are the input's, by the formula of zimage.h. */
#include "image/pixels.h"
#include "session.h"
#include "support.h"

#define TINY  ZIMAGE_TEST_DATA "/tiny"
#define KLEIN ZIMAGE_TEST_DATA "/tiny-klein"

static zimage_error error = ZIMAGE_ERROR_INIT;

/* Pixels that differ from their neighbours. */
static zimage_image *picture(int32_t width, int32_t height)
{
    zimage_image *image = NULL;
    uint8_t *pixels = malloc((size_t)width * (size_t)height * 3);
    assert_non_null(pixels);
    for (int32_t i = 0; i < width * height * 3; i++)
        pixels[i] = (uint8_t)(i * 37 + i / (3 * width) * 11);
    assert_int_equal(zimage_image_from_pixels(pixels, width, height, (size_t)width * 3, 3, &image, &error), ZIMAGE_OK);
    free(pixels);
    return image;
}

/* A disc and a line; transparent, or white. */
static zimage_image *mask_of(int32_t width, int32_t height, int is_transparent)
{
    zimage_image *image = NULL;
    uint8_t *pixels = malloc((size_t)width * (size_t)height * 4);
    assert_non_null(pixels);
    for (int32_t y = 0; y < height; y++)
        for (int32_t x = 0; x < width; x++) {
            uint8_t *pixel = pixels + 4 * (y * width + x);
            int a = x - width / 4, b = y - height / 3, is_in = a * a + b * b < 60 || (x == width - 7 && y > height / 2);
            memset(pixel, is_in && !is_transparent ? 255 : 0, 3);
            pixel[3] = is_in && is_transparent ? 0 : 255;
        }
    assert_int_equal(zimage_image_from_pixels(pixels, width, height, (size_t)width * 4, 4, &image, &error), ZIMAGE_OK);
    free(pixels);
    return image;
}

/* The image scaled as the model scales it. */
static zi_pixels fitted(const zimage_image *image, int32_t width, int32_t height)
{
    const zi_pixels whole = {zimage_image_width(image), zimage_image_height(image), 3,
                             (uint8_t *)zimage_image_pixels(image)};
    zi_pixels out;
    assert_int_equal(zi_resize_lanczos(&whole, width, height, &out, &error), ZIMAGE_OK);
    return out;
}

/* Whether a mask that is scaled to the size repaints each pixel. */
static uint8_t *repainted(const zimage_image *mask, int32_t width, int32_t height)
{
    int32_t from_width = zimage_image_width(mask), from_height = zimage_image_height(mask);
    const uint8_t *alpha = zimage_image_alpha(mask);
    size_t places = (size_t)from_width * (size_t)from_height;
    uint8_t *grey = malloc(places);
    zi_pixels out;
    assert_non_null(grey);
    for (size_t i = 0; i < places; i++)
        grey[i] = alpha ? (uint8_t)(255 - alpha[i]) : zimage_image_pixels(mask)[3 * i];
    const zi_pixels whole = {from_width, from_height, 1, grey};
    assert_int_equal(zi_resize_lanczos(&whole, width, height, &out, &error), ZIMAGE_OK);
    for (int32_t i = 0; i < width * height; i++)
        out.data[i] = out.data[i] >= 128;
    free(grey);
    return out.data;
}

/* By looking at each pair of pixels. */
static double distance_from(const uint8_t *is_repainted, int32_t width, int32_t height, int32_t x, int32_t y)
{
    double least = INFINITY;
    for (int32_t row = 0; row < height; row++)
        for (int32_t column = 0; column < width; column++)
            if (is_repainted[row * width + column])
                least = fmin(least, hypot(column - x, row - y));
    return least;
}

static zimage_image *make(zimage_session *session, const zimage_request *request)
{
    zimage_image *image = NULL;
    if (zimage_generate(session, request, &image, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return image;
}

/* Each pixel by the formula; kept and blended ones both occur. */
static void check_pixels(const zimage_image *made, const zimage_image *composed, const uint8_t *input,
                         const uint8_t *is_repainted, int32_t reach)
{
    int32_t width = zimage_image_width(made), height = zimage_image_height(made);
    const uint8_t *a = zimage_image_pixels(made), *b = zimage_image_pixels(composed);
    int counts[3] = {0};
    for (int32_t i = 0; i < width * height; i++) {
        double distance = distance_from(is_repainted, width, height, i % width, i / width);
        double weight = fmax(0, 1 - distance / reach);
        counts[weight == 1 ? 0 : weight == 0 ? 1 : 2]++;
        for (int32_t c = 3 * i; c < 3 * i + 3; c++) {
            if ((weight == 1 && b[c] != a[c]) || (weight == 0 && b[c] != input[c]))
                fail_msg("(%d, %d), %g pixels away: %d, made %d, input %d", i % width, i / width, distance, b[c], a[c],
                         input[c]);
            assert_true(fabs(weight * a[c] + (1 - weight) * input[c] - b[c]) <= 0.5 + 1e-9);
        }
    }
    assert_true(counts[0] > 0 && counts[1] > 0 && counts[2] > 0);
}

/* An image of the request's size, and one that is scaled; masks of both kinds. */
static void check_model(const char *folder)
{
    static const int32_t sizes[][4] = {{96, 80, 0, 0}, {101, 67, 96, 80}};
    zimage_session *session = NULL;
    zimage_model *model = NULL;
    zimage_model_info info = {.struct_size = sizeof info};
    assert_int_equal(zimage_model_open(folder, NULL, &model, &error), ZIMAGE_OK);
    assert_int_equal(zimage_model_get_info(model, &info, &error), ZIMAGE_OK);
    assert_int_equal(zimage_session_open(model, NULL, &session, &error), ZIMAGE_OK);
    for (size_t i = 0; i < 2; i++) {
        zimage_image *image = picture(sizes[i][0], sizes[i][1]), *mask = mask_of(sizes[i][0], sizes[i][1], i == 1);
        const zimage_image *const images[] = {image};
        zimage_request request = {.struct_size = sizeof request, .prompt = "a", .seed = 5, .steps = 2, .mask = mask};
        request.images = images;
        request.image_count = 1;
        request.width = sizes[i][2];
        request.height = sizes[i][3];
        request.strength = 1;
        zimage_image *made = make(session, &request), *composed = NULL;
        request.composite = 1;
        composed = make(session, &request);
        int32_t width = zimage_image_width(made), height = zimage_image_height(made);
        zi_pixels input = fitted(image, width, height);
        uint8_t *is_repainted = repainted(mask, width, height);
        check_pixels(made, composed, input.data, is_repainted, info.size_multiple);
        int64_t shape[3];
        const float *latents = zimage_image_latents(made, shape);
        assert_memory_equal(latents, zimage_image_latents(composed, NULL),
                            (size_t)(shape[0] * shape[1] * shape[2]) * sizeof *latents);
        free(is_repainted);
        zi_pixels_free(&input);
        zimage_image *const list[] = {image, mask, made, composed};
        for (int k = 0; k < 4; k++)
            zimage_image_free(list[k]);
    }
    zimage_session_close(session);
    zimage_model_close(model);
}

static void z_image_keeps_the_input(void **state)
{
    check_model(TINY);
}

static void klein_keeps_the_input(void **state)
{
    check_model(KLEIN);
}

/* A mask that selects nothing leaves the input; without a mask there is nothing to keep. */
static void what_is_kept_depends_on_the_mask(void **state)
{
    zimage_session *session = NULL;
    assert_int_equal(session_on(TINY, NULL, NULL, &session, &error), ZIMAGE_OK);
    zimage_image *image = picture(32, 32), *black = NULL, *made = NULL;
    const zimage_image *const images[] = {image};
    uint8_t pixels[32 * 32 * 3] = {0};
    assert_int_equal(zimage_image_from_pixels(pixels, 32, 32, 96, 3, &black, &error), ZIMAGE_OK);
    zimage_request request = {.struct_size = sizeof request, .prompt = "a", .steps = 1, .composite = 1, .mask = black};
    request.images = images;
    request.image_count = 1;
    made = make(session, &request);
    assert_memory_equal(zimage_image_pixels(made), zimage_image_pixels(image), sizeof pixels);
    request.mask = NULL;
    assert_int_equal(zimage_request_check(session, &request, &error), ZIMAGE_ERROR_ARGUMENT);
    assert_string_equal(error.message,
                        "composite: 1, expected 0 without a mask, outside of which the first image stays");
    request.images = NULL;
    request.image_count = 0;
    assert_int_equal(zimage_request_check(session, &request, &error), ZIMAGE_ERROR_ARGUMENT);
    zimage_image_free(image);
    zimage_image_free(black);
    zimage_image_free(made);
    zimage_session_close(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(z_image_keeps_the_input),
        cmocka_unit_test(klein_keeps_the_input),
        cmocka_unit_test(what_is_kept_depends_on_the_mask),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
