/* Output that appears when it is complete, and leaves nothing behind otherwise. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/file.h"
#include "base/output.h"
#include "files.h"
#include "refuse.h"

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
        assert_null(output.name); /* written directly */
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

/* ---- however the process ends ------------------------------------------------------------------------------------ */

enum { DONE, FAILED, SKIPPED }; /* what a child says of its work */

/* Runs fn in a process of its own, because it ends the process or restricts it. Returns its status of waitpid. */
static int in_child(int (*fn)(void))
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        _exit(fn());
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
        skip();
    return status;
}

static void assert_done(int (*fn)(void))
{
    int status = in_child(fn);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == DONE);
}

static int is_file(const char *path, const char *expected)
{
    char *text = NULL;
    size_t length;
    int same = zi_read_file(path, 1000, &text, &length, NULL) == ZIMAGE_OK && strcmp(text, expected) == 0;
    free(text);
    return same;
}

/* Opens the output "ends/x", and writes to it. */
static int begin_output(zi_output *output)
{
    return zi_output_open(output, temporary("ends/x"), NULL) == ZIMAGE_OK && zi_output_write(output, "new", 3) &&
           fflush(output->file) == 0;
}

static int killed(void)
{
    zi_output output;
    if (begin_output(&output))
        kill(getpid(), SIGKILL);
    return FAILED;
}

static void output_leaves_nothing_when_killed(void **state)
{
#if defined(O_TMPFILE)
    int fd = open(temporary_folder, O_RDWR | O_TMPFILE, 0600);
#else
    int fd = -1;
#endif
    if (fd < 0)
        skip(); /* the system or the file system can't make files without a name */
    close(fd);
    assert_int_equal(mkdir(temporary("ends"), 0777), 0);
    int status = in_child(killed);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(files_in(temporary("ends")), 0);
    rmdir(temporary("ends"));
}

static void on_signal(int number)
{
    zi_output_remove_temporaries();
    _exit(files_in(temporary("ends")) == 1 ? DONE : FAILED); /* "y" */
}

static int ended_by_signal(void)
{
    zi_output output, other;
    if (!refuse_unnamed_files())
        return SKIPPED;
    signal(SIGHUP, on_signal);
    if (!begin_output(&output) || files_in(temporary("ends")) != 1 ||
        zi_output_open(&other, temporary("ends/y"), NULL) != ZIMAGE_OK || zi_output_commit(&other, NULL) != ZIMAGE_OK)
        return FAILED;
    kill(getpid(), SIGHUP);
    return FAILED;
}

/* Temporary names are removed; files that are complete stay. */
static void output_with_a_name_is_removed_by_handlers(void **state)
{
    assert_int_equal(mkdir(temporary("ends"), 0777), 0);
    assert_done(ended_by_signal);
    assert_int_equal(files_in(temporary("ends")), 1);
    unlink(temporary("ends/y"));
    rmdir(temporary("ends"));
}

static int named(void)
{
    zi_output output, second;
    if (!refuse_unnamed_files())
        return SKIPPED;
    int done = begin_output(&output) && begin_output(&second);
    done = done && zi_output_commit(&second, NULL) == ZIMAGE_OK && zi_output_commit(&output, NULL) == ZIMAGE_OK;
    done = done && files_in(temporary("ends")) == 1 && is_file(temporary("ends/x"), "new") && begin_output(&output);
    if (!done)
        return FAILED;
    zi_output_abandon(&output);
    return files_in(temporary("ends")) == 1 ? DONE : FAILED;
}

static void output_works_without_unnamed_files(void **state)
{
    assert_int_equal(mkdir(temporary("ends"), 0777), 0);
    assert_done(named);
    unlink(temporary("ends/x"));
    rmdir(temporary("ends"));
}

