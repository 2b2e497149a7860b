#include "image/pixels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

zimage_status zi_pixels_new(int32_t width, int32_t height, int channels, zi_pixels *pixels, zimage_error *error)
{
    *pixels = (zi_pixels){.width = width, .height = height, .channels = channels};
    if (width < 1 || height < 1)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "size: %dx%d, expected at least 1x1", width, height);
    size_t bytes = (size_t)width * (size_t)height * (size_t)channels;
    pixels->data = malloc(bytes);
    return pixels->data ? ZIMAGE_OK : zi_fail_memory(error, "pixels", bytes);
}

void zi_pixels_free(zi_pixels *pixels)
{
    free(pixels->data);
    *pixels = (zi_pixels){0};
}

/* ---- Lanczos ----------------------------------------------------------------------------------------------------- */

#define LOBES          3.0 /* of Lanczos' window: it ends so many pixels from its centre */
#define PRECISION_BITS 22  /* of a weight's fraction: Pillow's 32 - 8 - 2 */

/* The weights of one direction. */
typedef struct resample {
    int32_t size;     /* of the output */
    int32_t taps;     /* most weights of an output */
    int32_t *first;   /* [size]: the first input that an output reads */
    int32_t *count;   /* [size]: how many it reads, at most taps */
    int32_t *weights; /* [size][taps], with PRECISION_BITS bits of fraction */
} resample;

static double sinc(double x)
{
    x *= M_PI;
    return x == 0 ? 1 : sin(x) / x;
}

static double lanczos(double x)
{
    return -LOBES <= x && x < LOBES ? sinc(x) * sinc(x / LOBES) : 0;
}

