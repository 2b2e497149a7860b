/* Images: from pixels, to PNG and back, PNGs of every kind, damaged and hostile ones, wrong calls, atomic writing. */
#include <png.h>
#include <signal.h>
#include <sys/resource.h>

#include "base/file.h"
#include "base/numbers.h"
#include "files.h"

#define WIDTH  37
#define HEIGHT 23
#define COUNT  (WIDTH * HEIGHT)

static uint32_t random_bits(void)
{
    static uint64_t sequence = ZI_RANDOM_SEED;
    return zi_random_bits(&sequence);
}

/* ---- PNG files that libpng writes -------------------------------------------------------------------------------- */

typedef struct kind {
    const char *name;
    int type, depth, interlaced;
    int transparent; /* a tRNS chunk: one grey or colour is transparent, or palette entries have an alpha */
    int tolerance;   /* of 16 bits with alpha, which are rounded before they are blended */
} kind;

static const kind kinds[] = {
    {"grey 1", PNG_COLOR_TYPE_GRAY, 1, 0, 0, 0},
    {"grey 2", PNG_COLOR_TYPE_GRAY, 2, 0, 0, 0},
    {"grey 4", PNG_COLOR_TYPE_GRAY, 4, 0, 0, 0},
    {"grey 8", PNG_COLOR_TYPE_GRAY, 8, 0, 0, 0},
    {"grey 16", PNG_COLOR_TYPE_GRAY, 16, 0, 0, 0},
    {"grey 1, one transparent", PNG_COLOR_TYPE_GRAY, 1, 0, 1, 0},
    {"grey 2, one transparent", PNG_COLOR_TYPE_GRAY, 2, 0, 1, 0},
    {"grey 4, one transparent", PNG_COLOR_TYPE_GRAY, 4, 0, 1, 0},
    {"grey 8, one transparent", PNG_COLOR_TYPE_GRAY, 8, 0, 1, 0},
    {"grey 16, one transparent", PNG_COLOR_TYPE_GRAY, 16, 0, 1, 0},
    {"grey alpha 8", PNG_COLOR_TYPE_GRAY_ALPHA, 8, 0, 0, 0},
    {"grey alpha 16", PNG_COLOR_TYPE_GRAY_ALPHA, 16, 0, 0, 1},
    {"palette 1", PNG_COLOR_TYPE_PALETTE, 1, 0, 0, 0},
    {"palette 2", PNG_COLOR_TYPE_PALETTE, 2, 0, 0, 0},
    {"palette 4", PNG_COLOR_TYPE_PALETTE, 4, 0, 0, 0},
    {"palette 8", PNG_COLOR_TYPE_PALETTE, 8, 0, 0, 0},
    {"palette 4, alpha", PNG_COLOR_TYPE_PALETTE, 4, 0, 1, 0},
    {"palette 8, alpha", PNG_COLOR_TYPE_PALETTE, 8, 0, 1, 0},
    {"rgb 8", PNG_COLOR_TYPE_RGB, 8, 0, 0, 0},
    {"rgb 16", PNG_COLOR_TYPE_RGB, 16, 0, 0, 0},
    {"rgb 8, one transparent", PNG_COLOR_TYPE_RGB, 8, 0, 1, 0},
    {"rgb 16, one transparent", PNG_COLOR_TYPE_RGB, 16, 0, 1, 0},
    {"rgba 8", PNG_COLOR_TYPE_RGB_ALPHA, 8, 0, 0, 0},
    {"rgba 16", PNG_COLOR_TYPE_RGB_ALPHA, 16, 0, 0, 1},
    {"interlaced grey 2", PNG_COLOR_TYPE_GRAY, 2, 1, 0, 0},
    {"interlaced palette 8, alpha", PNG_COLOR_TYPE_PALETTE, 8, 1, 1, 0},
    {"interlaced rgb 8", PNG_COLOR_TYPE_RGB, 8, 1, 0, 0},
    {"interlaced rgba 16", PNG_COLOR_TYPE_RGB_ALPHA, 16, 1, 0, 1},
};

#define KINDS (sizeof kinds / sizeof *kinds)

