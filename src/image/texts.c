#define ZIMAGE_EXPERIMENTAL
#include "image/texts.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/file.h"
#include "base/json.h"
#include "image/exif.h"

#define FILE_BYTES_MAX ((size_t)1 << 29)

#define PROPERTY "zimage:texts"
#define BEGIN                                                                                                          \
    "<?xpacket begin=\"\xef\xbb\xbf\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n"                                             \
    "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\"><rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">"        \
    "<rdf:Description rdf:about=\"\" xmlns:zimage=\"urn:zimage:1.0#\"><" PROPERTY ">"
#define END "</" PROPERTY "></rdf:Description></rdf:RDF></x:xmpmeta>\n<?xpacket end=\"r\"?>"

/* A prompt has at most 1 MiB. */
static const zi_json_limits limits = {.bytes = (size_t)16 << 20, .values = 4096, .depth = 2};

/* ---- writing XMP ------------------------------------------------------------------------------------------------- */

/* A JSON string. Bytes that are no UTF-8 become U+FFFD. NULL: out of memory. */
static json_t *string_of(const char *text)
{
    static const char replacement[] = "\xef\xbf\xbd";
    size_t length = strlen(text), size = 0;
    char *valid = malloc(length * (sizeof replacement - 1) + 1);
    for (const char *c = text; valid && *c;) {
        utf8proc_int32_t character;
        utf8proc_ssize_t bytes =
            utf8proc_iterate((const utf8proc_uint8_t *)c, (utf8proc_ssize_t)(text + length - c), &character);
        const char *from = bytes > 0 ? c : replacement;
        size_t count = bytes > 0 ? (size_t)bytes : sizeof replacement - 1;
        memcpy(valid + size, from, count);
        size += count;
        c += bytes > 0 ? bytes : 1;
    }
    json_t *string = valid ? json_stringn(valid, size) : NULL;
    free(valid);
    return string;
}

/* [["prompt","a red apple"],...] as text, released with free(). NULL: out of memory. */
static char *to_json(const zimage_text *texts, size_t count)
{
    json_t *list = json_array();
    int failed = !list;
    for (size_t i = 0; i < count && !failed; i++) {
        json_t *pair = json_array();
        failed = json_array_append_new(pair, string_of(texts[i].key)) != 0 ||
                 json_array_append_new(pair, string_of(texts[i].value)) != 0;
        if (failed)
            json_decref(pair);
        else
            failed = json_array_append_new(list, pair) != 0;
    }
    char *text = failed ? NULL : json_dumps(list, JSON_COMPACT);
    json_decref(list);
    return text;
}

/* What stands for the bytes at c in XML; *taken of them. NULL: they stand for themselves. U+FFFE and U+FFFF, which XML
 * can't hold, are written as JSON writes them. */
static const char *escape_of(const char *c, size_t *taken)
{
    *taken = 1;
    if (!strncmp(c, "\xef\xbf\xbe", 3) || !strncmp(c, "\xef\xbf\xbf", 3)) {
        *taken = 3;
        return c[2] == '\xbe' ? "\\ufffe" : "\\uffff";
    }
    return *c == '&' ? "&amp;" : *c == '<' ? "&lt;" : *c == '>' ? "&gt;" : NULL;
}

/* Writes a text as XML; returns its bytes. out NULL: it is only measured. */
static size_t escape(const char *text, char *out)
{
    size_t size = 0, taken;
    for (const char *c = text; *c; c += taken) {
        const char *escaped = escape_of(c, &taken), *from = escaped ? escaped : c;
        size_t length = escaped ? strlen(escaped) : 1;
        if (out)
            memcpy(out + size, from, length);
        size += length;
    }
    return size;
}

zimage_status zi_texts_to_xmp(const zimage_text *texts, size_t count, zi_bytes *packet, zimage_error *error)
{
    char *json = to_json(texts, count);
    *packet = (zi_bytes){0};
    if (!json)
        return zi_fail_memory(error, "the texts of an image", 0);
    size_t begin = strlen(BEGIN), middle = escape(json, NULL), end = strlen(END);
    packet->data = malloc(begin + middle + end);
    if (packet->data) {
        packet->size = begin + middle + end;
        memcpy(packet->data, BEGIN, begin);
        escape(json, (char *)packet->data + begin);
        memcpy(packet->data + begin + middle, END, end);
    }
    free(json);
    return packet->data ? ZIMAGE_OK : zi_fail_memory(error, "the texts of an image", begin + middle + end);
}

zimage_status zi_texts_to_exif(const zimage_text *texts, size_t count, size_t most, zi_bytes *exif, zimage_error *error)
{
    *exif = (zi_bytes){0};
    for (size_t i = 0; i < count; i++) {
        if (strcmp(texts[i].key, ZI_TEXT_PARAMETERS) != 0)
            continue;
        zimage_status status = zi_exif_of_comment(texts[i].value, exif, error);
        if (status != ZIMAGE_OK || exif->size > most) {
            free(exif->data);
            *exif = (zi_bytes){0};
        }
        return status;
    }
    return ZIMAGE_OK;
}

