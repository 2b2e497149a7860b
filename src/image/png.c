/* PNG files, with libpng. */
#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "image/format.h"

/* ---- libpng's callbacks ------------------------------------------------------------------------------------------ */

/* Shared by the callbacks of libpng: its error handler, and the functions that write and read. */
typedef struct png_stream {
    char reason[128];    /* the message of libpng */
    int out_of_memory;   /* 1: that is the reason */
    zi_bytes *out;       /* output */
    size_t capacity;     /* of out->data */
    const uint8_t *data; /* input */
    size_t size, place;
} png_stream;

static void on_error(png_structp png, png_const_charp message)
{
    png_stream *stream = png_get_error_ptr(png);
    snprintf(stream->reason, sizeof stream->reason, "%s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

/* libpng's own allocations: it reports a failed one in many words, or as other errors. */
static png_voidp allocate(png_structp png, png_alloc_size_t size)
{
    void *memory = malloc(size);
    if (!memory)
        ((png_stream *)png_get_mem_ptr(png))->out_of_memory = 1;
    return memory;
}

static void release(png_structp png, png_voidp memory)
{
    free(memory);
}

/* Jumps to setjmp, as png_error does. */
static void fail_memory(png_structp png)
{
    png_stream *stream = png_get_error_ptr(png);
    stream->out_of_memory = 1;
    png_error(png, "out of memory");
}

static void write_bytes(png_structp png, png_bytep bytes, size_t count)
{
    png_stream *stream = png_get_io_ptr(png);
    zi_bytes *out = stream->out;
    if (out->size + count > stream->capacity) {
        size_t capacity = 2 * stream->capacity + count;
        uint8_t *data = realloc(out->data, capacity);
        if (!data)
            fail_memory(png);
        out->data = data;
        stream->capacity = capacity;
    }
    memcpy(out->data + out->size, bytes, count);
    out->size += count;
}

static void flush_bytes(png_structp png)
{
    (void)png; /* the output is memory */
}

static void read_bytes(png_structp png, png_bytep bytes, size_t count)
{
    png_stream *stream = png_get_io_ptr(png);
    if (count > stream->size - stream->place)
        png_error(png, "the data ends early");
    memcpy(bytes, stream->data + stream->place, count);
    stream->place += count;
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

static int is_ascii(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text >= 0x80)
            return 0;
    return 1;
}

/* Fills the texts as libpng wants them. tEXt is Latin-1, so a text that is not ASCII becomes iTXt, which is UTF-8. */
static void fill_texts(png_text *out, const zimage_text *texts, size_t count)
{
    memset(out, 0, count * sizeof *out);
    for (size_t i = 0; i < count; i++) {
        int plain = is_ascii(texts[i].value);
        out[i].compression = plain ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
        out[i].key = (png_charp)texts[i].key;
        out[i].text = (png_charp)texts[i].value;
        if (plain)
            out[i].text_length = strlen(texts[i].value);
        else
            out[i].itxt_length = strlen(texts[i].value);
    }
}

static const uint8_t *row_of(const zi_picture *image, int32_t y)
{
    size_t place = (size_t)y * (size_t)image->width;
    return image->rgba ? image->rgba + 4 * place : image->rgb + 3 * place;
}

/* 0: libpng failed and has jumped back here. No local variable of this function changes after setjmp. */
static int write_png(png_structp png, png_infop info, png_stream *stream, const zi_picture *image, png_text *texts)
{
    if (setjmp(png_jmpbuf(png)))
        return 0;
    png_set_write_fn(png, stream, write_bytes, flush_bytes);
    png_set_IHDR(png, info, (png_uint_32)image->width, (png_uint_32)image->height, 8,
                 image->rgba ? PNG_COLOR_TYPE_RGB_ALPHA : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_sRGB(png, info, PNG_sRGB_INTENT_PERCEPTUAL);
    if (image->text_count)
        png_set_text(png, info, texts, (int)image->text_count);
    png_write_info(png, info);
    for (int32_t y = 0; y < image->height; y++)
        png_write_row(png, row_of(image, y));
    png_write_end(png, info);
    return 1;
}

static zimage_status encode(const zi_picture *image, zi_bytes *out, zimage_error *error)
{
    png_stream stream = {.out = out};
    size_t bytes = (image->text_count ? image->text_count : 1) * sizeof(png_text);
    png_text *texts = malloc(bytes);
    if (!texts)
        return zi_fail_memory(error, "PNG text", bytes);
    fill_texts(texts, image->texts, image->text_count);
    png_structp png =
        png_create_write_struct_2(PNG_LIBPNG_VER_STRING, &stream, on_error, on_warning, &stream, allocate, release);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    zimage_status status = ZIMAGE_OK;
    if (!info)
        status = zi_fail_memory(error, "the PNG writer", 0);
    else if (!write_png(png, info, &stream, image, texts))
        status = stream.out_of_memory
                     ? zi_fail_memory(error, "a PNG file", 0)
                     : zi_fail(error, ZIMAGE_ERROR_FILE, "the PNG can't be written: %s", stream.reason);
    png_destroy_write_struct(&png, &info);
    free(texts);
    return status;
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

/* What read_png fills. It lies outside of read_png, because libpng may jump out of that function. */
typedef struct png_result {
    png_uint_32 width, height;
    uint64_t max_pixels;
    int too_large;
    zi_pixels *pixels;
    png_bytep *rows;
} png_result;

/*
 * Makes libpng skip the chunks that do not change pixels: texts, profiles, palettes that are only suggested. Otherwise
 * libpng allocates what such a chunk says that it holds, up to 2 GiB, before it reads a byte of it, and decompresses
 * texts.
 */
static void skip_metadata(png_structp png)
{
    static const png_byte names[] = "tEXt\0zTXt\0iTXt\0iCCP\0sPLT\0eXIf\0hIST\0pCAL\0sCAL\0oFFs\0pHYs\0tIME";
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, names, sizeof names / 5);
}

/* Makes libpng convert every kind of PNG to 8-bit RGB or RGBA. */
static void convert_to_8_bits(png_structp png, png_infop info)
{
    png_set_expand(png);
    png_set_scale_16(png);
    png_set_gray_to_rgb(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
}

static void allocate_pixels(png_structp png, png_infop info, png_result *result)
{
    int channels = png_get_channels(png, info);
    size_t row = png_get_rowbytes(png, info);
    if ((channels != 3 && channels != 4) || row != (size_t)result->width * (size_t)channels)
        png_error(png, "a colour type that is not known");
    if (zi_pixels_new((int32_t)result->width, (int32_t)result->height, channels, result->pixels, NULL) != ZIMAGE_OK)
        fail_memory(png);
    result->rows = malloc(result->height * sizeof *result->rows);
    if (!result->rows)
        fail_memory(png);
    for (png_uint_32 y = 0; y < result->height; y++)
        result->rows[y] = result->pixels->data + y * row;
}

/* 0: libpng failed and has jumped back here, or the image is too large. */
static int read_png(png_structp png, png_infop info, png_stream *stream, png_result *result)
{
    if (setjmp(png_jmpbuf(png)))
        return 0;
    png_set_read_fn(png, stream, read_bytes);
    skip_metadata(png);
    png_read_info(png, info);
    result->width = png_get_image_width(png, info);
    result->height = png_get_image_height(png, info);
    result->too_large = (uint64_t)result->width * result->height > result->max_pixels;
    if (result->too_large)
        return 0;
    convert_to_8_bits(png, info);
    allocate_pixels(png, info, result);
    png_read_image(png, result->rows);
    png_read_end(png, NULL);
    return 1;
}

static zimage_status explain(const png_stream *stream, const png_result *result, zimage_error *error)
{
    if (stream->out_of_memory)
        return zi_fail_memory(error, "a PNG image", (size_t)result->width * result->height * 4);
    if (result->too_large)
        return zi_fail_too_large(error, result->width, result->height, result->max_pixels);
    return zi_fail(error, ZIMAGE_ERROR_FORMAT, "the PNG can't be read: %s", stream->reason);
}

static zimage_status decode(const uint8_t *data, size_t size, uint64_t max_pixels, zi_pixels *pixels,
                            zimage_error *error)
{
    png_stream stream = {.data = data, .size = size};
    png_result result = {.max_pixels = max_pixels, .pixels = pixels};
    png_structp png =
        png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &stream, on_error, on_warning, &stream, allocate, release);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    zimage_status status = ZIMAGE_OK;
    if (!info)
        status = zi_fail_memory(error, "the PNG reader", 0);
    else if (!read_png(png, info, &stream, &result))
        status = explain(&stream, &result, error);
    png_destroy_read_struct(&png, &info, NULL);
    free(result.rows);
    return status;
}

/* ---- chunks ------------------------------------------------------------------------------------------------------ */

#define SIGNATURE_BYTES 8
#define CHUNK_BYTES     12 /* of a chunk around its data: length, name, checksum */

static int recognise(const uint8_t *data, size_t size)
{
    return size >= SIGNATURE_BYTES && png_sig_cmp(data, 0, SIGNATURE_BYTES) == 0;
}

static zi_piece_kind kind_of(const char *name)
{
    return !strcmp(name, "tEXt") || !strcmp(name, "iTXt") ? ZI_PIECE_TEXT
           : !strcmp(name, "eXIf")                        ? ZI_PIECE_EXIF
           : !strcmp(name, "iCCP")                        ? ZI_PIECE_PROFILE
                                                          : ZI_PIECE_OTHER;
}

/* A piece with a wrong checksum is ZI_PIECE_OTHER. Those of pixels, which may be large, are not checked here. */
static int next_piece(const uint8_t *data, size_t size, size_t *place, zi_piece *piece)
{
    if (*place == 0)
        *place = SIGNATURE_BYTES;
    if (size < *place || size - *place < CHUNK_BYTES)
        return 0;
    const uint8_t *chunk = data + *place;
    size_t length = zi_big_endian(chunk);
    if (length > PNG_UINT_31_MAX || length > size - *place - CHUNK_BYTES)
        return 0;
    *place += CHUNK_BYTES + length;
    *piece = (zi_piece){.data = chunk + 8, .size = length};
    memcpy(piece->name, chunk + 4, 4);
    piece->kind = kind_of(piece->name);
    if (piece->kind != ZI_PIECE_OTHER &&
        crc32(crc32(0, NULL, 0), chunk + 4, (uInt)(4 + length)) != zi_big_endian(chunk + 8 + length))
        piece->kind = ZI_PIECE_OTHER;
    return 1;
}

const zi_image_format zi_format_png = {
    .title = "PNG",
    .extensions = {".png"},
    .max_side = INT32_MAX,
    .is_lossless = 1,
    .recognise = recognise,
    .encode = encode,
    .decode = decode,
    .next_piece = next_piece,
};
