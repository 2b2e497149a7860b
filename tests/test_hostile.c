/* Hostile surroundings: a folder that an attacker filled, variables, and limits of the process. */
#include "program.h"

#define TINY ZIMAGE_TEST_DATA "/tiny"

#define ARGUMENTS(...) ((const char *const[]){__VA_ARGS__, NULL})

static char mark[PATH_MAX], program_folder[PATH_MAX];

static void put_hostile(const char *folder, const char *name)
{
    run_shell("mkdir -p '%s/%s' && cp '%s' '%s/%s/%s'", test_folder, folder, ZIMAGE_HOSTILE, test_folder, folder, name);
}

static int group_make(void **state)
{
    static const char *const names[] = {"libzimage-cuda.so", "libdnnl.so.3", "libdnnl.so.2"};
    if (folder_make(state))
        return -1;
    snprintf(mark, sizeof mark, "%s.mark", test_folder);
    snprintf(program_folder, sizeof program_folder, "%s", ZIMAGE_PROGRAM);
    *strrchr(program_folder, '/') = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        put_hostile("here", names[i]);
        put_hostile("lib", names[i]); /* ../lib of here */
        put_hostile("here/lib", names[i]);
    }
    run_shell("cd '%s/here' && echo 'exit 3' >zimage && chmod +x zimage && mkdir -p models share/zimage/models && "
              "cp -r '%s' models/emoji && cp -r '%s' share/zimage/models/emoji && "
              "echo x >models/emoji/model_index.json",
              test_folder, TINY, TINY);
    return setenv("ZIMAGE_TEST_MARK", mark, 1);
}

static int was_loaded(void)
{
    return unlink(mark) == 0;
}

/* Runs `zimage` as a search of PATH finds it, in test_folder/FOLDER. library_path: LD_LIBRARY_PATH; NULL: unset. */
static int run_by_path(const char *path, const char *folder, const char *library_path, const char *const *arguments)
{
    const char *argv[16] = {"zimage"};
    int status;
    for (int i = 0; arguments[i]; i++)
        argv[i + 1] = arguments[i];
    pid_t child = fork();
    if (child == 0) {
        setenv("PATH", path, 1);
        library_path ? setenv("LD_LIBRARY_PATH", library_path, 1) : unsetenv("LD_LIBRARY_PATH");
        if (chdir(in_folder(folder)) != 0 || !freopen("/dev/null", "wb", stdout) || !freopen("/dev/null", "wb", stderr))
            _exit(126);
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    assert_true(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Started by PATH the program's argv[0] is "zimage", which also is a file of the current folder. */
static void libraries_of_the_current_folder_are_not_loaded(void **state)
{
    static const char *const library_paths[] = {NULL, ":", ".", "lib"};
    for (size_t i = 0; i < sizeof library_paths / sizeof *library_paths; i++) {
        assert_int_equal(run_by_path(program_folder, "here", library_paths[i], ARGUMENTS("devices")), 0);
        assert_false(was_loaded());
        assert_int_equal(
            run_by_path(program_folder, "here", library_paths[i], ARGUMENTS("generate", "x", "-m", TINY, "--plan")), 0);
        assert_false(was_loaded());
    }
    assert_int_equal(run_by_path(program_folder, "here", ".",
                                 ARGUMENTS("bench", "-m", TINY, "-W", "16", "-H", "16", "--steps", "1")),
                     0);
    assert_false(was_loaded());
}

/* The library belongs beside the file that runs, in ../lib of it, and also if a link leads to the program. */
static void libraries_beside_the_program_are_loaded(void **state)
{
#if defined(__APPLE__)
    skip(); /* there no library of CUDA is looked for */
#endif
    static const char *const places[] = {"own/bin", "own/lib"};
    run_shell("cd '%s' && mkdir -p own/bin own/links && cp '%s' own/bin/zimage && ln -s ../bin/zimage own/links/zimage",
              test_folder, ZIMAGE_PROGRAM);
    for (size_t i = 0; i < 2; i++) {
        put_hostile(places[i], "libzimage-cuda.so");
        assert_int_equal(run_by_path(in_folder("own/bin"), "here", NULL, ARGUMENTS("devices")), 0);
        assert_true(was_loaded());
        assert_int_equal(run_by_path(in_folder("own/links"), "here", NULL, ARGUMENTS("devices")), 0);
        assert_true(was_loaded());
        run_shell("rm '%s/%s/libzimage-cuda.so'", test_folder, places[i]);
    }
    assert_int_equal(run_by_path(in_folder("own/bin"), "here", NULL, ARGUMENTS("devices")), 0);
    assert_false(was_loaded());
}

/* The XDG specification: a relative path in a variable is ignored. */
static void relative_caches_are_ignored(void **state)
{
    static const char *const values[][2] = {{"", ""}, {"cache", "home"}, {".", "."}, {"", "home"}, {NULL, "home"}};
    static const char *const arguments[] = {"generate", "x", "-m", TINY, "--plan", NULL};
    assert_int_equal(mkdir(in_folder("empty"), 0700), 0);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        values[i][0] ? setenv("XDG_CACHE_HOME", values[i][0], 1) : unsetenv("XDG_CACHE_HOME");
        setenv("HOME", values[i][1], 1);
        assert_int_equal(run_by_path(program_folder, "empty", NULL, arguments), 0);
        assert_int_equal(count_files(in_folder("empty")), 0);
        assert_int_equal(rmdir(in_folder("empty")), 0); /* not even a hidden file */
        assert_int_equal(mkdir(in_folder("empty"), 0700), 0);
    }
}

/* The model of the current folder is not the bundled one: here its model_index.json is broken. */
static void models_of_the_current_folder_are_not_read(void **state)
{
    setenv("ZIMAGE_MODEL", "", 1);
    assert_int_equal(run_by_path(program_folder, "here", NULL, ARGUMENTS("generate", "x", "--plan")), 0);
    assert_false(was_loaded());
}

/* A small soft limit of the stack is raised; under a small hard limit there is a sentence and no fault. */
static void small_stacks_do_not_fault(void **state)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    static const char *const limits[] = {"-S -s 64", "-s 64"};
    for (size_t i = 0; i < 2; i++) {
        char command[4 * PATH_MAX];
        snprintf(command, sizeof command,
                 "ulimit %s && exec '%s' generate x -m '%s' -W 32 -H 32 --steps 1 -q -o '%s' >'%s' 2>&1", limits[i],
                 ZIMAGE_PROGRAM, TINY, in_folder("stack.png"), in_folder("stack.txt"));
        int status = system(command);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), i);
    }
    char text[4096];
    read_text(in_folder("stack.txt"), text, sizeof text);
    assert_non_null(strstr(text, "ulimit -s: the stack may have 64 KiB, expected at least 1024 KiB"));
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(libraries_of_the_current_folder_are_not_loaded),
        cmocka_unit_test(libraries_beside_the_program_are_loaded),
        cmocka_unit_test(models_of_the_current_folder_are_not_read),
        cmocka_unit_test(relative_caches_are_ignored),
        cmocka_unit_test(small_stacks_do_not_fault),
    };
    return cmocka_run_group_tests(tests, group_make, folder_remove);
}
