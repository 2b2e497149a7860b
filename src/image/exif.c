#include "image/exif.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define TAG_ORIENTATION 0x0112
#define TAG_EXIF        0x8769 /* where the directory of EXIF's own tags begins */
#define TAG_COMMENT     0x9286 /* UserComment: 8 bytes that name the character set, and the text */
#define TYPE_SHORT      3
#define TYPE_LONG       4
#define TYPE_UNDEFINED  7
#define HEADER_BYTES    8  /* byte order, 42, where the first directory begins */
#define ENTRY_BYTES     12 /* of a tag: number, type, count, value */
#define SET_BYTES       8

static const char unicode[SET_BYTES] = "UNICODE", ascii[SET_BYTES] = "ASCII";

/* A TIFF file. */
typedef struct tiff {
    const uint8_t *data;
    size_t size;
    int big;
} tiff;

/* A tag of a directory. */
typedef struct entry {
    unsigned type;
    uint32_t count;
    const uint8_t *value; /* 4 bytes: the value, or where it is */
} entry;

/* Numbers of a TIFF file in its own byte order. */
static uint32_t number(const uint8_t *bytes, int count, int big)
{
    uint32_t value = 0;
    for (int i = 0; i < count; i++)
        value |= (uint32_t)bytes[i] << (8 * (big ? count - 1 - i : i));
    return value;
}

/* 0: the data is no TIFF file. A name before it is taken off. */
static int open_tiff(const uint8_t *data, size_t size, tiff *t)
{
    static const char name[] = "Exif\0";
    if (size >= sizeof name && !memcmp(data, name, sizeof name)) {
        data += sizeof name;
        size -= sizeof name;
    }
    *t = (tiff){data, size, size > 0 && data[0] == 'M'};
    return size >= HEADER_BYTES && (!memcmp(data, "II*\0", 4) || !memcmp(data, "MM\0*", 4));
}

/* Finds a tag in the directory at `at`; 0: it is not there. */
static int find_tag(const tiff *t, size_t at, unsigned tag, entry *found)
{
    if (at > t->size || t->size - at < 2)
        return 0;
    size_t entries = number(t->data + at, 2, t->big);
    for (at += 2; entries > 0 && t->size - at >= ENTRY_BYTES; entries--, at += ENTRY_BYTES) {
        const uint8_t *bytes = t->data + at;
        if (number(bytes, 2, t->big) != tag)
            continue;
        *found = (entry){number(bytes + 2, 2, t->big), number(bytes + 4, 4, t->big), bytes + 8};
        return 1;
    }
    return 0;
}

int zi_exif_orientation(const uint8_t *data, size_t size)
{
    tiff t;
    entry e;
    if (!open_tiff(data, size, &t) || !find_tag(&t, number(t.data + 4, 4, t.big), TAG_ORIENTATION, &e))
        return 1;
    uint32_t value = e.type == TYPE_SHORT ? number(e.value, 2, t.big) : 1;
    return value >= 1 && value <= 8 ? (int)value : 1;
}

/* ---- the comment ------------------------------------------------------------------------------------------------- */

/* UTF-16 as UTF-8 up to its first zero; half a pair becomes U+FFFD. NULL: out of memory. */
static char *from_utf16(const uint8_t *text, size_t size, int big)
{
    enum { REPLACEMENT = 0xfffd, MOST_BYTES = 3 }; /* of UTF-8 for 2 bytes of UTF-16 */
    size_t units = size / 2;
    char *utf8 = malloc(units * MOST_BYTES + 1), *out = utf8;
    for (size_t i = 0; utf8 && i < units; i++) {
        uint32_t unit = number(text + 2 * i, 2, big), next = i + 1 < units ? number(text + 2 * i + 2, 2, big) : 0;
        int is_high = unit >= 0xd800 && unit < 0xdc00, is_low = unit >= 0xdc00 && unit < 0xe000;
        if (unit == 0)
            break;
        if (is_high && next >= 0xdc00 && next < 0xe000) {
            unit = 0x10000 + ((unit - 0xd800) << 10) + (next - 0xdc00);
            i++;
        } else if (is_high || is_low) {
            unit = REPLACEMENT;
        }
        out += utf8proc_encode_char((utf8proc_int32_t)unit, (utf8proc_uint8_t *)out);
    }
    if (utf8)
        *out = 0;
    return utf8;
}

