/* WebP files, with libwebp. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <webp/decode.h>
#include <webp/encode.h>

#include "image/format.h"
#include "image/texts.h"

#define LOSSLESS_EFFORT 6 /* 0 .. 9, libwebp's own default */

/* ---- RIFF -------------------------------------------------------------------------------------------------------- */

#define HEADER_BYTES 12 /* "RIFF", the bytes that follow, "WEBP" */
#define CHUNK_BYTES  8  /* before a chunk's data: its name, its size */

static int recognise(const uint8_t *data, size_t size)
{
    return size >= HEADER_BYTES && !memcmp(data, "RIFF", 4) && !memcmp(data + 8, "WEBP", 4);
}

/* Data of an odd size has a zero behind it. */
static size_t padded(size_t size)
{
    return size + (size & 1);
}

static int next_piece(const uint8_t *data, size_t size, size_t *place, zi_piece *piece)
{
    static const struct {
        const char *name;
        zi_piece_kind kind;
    } kinds[] = {{"EXIF", ZI_PIECE_EXIF}, {"ICCP", ZI_PIECE_PROFILE}, {"XMP ", ZI_PIECE_XMP}};
    size_t at = *place ? *place : HEADER_BYTES;
    if (size < at || size - at < CHUNK_BYTES)
        return 0;
    size_t length = zi_little_endian(data + at + 4);
    if (length > size - at - CHUNK_BYTES)
        return 0;
    *piece = (zi_piece){.data = data + at + CHUNK_BYTES, .size = length};
    memcpy(piece->name, data + at, 4);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(piece->name, kinds[i].name))
            piece->kind = kinds[i].kind;
    *place = at + CHUNK_BYTES + padded(length);
    return 1;
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

