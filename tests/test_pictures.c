/* Image files of every format: what Pillow wrote and reads (tests/golden/images.safetensors), what this library writes,
 * and what it refuses. */
#include <stdio.h>

#include <jpeglib.h> /* after stdio.h, whose FILE it needs */
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "base/file.h"
#include "base/numbers.h"
#include "files.h"
#include "fixture.h"
#include "image/format.h"
#include "image/image.h"

static zi_store *golden;

static int open_golden(void **state)
{
    golden = fixture_open("images.safetensors");
    return make_temporary_folder(state);
}

static int close_golden(void **state)
{
    zi_store_free(golden);
    return remove_temporary_folder(state);
}

/* A tensor "NAME.PART". */
static const zi_weight *find(const char *name, const char *part)
{
    char full[96];
    snprintf(full, sizeof full, "%s.%s", name, part);
    return fixture_find(golden, full);
}

/* ---- what the library says --------------------------------------------------------------------------------------- */

typedef struct warnings {
    int count;
    char last[256];
} warnings;

static void count_warning(zimage_log_level level, const char *message, void *user)
{
    warnings *w = user;
    assert_int_equal(level, ZIMAGE_LOG_WARNING);
    w->count++;
    snprintf(w->last, sizeof w->last, "%s", message);
}

static zimage_image *decode_with(const uint8_t *data, size_t size, const zimage_decode_params *params)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    if (zimage_image_decode_with(data, size, params, &image, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return image;
}

static zimage_image *decode(const char *name, warnings *w)
{
    const zimage_decode_params params = {.struct_size = sizeof params, .log = count_warning, .log_user = w};
    const zi_weight *file = find(name, "file");
    *w = (warnings){0};
    return decode_with(file->data, file->bytes, &params);
}

static void refuse_with(const uint8_t *data, size_t size, const zimage_decode_params *params, const char *part)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = (zimage_image *)&error;
    zimage_status status = zimage_image_decode_with(data, size, params, &image, &error);
    assert_error(&error, status, ZIMAGE_ERROR_FORMAT, part, NULL, NULL);
    assert_null(image);
}

static void refuse(const uint8_t *data, size_t size, const char *part)
{
    refuse_with(data, size, NULL, part);
}

/* ---- files of Pillow --------------------------------------------------------------------------------------------- */

/* Levels of 255 by which a pixel may differ from Pillow's, which brings other versions of the libraries. (With those of
 * Debian 12 none differs.) */
static int tolerance_of(const char *name)
{
    return !strncmp(name, "jpeg", 4) || strstr(name, "lossy") ? 1 : 0;
}

/* want: [height, width, 3] or, with alpha, 4 */
static void compare(const char *name, const zimage_image *image, const zi_weight *want)
{
    int channels = (int)want->shape[2], opaque = 1;
    int64_t count = want->shape[0] * want->shape[1];
    const uint8_t *ours = zimage_image_pixels(image), *alpha = zimage_image_alpha(image);
    assert_int_equal(zimage_image_height(image), want->shape[0]);
    assert_int_equal(zimage_image_width(image), want->shape[1]);
    for (int64_t i = 0; i < count; i++) {
        const uint8_t *pixel = want->data + i * channels;
        double opacity = channels == 4 ? pixel[3] / 255.0 : 1;
        for (int c = 0; c < 3; c++)
            if (fabs(ours[3 * i + c] - (pixel[c] * opacity + 255 * (1 - opacity))) > tolerance_of(name) + 0.5)
                fail_msg("%s: pixel %lld, channel %d is %d, Pillow has %d with opacity %g", name, (long long)i, c,
                         ours[3 * i + c], pixel[c], opacity);
        assert_int_equal(alpha ? alpha[i] : 255, channels == 4 ? pixel[3] : 255);
        opaque &= channels == 3 || pixel[3] == 255;
    }
    assert_true(opaque == !alpha);
}

static void files_are_read_as_pillow_reads_them(void **state)
{
    int compared = 0;
    for (size_t i = 0; i < zi_store_count(golden); i++) {
        char name[64];
        const char *full = zi_store_at(golden, i)->name, *end = strstr(full, ".pixels");
        if (!end)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)(end - full), full);
        warnings w;
        zimage_image *image = decode(name, &w);
        compare(name, image, find(name, "pixels"));
        int expected = strstr(name, ".profile") != NULL;
        if (w.count != expected || (expected && !strstr(w.last, "wide built-in")))
            fail_msg("%s: %d warnings: %s", name, w.count, w.last);
        zimage_image_free(image);
        compared++;
    }
    assert_int_equal(compared, 44);
}