/* A PNG file in memory, and what its pixels are as 8-bit RGB over white. */
typedef struct sample {
    uint8_t data[COUNT * 8 + 4096];
    size_t size;
    uint8_t rows[HEIGHT][WIDTH * 8];
    double expected[COUNT][3];
    png_color palette[256];
    png_byte palette_alpha[256];
    png_color_16 clear; /* the transparent grey or colour */
} sample;

static void append(png_structp png, png_bytep bytes, size_t count)
{
    sample *s = png_get_io_ptr(png);
    assert_true(s->size + count <= sizeof s->data);
    memcpy(s->data + s->size, bytes, count);
    s->size += count;
}

static void flush(png_structp png)
{
}

static int channels_of(int type)
{
    return type == PNG_COLOR_TYPE_RGB          ? 3
           : type == PNG_COLOR_TYPE_RGB_ALPHA  ? 4
           : type == PNG_COLOR_TYPE_GRAY_ALPHA ? 2
                                               : 1;
}

/* Pixel i of the image: its numbers in the file. Every fifth is the transparent one. */
static void fill_pixel(sample *s, const kind *k, int i, unsigned numbers[4])
{
    int channels = channels_of(k->type), most = 1 << k->depth, bit = i % WIDTH * k->depth * channels;
    uint8_t *row = s->rows[i / WIDTH];
    const unsigned clear[3] = {s->clear.red, s->clear.green, s->clear.blue};
    for (int c = 0; c < channels; c++, bit += k->depth) {
        numbers[c] = random_bits() % (unsigned)most;
        if (k->transparent && k->type != PNG_COLOR_TYPE_PALETTE && i % 5 == 0)
            numbers[c] = channels == 1 ? s->clear.gray : clear[c];
        if (k->depth == 16) {
            row[bit / 8] = (uint8_t)(numbers[c] >> 8);
            row[bit / 8 + 1] = (uint8_t)numbers[c];
        } else {
            row[bit / 8] |= (uint8_t)(numbers[c] << (8 - k->depth - bit % 8));
        }
    }
}

/* The colours (0 .. 1) and alpha that the numbers mean. */
static double meaning(const sample *s, const kind *k, const unsigned numbers[4], double rgb[3])
{
    double most = (1 << k->depth) - 1;
    int channels = channels_of(k->type), is_clear = k->transparent;
    if (k->type == PNG_COLOR_TYPE_PALETTE) {
        const png_color *entry = &s->palette[numbers[0]];
        const int colour[3] = {entry->red, entry->green, entry->blue};
        for (int c = 0; c < 3; c++)
            rgb[c] = colour[c] / 255.0;
        return k->transparent ? s->palette_alpha[numbers[0]] / 255.0 : 1;
    }
    const unsigned clear[3] = {s->clear.red, s->clear.green, s->clear.blue};
    for (int c = 0; c < 3; c++) {
        unsigned number = numbers[channels < 3 ? 0 : c];
        is_clear &= number == (channels < 3 ? s->clear.gray : clear[c]);
        rgb[c] = number / most;
    }
    return is_clear ? 0 : channels == 2 ? numbers[1] / most : channels == 4 ? numbers[3] / most : 1;
}

static void make_pixels(sample *s, const kind *k)
{
    memset(s, 0, sizeof *s);
    for (int i = 0; i < 256; i++) {
        s->palette[i] = (png_color){(png_byte)random_bits(), (png_byte)random_bits(), (png_byte)random_bits()};
        s->palette_alpha[i] = (png_byte)(i % 3 == 0 ? 0 : i % 3 == 1 ? 255 : random_bits());
    }
    unsigned most = (1u << k->depth) - 1;
    s->clear = (png_color_16){.gray = (png_uint_16)(most / 2),
                              .red = (png_uint_16)(most / 3),
                              .green = (png_uint_16)(most / 4),
                              .blue = (png_uint_16)(most / 5)};
    for (int i = 0; i < COUNT; i++) {
        unsigned numbers[4] = {0};
        double rgb[3];
        fill_pixel(s, k, i, numbers);
        double alpha = meaning(s, k, numbers, rgb);
        for (int c = 0; c < 3; c++)
            s->expected[i][c] = 255 * (rgb[c] * alpha + 1 - alpha);
    }
}

