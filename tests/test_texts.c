/* Texts in image files: stored in each format, read back, and written by others. */
#define ZIMAGE_EXPERIMENTAL
#include "files.h"
#include "fixture.h"

static zimage_image *small_image(void)
{
    static const uint8_t pixels[2 * 3 * 3] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    zimage_image *image = NULL;
    assert_int_equal(zimage_image_from_pixels(pixels, 2, 3, 6, 3, &image, NULL), ZIMAGE_OK);
    return image;
}

static zimage_texts *read_texts(const uint8_t *data, size_t size)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_texts *texts = NULL;
    if (zimage_texts_decode(data, size, &texts, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return texts;
}

static void expect_texts(const zimage_texts *texts, const zimage_text *expected, size_t count)
{
    assert_int_equal(zimage_texts_count(texts), count);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(zimage_texts_get(texts, i)->key, expected[i].key);
        assert_string_equal(zimage_texts_get(texts, i)->value, expected[i].value);
    }
    assert_null(zimage_texts_get(texts, count));
}

/* Stores texts in a file of a format and reads them; the pixels are there, too. */
static void expect_kept(zimage_format format, const zimage_text *texts, const zimage_text *expected, size_t count)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = small_image(), *again = NULL;
    uint8_t *data = NULL;
    size_t size;
    if (zimage_image_encode(image, format, texts, count, &data, &size, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    zimage_texts *read = read_texts(data, size);
    expect_texts(read, expected, count);
    assert_int_equal(zimage_image_decode(data, size, 0, &again, &error), ZIMAGE_OK);
    assert_int_equal(zimage_image_width(again), 2);
    zimage_image_free(again);
    zimage_image_free(image);
    zimage_texts_free(read);
    zimage_free(data);
}

static void every_format_keeps_texts(void **state)
{
    static const zimage_text texts[] = {
        {"prompt", "a red apple, <b>\"quoted\"</b> & 'so' ]]> on\ntwo lines\twith a tab"},
        {"seed", "18446744073709551615"},
        {"prompt", "the same key again"},
        {"a key with spaces", "caf\xc3\xa9 \xe8\x8b\xb9\xe6\x9e\x9c \xf0\x9f\x8d\x8e"},
        {"empty", ""},
        {"entities", "&amp; &#65; \\u0041 \\\\ \""},
    };
    for (int format = 0; format < 3; format++)
        for (size_t count = 0; count <= sizeof texts / sizeof *texts; count++)
            expect_kept((zimage_format)format, texts, texts, count);
}

/* What XML can't hold is in the file nevertheless. What is no UTF-8 becomes U+FFFD. */
static void odd_texts(void **state)
{
    static const zimage_text texts[] = {{"k", "\x01\x1b[31m\r\x7f \xef\xbf\xbe\xef\xbf\xbf \xef\xbf\xbd"}};
    static const zimage_text broken[] = {{"k\xff", "a\xff\xc3(\xed\xa0\x80z"}};
    static const zimage_text mended[] = {
        {"k\xef\xbf\xbd", "a\xef\xbf\xbd\xef\xbf\xbd(\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz"}};
    for (int format = 1; format < 3; format++) {
        expect_kept((zimage_format)format, texts, texts, 1);
        expect_kept((zimage_format)format, broken, mended, 1);
    }
}

/* A JPEG has one packet of 65504 bytes; the other formats have no limit. */
static void long_texts(void **state)
{
    size_t most = 0;
    char *value = malloc(200001);
    assert_non_null(value);
    for (size_t length = is_brief() ? 65000 : 60000; length < 66000; length++) {
        memset(value, 'a', length);
        value[length] = 0;
        const zimage_text text = {"prompt", value};
        if (zimage_format_check(ZIMAGE_FORMAT_JPEG, 2, 3, &text, 1, NULL) != ZIMAGE_OK)
            break;
        most = length;
    }
    assert_in_range(most, 65000, 65500);
    value[most] = 0;
    const zimage_text text = {"prompt", value};
    expect_kept(ZIMAGE_FORMAT_JPEG, &text, &text, 1);
    memset(value, 'a', 200000);
    value[200000] = 0;
    expect_kept(ZIMAGE_FORMAT_PNG, &text, &text, 1);
    expect_kept(ZIMAGE_FORMAT_WEBP, &text, &text, 1);
    value[most + 1] = 0;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = small_image();
    uint8_t *data;
    size_t size;
    zimage_status status = zimage_image_encode(image, ZIMAGE_FORMAT_JPEG, &text, 1, &data, &size, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "take 65505 bytes, expected at most 65504 in a JPEG", NULL,
                 NULL);
    status = zimage_image_write(image, temporary("a.jpg"), &text, 1, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, temporary("a.jpg"), "65504", NULL);
    assert_int_equal(files_in(temporary_folder), 0);
    zimage_image_free(image);
    free(value);
}

static void texts_of_pillow(void **state)
{
    static const zimage_text expected[] = {
        {"prompt", "a red apple"}, {"Latin", "caf\xc3\xa9 \xc3\xbc"}, {"Chinese", "\xe8\x8b\xb9\xe6\x9e\x9c"}};
    zi_store *golden = fixture_open("images.safetensors");
    const zi_weight *file = fixture_find(golden, "texts.file"), *none = fixture_find(golden, "jpeg.turned6.file");
    zimage_texts *texts = read_texts(file->data, file->bytes);
    expect_texts(texts, expected, 3);
    zimage_texts_free(texts);
    texts = read_texts(none->data, none->bytes);
    expect_texts(texts, NULL, 0);
    zimage_texts_free(texts);
    zi_store_free(golden);
}

/* The begin of a JPEG with a packet of XMP. */
static size_t wrap(const char *packet, uint8_t data[1024])
{
    static const char name[] = "http://ns.adobe.com/xap/1.0/";
    size_t length = 2 + sizeof name + strlen(packet);
    assert_true(length < 1000);
    memcpy(data, "\xff\xd8\xff\xe1", 4);
    data[4] = (uint8_t)(length >> 8);
    data[5] = (uint8_t)length;
    memcpy(data + 6, name, sizeof name);
    memcpy(data + 6 + sizeof name, packet, strlen(packet));
    return 4 + length;
}

/* Programs that change a file write its packet anew, in one of XMP's forms. */
static void packets_of_other_programs(void **state)
{
    static const char *const forms[] = {
        ("<rdf:Description xmlns:zimage=\"urn:zimage:1.0#\" "
         "zimage:texts=\"[[&quot;a&quot;,&quot;b&#x27;&#65;&quot;]]\"/>"),
        "<rdf:Description zimage:texts='[[\"a\",\"b&apos;&#x41;\"]]'/>",
        "<rdf:Description><zimage:texts>[[\"a\",\"b'A\"]]</zimage:texts></rdf:Description>",
        "<zimage:texts> [ [\"a\", \"b'A\"], [], [1, \"c\"], \"d\", [\"e\"] ] </zimage:texts>",
    };
    static const char *const none[] = {"", "<x/>", "<zimage:texts>", "zimage:texts=\"[]",
                                       "<zimage:texts>[]</zimage:texts>"};
    static const char *const wrong[] = {"<zimage:texts></zimage:texts>", "<zimage:texts>[[\"a\",</zimage:texts>",
                                        "<zimage:texts>[[[1]]]</zimage:texts>",
                                        "<zimage:texts>[[\"&#xD800;\",\"\"]]</zimage:texts>"};
    static const zimage_text expected = {"a", "b'A"};
    uint8_t data[1024];
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        zimage_texts *texts = read_texts(data, wrap(forms[i], data));
        expect_texts(texts, &expected, 1);
        zimage_texts_free(texts);
    }
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        zimage_texts *texts = read_texts(data, wrap(none[i], data));
        expect_texts(texts, NULL, 0);
        zimage_texts_free(texts);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_texts *texts = (zimage_texts *)&error;
        zimage_status status = zimage_texts_decode(data, wrap(wrong[i], data), &texts, &error);
        assert_error(&error, status, ZIMAGE_ERROR_FORMAT, "zimage:texts", NULL, NULL);
        assert_null(texts);
    }
}

