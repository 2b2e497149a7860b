/* Images from files and encoded data, and to them. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/output.h"
#include "base/sized.h"
#include "image/image.h"
#include "image/metadata.h"
#include "image/texts.h"

#define MAX_BYTES   ((uint64_t)1 << 29) /* of a file, unless the caller says more */
#define MOST_PIXELS ((uint64_t)1 << 40) /* whatever the caller says: their bytes fit size_t */
#define KEY_MAX     79                  /* PNG */

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

static zimage_status take_params(zimage_decode_params *own, const zimage_decode_params *params, zimage_error *error)
{
    ZI_TRY(ZI_TAKE(own, params, zimage_decode_params, log_user, error));
    if (own->max_pixels == 0)
        own->max_pixels = ZI_IMAGE_PIXELS;
    if (own->max_pixels > MOST_PIXELS)
        own->max_pixels = MOST_PIXELS;
    if (own->max_bytes == 0)
        own->max_bytes = MAX_BYTES;
    if (!own->background)
        own->background = zi_white;
    return ZIMAGE_OK;
}

static void warn_of_profile(const zimage_decode_params *params, const char *name, const zi_image_metadata *metadata)
{
    const zi_log log = {params->log, params->log_user};
    const char *profile = metadata->profile_name;
    if (metadata->has_other_profile)
        zi_warn(&log, "%s%sits colour profile%s%s%s is ignored; its colours are taken for sRGB", name ? name : "",
                name ? ": " : "", *profile ? " \"" : "", profile, *profile ? "\"" : "");
}

/* name: of the file, for the warning; NULL: it has none. */
static zimage_status decode(const uint8_t *data, size_t size, const char *name, const zimage_decode_params *params,
                            zimage_image **image, zimage_error *error)
{
    const zi_image_format *format;
    zi_image_metadata metadata;
    zi_pixels pixels = {0};
    if (size > params->max_bytes)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, "the file has %zu bytes, expected at most %llu", size,
                       (unsigned long long)params->max_bytes);
    ZI_TRY(zi_format_recognise(data, size, &format, error));
    zimage_status status = format->decode(data, size, params->max_pixels, &pixels, error);
    if (status == ZIMAGE_OK) {
        zi_image_metadata_read(format, data, size, &metadata);
        warn_of_profile(params, name, &metadata);
        status = zi_pixels_turn(&pixels, metadata.orientation, error);
    }
    if (status == ZIMAGE_OK)
        status = pixels.channels == 3
                     ? zi_image_take(&pixels, image, error)
                     : zi_image_copy(&pixels, (size_t)pixels.width * 4, params->background, image, error);
    zi_pixels_free(&pixels);
    return status;
}

zimage_status zimage_image_decode_with(const uint8_t *data, size_t size, const zimage_decode_params *params,
                                       zimage_image **image, zimage_error *error)
{
    zimage_decode_params own;
    if (!image)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "image: NULL, expected where to put the image");
    *image = NULL;
    if (!data)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "data: NULL, expected the bytes of an image file");
    ZI_TRY(take_params(&own, params, error));
    return decode(data, size, NULL, &own, image, error);
}

zimage_status zimage_image_decode(const uint8_t *data, size_t size, uint64_t max_pixels, zimage_image **image,
                                  zimage_error *error)
{
    const zimage_decode_params params = {.struct_size = sizeof params, .max_pixels = max_pixels};
    return zimage_image_decode_with(data, size, &params, image, error);
}

zimage_status zimage_image_read(const char *path, const zimage_decode_params *params, zimage_image **image,
                                zimage_error *error)
{
    zimage_decode_params own;
    zimage_error reason = ZIMAGE_ERROR_INIT;
    char *data;
    size_t size;
    if (!image)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "image: NULL, expected where to put the image");
    *image = NULL;
    if (!path)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "path: NULL, expected the path of an image file");
    ZI_TRY(take_params(&own, params, error));
    size_t limit = own.max_bytes < SIZE_MAX ? (size_t)own.max_bytes : SIZE_MAX - 1;
    ZI_TRY(zi_read_file(path, limit, &data, &size, error));
    zimage_status status = decode((const uint8_t *)data, size, path, &own, image, &reason);
    free(data);
    return status == ZIMAGE_OK ? status : zi_fail(error, status, "%s: %s", path, reason.message);
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

