/* Reading of files, and paths. */
#include "base/file.h"
#include "files.h"

static void files_are_read(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    char *text;
    size_t length;
    write_bytes(temporary("text"), "a\0b", 3);
    assert_int_equal(zi_read_file(temporary("text"), 3, &text, &length, &error), ZIMAGE_OK);
    assert_int_equal(length, 3);
    assert_memory_equal(text, "a\0b", 4);
    free(text);
    assert_error(&error, zi_read_file(temporary("text"), 2, &text, &length, &error), ZIMAGE_ERROR_FORMAT, "text",
                 "3 bytes", "at most 2");
    assert_null(text);
    assert_error(&error, zi_read_file(temporary_folder, 2, &text, &length, &error), ZIMAGE_ERROR_FILE, "a folder", NULL,
                 NULL);
    assert_true(zi_file_exists(temporary("text")));
    assert_false(zi_file_exists(temporary_folder));
    assert_true(zi_folder_exists(temporary_folder));
    assert_false(zi_folder_exists(temporary("text")));
}

static void paths_are_joined(void **state)
{
    const char *cases[][3] = {{"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"", "b", "b"}, {"/", "b", "/b"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path = zi_path_join(cases[i][0], cases[i][1]);
        assert_string_equal(path, cases[i][2]);
        free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_read),
        cmocka_unit_test(paths_are_joined),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