static void transparent_pixels_show_the_background(void **state)
{
    static const char *const names[] = {"png.rgba", "png.grey_alpha", "png.palette_alpha", "webp.lossless_alpha"};
    static const uint8_t colours[][3] = {{0, 0, 0}, {10, 200, 77}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t k = 0; k < sizeof colours / sizeof *colours; k++) {
            const zimage_decode_params params = {.struct_size = sizeof params, .background = colours[k]};
            const zi_weight *file = find(names[i], "file"), *want = find(names[i], "pixels");
            zimage_image *image = decode_with(file->data, file->bytes, &params);
            for (int64_t p = 0; p < want->shape[0] * want->shape[1]; p++)
                for (int c = 0; c < 3; c++) {
                    double opacity = want->data[4 * p + 3] / 255.0;
                    double expected = want->data[4 * p + c] * opacity + colours[k][c] * (1 - opacity);
                    assert_true(fabs(zimage_image_pixels(image)[3 * p + c] - expected) <= 0.5 + 1e-6);
                }
            zimage_image_free(image);
        }
}

/* ---- damaged files ----------------------------------------------------------------------------------------------- */

/* Every beginning of every file is refused: there is no partial picture. */
static void truncated_files_are_refused(void **state)
{
    for (size_t i = 0; i < zi_store_count(golden); i++) {
        const zi_weight *file = zi_store_at(golden, i);
        if (!strstr(file->name, ".file"))
            continue;
        for (size_t size = 0; size < file->bytes; size++) {
            uint8_t *part = malloc(size ? size : 1); /* exactly as large, so that a sanitizer sees reads behind it */
            assert_non_null(part);
            memcpy(part, file->data, size);
            zimage_error error = ZIMAGE_ERROR_INIT;
            zimage_image *image = NULL;
            zimage_status status = zimage_image_decode(part, size, 0, &image, &error);
            if (status != ZIMAGE_ERROR_FORMAT || image || !error.message[0])
                fail_msg("%s: the first %zu of %zu bytes: status %d: %s", file->name, size, file->bytes, status,
                         error.message);
            free(part);
        }
    }
}

/* Damaged anywhere: an image of a size that is allowed, or a sentence. */
static void damaged_files(void **state)
{
    uint64_t bits = ZI_RANDOM_SEED;
    int decoded = 0, refused = 0;
    for (int round = 0; round < 3000; round++) {
        const zi_weight *file = zi_store_at(golden, zi_random_bits(&bits) % zi_store_count(golden));
        if (!strstr(file->name, ".file"))
            continue;
        uint8_t *data = malloc(file->bytes);
        assert_non_null(data);
        memcpy(data, file->data, file->bytes);
        for (uint32_t n = 1 + zi_random_bits(&bits) % 6; n > 0; n--)
            data[zi_random_bits(&bits) % file->bytes] ^= (uint8_t)(1u << zi_random_bits(&bits) % 8);
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_image *image = NULL;
        zimage_status status = zimage_image_decode(data, file->bytes, 1 << 18, &image, &error);
        if (status == ZIMAGE_OK) {
            assert_true((int64_t)zimage_image_width(image) * zimage_image_height(image) <= 1 << 18);
            decoded++;
        } else {
            if (status != ZIMAGE_ERROR_FORMAT || !error.message[0] || image)
                fail_msg("%s, damaged (round %d): status %d: %s", file->name, round, status, error.message);
            refused++;
        }
        zimage_image_free(image);
        free(data);
    }
    printf("damaged files: %d decoded, %d refused\n", decoded, refused);
    assert_true(decoded > 50 && refused > 300);
}