static int copied(void)
{
    zi_output output;
    if (!refuse_links())
        return SKIPPED;
    return begin_output(&output) && zi_output_commit(&output, NULL) == ZIMAGE_OK &&
                   is_file(temporary("ends/x"), "new") && files_in(temporary("ends")) == 1
               ? DONE
               : FAILED;
}

/* A file system that can't give a name to a file without one: the work is not lost. */
static void output_is_copied_where_links_fail(void **state)
{
    assert_int_equal(mkdir(temporary("ends"), 0777), 0);
    assert_done(copied);
    unlink(temporary("ends/x"));
    rmdir(temporary("ends"));
}

static int too_large(void)
{
    const struct rlimit limit = {1000, 1000};
    zimage_error error = ZIMAGE_ERROR_INIT;
    char data[5000] = {0};
    signal(SIGXFSZ, SIG_IGN);
    for (int unnamed = 1; unnamed >= 0; unnamed--) {
        zi_output output;
        if (!unnamed && !refuse_unnamed_files())
            return SKIPPED;
        if (zi_output_open(&output, temporary("ends/x"), &error) != ZIMAGE_OK || setrlimit(RLIMIT_FSIZE, &limit) != 0)
            return FAILED;
        zi_output_write(&output, data, sizeof data);
        if (zi_output_commit(&output, &error) != ZIMAGE_ERROR_FILE ||
            !strstr(error.message, "ends/x: can't be written: ") || files_in(temporary("ends")) != 0)
            return FAILED;
    }
    return DONE;
}

static void output_respects_a_limit_of_sizes(void **state)
{
    assert_int_equal(mkdir(temporary("ends"), 0777), 0);
    assert_done(too_large);
    rmdir(temporary("ends"));
}

/* A commit that must make a new file. */
static int make_new(const char *text, zimage_error *error)
{
    zi_output output;
    if (zi_output_open_at(&output, &(zi_place){.path = temporary("ends/new"), .is_new = 1}, error) != ZIMAGE_OK)
        return 0;
    zi_output_write(&output, text, strlen(text));
    return zi_output_commit(&output, error) == ZIMAGE_OK;
}

/* DONE: a file that exists, or appears before the commit, stays. Called with and without files that have no name. */
static int new_is_new(void)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_output late;
    int done = zi_output_open_at(&late, &(zi_place){.path = temporary("ends/new"), .is_new = 1}, &error) == ZIMAGE_OK;
    done = done && make_new("first", &error) && !make_new("second", &error) && strstr(error.message, "File exists");
    done = done && zi_output_commit(&late, &error) == ZIMAGE_ERROR_FILE && strstr(error.message, "File exists");
    done = done && is_file(temporary("ends/new"), "first") && files_in(temporary("ends")) == 1;
    unlink(temporary("ends/new"));
    return done && symlink("nothing", temporary("ends/new")) == 0 && !make_new("third", &error) &&
                   unlink(temporary("ends/new")) == 0
               ? DONE
               : FAILED;
}

static int new_is_new_without_unnamed_files(void)
{
    return refuse_unnamed_files() ? new_is_new() : SKIPPED;
}

static int new_is_new_without_links(void)
{
    return refuse_links() && refuse_unnamed_files() ? new_is_new() : SKIPPED;
}

static void output_may_replace_nothing(void **state)
{
    assert_int_equal(mkdir(temporary("ends"), 0777), 0);
    assert_done(new_is_new);
    assert_done(new_is_new_without_unnamed_files);
    assert_done(new_is_new_without_links);
    rmdir(temporary("ends"));
}

