/* Files: mapping, reading, and output that appears when it is complete. */
#include "base/file.h"
#include "files.h"

static void files_are_mapped(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_mapping mapping;
    write_text(temporary("plain"), "hello");
    assert_int_equal(zi_map_file(temporary("plain"), &mapping, &error), ZIMAGE_OK);
    assert_int_equal(mapping.size, 5);
    assert_memory_equal(mapping.data, "hello", 5);
    zi_unmap(&mapping);
    zi_unmap(&mapping);
    write_text(temporary("plain"), "");
    assert_int_equal(zi_map_file(temporary("plain"), &mapping, &error), ZIMAGE_OK);
    assert_null(mapping.data);
    assert_int_equal(mapping.size, 0);
    zi_unmap(&mapping);

    assert_error(&error, zi_map_file(temporary("absent"), &mapping, &error), ZIMAGE_ERROR_FILE, "absent",
                 "No such file", NULL);
    assert_error(&error, zi_map_file(temporary_folder, &mapping, &error), ZIMAGE_ERROR_FILE, temporary_folder,
                 "a folder", NULL);
    assert_int_equal(mkfifo(temporary("fifo"), 0600), 0);
    assert_error(&error, zi_map_file(temporary("fifo"), &mapping, &error), ZIMAGE_ERROR_FILE, "fifo", "regular file",
                 NULL);
    assert_null(mapping.data);
}

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

static void assert_file_is(const char *path, const char *expected)
{
    char *text;
    size_t length;
    assert_int_equal(zi_read_file(path, 1000, &text, &length, NULL), ZIMAGE_OK);
    assert_string_equal(text, expected);
    free(text);
}

