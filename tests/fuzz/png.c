/* A PNG image from a stranger. What is decoded is encoded and decoded again: the pixels stay. */
#include <string.h>

#include "fuzz.h"
#include "zimage.h"

#define MOST_PIXELS ((uint64_t)1 << 22)

static void encode_again(const zimage_image *image)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *again = NULL;
    uint8_t *data = NULL;
    size_t size = 0, bytes = 3 * (size_t)zimage_image_width(image) * (size_t)zimage_image_height(image);
    if (bytes > 30000)
        return;
    if (zimage_image_encode(image, ZIMAGE_FORMAT_PNG, NULL, 0, &data, &size, &error) != ZIMAGE_OK ||
        zimage_image_decode(data, size, 0, &again, &error) != ZIMAGE_OK)
        zi_fuzz_fail("%s", error.message);
    if (zimage_image_width(again) != zimage_image_width(image) ||
        zimage_image_height(again) != zimage_image_height(image) ||
        memcmp(zimage_image_pixels(again), zimage_image_pixels(image), bytes) != 0)
        zi_fuzz_fail("another image");
    zimage_image_free(again);
    zimage_free(data);
}

static int run(const uint8_t *data, size_t size)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    if (zimage_image_decode(data, size, MOST_PIXELS, &image, &error) != ZIMAGE_OK) {
        zi_fuzz_note(error.message);
        if (image || !error.message[0])
            zi_fuzz_fail("an error with an image, or without a message");
        return ZI_FUZZ_KEEP;
    }
    encode_again(image);
    zimage_image_free(image);
    return ZI_FUZZ_KEEP;
}

const zi_fuzz_target zi_fuzz_png = {.name = "png", .run = run, .mutate = ZI_FUZZ_MUTATOR(zi_fuzz_mutate_png)};
