#include "pipeline/composite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"
#include "image/image.h"
#include "pipeline/inputs.h"
#include "pipeline/masks.h"

/* What the blending reads. */
typedef struct layers {
    zi_pixels kept;    /* the fitted input, RGB */
    zi_pixels repaint; /* 1: is repainted */
    uint16_t *across;  /* [height, width]: distance to the nearest such pixel in the row, at most `reach` */
    int reach;         /* pixels */
} layers;

size_t zi_composite_bytes(int64_t width, int64_t height)
{
    /* The input and what its scaling holds between both directions; or the mask, in colour and grey. Then distances. */
    return (size_t)(width * height) * (2 * 3 + 1 + sizeof(uint16_t));
}

/* From the left, then from the right. */
static void measure_row(const uint8_t *repaint, int32_t width, int reach, uint16_t *across)
{
    int distance = reach;
    for (int32_t x = 0; x < width; x++) {
        distance = repaint[x] ? 0 : distance < reach ? distance + 1 : reach;
        across[x] = (uint16_t)distance;
    }
    distance = reach;
    for (int32_t x = width; x-- > 0;) {
        distance = repaint[x] ? 0 : distance < reach ? distance + 1 : reach;
        across[x] = distance < across[x] ? (uint16_t)distance : across[x];
    }
}

/* The square of the distance to the nearest pixel that is repainted, at most reach^2. */
static int square_at(const layers *l, int32_t x, int32_t y)
{
    int least = l->reach * l->reach;
    int32_t first = y < l->reach ? 0 : y - l->reach + 1;
    for (int32_t row = first; row < l->repaint.height && row < y + l->reach; row++) {
        int a = l->across[(size_t)row * (size_t)l->repaint.width + (size_t)x], square = a * a + (row - y) * (row - y);
        least = square < least ? square : least;
    }
    return least;
}

static void blend(const layers *l, uint8_t *rgb8)
{
    size_t at = 0;
    for (int32_t y = 0; y < l->repaint.height; y++)
        for (int32_t x = 0; x < l->repaint.width; x++, at++) {
            if (l->repaint.data[at])
                continue;
            double weight = 1 - sqrt(square_at(l, x, y)) / l->reach;
            for (size_t i = 3 * at; i < 3 * at + 3; i++)
                rgb8[i] = (uint8_t)floor(l->kept.data[i] + weight * (rgb8[i] - l->kept.data[i]) + 0.5);
        }
}

static zimage_status fit(const zi_model *model, const zimage_request *r, layers *l, zimage_error *error)
{
    const zimage_image *image = r->images[0];
    size_t places = (size_t)r->width * (size_t)r->height;
    zi_pixels mask;
    /* fit_image only reads the pixels. */
    const zi_pixels whole = {.width = zimage_image_width(image),
                             .height = zimage_image_height(image),
                             .channels = 3,
                             .data = (uint8_t *)zimage_image_pixels(image)};
    ZI_TRY(zi_inputs_mask(r->mask, &mask, error));
    zimage_status status = zi_mask_binarize(&mask, r->width, r->height, &l->repaint, error);
    zi_pixels_free(&mask);
    if (status != ZIMAGE_OK)
        return status;
    l->across = malloc(places * sizeof *l->across);
    if (!l->across)
        return zi_fail_memory(error, "the distances from a mask", places * sizeof *l->across);
    return model->family->fit_image(model->networks, ZI_IMAGE_START, &whole, r->width, r->height, &l->kept, error);
}

zimage_status zi_composite(const zi_model *model, const zimage_request *r, uint8_t *rgb8, zimage_error *error)
{
    layers l = {.reach = (int)model->facts.size_multiple};
    zimage_status status = fit(model, r, &l, error);
    for (int32_t y = 0; y < r->height && status == ZIMAGE_OK; y++) {
        size_t row = (size_t)y * (size_t)r->width;
        measure_row(l.repaint.data + row, r->width, l.reach, l.across + row);
    }
    if (status == ZIMAGE_OK)
        blend(&l, rgb8);
    zi_pixels_free(&l.kept);
    zi_pixels_free(&l.repaint);
    free(l.across);
    return status;
}