static void other_files_are_refused(void **state)
{
    static const struct {
        const char *bytes, *says;
    } cases[] = {
        {"GIF89a\1\0\1\0", "a GIF image"},
        {"BM\1\1\1\1", "a BMP image"},
        {"II*\1\1\1\1\1", "a TIFF image"},
        {"\1\1\1\1ftypavif", "an AVIF image"},
        {"\1\1\1\1ftypheic", "a HEIC image"},
        {"RIFF\1\1\1\1WAVEfmt ", "no image of a kind that zimage reads"},
        {"hello", "no image of a kind that zimage reads"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        refuse((const uint8_t *)cases[i].bytes, strlen(cases[i].bytes), cases[i].says);
        refuse((const uint8_t *)cases[i].bytes, strlen(cases[i].bytes), "expected a PNG, JPEG or WebP image");
    }
    refuse((const uint8_t *)"", 0, "the file is empty");
    const zi_weight *animated = find("animated", "file");
    refuse(animated->data, animated->bytes, "the WebP is animated, expected an image that does not move");
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

/* A copy of a file with some bytes replaced. */
static uint8_t *patch(const char *name, size_t at, const void *bytes, size_t count, size_t *size)
{
    const zi_weight *file = find(name, "file");
    uint8_t *data = malloc(file->bytes);
    assert_non_null(data);
    assert_true(at + count <= file->bytes);
    memcpy(data, file->data, file->bytes);
    memcpy(data + at, bytes, count);
    *size = file->bytes;
    return data;
}

/* Where the height stands in the header of a JPEG's frame. */
static size_t find_frame(const zi_weight *file)
{
    for (size_t at = 2; at + 9 < file->bytes; at += 2 + ((size_t)file->data[at + 2] << 8 | file->data[at + 3]))
        if (file->data[at + 1] == 0xC0 || file->data[at + 1] == 0xC2)
            return at + 5;
    fail();
    return 0;
}

static void too_many_pixels_are_refused(void **state)
{
    static const char *const names[] = {"png.rgb", "jpeg.420", "jpeg.progressive", "webp.lossless", "webp.lossy"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const zi_weight *file = find(names[i], "file");
        const zimage_decode_params enough = {.struct_size = sizeof enough, .max_pixels = 19 * 13},
                                   less = {.struct_size = sizeof less, .max_pixels = 19 * 13 - 1};
        zimage_image_free(decode_with(file->data, file->bytes, &enough));
        refuse_with(file->data, file->bytes, &less, "19x13 pixels, expected at most 246 pixels");
    }
    size_t size;
    const uint8_t jpeg_size[4] = {0x4E, 0x20, 0x4E, 0x20}; /* 20000 twice */
    uint8_t *data = patch("jpeg.progressive", find_frame(find("jpeg.progressive", "file")), jpeg_size, 4, &size);
    refuse(data, size, "20000x20000 pixels, expected at most 67108864 pixels");
    free(data);
    /* VP8L: 14 bits of width - 1 and of height - 1, behind the signature. */
    data = patch("webp.lossless", 21, "\xff\xff\xff\x0f", 4, &size);
    refuse(data, size, "16384x16384 pixels, expected at most 67108864 pixels");
    free(data);
}

static void too_many_bytes_are_refused(void **state)
{
    const zi_weight *file = find("png.rgb", "file");
    zimage_decode_params params = {.struct_size = sizeof params, .max_bytes = file->bytes};
    zimage_image_free(decode_with(file->data, file->bytes, &params));
    params.max_bytes--;
    refuse_with(file->data, file->bytes, &params, "the file has 599 bytes, expected at most 598");
}

/* A JPEG of three scans, one for each component, whose last scan can be repeated or left out. */
static uint8_t *separate_scans(int last_scans, size_t *size)
{
    static const jpeg_scan_info scans[3] = {{1, {0}, 0, 63, 0, 0}, {1, {1}, 0, 63, 0, 0}, {1, {2}, 0, 63, 0, 0}};
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    unsigned char *whole = NULL;
    unsigned long bytes = 0;
    uint8_t row[48];
    JSAMPROW rows[1] = {row};
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &whole, &bytes);
    jpeg.image_width = jpeg.image_height = 16;
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg.scan_info = scans;
    jpeg.num_scans = 3;
    jpeg_start_compress(&jpeg, TRUE);
    for (int y = 0; y < 16; y++) {
        for (int x = 0; x < 48; x++)
            row[x] = (uint8_t)(x * y);
        jpeg_write_scanlines(&jpeg, rows, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    size_t last = bytes - 2;
    while (whole[last] != 0xFF || whole[last + 1] != 0xDA)
        last--;
    size_t scan = bytes - 2 - last;
    uint8_t *data = malloc(bytes + scan * (size_t)last_scans);
    assert_non_null(data);
    memcpy(data, whole, last);
    for (int i = 0; i < last_scans; i++)
        memcpy(data + last + scan * (size_t)i, whole + last, scan);
    memcpy(data + last + scan * (size_t)last_scans, "\xff\xd9", 2);
    *size = last + scan * (size_t)last_scans + 2;
    free(whole);
    return data;
}

static void scans_are_counted(void **state)
{
    size_t size;
    uint8_t *data = separate_scans(1, &size);
    zimage_image_free(decode_with(data, size, NULL));
    free(data);
    data = separate_scans(98, &size);
    zimage_image_free(decode_with(data, size, NULL));
    free(data);
    data = separate_scans(99, &size);
    refuse(data, size, "it has more scans than any encoder writes");
    free(data);
    data = separate_scans(0, &size);
    refuse(data, size, "a colour component is missing");
    free(data);
}

/* A PNG with a chunk in front of its pixels that says that it holds `length` bytes. */
static void refuse_chunk(const char *name, uint32_t length, const char *part)
{
    const zi_weight *file = find("png.rgb", "file");
    uint8_t *data = malloc(file->bytes + 12);
    assert_non_null(data);
    memcpy(data, file->data, 33);
    for (int i = 0; i < 4; i++)
        data[33 + i] = (uint8_t)(length >> (24 - 8 * i));
    memcpy(data + 37, name, 4);
    memcpy(data + 41, file->data + 33, file->bytes - 33);
    refuse(data, file->bytes + 8, part);
    free(data);
}

static void large_chunks_are_refused(void **state)
{
    static const char *const names[] = {"iCCP", "zTXt", "iTXt", "tEXt", "eXIf", "sPLT"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        refuse_chunk(names[i], 0x7fffffff, "the data ends early");
        refuse_chunk(names[i], 0xffffffff, "the PNG can't be read");
    }
}

/* ---- paths ------------------------------------------------------------------------------------------------------- */

static void save_golden(const char *name, const char *path)
{
    const zi_weight *file = find(name, "file");
    write_bytes(path, file->data, file->bytes);
}

static void refuse_path(const char *path, const zimage_decode_params *params, zimage_status expected, const char *part)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = (zimage_image *)&error;
    zimage_status status = zimage_image_read(path, params, &image, &error);
    assert_error(&error, status, expected, path, part, NULL);
    assert_null(image);
}

static void files_are_read_by_path(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    warnings w = {0};
    const zimage_decode_params params = {.struct_size = sizeof params, .log = count_warning, .log_user = &w},
                               small = {.struct_size = sizeof small, .max_bytes = 100};
    char path[512];
    snprintf(path, sizeof path, "%s", temporary("a.png")); /* its name does not matter */
    save_golden("jpeg.profile", path);
    assert_int_equal(zimage_image_read(path, &params, &image, &error), ZIMAGE_OK);
    compare("jpeg.profile", image, find("jpeg.profile", "pixels"));
    assert_true(w.count == 1 && strstr(w.last, path));
    zimage_image_free(image);
    refuse_path(path, &small, ZIMAGE_ERROR_FORMAT, "1349 bytes, expected at most 100");
    assert_int_equal(truncate(path, 700), 0);
    refuse_path(path, NULL, ZIMAGE_ERROR_FORMAT, "the JPEG can't be read");
    assert_int_equal(truncate(path, 0), 0);
    refuse_path(path, NULL, ZIMAGE_ERROR_FORMAT, "the file is empty");
    unlink(path);
    refuse_path(path, NULL, ZIMAGE_ERROR_FILE, "No such file");
    refuse_path(temporary_folder, NULL, ZIMAGE_ERROR_FILE, "a folder");
    refuse_path("/dev/zero", NULL, ZIMAGE_ERROR_FILE, "a device");
    assert_int_equal(mkfifo(path, 0600), 0);
    refuse_path(path, NULL, ZIMAGE_ERROR_FILE, "a device, pipe or socket");
    unlink(path);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* Smooth, so that lossy files are near it. */
static zimage_image *smooth_image(int32_t width, int32_t height)
{
    size_t bytes = (size_t)width * (size_t)height * 3;
    uint8_t *pixels = malloc(bytes);
    zimage_image *image = NULL;
    assert_non_null(pixels);
    for (size_t i = 0; i < bytes; i++) {
        size_t x = i / 3 % (size_t)width, y = i / 3 / (size_t)width;
        pixels[i] = (uint8_t)(128 + 100 * sin(0.1 * (double)(x + (1 + i % 3) * y)));
    }
    assert_int_equal(zimage_image_from_pixels(pixels, width, height, (size_t)width * 3, 3, &image, NULL), ZIMAGE_OK);
    free(pixels);
    return image;
}

static double largest_difference(const zimage_image *a, const zimage_image *b)
{
    double worst = 0;
    assert_int_equal(zimage_image_width(a), zimage_image_width(b));
    assert_int_equal(zimage_image_height(a), zimage_image_height(b));
    size_t bytes = (size_t)zimage_image_width(a) * (size_t)zimage_image_height(a) * 3;
    for (size_t i = 0; i < bytes; i++)
        worst = fmax(worst, fabs((double)zimage_image_pixels(a)[i] - zimage_image_pixels(b)[i]));
    return worst;
}

/* Encodes and decodes; returns the largest difference. */
static double lose(const zimage_image *image, zimage_format format, int quality, size_t *size)
{
    const zimage_save_params params = {.struct_size = sizeof params, .quality = quality};
    zimage_error error = ZIMAGE_ERROR_INIT;
    uint8_t *data = NULL;
    if (zimage_image_encode_with(image, format, &params, &data, size, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    zimage_image *again = decode_with(data, *size, NULL);
    double worst = largest_difference(image, again);
    zimage_image_free(again);
    zimage_free(data);
    return worst;
}

/* Encodes with alpha over a background, and decodes over it. */
static zimage_image *pass_through(const zimage_image *image, const uint8_t background[3])
{
    const zimage_save_params save = {.struct_size = sizeof save, .alpha_over = background};
    const zimage_decode_params load = {.struct_size = sizeof load, .background = background};
    zimage_error error = ZIMAGE_ERROR_INIT;
    uint8_t *data = NULL;
    size_t size;
    if (zimage_image_encode_with(image, ZIMAGE_FORMAT_PNG, &save, &data, &size, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    zimage_image *again = decode_with(data, size, &load);
    zimage_free(data);
    return again;
}

static void expect_same(const zimage_image *image, const zimage_image *again)
{
    size_t count = (size_t)zimage_image_width(image) * (size_t)zimage_image_height(image);
    assert_memory_equal(zimage_image_pixels(image), zimage_image_pixels(again), 3 * count);
    assert_memory_equal(zimage_image_alpha(image), zimage_image_alpha(again), count);
}

/* Each colour with each alpha, over several backgrounds. */
static void alpha_is_written_exactly(void **state)
{
    static const uint8_t backgrounds[][3] = {{255, 255, 255}, {0, 128, 255}, {1, 77, 254}};
    static uint8_t rgba[256][256][4];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image;
    for (int alpha = 0; alpha < 256; alpha++)
        for (int colour = 0; colour < 256; colour++) {
            const uint8_t pixel[4] = {(uint8_t)colour, (uint8_t)(255 - colour), (uint8_t)(colour ^ alpha),
                                      (uint8_t)alpha};
            memcpy(rgba[alpha][colour], pixel, sizeof pixel);
        }
    zimage_image_from_pixels(&rgba[0][0][0], 256, 256, sizeof rgba[0], 4, &image, &error);
    for (size_t i = 0; i < sizeof backgrounds / sizeof *backgrounds; i++) {
        const zimage_save_params save = {.struct_size = sizeof save, .alpha_over = backgrounds[0]};
        const zimage_decode_params load = {.struct_size = sizeof load, .background = backgrounds[i]};
        uint8_t *data = NULL;
        size_t size;
        assert_int_equal(zimage_image_encode_with(image, ZIMAGE_FORMAT_PNG, &save, &data, &size, &error), ZIMAGE_OK);
        zimage_image *over = decode_with(data, size, &load), *again = pass_through(over, backgrounds[i]);
        expect_same(over, again);
        if (i == 0)
            expect_same(image, over);
        zimage_image_free(again);
        zimage_image_free(over);
        zimage_free(data);
    }
    const zimage_save_params jpeg = {.struct_size = sizeof jpeg, .alpha_over = backgrounds[0]};
    uint8_t *data = NULL;
    size_t size;
    zimage_status status = zimage_image_encode_with(image, ZIMAGE_FORMAT_JPEG, &jpeg, &data, &size, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "alpha_over: expected NULL", NULL, NULL);
    zimage_image_free(image);
}

static void qualities(void **state)
{
    static const int32_t sizes[][2] = {{1, 1}, {1, 50}, {50, 1}, {101, 75}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        zimage_image *image = smooth_image(sizes[i][0], sizes[i][1]);
        size_t png, best, usual, ninety_five, small, lossless, lossy, poor;
        assert_true(lose(image, ZIMAGE_FORMAT_PNG, 0, &png) == 0);
        assert_true(lose(image, ZIMAGE_FORMAT_WEBP, 0, &lossless) == 0);
        assert_true(lose(image, ZIMAGE_FORMAT_JPEG, 100, &best) <= 5);
        assert_true(lose(image, ZIMAGE_FORMAT_JPEG, 0, &usual) <= 10);
        assert_true(lose(image, ZIMAGE_FORMAT_JPEG, 95, &ninety_five) <= 10);
        double lost = lose(image, ZIMAGE_FORMAT_JPEG, 30, &small);
        lose(image, ZIMAGE_FORMAT_WEBP, 100, &lossy);
        lose(image, ZIMAGE_FORMAT_WEBP, 1, &poor);
        assert_int_equal(usual, ninety_five);
        if (sizes[i][0] > 50)
            assert_true(lost > 0 && small < usual && usual < best && poor < lossy);
        zimage_image_free(image);
    }
}

/* Servers keep encoded files: they take no more memory than their bytes, whatever the encoder needed. */
static void files_take_their_size(void **state)
{
#ifdef __GLIBC__
    for (zimage_format format = ZIMAGE_FORMAT_PNG; format <= ZIMAGE_FORMAT_WEBP; format++) {
        zimage_image *image = smooth_image(64, 64);
        zimage_error error = ZIMAGE_ERROR_INIT;
        uint8_t *data = NULL;
        size_t size;
        if (zimage_image_encode(image, format, NULL, 0, &data, &size, &error) != ZIMAGE_OK)
            fail_msg("%s", error.message);
        assert_in_range(malloc_usable_size(data), size, size + 32);
        zimage_free(data);
        zimage_image_free(image);
    }
#else
    skip(); /* only glibc says how much memory a block has */
#endif
}

static void jpegs_have_all_colours(void **state)
{
    zimage_image *image = smooth_image(20, 20);
    uint8_t *data = NULL;
    size_t size;
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    assert_int_equal(zimage_image_encode(image, ZIMAGE_FORMAT_JPEG, NULL, 0, &data, &size, NULL), ZIMAGE_OK);
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&jpeg);
    jpeg_mem_src(&jpeg, data, size);
    assert_int_equal(jpeg_read_header(&jpeg, TRUE), JPEG_HEADER_OK);
    assert_int_equal(jpeg.num_components, 3);
    assert_true(jpeg.saw_JFIF_marker);
    for (int i = 0; i < 3; i++)
        assert_true(jpeg.comp_info[i].h_samp_factor == 1 && jpeg.comp_info[i].v_samp_factor == 1);
    jpeg_destroy_decompress(&jpeg);
    zimage_free(data);
    zimage_image_free(image);
}

static void wrong_qualities_are_refused(void **state)
{
    static const struct {
        zimage_format format;
        int quality;
        const char *says;
    } cases[] = {
        {ZIMAGE_FORMAT_JPEG, -1, "quality: -1, expected 1 to 100"},
        {ZIMAGE_FORMAT_WEBP, 101, "quality: 101, expected 1 to 100"},
        {ZIMAGE_FORMAT_PNG, 50, "quality: 50, expected 0 for a PNG file"},
        {(zimage_format)3, 0, "format: 3, expected 0 (png), 1 (jpeg) or 2 (webp)"},
        {(zimage_format)-1, 0, "format: -1"},
    };
    zimage_image *image = smooth_image(2, 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const zimage_save_params params = {.struct_size = sizeof params, .quality = cases[i].quality};
        zimage_error error = ZIMAGE_ERROR_INIT;
        uint8_t *data = (uint8_t *)&error;
        size_t size = 1;
        zimage_status status = zimage_image_encode_with(image, cases[i].format, &params, &data, &size, &error);
        assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, cases[i].says, NULL, NULL);
        assert_true(!data && size == 0);
    }
    zimage_image_free(image);
}

/* What zimage_image_encode makes, under a name. */
static void expect_written(const zimage_image *image, const char *name, zimage_format format)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    const zimage_text text = {"prompt", "a red apple"};
    uint8_t *data = NULL;
    char *bytes = NULL;
    size_t size, length;
    if (zimage_image_write(image, temporary(name), &text, 1, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    assert_int_equal(zimage_image_encode(image, format, &text, 1, &data, &size, NULL), ZIMAGE_OK);
    assert_int_equal(zi_read_file(temporary(name), 1 << 20, &bytes, &length, &error), ZIMAGE_OK);
    assert_int_equal(length, size);
    assert_memory_equal(bytes, data, size);
    free(bytes);
    zimage_free(data);
    unlink(temporary(name));
}

static void extensions_choose_formats(void **state)
{
    static const struct {
        const char *name;
        zimage_format format;
    } names[] = {
        {"a.png", ZIMAGE_FORMAT_PNG},       {"a.PNG", ZIMAGE_FORMAT_PNG},   {"a.jpg", ZIMAGE_FORMAT_JPEG},
        {"a.JpEg", ZIMAGE_FORMAT_JPEG},     {"a.webp", ZIMAGE_FORMAT_WEBP}, {"a.b.png.WEBP", ZIMAGE_FORMAT_WEBP},
        {"a.webp.jpg", ZIMAGE_FORMAT_JPEG},
    };
    static const char *const others[] = {"a", "a.bmp", "a.jp", "a.png.txt", ".png", "a.png "};
    zimage_image *image = smooth_image(9, 7);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        zimage_format format = (zimage_format)9;
        expect_written(image, names[i].name, names[i].format);
        assert_true(zimage_format_of_path(temporary(names[i].name), &format) && format == names[i].format);
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_status status = zimage_image_write(image, temporary(others[i]), NULL, 0, &error);
        assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, temporary(others[i]), ".png, .jpg, .jpeg or .webp", NULL);
        assert_int_equal(files_in(temporary_folder), 0);
        assert_int_equal(zimage_format_of_path(others[i], NULL), 0);
    }
    assert_int_equal(zimage_format_of_path("a.png/b", NULL), 0);
    assert_int_equal(zimage_format_of_path(NULL, NULL), 0);
    assert_int_equal(zimage_image_write(image, "/dev/null", NULL, 0, NULL), ZIMAGE_OK);
    zimage_image_free(image);
}

static void sides_have_limits(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = smooth_image(16384, 1);
    uint8_t *data = NULL;
    size_t size;
    zimage_status status = zimage_image_encode(image, ZIMAGE_FORMAT_WEBP, NULL, 0, &data, &size, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "16384x1 pixels, expected at most 16383 a side in a WebP file",
                 NULL, NULL);
    status = zimage_image_write(image, temporary("a.webp"), NULL, 0, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, temporary("a.webp"), "at most 16383 a side", NULL);
    assert_int_equal(files_in(temporary_folder), 0);
    assert_int_equal(zimage_format_check(ZIMAGE_FORMAT_WEBP, 16383, 16383, NULL, 0, &error), ZIMAGE_OK);
    assert_int_equal(zimage_format_check(ZIMAGE_FORMAT_WEBP, 1, 16384, NULL, 0, &error), ZIMAGE_ERROR_ARGUMENT);
    assert_int_equal(zimage_format_check(ZIMAGE_FORMAT_JPEG, 65500, 1, NULL, 0, &error), ZIMAGE_OK);
    assert_int_equal(zimage_format_check(ZIMAGE_FORMAT_JPEG, 65501, 1, NULL, 0, &error), ZIMAGE_ERROR_ARGUMENT);
    zimage_image_free(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_read_as_pillow_reads_them),
        cmocka_unit_test(transparent_pixels_show_the_background),
        cmocka_unit_test(truncated_files_are_refused),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(too_many_pixels_are_refused),
        cmocka_unit_test(too_many_bytes_are_refused),
        cmocka_unit_test(scans_are_counted),
        cmocka_unit_test(large_chunks_are_refused),
        cmocka_unit_test(files_are_read_by_path),
        cmocka_unit_test(alpha_is_written_exactly),
        cmocka_unit_test(qualities),
        cmocka_unit_test(files_take_their_size),
        cmocka_unit_test(jpegs_have_all_colours),
        cmocka_unit_test(wrong_qualities_are_refused),
        cmocka_unit_test(extensions_choose_formats),
        cmocka_unit_test(sides_have_limits),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
