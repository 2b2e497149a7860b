/* The bundled model, as a user meets it. */
#include <png.h>

#include "program.h"

static outcome o;

/* The mean colour of the 16 x 16 pixels from (x, y) on. */
static void mean_colour(const char *name, int x, int y, double mean[3])
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_file(&image, in_folder(name)));
    assert_int_equal(image.width, 256);
    assert_int_equal(image.height, 256);
    image.format = PNG_FORMAT_RGB;
    uint8_t *pixels = malloc(PNG_IMAGE_SIZE(image));
    assert_non_null(pixels);
    assert_true(png_image_finish_read(&image, NULL, pixels, 0, NULL));
    for (int c = 0; c < 3; c++) {
        mean[c] = 0;
        for (int i = 0; i < 256; i++)
            mean[c] += pixels[((y + i / 16) * 256 + x + i % 16) * 3 + c] / 256.0;
    }
    free(pixels);
}

/* Without -m: the model that comes with the program. The apple is red, what is behind it is what the prompt says. */
static void the_bundled_model_draws(void **state)
{
    static const struct {
        const char *prompt;
        double behind[3];
    } cases[] = {{"a red apple", {255, 255, 255}}, {"ein roter Apfel auf blauem Hintergrund", {38, 96, 222}}};
    for (size_t i = 0; i < 2; i++) {
        const char *const arguments[] = {"generate", cases[i].prompt, "-o", "apple.png", "--seed", "7", "-q", NULL};
        run_program(arguments, &o);
        if (o.code)
            fail_msg("%s", o.err);
        double apple[3], behind[3];
        mean_colour("apple.png", 120, 150, apple);
        mean_colour("apple.png", 0, 0, behind);
        if (!(apple[0] > 180 && apple[1] < 90 && apple[2] < 90))
            fail_msg("%s: the apple is %.0f %.0f %.0f", cases[i].prompt, apple[0], apple[1], apple[2]);
        for (int c = 0; c < 3; c++)
            if (!(behind[c] > cases[i].behind[c] - 20 && behind[c] < cases[i].behind[c] + 20))
                fail_msg("%s: the background is %.0f %.0f %.0f", cases[i].prompt, behind[0], behind[1], behind[2]);
        unlink(in_folder("apple.png"));
    }
}

/* The model's folder says its size: another one is warned of, and only another one. */
static void another_size_is_warned_of(void **state)
{
    static const struct {
        const char *size, *warning;
    } cases[] = {{"256x256", NULL}, {"512x256", "512 x 256, but the model was trained at 256 x 256"}};
    for (size_t i = 0; i < 2; i++) {
        const char *const arguments[] = {"generate", "a red apple", "--size", cases[i].size, "--plan", "-q", NULL};
        run_program(arguments, &o);
        assert_int_equal(o.code, 0);
        if (cases[i].warning)
            assert_non_null(strstr(o.err, cases[i].warning));
        else
            assert_string_equal(o.err, "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_bundled_model_draws),
                                       cmocka_unit_test(another_size_is_warned_of)};
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