/* ---- EXIF -------------------------------------------------------------------------------------------------------- */

/* Reads the begin of a JPEG with EXIF. */
static zimage_texts *read_exif(const char *exif, size_t size)
{
    uint8_t data[1024];
    assert_true(size < 1000);
    memcpy(data, "\xff\xd8\xff\xe1\0\0Exif\0", 12);
    data[5] = (uint8_t)(size + 8);
    memcpy(data + 12, exif, size);
    return read_texts(data, size + 12);
}

#define EXIF_LITTLE                                                                                                    \
    "II*\0\x08\0\0\0" /* one tag, 0x8769: EXIF's own tags are at 26 */                                                 \
    "\x01\0\x69\x87\x04\0\x01\0\0\0\x1a\0\0\0\0\0\0\0"                                                                 \
    "\x01\0\x86\x92\x07\0\x12\0\0\0\x2c\0\0\0\0\0\0\0" /* one tag, 0x9286: 18 bytes at 44 */

static void comments_in_exif(void **state)
{
    static const char unicode[] = EXIF_LITTLE "UNICODE\0a\0\xe9\0\x3c\xd8\x4e\xdf\0\xd8";
    static const char ascii[] = EXIF_LITTLE "ASCII\0\0\0a red bees", jis[] = EXIF_LITTLE "JIS\0\0\0\0\0a red bees";
    zimage_texts *texts = read_exif(unicode, sizeof unicode - 1);
    expect_texts(texts, &(zimage_text){"parameters", "a\xc3\xa9\xf0\x9f\x8d\x8e\xef\xbf\xbd"}, 1);
    zimage_texts_free(texts);
    texts = read_exif(ascii, sizeof ascii - 1);
    expect_texts(texts, &(zimage_text){"parameters", "a red bees"}, 1);
    zimage_texts_free(texts);
    texts = read_exif(jis, sizeof jis - 1);
    expect_texts(texts, NULL, 0);
    zimage_texts_free(texts);
    char spoiled[sizeof unicode];
    for (size_t at = 0; at < sizeof unicode - 1; at++) /* each byte, and each length: nothing beyond the data is read */
        for (int value = 0; value < 256; value += 51) {
            memcpy(spoiled, unicode, sizeof unicode);
            spoiled[at] = (char)value;
            zimage_texts_free(read_exif(spoiled, sizeof unicode - 1));
            zimage_texts_free(read_exif(spoiled, at));
        }
}