static zimage_status check_texts(const zimage_text *texts, size_t count, zimage_error *error)
{
    if (count > 0 && !texts)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "texts: NULL, expected %zu of them", count);
    for (size_t i = 0; i < count; i++)
        if (!texts[i].key || !texts[i].value || !*texts[i].key || strlen(texts[i].key) > KEY_MAX)
            return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "texts[%zu]: expected a key of 1 to %d characters and a value",
                           i, KEY_MAX);
    return ZIMAGE_OK;
}

static zimage_status check_packet(const zi_image_format *format, const zimage_text *texts, size_t count,
                                  zimage_error *error)
{
    zi_bytes packet;
    ZI_TRY(zi_texts_to_xmp(texts, count, &packet, error));
    free(packet.data);
    if (packet.size <= format->max_text_bytes)
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                   "the texts (prompt and settings) take %zu bytes, expected at most %zu in a %s file; PNG and WebP "
                   "have no such limit",
                   packet.size, format->max_text_bytes, format->title);
}

/* Whether a format can hold an image of that size with these texts. */
static zimage_status check(const zi_image_format *format, int32_t width, int32_t height, const zimage_text *texts,
                           size_t count, zimage_error *error)
{
    ZI_TRY(check_texts(texts, count, error));
    if (width > format->max_side || height > format->max_side)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "the image has %dx%d pixels, expected at most %d a side in a %s file", width, height,
                       format->max_side, format->title);
    return format->max_text_bytes && count ? check_packet(format, texts, count, error) : ZIMAGE_OK;
}

static zimage_status fail_format(zimage_error *error, zimage_format format)
{
    return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "format: %d, expected 0 (png), 1 (jpeg) or 2 (webp)", (int)format);
}

zimage_status zimage_format_check(zimage_format format, int32_t width, int32_t height, const zimage_text *texts,
                                  size_t text_count, zimage_error *error)
{
    const zi_image_format *known = zi_format_at(format);
    return known ? check(known, width, height, texts, text_count, error) : fail_format(error, format);
}

/* A picture with its alpha. */
static zimage_status encode_transparent(const zi_image_format *format, const zimage_image *image, zi_picture *picture,
                                        const uint8_t background[3], zi_bytes *out, zimage_error *error)
{
    uint8_t *rgba;
    if (format != &zi_format_png)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "alpha_over: expected NULL for a %s file, which is opaque",
                       format->title);
    ZI_TRY(zi_image_unblend(image, background, &rgba, error));
    picture->rgba = rgba;
    zimage_status status = format->encode(picture, out, error);
    free(rgba);
    return status;
}

static zimage_status encode(const zimage_image *image, zimage_format format, const zimage_save_params *params,
                            zi_bytes *out, zimage_error *error)
{
    const zi_image_format *known = zi_format_at(format);
    zi_picture picture = {.width = zimage_image_width(image),
                          .height = zimage_image_height(image),
                          .rgb = zimage_image_pixels(image),
                          .quality = params->quality,
                          .texts = params->texts,
                          .text_count = params->text_count};
    if (!known)
        return fail_format(error, format);
    if (params->quality < 0 || params->quality > 100)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "quality: %d, expected 1 to 100", params->quality);
    if (params->quality && known->is_lossless)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "quality: %d, expected 0 for a %s file, which loses nothing",
                       params->quality, known->title);
    ZI_TRY(check(known, picture.width, picture.height, picture.texts, picture.text_count, error));
    if (params->alpha_over && zimage_image_alpha(image))
        return encode_transparent(known, image, &picture, params->alpha_over, out, error);
    return known->encode(&picture, out, error);
}