static void make_sample(sample *s, const kind *k)
{
    png_bytep rows[HEIGHT];
    make_pixels(s, k);
    for (int y = 0; y < HEIGHT; y++)
        rows[y] = s->rows[y];
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    assert_non_null(info);
    assert_int_equal(setjmp(png_jmpbuf(png)), 0);
    png_set_write_fn(png, s, append, flush);
    png_set_IHDR(png, info, WIDTH, HEIGHT, k->depth, k->type, k->interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (k->type == PNG_COLOR_TYPE_PALETTE)
        png_set_PLTE(png, info, s->palette, 1 << k->depth);
    if (k->transparent && k->type == PNG_COLOR_TYPE_PALETTE)
        png_set_tRNS(png, info, s->palette_alpha, 1 << k->depth, NULL);
    else if (k->transparent)
        png_set_tRNS(png, info, NULL, 0, &s->clear);
    png_set_rows(png, info, rows);
    png_write_png(png, info, PNG_TRANSFORM_IDENTITY, NULL);
    png_destroy_write_struct(&png, &info);
}

static zimage_image *decode(const sample *s)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    if (zimage_image_decode(s->data, s->size, 0, &image, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return image;
}

static void every_kind_of_png(void **state)
{
    static sample s;
    for (size_t i = 0; i < KINDS; i++) {
        make_sample(&s, &kinds[i]);
        zimage_image *image = decode(&s);
        assert_int_equal(zimage_image_width(image), WIDTH);
        assert_int_equal(zimage_image_height(image), HEIGHT);
        const uint8_t *pixels = zimage_image_pixels(image);
        for (int k = 0; k < COUNT * 3; k++) {
            double expected = s.expected[k / 3][k % 3];
            if (fabs(pixels[k] - expected) > 0.5 + 1e-6 + kinds[i].tolerance)
                fail_msg("%s: pixel %d, channel %d is %d, expected %g", kinds[i].name, k / 3, k % 3, pixels[k],
                         expected);
        }
        zimage_image_free(image);
    }
}

/* ---- to memory and back ------------------------------------------------------------------------------------------ */

static zimage_image *random_image(int32_t width, int32_t height)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    size_t bytes = (size_t)width * (size_t)height * 3;
    uint8_t *pixels = malloc(bytes);
    assert_non_null(pixels);
    for (size_t i = 0; i < bytes; i++)
        pixels[i] = (uint8_t)random_bits();
    zimage_status status = zimage_image_from_pixels(pixels, width, height, (size_t)width * 3, 3, &image, &error);
    free(pixels);
    if (status != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return image;
}

static void assert_same(const zimage_image *a, const zimage_image *b)
{
    assert_int_equal(zimage_image_width(a), zimage_image_width(b));
    assert_int_equal(zimage_image_height(a), zimage_image_height(b));
    assert_memory_equal(zimage_image_pixels(a), zimage_image_pixels(b),
                        (size_t)zimage_image_width(a) * (size_t)zimage_image_height(a) * 3);
}

/* Writing the image to a file gives the same bytes. */
static void expect_file(const zimage_image *image, const zimage_text *texts, size_t count, const uint8_t *data,
                        size_t size)
{
    char *bytes;
    size_t length;
    zimage_error error = ZIMAGE_ERROR_INIT;
    assert_int_equal(zimage_image_write(image, temporary("a.png"), texts, count, &error), ZIMAGE_OK);
    assert_int_equal(zi_read_file(temporary("a.png"), size, &bytes, &length, &error), ZIMAGE_OK);
    assert_int_equal(length, size);
    assert_memory_equal(bytes, data, size);
    free(bytes);
    unlink(temporary("a.png"));
}

static void encoding_and_decoding(void **state)
{
    static const int32_t sizes[][2] = {{1, 1}, {1, 100}, {100, 1}, {WIDTH, HEIGHT}, {512, 333}};
    static const zimage_text texts[] = {{"prompt", "caf\xc3\xa9"}, {"seed", "42"}, {"empty", ""}, {"prompt", "again"}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_image *image = random_image(sizes[i][0], sizes[i][1]), *again = NULL;
        uint8_t *data = NULL;
        size_t size = 0;
        int64_t shape[3] = {1, 1, 1};
        zimage_image_info info = {.struct_size = sizeof info, .prompt_tokens = 1, .seconds = 1};
        assert_int_equal(zimage_image_encode(image, ZIMAGE_FORMAT_PNG, texts, i, &data, &size, &error), ZIMAGE_OK);
        assert_int_equal(zimage_image_decode(data, size, 0, &again, &error), ZIMAGE_OK);
        assert_same(image, again);
        expect_file(image, texts, i, data, size);
        /* Neither was generated. */
        assert_null(zimage_image_latents(again, shape));
        assert_true(shape[0] == 0 && shape[1] == 0 && shape[2] == 0);
        assert_int_equal(zimage_image_get_info(again, &info, &error), ZIMAGE_OK);
        assert_true(info.prompt_tokens == 0 && info.seconds == 0);
        assert_true(zimage_image_seconds(again, ZIMAGE_STAGE_DENOISE) == 0);
        zimage_free(data);
        zimage_image_free(again);
        zimage_image_free(image);
    }
}

/* ---- from pixels ------------------------------------------------------------------------------------------------- */

static void pixels_with_strides_and_alpha(void **state)
{
    enum { STRIDE = WIDTH * 4 + 13 };
    static uint8_t pixels[HEIGHT * STRIDE];
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i % 4 == 3 && i % 3 == 0 ? 255 : i % 11 == 0 ? 0 : random_bits());
    for (int channels = 3; channels <= 4; channels++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_image *image = NULL;
        /* The last row ends with its last pixel: nothing behind it is read. */
        size_t bytes = (HEIGHT - 1) * STRIDE + (size_t)(WIDTH * channels);
        uint8_t *exact = malloc(bytes);
        assert_non_null(exact);
        memcpy(exact, pixels, bytes);
        assert_int_equal(zimage_image_from_pixels(exact, WIDTH, HEIGHT, STRIDE, channels, &image, &error), ZIMAGE_OK);
        memset(exact, 0, bytes); /* it was copied */
        free(exact);
        assert_int_equal(zimage_image_width(image), WIDTH);
        assert_int_equal(zimage_image_height(image), HEIGHT);
        for (int i = 0; i < COUNT; i++)
            for (int c = 0; c < 3; c++) {
                const uint8_t *pixel = pixels + i / WIDTH * STRIDE + i % WIDTH * channels;
                double alpha = channels == 4 ? pixel[3] / 255.0 : 1, expected = pixel[c] * alpha + 255 * (1 - alpha);
                assert_true(fabs(zimage_image_pixels(image)[i * 3 + c] - expected) <= 0.5 + 1e-6);
            }
        zimage_image_free(image);
    }
}

/* ---- refused data ------------------------------------------------------------------------------------------------ */

static uint32_t crc_of(const uint8_t *bytes, size_t count)
{
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

static uint32_t big_endian(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void put_big_endian(uint8_t *bytes, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* Sets the checksums of the chunks right, as far as chunks can be found. */
static void repair_checksums(uint8_t *data, size_t size)
{
    size_t at = 8;
    while (at + 12 <= size) {
        size_t length = big_endian(data + at);
        if (length > size - at - 12)
            return;
        put_big_endian(data + at + 8 + length, crc_of(data + at + 4, 4 + length));
        at += 12 + length;
    }
}

static void refuse(const uint8_t *data, size_t size, uint64_t max_pixels, const char *part)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = (zimage_image *)&error;
    zimage_status status = zimage_image_decode(data, size, max_pixels, &image, &error);
    assert_error(&error, status, ZIMAGE_ERROR_FORMAT, part, NULL, NULL);
    assert_null(image);
}

/* Sets width and height in the header of a PNG. */
static void set_size(sample *s, uint32_t width, uint32_t height)
{
    put_big_endian(s->data + 16, width);
    put_big_endian(s->data + 20, height);
    repair_checksums(s->data, s->size);
}

static void too_many_pixels_are_refused(void **state)
{
    static sample s;
    zimage_image *image = NULL;
    make_sample(&s, &(kind){.name = "rgb 8", .type = PNG_COLOR_TYPE_RGB, .depth = 8});
    assert_int_equal(zimage_image_decode(s.data, s.size, COUNT, &image, NULL), ZIMAGE_OK);
    zimage_image_free(image);
    refuse(s.data, s.size, COUNT - 1, "37x23 pixels, expected at most 850");
    set_size(&s, 8193, 8192);
    refuse(s.data, s.size, 0, "8193x8192 pixels, expected at most 67108864");
    set_size(&s, 1000000, 1000000); /* 3 TB of pixels */
    refuse(s.data, s.size, 0, "1000000x1000000 pixels");
    set_size(&s, 0x7fffffff, 0x7fffffff);
    refuse(s.data, s.size, 0, "PNG");
    set_size(&s, 0, 5);
    refuse(s.data, s.size, 0, "PNG");
    set_size(&s, 8192, 8192); /* allowed, but the file ends early */
    refuse(s.data, s.size, 0, "PNG");
}

/* Each beginning of a PNG is refused. With one wrong byte a PNG is refused, or decoded. */
static void broken_data(void **state)
{
    static const zimage_text texts[] = {{"prompt", "a cat"}, {"prompt again", "\xe7\x8c\xab"}};
    zimage_image *image = random_image(13, 7);
    uint8_t *data = NULL;
    size_t size = 0;
    assert_int_equal(zimage_image_encode(image, ZIMAGE_FORMAT_PNG, texts, 2, &data, &size, NULL), ZIMAGE_OK);
    zimage_image_free(image);
    refuse((const uint8_t *)"GIF89a, not a PNG", 17, 0, "PNG");
    for (size_t i = 0; i < size; i++)
        refuse(data, i, 0, "PNG");
    for (size_t i = 0; i < size; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        data[i] ^= 0x55;
        zimage_status status = zimage_image_decode(data, size, 0, &image, &error);
        assert_true(status == ZIMAGE_OK ? image != NULL : status == ZIMAGE_ERROR_FORMAT && !image);
        zimage_image_free(image);
        data[i] ^= 0x55;
    }
    zimage_free(data);
}

/* Damaged anywhere, checksums right or wrong: an image of the size that it says, or a sentence. */
static void damaged_data(void **state)
{
    static sample s;
    int decoded = 0, refused = 0;
    for (int round = 0; round < 2000; round++) {
        make_sample(&s, &kinds[(size_t)round % KINDS]);
        int changes = 1 + (int)(random_bits() % 8);
        for (int i = 0; i < changes; i++)
            s.data[8 + random_bits() % (i % 2 ? s.size - 8 : 60)] ^= (uint8_t)(1u << random_bits() % 8);
        if (round % 4)
            repair_checksums(s.data, s.size);
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_image *image = NULL;
        zimage_status status = zimage_image_decode(s.data, s.size, 1 << 20, &image, &error);
        if (status == ZIMAGE_OK) {
            assert_true((int64_t)zimage_image_width(image) * zimage_image_height(image) <= 1 << 20);
            decoded++;
        } else {
            assert_error(&error, status, ZIMAGE_ERROR_FORMAT, NULL, NULL, NULL);
            assert_true(error.message[0] && !image);
            refused++;
        }
        zimage_image_free(image);
    }
    printf("damaged PNGs: %d decoded, %d refused\n", decoded, refused);
    assert_true(decoded > 20 && refused > 200);
}

/* ---- refused calls ----------------------------------------------------------------------------------------------- */

static void wrong_pixels_and_data(void **state)
{
    enum { STRIDE = WIDTH * 3 };
    uint8_t pixels[COUNT * 4] = {0};
    zimage_image *image = NULL;
    zimage_error error = ZIMAGE_ERROR_INIT;
    const struct {
        const uint8_t *pixels;
        int32_t width, height;
        size_t stride;
        int32_t channels;
        const char *says;
    } cases[] = {
        {NULL, WIDTH, HEIGHT, STRIDE, 3, "pixels: NULL"},
        {pixels, 0, HEIGHT, STRIDE, 3, "0x23"},
        {pixels, WIDTH, -1, STRIDE, 3, "37x-1"},
        {pixels, 1 << 20, 1 << 20, 3 << 20, 3, "1048576x1048576"},
        {pixels, WIDTH, HEIGHT, STRIDE - 1, 3, "stride: 110"},
        {pixels, WIDTH, HEIGHT, WIDTH * 4, 2, "channels: 2"},
        {pixels, WIDTH, HEIGHT, STRIDE, 4, "stride: 111"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zimage_status status = zimage_image_from_pixels(cases[i].pixels, cases[i].width, cases[i].height,
                                                        cases[i].stride, cases[i].channels, &image, &error);
        assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, cases[i].says, "expected", NULL);
    }
    assert_null(image);
    zimage_status status = zimage_image_decode(NULL, 5, 0, &image, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "data: NULL", NULL, NULL);
    status = zimage_image_decode(pixels, 5, 0, NULL, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "image: NULL", NULL, NULL);
}

static void wrong_texts_and_formats(void **state)
{
    static const char long_key[] = "1234567890123456789012345678901234567890123456789012345678901234567890123456789";
    const zimage_text wrong[] = {{NULL, "x"}, {"x", NULL}, {"", "x"}, {long_key, "x"}};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = random_image(2, 2);
    uint8_t *data = NULL;
    size_t size;
    for (int i = 0; i < 3; i++) {
        const zimage_text texts[2] = {{"fine", "fine"}, wrong[i]};
        zimage_status status = zimage_image_encode(image, ZIMAGE_FORMAT_PNG, texts, 2, &data, &size, &error);
        assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "texts[1]", NULL, NULL);
        status = zimage_image_write(image, temporary("a.png"), texts, 2, &error);
        assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "texts[1]", NULL, NULL);
    }
    assert_int_equal(strlen(long_key), 79);
    assert_int_equal(zimage_image_encode(image, ZIMAGE_FORMAT_PNG, &wrong[3], 1, &data, &size, &error), ZIMAGE_OK);
    zimage_free(data);
    assert_int_equal(zimage_image_encode(image, ZIMAGE_FORMAT_PNG, NULL, 1, &data, &size, &error),
                     ZIMAGE_ERROR_ARGUMENT);
    zimage_status status = zimage_image_encode(image, (zimage_format)3, NULL, 0, &data, &size, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "format", "png", NULL);
    assert_int_equal(zimage_image_encode(NULL, ZIMAGE_FORMAT_PNG, NULL, 0, &data, &size, &error),
                     ZIMAGE_ERROR_ARGUMENT);
    assert_int_equal(zimage_image_write(image, NULL, NULL, 0, &error), ZIMAGE_ERROR_ARGUMENT);
    assert_int_equal(files_in(temporary_folder), 0);
    zimage_image_free(image);
    zimage_image_free(NULL);
}

/* A file that could not be written whole leaves the old one, and nothing beside it. */
static void writing_is_atomic(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *large = random_image(256, 256);
    const char *path = temporary("a.png");
    char content[16] = {0};
    struct rlimit before, small;
    write_text(path, "the old file");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 10000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    zimage_status status = zimage_image_write(large, path, NULL, 0, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_error(&error, status, ZIMAGE_ERROR_FILE, path, NULL, NULL);
    assert_int_equal(files_in(temporary_folder), 1);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fread(content, 1, sizeof content, file), 12);
    fclose(file);
    assert_string_equal(content, "the old file");
    status = zimage_image_write(large, temporary("missing/a.png"), NULL, 0, &error);
    assert_error(&error, status, ZIMAGE_ERROR_FILE, "missing/a.png", NULL, NULL);
    assert_int_equal(files_in(temporary_folder), 1);
    unlink(path);
    zimage_image_free(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_png),
        cmocka_unit_test(encoding_and_decoding),
        cmocka_unit_test(pixels_with_strides_and_alpha),
        cmocka_unit_test(too_many_pixels_are_refused),
        cmocka_unit_test(broken_data),
        cmocka_unit_test(damaged_data),
        cmocka_unit_test(wrong_pixels_and_data),
        cmocka_unit_test(wrong_texts_and_formats),
        cmocka_unit_test(writing_is_atomic),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
