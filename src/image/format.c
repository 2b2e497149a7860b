#include "image/format.h"

#include <string.h>
#include <strings.h>

static const zi_image_format *const formats[] = {
    [ZIMAGE_FORMAT_PNG] = &zi_format_png,
    [ZIMAGE_FORMAT_JPEG] = &zi_format_jpeg,
    [ZIMAGE_FORMAT_WEBP] = &zi_format_webp,
};

#define FORMATS (sizeof formats / sizeof(formats[0]))

const zi_image_format *zi_format_at(zimage_format format)
{
    return (unsigned)format < FORMATS ? formats[format] : NULL;
}

int zimage_format_of_path(const char *path, zimage_format *format)
{
    const char *slash = path ? strrchr(path, '/') : NULL, *name = slash ? slash + 1 : path;
    const char *dot = name ? strrchr(name, '.') : NULL;
    if (!dot || dot == name)
        return 0;
    for (size_t i = 0; i < FORMATS; i++)
        for (const char *const *extension = formats[i]->extensions; *extension; extension++)
            if (!strcasecmp(dot, *extension)) {
                if (format)
                    *format = (zimage_format)i;
                return 1;
            }
    return 0;
}

/* ---- recognising ------------------------------------------------------------------------------------------------- */

/* Files that are often taken for ours. */
static const struct {
    size_t at;
    const char *bytes;
    const char *title;
} strangers[] = {
    {0, "GIF8", "a GIF image"},       {0, "BM", "a BMP image"},           {0, "II*", "a TIFF image"},
    {0, "MM", "a TIFF image"},        {4, "ftypavi", "an AVIF image"},    {4, "ftyphe", "a HEIC image"},
    {4, "ftypmif1", "a HEIF image"},  {0, "\xff\x0a", "a JPEG XL image"}, {4, "JXL ", "a JPEG XL image"},
    {4, "jP  ", "a JPEG 2000 image"}, {0, "%PDF", "a PDF document"},      {0, "<svg", "an SVG drawing"},
};

static const char *name_stranger(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        size_t length = strlen(strangers[i].bytes), at = strangers[i].at;
        if (size >= at + length && !memcmp(data + at, strangers[i].bytes, length))
            return strangers[i].title;
    }
    return "no image of a kind that zimage reads";
}

zimage_status zi_format_recognise(const uint8_t *data, size_t size, const zi_image_format **format, zimage_error *error)
{
    for (size_t i = 0; i < FORMATS; i++)
        if (formats[i]->recognise(data, size)) {
            *format = formats[i];
            return ZIMAGE_OK;
        }
    if (size == 0)
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, "the file is empty, expected a PNG, JPEG or WebP image");
    return zi_fail(error, ZIMAGE_ERROR_FORMAT, "this is %s, expected a PNG, JPEG or WebP image",
                   name_stranger(data, size));
}

zimage_status zi_fail_too_large(zimage_error *error, uint64_t width, uint64_t height, uint64_t max_pixels)
{
    return zi_fail(error, ZIMAGE_ERROR_FORMAT, "the image has %llux%llu pixels, expected at most %llu pixels",
                   (unsigned long long)width, (unsigned long long)height, (unsigned long long)max_pixels);
}
