#include "image/png.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

/* ---- libpng's callbacks ------------------------------------------------------------------------------------------ */

/* Shared by the callbacks of libpng: its error handler, and the functions that write and read. */
typedef struct png_stream {
    char reason[128];  /* the message of libpng */
    int out_of_memory; /* 1: that is the reason */
    zi_output *output; /* NULL: the output is data */
    uint8_t *data;     /* output, which the stream owns; or input */
    size_t size, capacity, place;
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
    if (stream->output) {
        if (!zi_output_write(stream->output, bytes, count))
            png_error(png, "write error"); /* zi_output_commit says why */
        return;
    }
    if (stream->size + count > stream->capacity) {
        size_t capacity = 2 * stream->capacity + count;
        uint8_t *data = realloc(stream->data, capacity);
        if (!data)
            fail_memory(png);
        stream->data = data;
        stream->capacity = capacity;
    }
    memcpy(stream->data + stream->size, bytes, count);
    stream->size += count;
}

static void flush_bytes(png_structp png)
{
    (void)png; /* zi_output_commit flushes */
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

/* 0: libpng failed and has jumped back here. No local variable of this function changes after setjmp. */
static int write_png(png_structp png, png_infop info, png_stream *stream, const zi_png_image *image, png_text *texts)
{
    if (setjmp(png_jmpbuf(png)))
        return 0;
    png_set_write_fn(png, stream, write_bytes, flush_bytes);
    png_set_IHDR(png, info, (png_uint_32)image->width, (png_uint_32)image->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_sRGB(png, info, PNG_sRGB_INTENT_PERCEPTUAL);
    if (image->text_count)
        png_set_text(png, info, texts, (int)image->text_count);
    png_write_info(png, info);
    for (int32_t y = 0; y < image->height; y++)
        png_write_row(png, image->rgb + (size_t)y * (size_t)image->width * 3);
    png_write_end(png, info);
    return 1;
}

/* where: the name of the output in messages. */
static zimage_status encode(const zi_png_image *image, png_stream *stream, const char *where, zimage_error *error)
{
    size_t bytes = (image->text_count ? image->text_count : 1) * sizeof(png_text);
    png_text *texts = malloc(bytes);
    if (!texts)
        return zi_fail_memory(error, "PNG text", bytes);
    fill_texts(texts, image->texts, image->text_count);
    png_structp png =
        png_create_write_struct_2(PNG_LIBPNG_VER_STRING, stream, on_error, on_warning, stream, allocate, release);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    zimage_status status = ZIMAGE_OK;
    if (!info)
        status = zi_fail_memory(error, "the PNG writer", 0);
    else if (!write_png(png, info, stream, image, texts))
        status = stream->out_of_memory
                     ? zi_fail_memory(error, "a PNG file", 0)
                     : zi_fail(error, ZIMAGE_ERROR_FILE, "%s: can't write the PNG: %s", where, stream->reason);
    png_destroy_write_struct(&png, &info);
    free(texts);
    return status;
}

zimage_status zi_png_write(const zi_place *place, const zi_png_image *image, zimage_error *error)
{
    zi_output output;
    ZI_TRY(zi_output_open_at(&output, place, error));
    png_stream stream = {.output = &output};
    zimage_status status = encode(image, &stream, output.path, error);
    if (status == ZIMAGE_OK || output.code != 0)
        return zi_output_commit(&output, error);
    zi_output_abandon(&output);
    return status;
}

zimage_status zi_png_encode(const zi_png_image *image, uint8_t **data, size_t *size, zimage_error *error)
{
    png_stream stream = {.output = NULL};
    zimage_status status = encode(image, &stream, "memory", error);
    if (status != ZIMAGE_OK) {
        free(stream.data);
        return status;
    }
    *data = stream.data;
    *size = stream.size;
    return ZIMAGE_OK;
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

/* What read_png fills. It lies outside of read_png, because libpng may jump out of that function. */
typedef struct png_result {
    png_uint_32 width, height;
    uint64_t max_pixels;
    int too_large;
    uint8_t *rgb;
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

/* Makes libpng convert every kind of PNG to 8-bit RGB, with alpha blended over white. */
static void convert_to_rgb8(png_structp png, png_infop info)
{
    png_color_16 white = {.red = 255, .green = 255, .blue = 255, .gray = 255};
    int has_alpha =
        (png_get_color_type(png, info) & PNG_COLOR_MASK_ALPHA) != 0 || png_get_valid(png, info, PNG_INFO_tRNS);
    png_set_expand(png);
    png_set_scale_16(png);
    png_set_gray_to_rgb(png);
    if (has_alpha)
        png_set_background(png, &white, PNG_BACKGROUND_GAMMA_SCREEN, 0, 1.0);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
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
    convert_to_rgb8(png, info);
    size_t row = (size_t)result->width * 3;
    if (png_get_rowbytes(png, info) != row)
        png_error(png, "a colour type that is not known");
    result->rgb = malloc(row * result->height);
    result->rows = malloc(result->height * sizeof *result->rows);
    if (!result->rgb || !result->rows)
        fail_memory(png);
    for (png_uint_32 y = 0; y < result->height; y++)
        result->rows[y] = result->rgb + y * row;
    png_read_image(png, result->rows);
    png_read_end(png, NULL);
    return 1;
}

static zimage_status explain(const png_stream *stream, const png_result *result, zimage_error *error)
{
    if (stream->out_of_memory)
        return zi_fail_memory(error, "a PNG file", (size_t)result->width * result->height * 3);
    if (result->too_large)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, "the image has %ux%u pixels, expected at most %llu pixels",
                       (unsigned)result->width, (unsigned)result->height, (unsigned long long)result->max_pixels);
    return zi_fail(error, ZIMAGE_ERROR_FORMAT, "the PNG can't be read: %s", stream->reason);
}

zimage_status zi_png_decode(const uint8_t *data, size_t size, uint64_t max_pixels, uint8_t **rgb, int32_t *width,
                            int32_t *height, zimage_error *error)
{
    png_stream stream = {.data = (uint8_t *)data, .size = size}; /* read only */
    png_result result = {.max_pixels = max_pixels};
    if (size < 8 || png_sig_cmp(data, 0, 8) != 0)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, "the data is no PNG image, the only kind that is supported");
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
    if (status != ZIMAGE_OK) {
        free(result.rgb);
        return status;
    }
    *rgb = result.rgb;
    *width = (int32_t)result.width;
    *height = (int32_t)result.height;
    return ZIMAGE_OK;
}
