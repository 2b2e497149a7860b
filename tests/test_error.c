/* Errors are one line of UTF-8 and keep to the struct of the caller; warnings reach the log. */
#include <errno.h>

#include "base/error.h"
#include "support.h"

static void error_is_optional_and_keeps_its_text(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    assert_int_equal(zi_fail(NULL, ZIMAGE_ERROR_FILE, "%s", "x"), ZIMAGE_ERROR_FILE);
    assert_int_equal(zi_fail(&error, ZIMAGE_ERROR_MODEL, "%s: %d", "x", 3), ZIMAGE_ERROR_MODEL);
    assert_int_equal(error.status, ZIMAGE_ERROR_MODEL);
    assert_string_equal(error.message, "x: 3");
    zi_fail(&error, ZIMAGE_ERROR_MODEL, "before %s", error.message);
    assert_string_equal(error.message, "before x: 3");
    assert_int_equal(zi_fail_memory(&error, "a thing", 12), ZIMAGE_ERROR_MEMORY);
    assert_string_equal(error.message, "out of memory: a thing needs 12 bytes");
    assert_int_equal(zi_fail_memory(&error, "a thing", 0), ZIMAGE_ERROR_MEMORY);
    assert_string_equal(error.message, "out of memory: no room for a thing");
    assert_int_equal(zi_fail_errno(&error, ZIMAGE_ERROR_FILE, ENOENT, "%s", "a"), ZIMAGE_ERROR_FILE);
    assert_string_equal(error.message, "a: No such file or directory");
}

static void error_is_one_line_of_utf8(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_fail(&error, ZIMAGE_ERROR_FILE, "%s", "a\nb\x1b[31m \xff\xc3\xa9 \xc2\x9b \xed\xa0\x80 \xf0\x9f\x8d\x8e");
    assert_string_equal(error.message, "a\\x0ab\\x1b[31m \\xff\xc3\xa9 \\u009b \\xed\\xa0\\x80 \xf0\x9f\x8d\x8e");
}

static void error_is_cut_on_a_character(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    for (size_t shift = 0; shift < 4; shift++) {
        char text[2000];
        memset(text, 'a', shift);
        for (size_t i = shift; i + 4 < sizeof text; i += 4)
            memcpy(text + i, "\xf0\x9f\x8d\x8e", 4);
        text[sizeof text - 5] = 0;
        zi_fail(&error, ZIMAGE_ERROR_FILE, "%s", text);
        assert_int_equal(strlen(error.message), shift + (sizeof error.message - 1 - shift) / 4 * 4);
        assert_memory_equal(error.message, text, strlen(error.message));
    }
}

/* An error of a program that was built against a version with a shorter or longer zimage_error. */
static void error_keeps_to_its_struct_size(void **state)
{
    static const char text[] = "caf\xc3\xa9 au lait";
    for (uint32_t size = 0; size <= sizeof(zimage_error) + 8; size++) {
        union {
            zimage_error error;
            uint8_t bytes[sizeof(zimage_error) + 64];
        } u;
        memset(&u, 0xA5, sizeof u);
        u.error.struct_size = size;
        zi_fail(&u.error, ZIMAGE_ERROR_FILE, "%s", text);
        for (size_t i = size > 4 ? size : 4; i < sizeof u; i++)
            assert_int_equal(u.bytes[i], 0xA5);
        size_t room = size > 8 ? size - 8 : 0, kept = room > sizeof text ? sizeof text - 1 : room > 0 ? room - 1 : 0;
        if (kept == 4)
            kept = 3; /* half of a character */
        if (room == 0)
            continue;
        assert_int_equal(u.error.status, ZIMAGE_ERROR_FILE);
        assert_int_equal(strlen(u.error.message), kept);
        assert_memory_equal(u.error.message, text, kept);
    }
}

static void keep_warning(zimage_log_level level, const char *message, void *user)
{
    assert_int_equal(level, ZIMAGE_LOG_WARNING);
    snprintf(user, 100, "%s", message);
}

static void warning_reaches_the_log(void **state)
{
    char text[100] = "";
    zi_log log = {keep_warning, text}, silent = {NULL, NULL};
    zi_warn(&log, "%d\n things", 2);
    zi_warn(&silent, "nothing");
    zi_warn(NULL, "nothing");
    assert_string_equal(text, "2\\x0a things");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_is_optional_and_keeps_its_text),
        cmocka_unit_test(error_is_one_line_of_utf8),
        cmocka_unit_test(error_is_cut_on_a_character),
        cmocka_unit_test(error_keeps_to_its_struct_size),
        cmocka_unit_test(warning_reaches_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