/* The weights of one output, whose sum is 1. */
static void weigh(resample *r, int32_t output, int32_t in_size, double *exact)
{
    double scale = (double)in_size / r->size, stretch = scale < 1 ? 1 : scale, support = LOBES * stretch;
    double centre = (output + 0.5) * scale, sum = 0, inverse = 1 / stretch;
    int32_t from = (int32_t)(centre - support + 0.5), to = (int32_t)(centre + support + 0.5);
    from = from < 0 ? 0 : from;
    to = to > in_size ? in_size : to;
    for (int32_t i = 0; i < to - from; i++) {
        exact[i] = lanczos((i + from - centre + 0.5) * inverse);
        sum += exact[i];
    }
    for (int32_t i = 0; i < to - from; i++) {
        double weight = (sum != 0 ? exact[i] / sum : exact[i]) * (1 << PRECISION_BITS);
        r->weights[(size_t)output * (size_t)r->taps + (size_t)i] = (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    r->first[output] = from;
    r->count[output] = to - from;
}

static void resample_free(resample *r)
{
    free(r->first);
    free(r->count);
    free(r->weights);
}

/* On failure the caller frees what was allocated, too. */
static zimage_status resample_make(resample *r, int32_t in_size, int32_t out_size, zimage_error *error)
{
    double scale = (double)in_size / out_size, support = LOBES * (scale < 1 ? 1 : scale);
    r->size = out_size;
    r->taps = (int32_t)ceil(support) * 2 + 1;
    size_t bytes = (size_t)out_size * (size_t)r->taps * sizeof *r->weights;
    r->first = malloc((size_t)out_size * sizeof *r->first);
    r->count = malloc((size_t)out_size * sizeof *r->count);
    r->weights = malloc(bytes);
    double *exact = malloc((size_t)r->taps * sizeof *exact);
    zimage_status status = ZIMAGE_OK;
    if (!r->first || !r->count || !r->weights || !exact)
        status = zi_fail_memory(error, "the weights of a resized image", bytes);
    for (int32_t i = 0; i < out_size && status == ZIMAGE_OK; i++)
        weigh(r, i, in_size, exact);
    free(exact);
    return status;
}

/* Sums with PRECISION_BITS bits of fraction, rounded to nearest and limited. The sum of a pixel's weights without their
 * signs is below 2, so that it fits 32 bits. */
static uint8_t to_byte(int32_t sum)
{
    int32_t value = sum >> PRECISION_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* Resizes each row: in [rows][in_width][channels] -> out [rows][r->size][channels]. */
static void resize_rows(const resample *r, const uint8_t *in, int32_t in_width, int32_t rows, int channels,
                        uint8_t *out)
{
    for (int32_t y = 0; y < rows; y++, in += (size_t)in_width * (size_t)channels)
        for (int32_t x = 0; x < r->size; x++)
            for (int c = 0; c < channels; c++) {
                const int32_t *weights = r->weights + (size_t)x * (size_t)r->taps;
                const uint8_t *from = in + (size_t)r->first[x] * (size_t)channels + c;
                int32_t sum = 1 << (PRECISION_BITS - 1);
                for (int32_t i = 0; i < r->count[x]; i++)
                    sum += from[(size_t)i * (size_t)channels] * weights[i];
                *out++ = to_byte(sum);
            }
}

/* Resizes each column: in [in_rows][row] -> out [r->size][row]; sums [row]. */
static void resize_columns(const resample *r, const uint8_t *in, size_t row, int32_t *sums, uint8_t *out)
{
    for (int32_t y = 0; y < r->size; y++, out += row) {
        const uint8_t *from = in + (size_t)r->first[y] * row;
        for (size_t x = 0; x < row; x++)
            sums[x] = 1 << (PRECISION_BITS - 1);
        for (int32_t i = 0; i < r->count[y]; i++, from += row) {
            int32_t weight = r->weights[(size_t)y * (size_t)r->taps + (size_t)i];
            for (size_t x = 0; x < row; x++)
                sums[x] += from[x] * weight;
        }
        for (size_t x = 0; x < row; x++)
            out[x] = to_byte(sums[x]);
    }
}

static zimage_status resize_width(const zi_pixels *in, int32_t width, zi_pixels *out, zimage_error *error)
{
    resample r = {0};
    *out = (zi_pixels){0};
    zimage_status status = resample_make(&r, in->width, width, error);
    if (status == ZIMAGE_OK)
        status = zi_pixels_new(width, in->height, in->channels, out, error);
    if (status == ZIMAGE_OK)
        resize_rows(&r, in->data, in->width, in->height, in->channels, out->data);
    resample_free(&r);
    return status;
}

static zimage_status resize_height(const zi_pixels *in, int32_t height, zi_pixels *out, zimage_error *error)
{
    resample r = {0};
    size_t row = (size_t)in->width * (size_t)in->channels;
    int32_t *sums = malloc(row * sizeof *sums);
    *out = (zi_pixels){0};
    zimage_status status = sums ? resample_make(&r, in->height, height, error)
                                : zi_fail_memory(error, "a row of a resized image", row * sizeof *sums);
    if (status == ZIMAGE_OK)
        status = zi_pixels_new(in->width, height, in->channels, out, error);
    if (status == ZIMAGE_OK)
        resize_columns(&r, in->data, row, sums, out->data);
    resample_free(&r);
    free(sums);
    return status;
}

static zimage_status copy(const zi_pixels *in, zi_pixels *out, zimage_error *error)
{
    ZI_TRY(zi_pixels_new(in->width, in->height, in->channels, out, error));
    memcpy(out->data, in->data, (size_t)in->width * (size_t)in->height * (size_t)in->channels);
    return ZIMAGE_OK;
}

/* Which direction goes first shows in the last bit. Pillow 13.0 begins with the height if it shrinks by more than twice
 * the pixels that the width loses; earlier versions always begin with the width. */
static int height_goes_first(const zi_pixels *in, int32_t width, int32_t height)
{
    int64_t fewer_rows = (int64_t)in->height - height, fewer_columns = (int64_t)in->width - width;
    return fewer_rows > 0 && fewer_rows > 2 * fewer_columns;
}

zimage_status zi_resize_lanczos(const zi_pixels *in, int32_t width, int32_t height, zi_pixels *out, zimage_error *error)
{
    zi_pixels middle;
    *out = (zi_pixels){0};
    if (width < 1 || height < 1)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "size: %dx%d, expected at least 1x1", width, height);
    if (width == in->width && height == in->height)
        return copy(in, out, error);
    if (height == in->height)
        return resize_width(in, width, out, error);
    if (width == in->width)
        return resize_height(in, height, out, error);
    int height_first = height_goes_first(in, width, height);
    ZI_TRY(height_first ? resize_height(in, height, &middle, error) : resize_width(in, width, &middle, error));
    zimage_status status =
        height_first ? resize_width(&middle, width, out, error) : resize_height(&middle, height, out, error);
    zi_pixels_free(&middle);
    return status;
}

/* ---- grey -------------------------------------------------------------------------------------------------------- */

zimage_status zi_to_luma(const zi_pixels *in, zi_pixels *out, zimage_error *error)
{
    *out = (zi_pixels){0};
    if (in->channels == 1)
        return copy(in, out, error);
    ZI_TRY(zi_pixels_new(in->width, in->height, 1, out, error));
    size_t count = (size_t)in->width * (size_t)in->height;
    for (size_t i = 0; i < count; i++) { /* the weights of ITU-R BT.601 times 65536: Pillow's L24 of Convert.c */
        const uint8_t *rgb = in->data + 3 * i;
        out->data[i] = (uint8_t)((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
    }
    return ZIMAGE_OK;
}