zimage_status zi_exif_comment(const uint8_t *data, size_t size, char **comment, zimage_error *error)
{
    tiff t;
    entry e;
    *comment = NULL;
    if (!open_tiff(data, size, &t) || !find_tag(&t, number(t.data + 4, 4, t.big), TAG_EXIF, &e) ||
        e.type != TYPE_LONG || !find_tag(&t, number(e.value, 4, t.big), TAG_COMMENT, &e) || e.count < SET_BYTES)
        return ZIMAGE_OK;
    size_t at = number(e.value, 4, t.big), length = e.count - SET_BYTES;
    if (at > t.size || t.size - at < SET_BYTES || length > t.size - at - SET_BYTES)
        return ZIMAGE_OK;
    const uint8_t *set = t.data + at, *text = set + SET_BYTES;
    if (!memcmp(set, unicode, SET_BYTES))
        *comment = from_utf16(text, length, t.big);
    else if (!memcmp(set, ascii, SET_BYTES))
        *comment = strndup((const char *)text, length);
    else
        return ZIMAGE_OK;
    return *comment ? ZIMAGE_OK : zi_fail_memory(error, "the comment of an image", length);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static uint8_t *put(uint8_t *at, uint32_t value, int count)
{
    for (int i = 0; i < count; i++)
        at[i] = (uint8_t)(value >> (8 * (count - 1 - i)));
    return at + count;
}

/* A directory of one tag; returns what is behind it. */
static uint8_t *put_directory(uint8_t *at, unsigned tag, unsigned type, uint32_t count, uint32_t value)
{
    at = put(put(put(at, 1, 2), tag, 2), type, 2);
    return put(put(put(at, count, 4), value, 4), 0, 4); /* 0: no directory follows */
}

static uint8_t *put_utf16(uint8_t *at, utf8proc_int32_t character)
{
    if (character < 0x10000)
        return put(at, (uint32_t)character, 2);
    uint32_t rest = (uint32_t)character - 0x10000;
    return put(put(at, 0xd800 + (rest >> 10), 2), 0xdc00 + (rest & 0x3ff), 2);
}

zimage_status zi_exif_of_comment(const char *comment, zi_bytes *exif, zimage_error *error)
{
    enum { DIRECTORY_BYTES = 2 + ENTRY_BYTES + 4, TEXT = HEADER_BYTES + 2 * DIRECTORY_BYTES };
    size_t length = strlen(comment), most = TEXT + SET_BYTES + 2 * length; /* UTF-16 has at most 2 bytes for each */
    *exif = (zi_bytes){.data = malloc(most)};
    if (!exif->data || most > UINT32_MAX)
        return zi_fail_memory(error, "the comment of an image", most);
    uint8_t *end = exif->data + TEXT;
    memcpy(end, unicode, SET_BYTES);
    end += SET_BYTES;
    for (const char *c = comment, *stop = comment + length; c < stop;) {
        utf8proc_int32_t character;
        utf8proc_ssize_t bytes = utf8proc_iterate((const utf8proc_uint8_t *)c, stop - c, &character);
        end = put_utf16(end, bytes > 0 ? character : 0xfffd);
        c += bytes > 0 ? bytes : 1;
    }
    exif->size = (size_t)(end - exif->data);
    memcpy(exif->data, "MM\0*", 4);
    uint8_t *at = put(exif->data + 4, HEADER_BYTES, 4);
    at = put_directory(at, TAG_EXIF, TYPE_LONG, 1, HEADER_BYTES + DIRECTORY_BYTES);
    put_directory(at, TAG_COMMENT, TYPE_UNDEFINED, (uint32_t)(exif->size - TEXT), TEXT);
    return ZIMAGE_OK;
}
