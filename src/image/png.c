#include "image/png.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

typedef struct png_sink {
    FILE *file;
    char reason[128]; /* libpng's own words */
} png_sink;

static void on_png_error(png_structp png, png_const_charp message)
{
    png_sink *sink = png_get_error_ptr(png);
    snprintf(sink->reason, sizeof sink->reason, "%s", message);
    png_longjmp(png, 1);
}

static void on_png_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static int is_ascii(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text >= 0x80)
            return 0;
    return 1;
}

/* Fills libpng's view of the texts: tEXt holds Latin-1 only, so anything beyond ASCII goes to iTXt, which is UTF-8. */
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

/* Everything between setjmp and a possible longjmp lives in this frame's callees or is volatile-free by construction. */
static int encode(png_structp png, png_infop info, FILE *file, int32_t width, int32_t height, const uint8_t *rgb,
                  png_text *texts, size_t text_count)
{
    if (setjmp(png_jmpbuf(png)))
        return 0;
    png_init_io(png, file);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_sRGB(png, info, PNG_sRGB_INTENT_PERCEPTUAL);
    if (text_count)
        png_set_text(png, info, texts, (int)text_count);
    png_write_info(png, info);
    for (int32_t y = 0; y < height; y++)
        png_write_row(png, rgb + (size_t)y * (size_t)width * 3);
    png_write_end(png, info);
    return 1;
}

static zimage_status write_to(zi_output *output, int32_t width, int32_t height, const uint8_t *rgb,
                              const zimage_text *texts, size_t text_count, zimage_error *error)
{
    png_sink sink = {output->file, ""};
    png_text *chunks = calloc(text_count ? text_count : 1, sizeof *chunks);
    if (!chunks)
        return zi_fail_memory(error, "PNG text", text_count * sizeof *chunks);
    fill_texts(chunks, texts, text_count);
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &sink, on_png_error, on_png_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    zimage_status status = ZIMAGE_OK;
    if (!info)
        status = zi_fail_memory(error, "the PNG writer", 0);
    else if (!encode(png, info, output->file, width, height, rgb, chunks, text_count))
        status = zi_fail(error, ZIMAGE_ERROR_FILE, "%s: can't write the PNG: %s", output->path, sink.reason);
    png_destroy_write_struct(&png, &info);
    free(chunks);
    return status;
}

zimage_status zi_png_write(const char *path, int32_t width, int32_t height, const uint8_t *rgb,
                           const zimage_text *texts, size_t text_count, zimage_error *error)
{
    zi_output output;
    ZI_TRY(zi_output_open(&output, path, error));
    zimage_status status = write_to(&output, width, height, rgb, texts, text_count, error);
    if (status != ZIMAGE_OK) {
        zi_output_abandon(&output);
        return status;
    }
    return zi_output_commit(&output, error);
}