static void put_little_endian(uint8_t *bytes, uint32_t value, int count)
{
    for (int i = 0; i < count; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
}

static uint8_t *put_chunk(uint8_t *at, const char *name, size_t size)
{
    memcpy(at, name, 4);
    put_little_endian(at + 4, (uint32_t)size, 4);
    return at + CHUNK_BYTES;
}

static uint8_t *put_data(uint8_t *at, const char *name, const zi_bytes *data)
{
    if (data->size == 0)
        return at;
    at = put_chunk(at, name, data->size);
    memcpy(at, data->data, data->size);
    return at + padded(data->size);
}

static size_t chunk_bytes(const zi_bytes *data)
{
    return data->size ? CHUNK_BYTES + padded(data->size) : 0;
}

/*
 * A file with EXIF and a packet of XMP, made of libwebp's, which has the image in one chunk: the chunk VP8X, which says
 * what follows and how large the image is, that chunk, EXIF, and the packet (RFC 9649).
 */
static zimage_status add_texts(const zi_picture *picture, const WebPMemoryWriter *image, const zi_bytes *exif,
                               const zi_bytes *xmp, zi_bytes *out, zimage_error *error)
{
    enum { EXTENDED_BYTES = 10, HAS_XMP = 4, HAS_EXIF = 8 };
    size_t rest = image->size - HEADER_BYTES, size = HEADER_BYTES + CHUNK_BYTES + EXTENDED_BYTES + rest;
    size += chunk_bytes(exif) + chunk_bytes(xmp);
    out->data = calloc(size, 1);
    if (!out->data)
        return zi_fail_memory(error, "a WebP file", size);
    out->size = size;
    uint8_t *at = put_chunk(out->data, "RIFF", size - CHUNK_BYTES);
    static const uint8_t form[4] = {'W', 'E', 'B', 'P'};
    memcpy(at, form, sizeof form);
    at = put_chunk(at + sizeof form, "VP8X", EXTENDED_BYTES);
    at[0] = HAS_XMP | (exif->size ? HAS_EXIF : 0);
    put_little_endian(at + 4, (uint32_t)picture->width - 1, 3);
    put_little_endian(at + 7, (uint32_t)picture->height - 1, 3);
    memcpy(at + EXTENDED_BYTES, image->mem + HEADER_BYTES, rest);
    put_data(put_data(at + EXTENDED_BYTES + rest, "EXIF", exif), "XMP ", xmp);
    return ZIMAGE_OK;
}

static zimage_status fail_encoding(zimage_error *error, WebPEncodingError code)
{
    if (code == VP8_ENC_ERROR_OUT_OF_MEMORY || code == VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY ||
        code == VP8_ENC_ERROR_BAD_WRITE) /* to memory */
        return zi_fail_memory(error, "a WebP file", 0);
    return zi_fail(error, ZIMAGE_ERROR_FILE, "the WebP can't be written: libwebp's error %d", (int)code);
}

/* Without a quality the file is lossless. A lossy WebP stores colours at half the resolution, so the slower and better
 * way to reduce them is taken. */
static int configure(WebPConfig *config, int quality)
{
    if (!WebPConfigInit(config))
        return 0;
    if (quality == 0)
        return WebPConfigLosslessPreset(config, LOSSLESS_EFFORT);
    config->quality = (float)quality;
    config->use_sharp_yuv = 1;
    return WebPValidateConfig(config);
}

static zimage_status encode_image(const zi_picture *picture, WebPMemoryWriter *out, zimage_error *error)
{
    WebPConfig config;
    WebPPicture webp;
    if (!configure(&config, picture->quality) || !WebPPictureInit(&webp))
        return zi_fail(error, ZIMAGE_ERROR_INTERNAL, "libwebp has another version than its headers");
    webp.width = picture->width;
    webp.height = picture->height;
    webp.use_argb = 1;
    webp.writer = WebPMemoryWrite;
    webp.custom_ptr = out;
    int encoded = WebPPictureImportRGB(&webp, picture->rgb, picture->width * 3) && WebPEncode(&config, &webp);
    zimage_status status = encoded ? ZIMAGE_OK : fail_encoding(error, webp.error_code);
    WebPPictureFree(&webp);
    return status;
}

static zimage_status copy_image(const WebPMemoryWriter *image, zi_bytes *out, zimage_error *error)
{
    out->data = malloc(image->size);
    if (!out->data)
        return zi_fail_memory(error, "a WebP file", image->size);
    memcpy(out->data, image->mem, image->size);
    out->size = image->size;
    return ZIMAGE_OK;
}

static zimage_status encode(const zi_picture *picture, zi_bytes *out, zimage_error *error)
{
    zi_bytes xmp = {0}, exif = {0};
    WebPMemoryWriter image;
    WebPMemoryWriterInit(&image);
    zimage_status status = encode_image(picture, &image, error);
    if (status == ZIMAGE_OK && picture->text_count)
        status = zi_texts_to_xmp(picture->texts, picture->text_count, &xmp, error);
    if (status == ZIMAGE_OK)
        status = zi_texts_to_exif(picture->texts, picture->text_count, UINT32_MAX, &exif, error);
    if (status == ZIMAGE_OK)
        status = xmp.size ? add_texts(picture, &image, &exif, &xmp, out, error) : copy_image(&image, out, error);
    free(xmp.data);
    free(exif.data);
    WebPMemoryWriterClear(&image);
    return status;
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

static zimage_status fail_decoding(zimage_error *error, VP8StatusCode code)
{
    /* libwebp 1.2 takes short memory for malformed data, libwebp 1.5 also the reverse. */
    static const char *const malformed_or_memory = "its data is malformed, or memory is short";
    const char *reasons[] = {
        [VP8_STATUS_BITSTREAM_ERROR] = malformed_or_memory,
        [VP8_STATUS_OUT_OF_MEMORY] = malformed_or_memory,
        [VP8_STATUS_USER_ABORT] = malformed_or_memory, /* after some failed allocations */
        [VP8_STATUS_UNSUPPORTED_FEATURE] = "it has a feature that libwebp does not support",
        [VP8_STATUS_SUSPENDED] = "the data ends early",
        [VP8_STATUS_NOT_ENOUGH_DATA] = "the data ends early",
    };
    const char *reason = (unsigned)code < sizeof reasons / sizeof *reasons ? reasons[code] : NULL;
    return zi_fail(error, ZIMAGE_ERROR_FORMAT, "the WebP can't be read: %s", reason ? reason : "it is malformed");
}

static zimage_status decode(const uint8_t *data, size_t size, uint64_t max_pixels, zi_pixels *pixels,
                            zimage_error *error)
{
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config))
        return zi_fail(error, ZIMAGE_ERROR_INTERNAL, "libwebp has another version than its headers");
    if (zi_little_endian(data + 4) > size - CHUNK_BYTES)
        return fail_decoding(error, VP8_STATUS_NOT_ENOUGH_DATA);
    VP8StatusCode code = WebPGetFeatures(data, size, &config.input);
    if (code != VP8_STATUS_OK)
        return fail_decoding(error, code);
    int32_t width = config.input.width, height = config.input.height;
    if (config.input.has_animation)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, "the WebP is animated, expected an image that does not move");
    if ((uint64_t)width * (uint64_t)height > max_pixels)
        return zi_fail_too_large(error, (uint64_t)width, (uint64_t)height, max_pixels);
    int channels = config.input.has_alpha ? 4 : 3;
    ZI_TRY(zi_pixels_new(width, height, channels, pixels, error));
    config.output.colorspace = channels == 4 ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = pixels->data;
    config.output.u.RGBA.stride = width * channels;
    config.output.u.RGBA.size = (size_t)width * (size_t)height * (size_t)channels;
    code = WebPDecode(data, size, &config);
    WebPFreeDecBuffer(&config.output);
    return code == VP8_STATUS_OK ? ZIMAGE_OK : fail_decoding(error, code);
}

const zi_image_format zi_format_webp = {
    .title = "WebP",
    .extensions = {".webp"},
    .max_side = WEBP_MAX_DIMENSION,
    .recognise = recognise,
    .encode = encode,
    .decode = decode,
    .next_piece = next_piece,
};