static void output_appears_when_committed(void **state)
{
    zi_output output;
    struct stat status;
    assert_int_equal(mkdir(temporary("out"), 0777), 0);
    mode_t before = umask(027);
    assert_int_equal(zi_output_open(&output, temporary("out/x"), NULL), ZIMAGE_OK);
    umask(before);
    fputs("new", output.file);
    fflush(output.file);
    assert_false(zi_file_exists(temporary("out/x")));
    assert_int_equal(zi_output_commit(&output, NULL), ZIMAGE_OK);
    assert_file_is(temporary("out/x"), "new");
    assert_int_equal(stat(temporary("out/x"), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0640);
    assert_int_equal(files_in(temporary("out")), 1);
    zi_output_abandon(&output);

    assert_int_equal(zi_output_open(&output, temporary("out/x"), NULL), ZIMAGE_OK);
    fputs("newer", output.file);
    zi_output_abandon(&output);
    zi_output_abandon(&output);
    assert_file_is(temporary("out/x"), "new");
    assert_int_equal(files_in(temporary("out")), 1);
}

static void outputs_to_one_path_do_not_mix(void **state)
{
    zi_output first, second;
    assert_int_equal(zi_output_open(&first, temporary("same"), NULL), ZIMAGE_OK);
    assert_int_equal(zi_output_open(&second, temporary("same"), NULL), ZIMAGE_OK);
    assert_string_not_equal(first.temporary, second.temporary);
    fputs("first", first.file);
    fputs("second", second.file);
    assert_int_equal(zi_output_commit(&second, NULL), ZIMAGE_OK);
    assert_int_equal(zi_output_commit(&first, NULL), ZIMAGE_OK);
    assert_file_is(temporary("same"), "first");
}

static void output_takes_the_longest_name(void **state)
{
    char name[256];
    zi_output output;
    memset(name, 'n', 255);
    name[255] = 0;
    assert_int_equal(zi_output_open(&output, temporary(name), NULL), ZIMAGE_OK);
    assert_int_equal(zi_output_commit(&output, NULL), ZIMAGE_OK);
    assert_true(zi_file_exists(temporary(name)));
}

static void output_replaces_behind_a_link(void **state)
{
    zi_output output;
    struct stat status;
    write_text(temporary("real"), "old");
    assert_int_equal(symlink("real", temporary("link")), 0);
    assert_int_equal(zi_output_open(&output, temporary("link"), NULL), ZIMAGE_OK);
    fputs("new", output.file);
    assert_int_equal(zi_output_commit(&output, NULL), ZIMAGE_OK);
    assert_file_is(temporary("real"), "new");
    assert_int_equal(lstat(temporary("link"), &status), 0);
    assert_true(S_ISLNK(status.st_mode));
}

static void output_that_fails_leaves_nothing(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_output output;
    assert_error(&error, zi_output_open(&output, "", &error), ZIMAGE_ERROR_FILE, "empty", NULL, NULL);
    assert_error(&error, zi_output_open(&output, temporary("no/such/x"), &error), ZIMAGE_ERROR_FILE, "no/such/x",
                 "No such file", NULL);
    assert_null(output.file);
    zi_output_abandon(&output);
    assert_error(&error, zi_output_open(&output, temporary_folder, &error), ZIMAGE_ERROR_FILE, temporary_folder,
                 "a folder", NULL);

    /* The rename fails: there is a folder of that name by now. */
    assert_int_equal(mkdir(temporary("fails"), 0777), 0);
    assert_int_equal(zi_output_open(&output, temporary("fails/x"), &error), ZIMAGE_OK);
    fputs("new", output.file);
    assert_int_equal(mkdir(temporary("fails/x"), 0777), 0);
    assert_error(&error, zi_output_commit(&output, &error), ZIMAGE_ERROR_FILE, "fails/x", "can't be written", NULL);
    assert_null(output.file);
    assert_int_equal(files_in(temporary("fails")), 1);
}

static void output_respects_a_read_only_file(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_output output;
    if (geteuid() == 0)
        skip(); /* root may write to every file */
    write_text(temporary("read-only"), "old");
    assert_int_equal(chmod(temporary("read-only"), 0444), 0);
    assert_error(&error, zi_output_open(&output, temporary("read-only"), &error), ZIMAGE_ERROR_FILE, "read-only",
                 "Permission denied", NULL);
    assert_file_is(temporary("read-only"), "old");
}

/* A full disk, noticed when the buffer of stdio is flushed, and noticed earlier. */
static void output_reports_a_full_disk(void **state)
{
    const size_t sizes[] = {1, 5000, 1000000};
    if (access("/dev/full", W_OK) != 0)
        skip();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        zi_output output;
        char *data = calloc(1, sizes[i]);
        assert_int_equal(zi_output_open(&output, "/dev/full", &error), ZIMAGE_OK);
        assert_null(output.temporary);
        fwrite(data, 1, sizes[i], output.file);
        free(data);
        assert_error(&error, zi_output_commit(&output, &error), ZIMAGE_ERROR_FILE, "/dev/full", "can't be written",
                     NULL);
    }
}

static void output_writes_into_a_pipe(void **state)
{
    zi_output output;
    char path[64], text[10] = "";
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    snprintf(path, sizeof path, "/dev/fd/%d", ends[1]);
    if (access(path, W_OK) != 0)
        skip();
    assert_int_equal(zi_output_open(&output, path, NULL), ZIMAGE_OK);
    fputs("image", output.file);
    assert_int_equal(zi_output_commit(&output, NULL), ZIMAGE_OK);
    assert_int_equal(read(ends[0], text, sizeof text), 5);
    assert_string_equal(text, "image");
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_mapped),
        cmocka_unit_test(files_are_read),
        cmocka_unit_test(paths_are_joined),
        cmocka_unit_test(output_appears_when_committed),
        cmocka_unit_test(outputs_to_one_path_do_not_mix),
        cmocka_unit_test(output_takes_the_longest_name),
        cmocka_unit_test(output_replaces_behind_a_link),
        cmocka_unit_test(output_that_fails_leaves_nothing),
        cmocka_unit_test(output_respects_a_read_only_file),
        cmocka_unit_test(output_reports_a_full_disk),
        cmocka_unit_test(output_writes_into_a_pipe),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