/* A descriptor that stands behind other output, as after the shell's >>. */
static void output_continues_at_a_descriptor(void **state)
{
    char path[64];
    zi_output output;
    int fd = open(temporary("log"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(write(fd, "before ", 7), 7);
    snprintf(path, sizeof path, "/dev/fd/%d", fd);
    assert_int_equal(zi_output_open(&output, path, NULL), ZIMAGE_OK);
    assert_true(zi_output_write(&output, "image", 5));
    assert_int_equal(zi_output_commit(&output, NULL), ZIMAGE_OK);
    assert_int_equal(write(fd, " after", 6), 6);
    close(fd);
    assert_file_is(temporary("log"), "before image after");
}

/* ---- beneath a folder -------------------------------------------------------------------------------------------- */

static int write_beneath(const char *name, zimage_error *error)
{
    zi_output output;
    zimage_status status = zi_output_open_at(&output, &(zi_place){.path = name, .folder = temporary("beneath")}, error);
    if (status != ZIMAGE_OK)
        return 0;
    zi_output_write(&output, "new", 3);
    return zi_output_commit(&output, error) == ZIMAGE_OK;
}

/* DONE: only files beneath the folder can be written. Called with and without openat2. */
static int links_are_held(void)
{
    static const char *const refused[] = {"",         ".",      "..",        "../out",  "/out",       "sub/../../out",
                                          "a//b",     "file/x", "outside/x", "above/x", "absolute/x", "escape",
                                          "dangling", "inner",  "missing/x"};
    zimage_error error = ZIMAGE_ERROR_INIT;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        error.message[0] = 0;
        if (write_beneath(refused[i], &error) || !strstr(error.message, "can't be written")) {
            fprintf(stderr, "\"%s\": %s\n", refused[i], error.message);
            return FAILED;
        }
    }
    int done = write_beneath("new", &error) && write_beneath("file", &error) && write_beneath("sub/new", &error);
    done = done && is_file(temporary("beneath/new"), "new") && is_file(temporary("beneath/file"), "new");
    done = done && is_file(temporary("beneath/sub/new"), "new") && is_file(temporary("out/secret"), "old");
    return done && files_in(temporary("out")) == 1 ? DONE : FAILED;
}

static int links_are_held_without_openat2(void)
{
    return refuse_openat2() ? links_are_held() : SKIPPED;
}

static void output_stays_beneath_a_folder(void **state)
{
    assert_int_equal(mkdir(temporary("out"), 0777) == 0 || errno == EEXIST, 1);
    unlink(temporary("out/x"));
    write_text(temporary("out/secret"), "old");
    assert_int_equal(mkdir(temporary("beneath"), 0777), 0);
    assert_int_equal(mkdir(temporary("beneath/sub"), 0777), 0);
    write_text(temporary("beneath/file"), "old");
    assert_int_equal(symlink("../out", temporary("beneath/outside")), 0);
    assert_int_equal(symlink("..", temporary("beneath/above")), 0);
    assert_int_equal(symlink(temporary("out"), temporary("beneath/absolute")), 0);
    assert_int_equal(symlink("../out/secret", temporary("beneath/escape")), 0);
    assert_int_equal(symlink("../out/none", temporary("beneath/dangling")), 0);
    assert_int_equal(symlink("file", temporary("beneath/inner")), 0);
    assert_done(links_are_held);
    assert_done(links_are_held_without_openat2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_appears_when_committed),
        cmocka_unit_test(outputs_to_one_path_do_not_mix),
        cmocka_unit_test(output_takes_the_longest_name),
        cmocka_unit_test(output_replaces_behind_a_link),
        cmocka_unit_test(output_that_fails_leaves_nothing),
        cmocka_unit_test(output_respects_a_read_only_file),
        cmocka_unit_test(output_reports_a_full_disk),
        cmocka_unit_test(output_writes_into_a_pipe),
        cmocka_unit_test(output_continues_at_a_descriptor),
        cmocka_unit_test(output_leaves_nothing_when_killed),
        cmocka_unit_test(output_with_a_name_is_removed_by_handlers),
        cmocka_unit_test(output_works_without_unnamed_files),
        cmocka_unit_test(output_is_copied_where_links_fail),
        cmocka_unit_test(output_respects_a_limit_of_sizes),
        cmocka_unit_test(output_may_replace_nothing),
        cmocka_unit_test(output_stays_beneath_a_folder),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