/* ---- a list of texts --------------------------------------------------------------------------------------------- */

struct zimage_texts {
    zimage_text *items; /* their strings are owned */
    size_t count;
    const zi_image_format *format;
};

void zimage_texts_free(zimage_texts *texts)
{
    for (size_t i = 0; texts && i < texts->count; i++) {
        free((char *)texts->items[i].key);
        free((char *)texts->items[i].value);
    }
    if (texts)
        free(texts->items);
    free(texts);
}

size_t zimage_texts_count(const zimage_texts *texts)
{
    return texts ? texts->count : 0;
}

const zimage_text *zimage_texts_get(const zimage_texts *texts, size_t index)
{
    return texts && index < texts->count ? &texts->items[index] : NULL;
}

zimage_format zimage_texts_format(const zimage_texts *texts)
{
    int format = 0;
    while (texts && zi_format_at((zimage_format)format) && zi_format_at((zimage_format)format) != texts->format)
        format++;
    return (zimage_format)format;
}

/* Takes two strings; on failure they are freed. */
static zimage_status append(zimage_texts *texts, char *key, char *value, zimage_error *error)
{
    zimage_text *items = realloc(texts->items, (texts->count + 1) * sizeof *items);
    if (items)
        texts->items = items;
    if (!items || !key || !value) {
        free(key);
        free(value);
        return zi_fail_memory(error, "the texts of an image", 0);
    }
    texts->items[texts->count++] = (zimage_text){key, value};
    return ZIMAGE_OK;
}

/* ---- reading XMP ------------------------------------------------------------------------------------------------- */

static const char *find(const char *text, size_t length, const char *word)
{
    return memmem(text, length, word, strlen(word));
}

/* Finds the property, an element or an attribute; 0: there is none. */
static int find_property(const char *packet, size_t size, const char **value, size_t *length)
{
    static const struct {
        const char *begin, *end;
    } forms[] = {
        {"<" PROPERTY ">", "</" PROPERTY ">"},
        {PROPERTY "=\"", "\""},
        {PROPERTY "='", "'"},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        const char *begin = find(packet, size, forms[i].begin);
        if (!begin)
            continue;
        begin += strlen(forms[i].begin);
        const char *end = find(begin, (size_t)(packet + size - begin), forms[i].end);
        if (!end)
            return 0;
        *value = begin;
        *length = (size_t)(end - begin);
        return 1;
    }
    return 0;
}