/* Where other programs look for the settings: in EXIF, also if nothing knows our packet. */
static void parameters_in_exif(void **state)
{
    static const zimage_text texts[] = {{"zimage", "{}"}, {"parameters", "caf\xc3\xa9 \xf0\x9f\x8d\x8e"}};
    for (int format = 0; format < 3; format++)
        expect_kept((zimage_format)format, texts, texts, 2);
    for (int format = 1; format < 3; format++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_image *image = small_image();
        uint8_t *data, *name;
        size_t size;
        assert_int_equal(zimage_image_encode(image, (zimage_format)format, texts, 2, &data, &size, &error), ZIMAGE_OK);
        while ((name = memmem(data, size, "zimage:texts", 12))) /* the packet's property gets another name */
            memcpy(name, "somebody:els", 12);
        zimage_texts *read = read_texts(data, size);
        expect_texts(read, texts + 1, 1);
        zimage_texts_free(read);
        zimage_free(data);
        zimage_image_free(image);
    }
    /* What is too long for EXIF in a JPEG is in the packet nevertheless. */
    char *value = malloc(40001);
    assert_non_null(value);
    memset(value, 'a', 40000);
    value[40000] = 0;
    const zimage_text text = {"parameters", value};
    expect_kept(ZIMAGE_FORMAT_JPEG, &text, &text, 1);
    free(value);
}

static void texts_of_files(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    const zimage_text text = {"a", "b"};
    static const char *const names[] = {"a.png", "a.jpg", "a.webp"};
    zimage_image *image = small_image();
    zimage_texts *texts = NULL;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(zimage_image_write(image, temporary(names[i]), &text, 1, &error), ZIMAGE_OK);
        assert_int_equal(zimage_texts_read(temporary(names[i]), &texts, &error), ZIMAGE_OK);
        expect_texts(texts, &text, 1);
        assert_int_equal(zimage_texts_format(texts), i);
        zimage_texts_free(texts);
    }
    zimage_image_free(image);
    zimage_status status = zimage_texts_read(temporary("none.png"), &texts, &error);
    assert_error(&error, status, ZIMAGE_ERROR_FILE, temporary("none.png"), "No such file", NULL);
    assert_null(texts);
}

static void texts_of_wrong_files(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_texts *texts = NULL;
    zimage_status status = zimage_texts_decode((const uint8_t *)"GIF89a", 6, &texts, &error);
    assert_error(&error, status, ZIMAGE_ERROR_FORMAT, "a GIF image", NULL, NULL);
    assert_int_equal(zimage_texts_count(NULL), 0);
    assert_null(zimage_texts_get(NULL, 0));
    zimage_texts_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_keeps_texts),
        cmocka_unit_test(odd_texts),
        cmocka_unit_test(long_texts),
        cmocka_unit_test(texts_of_pillow),
        cmocka_unit_test(packets_of_other_programs),
        cmocka_unit_test(comments_in_exif),
        cmocka_unit_test(parameters_in_exif),
        cmocka_unit_test(texts_of_files),
        cmocka_unit_test(texts_of_wrong_files),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