zimage_status zimage_image_encode_with(const zimage_image *image, zimage_format format,
                                       const zimage_save_params *params, uint8_t **data, size_t *size,
                                       zimage_error *error)
{
    zimage_save_params own;
    zi_bytes out = {0};
    if (data)
        *data = NULL;
    if (size)
        *size = 0;
    if (!image || !data || !size)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "image, data and size: NULL, expected all three");
    ZI_TRY(ZI_TAKE(&own, params, zimage_save_params, is_new, error));
    zimage_status status = encode(image, format, &own, &out, error);
    if (status != ZIMAGE_OK) {
        free(out.data);
        return status;
    }
    /* Encoders take more memory than they need at the end, and a caller may keep the file for long. */
    uint8_t *exact = realloc(out.data, out.size);
    *data = exact ? exact : out.data;
    *size = out.size;
    return ZIMAGE_OK;
}

zimage_status zimage_image_encode(const zimage_image *image, zimage_format format, const zimage_text *texts,
                                  size_t text_count, uint8_t **data, size_t *size, zimage_error *error)
{
    const zimage_save_params params = {.struct_size = sizeof params, .texts = texts, .text_count = text_count};
    return zimage_image_encode_with(image, format, &params, data, size, error);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* The format of an output by its extension. What is written directly (a device, a pipe) is PNG without one. */
static zimage_status choose_format(const zi_output *output, const char *path, zimage_format *format,
                                   zimage_error *error)
{
    if (zimage_format_of_path(path, format))
        return ZIMAGE_OK;
    if (output->name)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "%s: the format is not known, expected a name ending in .png, .jpg, .jpeg or .webp",
                       output->path);
    *format = ZIMAGE_FORMAT_PNG;
    return ZIMAGE_OK;
}

/* Encodes and writes to an open output, which stays open. */
static zimage_status write_output(zi_output *output, const zimage_image *image, const char *path,
                                  const zimage_save_params *params, zimage_error *error)
{
    zimage_format format;
    zimage_error reason = ZIMAGE_ERROR_INIT;
    zi_bytes out = {0};
    ZI_TRY(choose_format(output, path, &format, error));
    zimage_status status = encode(image, format, params, &out, &reason);
    if (status != ZIMAGE_OK)
        zi_fail(error, status, "%s: %s", output->path, reason.message);
    else
        zi_output_write(output, out.data, out.size); /* zi_output_commit says whether it failed */
    free(out.data);
    return status;
}

zimage_status zimage_image_save(const zimage_image *image, const char *path, const zimage_save_params *params,
                                zimage_error *error)
{
    zimage_save_params own;
    zi_output output;
    if (!image || !path)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "image and path: NULL, expected both");
    ZI_TRY(ZI_TAKE(&own, params, zimage_save_params, is_new, error));
    ZI_TRY(check_texts(own.texts, own.text_count, error));
    const zi_place place = {.path = path, .folder = own.folder, .is_new = own.is_new != 0};
    ZI_TRY(zi_output_open_at(&output, &place, error));
    zimage_status status = write_output(&output, image, path, &own, error);
    if (status == ZIMAGE_OK)
        return zi_output_commit(&output, error);
    zi_output_abandon(&output);
    return status;
}

zimage_status zimage_image_write(const zimage_image *image, const char *path, const zimage_text *texts,
                                 size_t text_count, zimage_error *error)
{
    const zimage_save_params params = {.struct_size = sizeof params, .texts = texts, .text_count = text_count};
    return zimage_image_save(image, path, &params, error);
}

zimage_status zimage_image_write_beneath(const zimage_image *image, const char *folder, const char *name,
                                         const zimage_text *texts, size_t text_count, zimage_error *error)
{
    const zimage_save_params params = {
        .struct_size = sizeof params, .texts = texts, .text_count = text_count, .folder = folder};
    if (!folder)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "folder: NULL, expected a folder");
    return zimage_image_save(image, name, &params, error);
}

zimage_status zimage_image_write_new(const zimage_image *image, const char *folder, const char *path,
                                     const zimage_text *texts, size_t text_count, zimage_error *error)
{
    const zimage_save_params params = {
        .struct_size = sizeof params, .texts = texts, .text_count = text_count, .folder = folder, .is_new = 1};
    return zimage_image_save(image, path, &params, error);
}