/* The character of "&NAME;" at c as UTF-8, which is never longer. Returns how many bytes it takes; 0: none is known. */
static size_t take_entity(const char *c, size_t length, char **out)
{
    static const struct {
        const char *name;
        char character;
    } names[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (length >= strlen(names[i].name) && !strncmp(c, names[i].name, strlen(names[i].name))) {
            *(*out)++ = names[i].character;
            return strlen(names[i].name);
        }
    const char *end = memchr(c, ';', length < 12 ? length : 12);
    if (!end || end - c < 3 || c[1] != '#')
        return 0;
    char digits[12] = "", *stop;
    int hexadecimal = c[2] == 'x';
    memcpy(digits, c + 2 + hexadecimal, (size_t)(end - c) - 2 - (size_t)hexadecimal);
    long number = strtol(digits, &stop, hexadecimal ? 16 : 10);
    if (*stop || stop == digits || number < 1 || number > 0x10ffff)
        return 0;
    *out += utf8proc_encode_char((utf8proc_int32_t)number, (utf8proc_uint8_t *)*out);
    return (size_t)(end - c) + 1;
}

/* Parses the JSON in a piece of XML. */
static zimage_status parse_property(const char *value, size_t length, json_t **list, zimage_error *error)
{
    char *text = malloc(length + 1), *out = text;
    *list = NULL;
    if (!text)
        return zi_fail_memory(error, "the texts of an image", length + 1);
    for (size_t at = 0; at < length;) {
        size_t taken = value[at] == '&' ? take_entity(value + at, length - at, &out) : 0;
        if (!taken)
            *out++ = value[at];
        at += taken ? taken : 1;
    }
    zimage_status status = zi_json_parse("the image", PROPERTY, &limits, text, (size_t)(out - text), list, error);
    free(text);
    return status;
}

static zimage_status take_pairs(zimage_texts *texts, json_t *list, zimage_error *error)
{
    size_t i;
    json_t *pair;
    json_array_foreach(list, i, pair)
    {
        const char *key = json_string_value(json_array_get(pair, 0));
        const char *value = json_string_value(json_array_get(pair, 1));
        if (key && value)
            ZI_TRY(append(texts, strdup(key), strdup(value), error));
    }
    return ZIMAGE_OK;
}

static zimage_status take_packet(zimage_texts *texts, const zi_piece *piece, zimage_error *error)
{
    const char *value;
    size_t length;
    json_t *list;
    if (!find_property((const char *)piece->data, piece->size, &value, &length))
        return ZIMAGE_OK;
    ZI_TRY(parse_property(value, length, &list, error));
    zimage_status status = take_pairs(texts, list, error);
    json_decref(list);
    return status;
}

/* ---- reading PNG ------------------------------------------------------------------------------------------------- */

/* A string of Latin-1 as UTF-8; NULL: out of memory. */
static char *from_latin1(const uint8_t *text, size_t length)
{
    char *utf8 = malloc(2 * length + 1), *out = utf8;
    if (!utf8)
        return NULL;
    for (size_t i = 0; i < length && text[i]; i++)
        out += utf8proc_encode_char(text[i], (utf8proc_uint8_t *)out);
    *out = 0;
    return utf8;
}

/* What follows the next zero in [from, end); NULL: there is none. */
static const uint8_t *behind_zero(const uint8_t *from, const uint8_t *end)
{
    const uint8_t *zero = memchr(from, 0, (size_t)(end - from));
    return zero ? zero + 1 : NULL;
}

/* tEXt: key, zero, Latin-1. iTXt: key, zero, compressed (0 or 1), method, language, zero, translated key, zero, UTF-8.
 * Compressed texts are left out. */
static zimage_status take_chunk(zimage_texts *texts, const zi_piece *piece, zimage_error *error)
{
    const uint8_t *end = piece->data + piece->size, *text = behind_zero(piece->data, end);
    if (!text)
        return ZIMAGE_OK;
    char *key = from_latin1(piece->data, (size_t)(text - piece->data) - 1);
    if (!key)
        return zi_fail_memory(error, "the texts of an image", 0);
    if (!strcmp(piece->name, "tEXt"))
        return append(texts, key, from_latin1(text, (size_t)(end - text)), error);
    if (end - text >= 2 && text[0] == 0) {
        text = behind_zero(text + 2, end);
        text = text ? behind_zero(text, end) : NULL;
    } else {
        text = NULL;
    }
    if (text)
        return append(texts, key, strndup((const char *)text, (size_t)(end - text)), error);
    free(key);
    return ZIMAGE_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static int has_parameters(const zimage_texts *texts)
{
    for (size_t i = 0; i < texts->count; i++)
        if (!strcmp(texts->items[i].key, ZI_TEXT_PARAMETERS))
            return 1;
    return 0;
}

/* The comment of EXIF as the text "parameters", unless there is such a text already. */
static zimage_status take_comment(zimage_texts *texts, const zi_piece *piece, zimage_error *error)
{
    char *comment;
    if (has_parameters(texts))
        return ZIMAGE_OK;
    ZI_TRY(zi_exif_comment(piece->data, piece->size, &comment, error));
    return comment ? append(texts, strdup(ZI_TEXT_PARAMETERS), comment, error) : ZIMAGE_OK;
}

static zimage_status take_all(zimage_texts *texts, const uint8_t *data, size_t size, zimage_error *error)
{
    const zi_image_format *format;
    zi_piece piece;
    ZI_TRY(zi_format_recognise(data, size, &format, error));
    texts->format = format;
    for (size_t place = 0; format->next_piece(data, size, &place, &piece);) {
        if (piece.kind == ZI_PIECE_XMP)
            ZI_TRY(take_packet(texts, &piece, error));
        else if (piece.kind == ZI_PIECE_TEXT)
            ZI_TRY(take_chunk(texts, &piece, error));
    }
    for (size_t place = 0; format->next_piece(data, size, &place, &piece);)
        if (piece.kind == ZI_PIECE_EXIF)
            ZI_TRY(take_comment(texts, &piece, error));
    return ZIMAGE_OK;
}

zimage_status zimage_texts_decode(const uint8_t *data, size_t size, zimage_texts **texts, zimage_error *error)
{
    if (!texts)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "texts: NULL, expected where to put the texts");
    *texts = NULL;
    if (!data)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "data: NULL, expected the bytes of an image file");
    zimage_texts *made = calloc(1, sizeof *made);
    if (!made)
        return zi_fail_memory(error, "the texts of an image", sizeof *made);
    zimage_status status = take_all(made, data, size, error);
    if (status == ZIMAGE_OK)
        *texts = made;
    else
        zimage_texts_free(made);
    return status;
}

zimage_status zimage_texts_read(const char *path, zimage_texts **texts, zimage_error *error)
{
    zimage_error reason = ZIMAGE_ERROR_INIT;
    char *data;
    size_t size;
    if (!texts || !path)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "path and texts: NULL, expected both");
    *texts = NULL;
    ZI_TRY(zi_read_file(path, FILE_BYTES_MAX, &data, &size, error));
    zimage_status status = zimage_texts_decode((const uint8_t *)data, size, texts, &reason);
    free(data);
    return status == ZIMAGE_OK ? status : zi_fail(error, status, "%s: %s", path, reason.message);
}
