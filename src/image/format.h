/*
 * The formats of image files: what each can do, in one table. Files come from strangers: no length in them is trusted,
 * and limits are checked before memory is allocated.
 */
#ifndef ZI_IMAGE_FORMAT_H
#define ZI_IMAGE_FORMAT_H

#include "image/pixels.h"

/* An image to encode. */
typedef struct zi_picture {
    int32_t width, height;
    const uint8_t *rgb;  /* [height][width][3] */
    const uint8_t *rgba; /* of PNG only, in place of rgb: [height][width][4]; NULL: the picture is opaque */
    int quality;         /* 1 .. 100; 0: the format's default */
    const zimage_text *texts;
    size_t text_count;
} zi_picture;

typedef struct zi_bytes {
    uint8_t *data; /* released with free() */
    size_t size;
} zi_bytes;

typedef enum zi_piece_kind {
    ZI_PIECE_OTHER,
    ZI_PIECE_EXIF,    /* data: a TIFF file, perhaps after "Exif\0\0" */
    ZI_PIECE_PROFILE, /* data: an ICC profile; in PNG its name, a zero and the profile compressed ("iCCP") */
    ZI_PIECE_XMP,     /* data: a packet of XMP */
    ZI_PIECE_TEXT,    /* data: of a PNG chunk "tEXt" or "iTXt" */
} zi_piece_kind;

/* A part of a file around its pixels: a chunk, a marker segment. */
typedef struct zi_piece {
    zi_piece_kind kind;
    char name[5]; /* "iTXt", "APP1", "XMP " */
    const uint8_t *data;
    size_t size;
} zi_piece;

typedef struct zi_image_format {
    const char *title;         /* "PNG", in messages */
    const char *extensions[3]; /* ".png"; NULL-ended */
    int32_t max_side;          /* pixels of width and height */
    int is_lossless;           /* 1: it has no quality */
    /* Bytes of texts as the file stores them, at most; 0: no limit. */
    size_t max_text_bytes;
    int (*recognise)(const uint8_t *data, size_t size);
    /* out: released by the caller, also after a failure. */
    zimage_status (*encode)(const zi_picture *picture, zi_bytes *out, zimage_error *error);
    /*
     * Decodes to RGB, or RGBA if the file has alpha, as the pixels are stored: not turned. *pixels is freed by the
     * caller, also after a failure. ZIMAGE_ERROR_FORMAT: a broken or truncated file, or one of more than max_pixels.
     */
    zimage_status (*decode)(const uint8_t *data, size_t size, uint64_t max_pixels, zi_pixels *pixels,
                            zimage_error *error);
    /* The piece at *place (at first 0), which moves on; 0: there is none. Pieces behind a fault are left out. */
    int (*next_piece)(const uint8_t *data, size_t size, size_t *place, zi_piece *piece);
} zi_image_format;

extern const zi_image_format zi_format_png, zi_format_jpeg, zi_format_webp;

/* NULL: no such format. */
const zi_image_format *zi_format_at(zimage_format format);
/* The format of a file's bytes. ZIMAGE_ERROR_FORMAT: none of ours. */
zimage_status zi_format_recognise(const uint8_t *data, size_t size, const zi_image_format **format,
                                  zimage_error *error);

zimage_status zi_fail_too_large(zimage_error *error, uint64_t width, uint64_t height, uint64_t max_pixels);

static inline uint32_t zi_big_endian(const uint8_t bytes[4])
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static inline uint32_t zi_little_endian(const uint8_t bytes[4])
{
    return (uint32_t)bytes[3] << 24 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[1] << 8 | bytes[0];
}

#endif
