/* Images: from pixels, to PNG and back, PNGs of every kind, hostile files, structs of other sizes. */
#include <png.h>

#include "base/numbers.h"
#include "base/sized.h"
#include "files.h"

#define WIDTH  13
#define HEIGHT 7
#define COUNT  (WIDTH * HEIGHT)

typedef struct bytes {
    uint8_t *data;
    size_t size;
} bytes;

static void random_bytes(uint8_t *out, size_t count)
{
    uint64_t state = ZI_RANDOM_SEED;
    for (size_t i = 0; i < count; i++)
        out[i] = (uint8_t)zi_random_bits(&state);
}

static zimage_image *image_of(const uint8_t *pixels, size_t stride, int32_t channels)
{
    zimage_image *image = NULL;
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (zimage_image_from_pixels(pixels, WIDTH, HEIGHT, stride, channels, &image, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return image;
}

static bytes encode(const zimage_image *image)
{
    const zimage_text texts[] = {{"prompt", "a cat"}, {"prompt again", "\xe7\x8c\xab"}};
    zimage_error error = ZIMAGE_ERROR_INIT;
    bytes png = {0};
    if (zimage_image_encode(image, ZIMAGE_FORMAT_PNG, texts, 2, &png.data, &png.size, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return png;
}

/* A PNG with random pixels, and its bytes. The caller releases both. */
static zimage_image *make_png(bytes *png)
{
    uint8_t pixels[COUNT * 3];
    random_bytes(pixels, sizeof pixels);
    zimage_image *image = image_of(pixels, sizeof pixels / HEIGHT, 3);
    *png = encode(image);
    return image;
}

/* The rows of an image may be further apart than they are long. */
static void pixels_are_copied_by_rows(void **state)
{
    const size_t stride = WIDTH * 3 + 5;
    uint8_t pixels[(WIDTH * 3 + 5) * HEIGHT];
    random_bytes(pixels, sizeof pixels);
    zimage_image *image = image_of(pixels, stride, 3);
    assert_int_equal(zimage_image_width(image), WIDTH);
    assert_int_equal(zimage_image_height(image), HEIGHT);
    for (size_t y = 0; y < HEIGHT; y++)
        assert_memory_equal(zimage_image_pixels(image) + y * WIDTH * 3, pixels + y * stride, WIDTH * 3);
    int64_t shape[3];
    assert_null(zimage_image_latents(image, shape));
    zimage_image_free(image);
    zimage_image_free(NULL);
}

static void alpha_is_blended_over_white(void **state)
{
    uint8_t pixels[COUNT * 4];
    random_bytes(pixels, sizeof pixels);
    zimage_image *image = image_of(pixels, WIDTH * 4, 4);
    const uint8_t *rgb = zimage_image_pixels(image);
    for (size_t i = 0; i < COUNT; i++)
        for (size_t c = 0; c < 3; c++) {
            double alpha = pixels[4 * i + 3] / 255.0;
            assert_int_equal(rgb[3 * i + c], lround(alpha * pixels[4 * i + c] + (1 - alpha) * 255));
        }
    zimage_image_free(image);
}

static void png_holds_the_pixels(void **state)
{
    bytes png;
    zimage_image *image = make_png(&png), *again = NULL;
    assert_int_equal(zimage_image_decode(png.data, png.size, COUNT, &again, NULL), ZIMAGE_OK);
    assert_int_equal(zimage_image_width(again), WIDTH);
    assert_int_equal(zimage_image_height(again), HEIGHT);
    assert_memory_equal(zimage_image_pixels(again), zimage_image_pixels(image), COUNT * 3);

    /* A file has the same bytes. */
    uint8_t file[4096];
    assert_int_equal(zimage_image_write(again, temporary("a.png"), NULL, 0, NULL), ZIMAGE_OK);
    FILE *stream = fopen(temporary("a.png"), "rb");
    assert_non_null(stream);
    size_t size = fread(file, 1, sizeof file, stream);
    fclose(stream);
    zimage_free(png.data);
    assert_int_equal(zimage_image_encode(again, ZIMAGE_FORMAT_PNG, NULL, 0, &png.data, &png.size, NULL), ZIMAGE_OK);
    assert_int_equal(size, png.size);
    assert_memory_equal(file, png.data, size);
    zimage_free(png.data);
    zimage_image_free(again);
    zimage_image_free(image);
}

/* ---- PNGs of every kind ------------------------------------------------------------------------------------------ */

typedef struct png_kind {
    const char *name;
    int color_type, bit_depth, interlace;
} png_kind;

#define PALETTE_SIZE 16

static void set_palette(png_structp png, png_infop info)
{
    png_color palette[PALETTE_SIZE];
    for (int i = 0; i < PALETTE_SIZE; i++)
        palette[i] = (png_color){(png_byte)(i * 16), (png_byte)(255 - i), (png_byte)(i * i)};
    png_set_PLTE(png, info, palette, PALETTE_SIZE);
}

/* Writes raw rows of a kind to a file, with libpng. */
static void write_kind(const png_kind *kind, const uint8_t *raw, size_t row_bytes, const char *path)
{
    FILE *file = fopen(path, "wb");
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_bytep rows[HEIGHT];
    assert_non_null(file);
    for (size_t y = 0; y < HEIGHT; y++)
        rows[y] = (png_bytep)raw + y * row_bytes;
    png_init_io(png, file);
    png_set_IHDR(png, info, WIDTH, HEIGHT, kind->bit_depth, kind->color_type, kind->interlace,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (kind->color_type == PNG_COLOR_TYPE_PALETTE)
        set_palette(png, info);
    png_set_rows(png, info, rows);
    png_write_png(png, info, PNG_TRANSFORM_IDENTITY, NULL);
    png_destroy_write_struct(&png, &info);
    fclose(file);
}

/* Sample c of pixel x in a raw row, as a number in [0, 1]. */
static double sample(const png_kind *kind, const uint8_t *row, int x, int channels, int c)
{
    int at = x * channels + c, depth = kind->bit_depth;
    if (depth == 16)
        return (row[2 * at] * 256 + row[2 * at + 1]) / 65535.0;
    int bits = row[at * depth / 8] >> (8 - depth - at * depth % 8) & ((1 << depth) - 1);
    return (double)bits / ((1 << depth) - 1);
}

static void expected_rgb(const png_kind *kind, const uint8_t *row, int x, double rgb[3])
{
    int colors = kind->color_type & PNG_COLOR_MASK_COLOR ? 3 : 1,
        alphas = (kind->color_type & PNG_COLOR_MASK_ALPHA) != 0;
    if (kind->color_type == PNG_COLOR_TYPE_PALETTE) {
        int i = (int)lround(sample(kind, row, x, 1, 0) * ((1 << kind->bit_depth) - 1)) % PALETTE_SIZE;
        const double color[3] = {i * 16, 255 - i, i * i};
        memcpy(rgb, color, sizeof color);
        return;
    }
    double alpha = alphas ? sample(kind, row, x, colors + 1, colors) : 1;
    for (int c = 0; c < 3; c++)
        rgb[c] = 255 * (alpha * sample(kind, row, x, colors + alphas, colors == 3 ? c : 0) + 1 - alpha);
}

static bytes read_all(const char *path)
{
    static uint8_t data[1 << 14];
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    bytes all = {data, fread(data, 1, sizeof data, file)};
    fclose(file);
    return all;
}

static void every_kind_becomes_rgb(void **state)
{
    static const png_kind kinds[] = {
        {"grey, 1 bit", PNG_COLOR_TYPE_GRAY, 1, PNG_INTERLACE_NONE},
        {"grey, 4 bits", PNG_COLOR_TYPE_GRAY, 4, PNG_INTERLACE_NONE},
        {"grey", PNG_COLOR_TYPE_GRAY, 8, PNG_INTERLACE_ADAM7},
        {"grey, 16 bits", PNG_COLOR_TYPE_GRAY, 16, PNG_INTERLACE_NONE},
        {"grey and alpha", PNG_COLOR_TYPE_GRAY_ALPHA, 8, PNG_INTERLACE_NONE},
        {"palette", PNG_COLOR_TYPE_PALETTE, 4, PNG_INTERLACE_NONE},
        {"RGB", PNG_COLOR_TYPE_RGB, 8, PNG_INTERLACE_ADAM7},
        {"RGB, 16 bits", PNG_COLOR_TYPE_RGB, 16, PNG_INTERLACE_NONE},
        {"RGB and alpha", PNG_COLOR_TYPE_RGB_ALPHA, 8, PNG_INTERLACE_NONE},
        {"RGB and alpha, 16 bits", PNG_COLOR_TYPE_RGB_ALPHA, 16, PNG_INTERLACE_ADAM7},
    };
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        enum { MAX_ROW = WIDTH * 4 * 2 };
        uint8_t raw[MAX_ROW * HEIGHT];
        zimage_image *image = NULL;
        zimage_error error = ZIMAGE_ERROR_INIT;
        random_bytes(raw, sizeof raw);
        write_kind(&kinds[k], raw, MAX_ROW, temporary("kind.png"));
        bytes png = read_all(temporary("kind.png"));
        if (zimage_image_decode(png.data, png.size, 0, &image, &error) != ZIMAGE_OK)
            fail_msg("%s: %s", kinds[k].name, error.message);
        for (int i = 0; i < COUNT; i++) {
            double want[3];
            expected_rgb(&kinds[k], raw + i / WIDTH * MAX_ROW, i % WIDTH, want);
            for (int c = 0; c < 3; c++)
                if (fabs(zimage_image_pixels(image)[3 * i + c] - want[c]) > 1)
                    fail_msg("%s: pixel %d, channel %d is %d, expected %g", kinds[k].name, i, c,
                             zimage_image_pixels(image)[3 * i + c], want[c]);
        }
        zimage_image_free(image);
    }
}

/* ---- hostile files ----------------------------------------------------------------------------------------------- */

static void refuse(const uint8_t *data, size_t size, uint64_t max_pixels, const char *part)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = (zimage_image *)&error;
    assert_error(&error, zimage_image_decode(data, size, max_pixels, &image, &error), ZIMAGE_ERROR_FORMAT, part, NULL,
                 NULL);
    assert_null(image);
}

/* Sets width and height in the header of a PNG, with the right checksum. */
static void set_size(uint8_t *png, uint32_t width, uint32_t height)
{
    const uint32_t values[2] = {width, height};
    uint32_t crc = 0xffffffff;
    for (int i = 0; i < 8; i++)
        png[16 + i] = (uint8_t)(values[i / 4] >> (24 - i % 4 * 8));
    for (int i = 12; i < 29; i++) {
        crc ^= png[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    for (int i = 0; i < 4; i++)
        png[29 + i] = (uint8_t)(~crc >> (24 - i * 8));
}

static void too_many_pixels_are_refused(void **state)
{
    bytes png;
    zimage_image_free(make_png(&png));
    refuse(png.data, png.size, COUNT - 1, "13x7 pixels, expected at most 90");
    set_size(png.data, 8193, 8192);
    refuse(png.data, png.size, 0, "8193x8192 pixels, expected at most 67108864");
    set_size(png.data, 1000000, 1000000); /* 3 TB of pixels */
    refuse(png.data, png.size, 0, "1000000x1000000 pixels");
    set_size(png.data, 0x7fffffff, 0x7fffffff);
    refuse(png.data, png.size, 0, "PNG");
    set_size(png.data, 0, 5);
    refuse(png.data, png.size, 0, "PNG");
    set_size(png.data, 8192, 8192); /* allowed, but the file ends early */
    refuse(png.data, png.size, 0, "PNG");
    zimage_free(png.data);
}

static void broken_files_are_refused(void **state)
{
    bytes png;
    zimage_image_free(make_png(&png));
    refuse((const uint8_t *)"GIF89a, not a PNG", 17, 0, "PNG");
    for (size_t size = 0; size < png.size; size++)
        refuse(png.data, size, 0, "PNG");
    for (size_t i = 0; i < png.size; i++) { /* refused, or read: no other outcome */
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_image *image = NULL;
        png.data[i] ^= 0x55;
        zimage_status status = zimage_image_decode(png.data, png.size, 0, &image, &error);
        assert_true(status == ZIMAGE_OK ? image != NULL : status == ZIMAGE_ERROR_FORMAT && !image);
        zimage_image_free(image);
        png.data[i] ^= 0x55;
    }
    zimage_free(png.data);
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

static void arguments_are_checked(void **state)
{
    const zimage_status refused = ZIMAGE_ERROR_ARGUMENT;
    uint8_t pixels[COUNT * 4] = {0}, *data = NULL;
    size_t size = 0;
    zimage_image *image = NULL;
    zimage_error error = ZIMAGE_ERROR_INIT;
    const struct {
        const uint8_t *pixels;
        int32_t width, height;
        size_t stride;
        int32_t channels;
        const char *says;
    } cases[] = {
        {NULL, WIDTH, HEIGHT, WIDTH * 3, 3, "pixels: NULL"},
        {pixels, 0, HEIGHT, WIDTH * 3, 3, "0x7"},
        {pixels, WIDTH, -1, WIDTH * 3, 3, "13x-1"},
        {pixels, 1 << 20, 1 << 20, 3 << 20, 3, "1048576x1048576"},
        {pixels, WIDTH, HEIGHT, WIDTH * 3 - 1, 3, "stride: 38"},
        {pixels, WIDTH, HEIGHT, WIDTH * 4, 2, "channels: 2"},
        {pixels, WIDTH, HEIGHT, WIDTH * 3, 4, "stride: 39"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_error(&error,
                     zimage_image_from_pixels(cases[i].pixels, cases[i].width, cases[i].height, cases[i].stride,
                                              cases[i].channels, &image, &error),
                     refused, cases[i].says, "expected", NULL);
    assert_null(image);
    assert_error(&error, zimage_image_decode(NULL, 5, 0, &image, &error), refused, "data: NULL", NULL, NULL);
    assert_error(&error, zimage_image_decode(pixels, 5, 0, NULL, &error), refused, "image: NULL", NULL, NULL);
    image = image_of(pixels, WIDTH * 3, 3);
    const zimage_text bad = {"", "a text without a key"};
    assert_error(&error, zimage_image_encode(image, ZIMAGE_FORMAT_PNG, &bad, 1, &data, &size, &error), refused,
                 "texts[0]", NULL, NULL);
    assert_error(&error, zimage_image_write(image, NULL, NULL, 0, &error), refused, "path", NULL, NULL);
    assert_error(&error, zimage_image_write(image, temporary("no/x.png"), NULL, 0, &error), ZIMAGE_ERROR_FILE,
                 "no/x.png", NULL, NULL);
    zimage_image_free(image);
}

/* ---- structs of other sizes -------------------------------------------------------------------------------------- */

typedef struct grown { /* as a later version would have it */
    uint32_t struct_size;
    int32_t first, second, third;
} grown;

/* A library whose struct ends with `second` and a caller whose struct ends earlier or later. */
static void structs_may_have_other_sizes(void **state)
{
    const size_t first_size = offsetof(grown, second), own_size = offsetof(grown, third);
    zimage_error error = ZIMAGE_ERROR_INIT;
    grown own = {0}, caller = {.struct_size = sizeof caller, .first = 1, .second = 2};
    assert_int_equal(zi_take_struct(&own, own_size, first_size, &caller, "grown", NULL), ZIMAGE_OK);
    assert_int_equal(own.first, 1);
    assert_int_equal(own.second, 2);
    caller.third = 3; /* the library does not know it */
    assert_error(&error, zi_take_struct(&own, own_size, first_size, &caller, "grown", &error), ZIMAGE_ERROR_UNSUPPORTED,
                 "grown: a field after byte 12", NULL, NULL);
    caller.struct_size = (uint32_t)first_size; /* an older caller: second is not there */
    assert_int_equal(zi_take_struct(&own, own_size, first_size, &caller, "grown", NULL), ZIMAGE_OK);
    assert_int_equal(own.first, 1);
    assert_int_equal(own.second, 0);
    assert_int_equal(zi_take_struct(&own, own_size, first_size, NULL, "grown", NULL), ZIMAGE_OK);
    assert_int_equal(own.first, 0);
    caller.struct_size = 4;
    assert_error(&error, zi_take_struct(&own, own_size, first_size, &caller, "grown", &error), ZIMAGE_ERROR_ARGUMENT,
                 "grown.struct_size: 4", "at least 8", NULL);

    own = (grown){.struct_size = (uint32_t)own_size, .first = 5, .second = 6};
    caller = (grown){.struct_size = (uint32_t)first_size, .first = 1, .second = 2, .third = 3};
    assert_int_equal(zi_give_struct(&caller, &own, own_size, first_size, "grown", NULL), ZIMAGE_OK);
    assert_int_equal(caller.struct_size, first_size);
    assert_int_equal(caller.first, 5);
    assert_int_equal(caller.second, 2); /* beyond the caller's struct: not touched */
    caller = (grown){.struct_size = sizeof caller, .first = 1, .second = 2, .third = 3};
    assert_int_equal(zi_give_struct(&caller, &own, own_size, first_size, "grown", NULL), ZIMAGE_OK);
    assert_int_equal(caller.struct_size, sizeof caller);
    assert_int_equal(caller.second, 6);
    assert_int_equal(caller.third, 0);
    assert_error(&error, zi_give_struct(NULL, &own, own_size, first_size, "grown", &error), ZIMAGE_ERROR_ARGUMENT,
                 "NULL", NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pixels_are_copied_by_rows),   cmocka_unit_test(alpha_is_blended_over_white),
        cmocka_unit_test(png_holds_the_pixels),        cmocka_unit_test(every_kind_becomes_rgb),
        cmocka_unit_test(too_many_pixels_are_refused), cmocka_unit_test(broken_files_are_refused),
        cmocka_unit_test(arguments_are_checked),       cmocka_unit_test(structs_may_have_other_sizes),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
