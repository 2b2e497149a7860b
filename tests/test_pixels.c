/* Resized and grey images against Pillow, byte by byte (tests/golden/resize.safetensors). */
#include <limits.h>

#include "fixture.h"
#include "image/pixels.h"

static zi_store *golden;

static int open_golden(void **state)
{
    golden = fixture_open("resize.safetensors");
    return 0;
}

static int close_golden(void **state)
{
    zi_store_free(golden);
    return 0;
}

/* The view of a tensor [height, width] or [height, width, 3]. */
static zi_pixels view(const zi_weight *weight)
{
    const int64_t *shape = weight->shape;
    return (zi_pixels){.width = (int32_t)shape[1],
                       .height = (int32_t)shape[0],
                       .channels = weight->dims == 3 ? 3 : 1,
                       .data = (uint8_t *)weight->data}; /* read only */
}

static zi_pixels input(const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "%s.in", name);
    return view(fixture_find(golden, full));
}

static void expect_equal(const char *name, const zi_pixels *ours, const zi_pixels *want)
{
    assert_int_equal(ours->width, want->width);
    assert_int_equal(ours->height, want->height);
    assert_int_equal(ours->channels, want->channels);
    int64_t count = (int64_t)want->width * want->height * want->channels;
    for (int64_t i = 0; i < count; i++)
        if (ours->data[i] != want->data[i])
            fail_msg("%s: byte %lld is %d, expected %d", name, (long long)i, ours->data[i], want->data[i]);
}

/* Every tensor "NAME.WIDTHxHEIGHT" of the golden. */
static void resized_images_equal_those_of_pillow(void **state)
{
    int compared = 0;
    for (size_t i = 0; i < zi_store_count(golden); i++) {
        const zi_weight *weight = zi_store_at(golden, i);
        char name[32];
        int width, height;
        if (sscanf(weight->name, "%31[a-z].%dx%d", name, &width, &height) != 3)
            continue;
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_pixels in = input(name), want = view(weight), out;
        if (zi_resize_lanczos(&in, width, height, &out, &error) != ZIMAGE_OK)
            fail_msg("%s", error.message);
        expect_equal(weight->name, &out, &want);
        zi_pixels_free(&out);
        compared++;
    }
    assert_int_equal(compared, 20);
}

static void grey_images_equal_those_of_pillow(void **state)
{
    static const char *const names[] = {"rgb", "dot", "few"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char full[64];
        zi_pixels in = input(names[i]), out;
        snprintf(full, sizeof full, "%s.luma", names[i]);
        zi_pixels want = view(fixture_find(golden, full));
        assert_int_equal(zi_to_luma(&in, &out, NULL), ZIMAGE_OK);
        expect_equal(full, &out, &want);
        zi_pixels_free(&out);
    }
    zi_pixels in = input("grey"), out;
    assert_int_equal(zi_to_luma(&in, &out, NULL), ZIMAGE_OK);
    expect_equal("grey", &out, &in);
    zi_pixels_free(&out);
}

static void wrong_sizes_are_refused(void **state)
{
    static const int32_t sizes[][2] = {{0, 5}, {5, 0}, {-1, 5}, {5, INT_MIN}};
    zi_pixels in = input("rgb");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_pixels out;
        assert_int_equal(zi_resize_lanczos(&in, sizes[i][0], sizes[i][1], &out, &error), ZIMAGE_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "expected at least 1x1"));
        assert_null(out.data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resized_images_equal_those_of_pillow),
        cmocka_unit_test(grey_images_equal_those_of_pillow),
        cmocka_unit_test(wrong_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
