#include "image/metadata.h"

#include <string.h>
#include <zlib.h>

#include "image/exif.h"

zimage_status zi_pixels_turn(zi_pixels *pixels, int orientation, zimage_error *error)
{
    /* The pixel of the input that becomes the first one, and the steps in it to the right and down of the output. */
    int swapped = orientation >= 5, from_right = orientation == 2 || orientation == 3 || orientation >= 7;
    int from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    if (orientation <= 1)
        return ZIMAGE_OK;
    zi_pixels in = *pixels, out;
    ptrdiff_t width = in.width, height = in.height, channels = in.channels;
    ptrdiff_t column = from_right ? -channels : channels, row = (from_below ? -width : width) * channels;
    ZI_TRY(zi_pixels_new(swapped ? in.height : in.width, swapped ? in.width : in.height, in.channels, &out, error));
    const uint8_t *first =
        in.data + ((from_below ? (height - 1) * width : 0) + (from_right ? width - 1 : 0)) * channels;
    uint8_t *to = out.data;
    for (ptrdiff_t y = 0; y < out.height; y++)
        for (ptrdiff_t x = 0; x < out.width; x++, to += channels)
            memcpy(to, first + (swapped ? x * row + y * column : x * column + y * row), (size_t)channels);
    zi_pixels_free(&in);
    *pixels = out;
    return ZIMAGE_OK;
}

/* ---- ICC profiles ------------------------------------------------------------------------------------------------ */

#define PROFILE_BYTES 16384 /* of a profile's begin, where its description is */
#define HEADER_BYTES  128
#define TAG_BYTES     12 /* name, offset, size */

/* The description in ASCII: every other byte of a text in UTF-16, all bytes of one in ASCII. */
static void copy_description(const uint8_t *text, size_t size, char *name, size_t name_size)
{
    size_t length = 0;
    for (size_t i = 0; i < size && length + 1 < name_size; i++)
        if (text[i] >= ' ' && text[i] < 0x7f)
            name[length++] = (char)text[i];
    name[length] = 0;
}

/* Finds the tag "desc", whose text is ASCII ("desc", behind a length) or UTF-16 ("mluc", at an offset). */
static void read_description(const uint8_t *profile, size_t size, char *name, size_t name_size)
{
    name[0] = 0;
    if (size < HEADER_BYTES + 4)
        return;
    size_t tags = zi_big_endian(profile + HEADER_BYTES);
    for (size_t at = HEADER_BYTES + 4; tags > 0 && size - at >= TAG_BYTES; tags--, at += TAG_BYTES) {
        size_t offset = zi_big_endian(profile + at + 4), length = zi_big_endian(profile + at + 8);
        if (memcmp(profile + at, "desc", 4) != 0)
            continue;
        if (offset > size || length > size - offset || length < 12)
            return;
        const uint8_t *tag = profile + offset;
        if (!memcmp(tag, "desc", 4)) {
            size_t text = zi_big_endian(tag + 8);
            copy_description(tag + 12, text < length - 12 ? text : length - 12, name, name_size);
        } else if (!memcmp(tag, "mluc", 4) && length >= 28) {
            size_t text = zi_big_endian(tag + 20), from = zi_big_endian(tag + 24);
            if (from <= length && text <= length - from)
                copy_description(tag + from, text, name, name_size);
        }
        return;
    }
}

/* The begin of the profile in a PNG's chunk: its name, a zero, a method, the compressed profile. Returns its bytes. */
static size_t inflate_profile(const zi_piece *piece, uint8_t profile[PROFILE_BYTES])
{
    const uint8_t *end = piece->data + piece->size, *zero = memchr(piece->data, 0, piece->size);
    z_stream stream = {0};
    if (!zero || end - zero < 2 || inflateInit(&stream) != Z_OK)
        return 0;
    stream.next_in = (Bytef *)zero + 2;
    stream.avail_in = (uInt)(end - zero - 2);
    stream.next_out = profile;
    stream.avail_out = PROFILE_BYTES; /* no more is inflated, whatever the profile's size */
    inflate(&stream, Z_SYNC_FLUSH);
    inflateEnd(&stream);
    return PROFILE_BYTES - stream.avail_out;
}

static void read_profile(const zi_piece *piece, zi_image_metadata *metadata)
{
    uint8_t inflated[PROFILE_BYTES];
    const uint8_t *profile = piece->data;
    size_t size = piece->size;
    if (!strcmp(piece->name, "iCCP")) {
        size = inflate_profile(piece, inflated);
        profile = inflated;
    }
    read_description(profile, size, metadata->profile_name, sizeof metadata->profile_name);
    metadata->has_other_profile = !strstr(metadata->profile_name, "sRGB");
}

/* ---- both -------------------------------------------------------------------------------------------------------- */

void zi_image_metadata_read(const zi_image_format *format, const uint8_t *data, size_t size,
                            zi_image_metadata *metadata)
{
    zi_piece piece;
    int has_profile = 0, has_exif = 0;
    *metadata = (zi_image_metadata){.orientation = 1};
    for (size_t place = 0; format->next_piece(data, size, &place, &piece);) {
        if (piece.kind == ZI_PIECE_EXIF && !has_exif++)
            metadata->orientation = zi_exif_orientation(piece.data, piece.size);
        else if (piece.kind == ZI_PIECE_PROFILE && !has_profile++)
            read_profile(&piece, metadata);
    }
}
