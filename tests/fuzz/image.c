/* An image from a stranger. What is decoded is encoded in every format and decoded again: the pixels stay (in JPEG only
 * their number), and so do the texts. */
#include <string.h>

#include "fuzz.h"
#include "zimage.h" /* with ZIMAGE_EXPERIMENTAL */

#define MOST_PIXELS ((uint64_t)1 << 20)

static int is_same(const zimage_image *image, const zimage_image *again, size_t bytes)
{
    return zimage_image_width(again) == zimage_image_width(image) &&
           zimage_image_height(again) == zimage_image_height(image) &&
           (bytes == 0 || memcmp(zimage_image_pixels(again), zimage_image_pixels(image), bytes) == 0);
}

static void encode_again(const zimage_image *image, zimage_format format)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *again = NULL;
    uint8_t *data = NULL;
    size_t size = 0, bytes = 3 * (size_t)zimage_image_width(image) * (size_t)zimage_image_height(image);
    if (bytes > 30000)
        return;
    if (zimage_image_encode(image, format, NULL, 0, &data, &size, &error) != ZIMAGE_OK ||
        zimage_image_decode(data, size, 0, &again, &error) != ZIMAGE_OK)
        zi_fuzz_fail("%s", error.message);
    if (!is_same(image, again, format == ZIMAGE_FORMAT_JPEG ? 0 : bytes))
        zi_fuzz_fail("another image");
    zimage_image_free(again);
    zimage_free(data);
}

/* A text with a key that every format takes. */
static void keep_text(const zimage_image *image, const zimage_text *text)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_texts *again = NULL;
    uint8_t *data = NULL;
    size_t size = 0;
    const zimage_text kept = {"key", text->value};
    if (zimage_image_encode(image, ZIMAGE_FORMAT_WEBP, &kept, 1, &data, &size, &error) != ZIMAGE_OK ||
        zimage_texts_decode(data, size, &again, &error) != ZIMAGE_OK)
        zi_fuzz_fail("%s", error.message);
    if (zimage_texts_count(again) != 1)
        zi_fuzz_fail("another text");
    zimage_texts_free(again);
    zimage_free(data);
}

static void read_texts(const uint8_t *data, size_t size)
{
    static const uint8_t pixel[3] = {1, 2, 3};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_texts *texts = NULL;
    zimage_image *image = NULL;
    if (zimage_texts_decode(data, size, &texts, &error) != ZIMAGE_OK) {
        zi_fuzz_note(error.message);
        return;
    }
    if (zimage_texts_count(texts) > 0 && zimage_image_from_pixels(pixel, 1, 1, 3, 3, &image, &error) == ZIMAGE_OK)
        keep_text(image, zimage_texts_get(texts, 0));
    zimage_image_free(image);
    zimage_texts_free(texts);
}

static void note(zimage_log_level level, const char *message, void *user)
{
    zi_fuzz_note(message);
}

static int run(const uint8_t *data, size_t size)
{
    static const uint8_t background[3] = {200, 100, 0};
    const zimage_decode_params params = {
        .struct_size = sizeof params, .max_pixels = MOST_PIXELS, .background = background, .log = note};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    read_texts(data, size);
    if (zimage_image_decode_with(data, size, &params, &image, &error) != ZIMAGE_OK) {
        zi_fuzz_note(error.message);
        if (image || !error.message[0])
            zi_fuzz_fail("an error with an image, or without a message");
        return ZI_FUZZ_KEEP;
    }
    for (int format = 0; format < 3; format++)
        encode_again(image, (zimage_format)format);
    zimage_image_free(image);
    return ZI_FUZZ_KEEP;
}

const zi_fuzz_target zi_fuzz_image = {.name = "image", .run = run, .mutate = ZI_FUZZ_MUTATOR(zi_fuzz_mutate_image)};
