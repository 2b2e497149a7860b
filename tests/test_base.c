/* src/base: errors, arena, thread pool, system, files, JSON, numbers; src/ops/tensor.c: number formats. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "base/cpu_count.h"
#include "base/file.h"
#include "base/json.h"
#include "base/numbers.h"
#include "base/pool.h"
#include "base/sized.h"
#include "base/system.h"
#include "files.h"
#include "ops/tensor.h"

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
    assert_string_equal(error.message, "a b [31m ?\xc3\xa9   ??? \xf0\x9f\x8d\x8e");
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

/* Structs of the header in three versions of a program: the library's, one with a field less and one with more. */
typedef struct sized_now {
    uint32_t struct_size;
    int32_t first;
    uint64_t last;
    uint64_t appended; /* in 0.2.1, say */
} sized_now;

typedef struct sized_before {
    uint32_t struct_size;
    int32_t first;
    uint64_t last;
} sized_before;

typedef struct sized_later {
    sized_now now;
    uint8_t unknown[3];
    uint8_t behind[9]; /* not the struct's */
} sized_later;

#define LATER_SIZE (sizeof(sized_now) + 3)

static void structs_of_other_versions_are_taken(void **state)
{
    sized_now own;
    zimage_error error = ZIMAGE_ERROR_INIT;
    struct {
        sized_before before;
        uint64_t behind;
    } caller = {{sizeof caller.before, 1, 2}, UINT64_MAX};
    assert_int_equal(ZI_TAKE(&own, &caller, sized_now, last, &error), ZIMAGE_OK);
    assert_true(own.first == 1 && own.last == 2 && own.appended == 0);
    assert_int_equal(ZI_TAKE(&own, NULL, sized_now, last, &error), ZIMAGE_OK);
    assert_true(own.first == 0 && own.last == 0 && own.appended == 0);
    for (uint32_t size = 0; size < sizeof caller.before; size++) {
        caller.before.struct_size = size;
        zimage_status status = ZI_TAKE(&own, &caller, sized_now, last, &error);
        assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "sized_now.struct_size", "expected sizeof(sized_now)",
                     NULL);
    }
    sized_later later = {.now = {LATER_SIZE, 1, 2, 3}, .behind = {1, 1, 1, 1, 1, 1, 1, 1, 1}};
    assert_int_equal(ZI_TAKE(&own, &later, sized_now, last, &error), ZIMAGE_OK);
    assert_true(own.appended == 3);
    for (int i = 0; i < 3; i++) {
        memset(later.unknown, 0, sizeof later.unknown);
        later.unknown[i] = 1;
        zimage_status status = ZI_TAKE(&own, &later, sized_now, last, &error);
        assert_error(&error, status, ZIMAGE_ERROR_UNSUPPORTED, "sized_now", "does not know", zimage_version());
    }
}

static void structs_of_other_versions_are_given(void **state)
{
    const sized_now own = {0, 1, 2, 3};
    zimage_error error = ZIMAGE_ERROR_INIT;
    struct {
        sized_before before;
        uint64_t behind;
    } caller = {{sizeof caller.before, 0, 0}, UINT64_MAX};
    assert_int_equal(ZI_GIVE(&caller, &own, sized_now, last, &error), ZIMAGE_OK);
    assert_true(caller.before.struct_size == sizeof caller.before && caller.before.first == 1);
    assert_true(caller.before.last == 2 && caller.behind == UINT64_MAX);
    caller.before = (sized_before){sizeof caller.before - 1, 0, 0};
    zimage_status status = ZI_GIVE(&caller, &own, sized_now, last, &error);
    assert_error(&error, status, ZIMAGE_ERROR_ARGUMENT, "sized_now.struct_size", "at least 16", NULL);
    assert_int_equal(caller.before.first, 0);
    assert_int_equal(ZI_GIVE(NULL, &own, sized_now, last, &error), ZIMAGE_ERROR_ARGUMENT);
    sized_later later = {.now = {.struct_size = LATER_SIZE}};
    memset(later.unknown, 0xA5, sizeof later.unknown + sizeof later.behind);
    assert_int_equal(ZI_GIVE(&later, &own, sized_now, last, &error), ZIMAGE_OK);
    assert_true(later.now.struct_size == LATER_SIZE && later.now.appended == 3);
    for (size_t i = 0; i < sizeof later.behind; i++)
        assert_int_equal(later.behind[i], 0xA5);
    assert_true(later.unknown[0] == 0 && later.unknown[1] == 0 && later.unknown[2] == 0);
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
    assert_string_equal(text, "2  things");
}

static void arena_is_a_stack(void **state)
{
    zi_arena *arena = zi_arena_new();
    assert_non_null(arena);
    char *first = zi_arena_alloc(arena, 100);
    zi_arena_mark mark = zi_arena_get_mark(arena);
    char *second = zi_arena_alloc(arena, 1);
    assert_non_null(first);
    assert_non_null(second);
    assert_int_equal((uintptr_t)first % 64, 0);
    assert_int_equal((uintptr_t)second % 64, 0);
    memset(first, 1, 100);
    *second = 2;
    zi_arena_release(arena, mark);
    assert_ptr_equal(zi_arena_alloc(arena, 50), second);
    assert_int_equal(first[99], 1);
    assert_non_null(zi_arena_alloc(arena, 0));
    assert_null(zi_arena_alloc(arena, SIZE_MAX));
    zi_arena_free(arena);
    zi_arena_free(NULL);
}

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_HAS_GAPS 1 /* behind each block of a real arena */
#else
#define ARENA_HAS_GAPS 0
#endif

/* The same random use of a real arena and an imaginary one, whose small blocks are real. */
static void imaginary_arenas_are_as_large_as_real_ones(void **state)
{
    enum { MARKS = 40 };
    zi_arena *arenas[2] = {zi_arena_new(), zi_arena_new_imaginary()};
    zi_arena_mark marks[MARKS][2];
    uint32_t random = 1;
    int count = 0;
    assert_true(arenas[0] && arenas[1]);
    for (int i = 0; i < 20000; i++) {
        random = random * 1664525u + 1013904223u;
        size_t bytes = (size_t)1 << (random >> 8) % 28;
        int release = count == MARKS || (count > 0 && (random >> 20) % 3 == 0);
        if (release)
            count = (int)((random >> 4) % (unsigned)count);
        for (int k = 0; k < 2; k++) {
            if (release) {
                zi_arena_release(arenas[k], marks[count][k]);
                continue;
            }
            marks[count][k] = zi_arena_get_mark(arenas[k]);
            void *block = zi_arena_alloc(arenas[k], bytes);
            assert_non_null(block);
            if (bytes <= ZI_ARENA_REAL_BYTES)
                memset(block, k, bytes);
        }
        count += !release;
        assert_int_equal(zi_arena_peak(arenas[0]), zi_arena_peak(arenas[1]));
        assert_true(zi_arena_held_peak(arenas[1]) >= zi_arena_peak(arenas[1]));
        if (!ARENA_HAS_GAPS)
            assert_int_equal(zi_arena_held_peak(arenas[0]), zi_arena_held_peak(arenas[1]));
        for (int k = 0; k < 2 && i % 1000 == 0; k++)
            zi_arena_reset_peak(arenas[k]);
    }
    zi_arena_free(arenas[0]);
    zi_arena_free(arenas[1]);
}

static void arena_grows_and_shrinks(void **state)
{
    const size_t large = (size_t)100 << 20;
    zi_arena *arena = zi_arena_new();
    zi_arena_mark empty = zi_arena_get_mark(arena);
    char *small = zi_arena_alloc(arena, 64);
    memset(small, 7, 64);
    for (int round = 0; round < 3; round++) {
        zi_arena_mark mark = zi_arena_get_mark(arena);
        char *block = zi_arena_alloc(arena, large);
        char *another = zi_arena_alloc(arena, large);
        assert_non_null(block);
        assert_non_null(another);
        block[0] = block[large - 1] = another[0] = another[large - 1] = 1;
        zi_arena_release(arena, mark);
    }
    assert_int_equal(zi_arena_peak(arena), 2 * large + 64);
    assert_int_equal(small[63], 7);
    zi_arena_release(arena, empty);
    assert_non_null(zi_arena_alloc(arena, 64));
    assert_int_equal(zi_arena_peak(arena), 2 * large + 64);
    zi_arena_free(arena);
}

#define MAX_TASKS   1000
#define MAX_THREADS 9

typedef struct counting {
    int threads;
    int times[MAX_TASKS];         /* not atomic: each task has its own element, and the caller reads after the run */
    atomic_int busy[MAX_THREADS]; /* a worker takes one task at a time */
    atomic_int mistakes;
} counting;

static void count_task(void *arg, int64_t task, int worker)
{
    counting *c = arg;
    if (worker < 0 || worker >= c->threads || atomic_fetch_add(&c->busy[worker], 1) != 0) {
        atomic_fetch_add(&c->mistakes, 1);
        return;
    }
    c->times[task]++;
    atomic_fetch_sub(&c->busy[worker], 1);
}

static void check_run(zi_pool *pool, int64_t tasks)
{
    counting *c = calloc(1, sizeof *c);
    c->threads = zi_pool_threads(pool);
    zi_pool_run(pool, count_task, c, tasks);
    assert_int_equal(c->mistakes, 0);
    for (int64_t i = 0; i < MAX_TASKS; i++)
        assert_int_equal(c->times[i], i < tasks);
    free(c);
}

static void pool_runs_each_task_once(void **state)
{
    const int threads[] = {1, 2, 3, MAX_THREADS};
    const int64_t tasks[] = {0, 1, 2, 3, 7, 64, MAX_TASKS};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        zi_pool *pool;
        assert_int_equal(zi_pool_new(threads[t], &pool, NULL), ZIMAGE_OK);
        assert_int_equal(zi_pool_threads(pool), threads[t]);
        for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++)
            check_run(pool, tasks[i]);
        zi_pool_free(pool);
    }
}

/* Very short runs, with pauses so that the workers fall asleep. */
static void *stress_pool(void *arg)
{
    zi_pool *pool = NULL;
    int *sums = arg;
    if (zi_pool_new(3, &pool, NULL) != ZIMAGE_OK)
        return NULL;
    for (int round = 0; round < 3000; round++) {
        counting c = {.threads = 3};
        zi_pool_run(pool, count_task, &c, round % 6);
        for (int i = 0; i < 6; i++)
            *sums += c.times[i];
        if (round % 300 == 0)
            usleep(1000);
    }
    zi_pool_free(pool);
    return NULL;
}

static void pools_work_side_by_side(void **state)
{
    pthread_t threads[3];
    int sums[3] = {0};
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, stress_pool, &sums[i]), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(sums[i], 500 * (0 + 1 + 2 + 3 + 4 + 5));
}

static void pool_checks_its_threads(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_pool *pool;
    assert_error(&error, zi_pool_new(-1, &pool, &error), ZIMAGE_ERROR_ARGUMENT, "threads: -1, expected 0", NULL, NULL);
    assert_null(pool);
    assert_error(&error, zi_pool_new(100000, &pool, &error), ZIMAGE_ERROR_ARGUMENT, "threads: 100000", NULL, NULL);
    assert_int_equal(zi_pool_new(0, &pool, &error), ZIMAGE_OK);
    assert_int_equal(zi_pool_threads(pool), zi_cpu_count());
    zi_pool_free(pool);
    zi_pool_free(NULL);
}

static void cpu_quotas_are_read(void **state)
{
    char root[PATH_MAX];
    snprintf(root, sizeof root, "%s", temporary("cgroup"));
    const char *folders[] = {"cgroup", "cgroup/a", "cgroup/a/b", "cgroup/cpu", "cgroup/cpu/old"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        assert_int_equal(mkdir(temporary(folders[i]), 0777), 0);
    write_text(temporary("cgroup/a/cpu.max"), "250000 100000\n");
    write_text(temporary("cgroup/a/b/cpu.max"), "max 100000\n");
    write_text(temporary("cgroup/cpu/cpu.cfs_quota_us"), "-1\n");
    write_text(temporary("cgroup/cpu/cpu.cfs_period_us"), "100000\n");
    write_text(temporary("cgroup/cpu/old/cpu.cfs_quota_us"), "50000\n");
    write_text(temporary("cgroup/cpu/old/cpu.cfs_period_us"), "100000\n");
    const struct {
        const char *membership;
        int cpus;
    } cases[] = {
        {"0::/a/b\n", 3}, /* the quota of the parent, 2.5, rounded up */
        {"0::/\n", 0},
        {"0::/elsewhere/deep\n", 0},
        {"5:cpuset:/old\n4:cpu,cpuacct:/old\n", 1},
        {"4:cpuacct,cpu:/old/gone\n", 1},
        {"4:cpuset:/old\n", 0},
        {"4:cpu:/\n0::/a\n", 3},
        {"nonsense\n\n:\n", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_text(temporary("membership"), cases[i].membership);
        assert_int_equal(zi_cgroup_cpus(temporary("membership"), root), cases[i].cpus);
    }
    assert_int_equal(zi_cgroup_cpus(temporary("absent"), root), 0);
    assert_true(zi_cpu_count() >= 1);
}

static void resident_bytes_follow_the_memory_in_use(void **state)
{
    const size_t size = (size_t)64 << 20, tolerance = (size_t)8 << 20;
    size_t before = zi_resident_bytes();
    char *block = malloc(size);
    assert_non_null(block);
    memset(block, 1, size);
    size_t during = zi_resident_bytes();
    assert_true(before > 0);
    assert_true(during + tolerance >= before + size);
    assert_int_equal(((volatile char *)block)[size - 1], 1); /* the compiler must keep the block */
    free(block);
    assert_true(zi_peak_resident_bytes() + tolerance >= during);
    assert_true(zi_physical_bytes() > during);
}

static void cpu_has_a_model(void **state)
{
    char model[200] = "", cut[4] = "";
    zi_cpu_model(model, sizeof model);
    assert_true(strlen(model) > 0);
    assert_null(strchr(model, '\n'));
    zi_cpu_model(cut, sizeof cut);
    assert_memory_equal(cut, model, strlen(cut));
}

/* The cache folder with these variables (NULL: unset). The caller frees it. */
static char *cache_folder_of(const char *cache, const char *home, int create)
{
    cache ? setenv("XDG_CACHE_HOME", cache, 1) : unsetenv("XDG_CACHE_HOME");
    home ? setenv("HOME", home, 1) : unsetenv("HOME");
    return zi_cache_folder(create);
}

static void cache_folder_is_the_users(void **state)
{
    char chosen[2 * PATH_MAX], home[2 * PATH_MAX];
    snprintf(chosen, sizeof chosen, "%s", temporary("chosen"));
    snprintf(home, sizeof home, "%s", temporary("home"));
    char *folder = cache_folder_of(chosen, home, 0);
    assert_string_equal(folder, temporary("chosen/zimage"));
    assert_false(zi_folder_exists(folder));
    free(folder);
    folder = cache_folder_of(chosen, home, 1);
    assert_true(zi_folder_exists(folder));
    free(folder);
    folder = cache_folder_of("not/absolute", home, 0);
    assert_memory_equal(folder, home, strlen(home));
    free(folder);
    assert_null(cache_folder_of(NULL, "", 1));
    assert_null(cache_folder_of(NULL, NULL, 1));
}

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

static json_t *load_json(const char *text)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    json_t *object = NULL;
    write_text(temporary("config.json"), text);
    if (zi_json_load(temporary("config.json"), &object, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return object;
}

static void json_fields_are_read(void **state)
{
    json_t *object = load_json("{\"i\": -3, \"r\": 0.5, \"t\": true, \"s\": \"text\", \"n\": null, \"a\": [1, 2]}");
    const zi_json_reader json = {object, "f", NULL};
    const int64_t seven = 7;
    const double half = 0.25;
    const int yes = 1;
    int64_t integer, array[2];
    double number;
    int boolean;
    const char *string;
    size_t count;
    assert_int_equal(zi_json_int(&json, "i", -5, 5, NULL, &integer), ZIMAGE_OK);
    assert_int_equal(integer, -3);
    assert_int_equal(zi_json_int(&json, "n", 0, 9, &seven, &integer), ZIMAGE_OK);
    assert_int_equal(integer, 7);
    assert_int_equal(zi_json_number(&json, "i", -5, 5, NULL, &number), ZIMAGE_OK);
    assert_true(number == -3);
    assert_int_equal(zi_json_number(&json, "r", 0, 1, NULL, &number), ZIMAGE_OK);
    assert_true(number == 0.5);
    assert_int_equal(zi_json_number(&json, "absent", 0, 1, &half, &number), ZIMAGE_OK);
    assert_true(number == 0.25);
    assert_int_equal(zi_json_bool(&json, "t", NULL, &boolean), ZIMAGE_OK);
    assert_int_equal(boolean, 1);
    assert_int_equal(zi_json_bool(&json, "n", &yes, &boolean), ZIMAGE_OK);
    assert_int_equal(boolean, 1);
    assert_int_equal(zi_json_string(&json, "s", NULL, &string), ZIMAGE_OK);
    assert_string_equal(string, "text");
    assert_int_equal(zi_json_string(&json, "n", "other", &string), ZIMAGE_OK);
    assert_string_equal(string, "other");
    assert_int_equal(zi_json_int_array(&json, "a", 1, 2, array, 2, &count), ZIMAGE_OK);
    assert_int_equal(count, 2);
    assert_int_equal(array[1], 2);
    json_decref(object);
}

static void json_fields_are_checked(void **state)
{
    json_t *object = load_json("{\"i\": -3, \"r\": 3.0, \"huge\": 9007199254740993, \"s\": \"text\", \"n\": null, "
                               "\"o\": {}, \"a\": [1, 2.5], \"e\": [], \"f\": false}");
    const struct {
        const char *field, *says;
    } integers[] = {
        {"i", ": -3, expected an integer from 1 to 100"},
        {"r", ": 3.00000,"},
        {"huge", ": 9007199254740993,"},
        {"s", ": \"text\","},
        {"n", ": null,"},
        {"o", ": an object,"},
        {"a", ": an array,"},
        {"f", ": false,"},
        {"absent", ": missing,"},
    };
    zimage_error error = ZIMAGE_ERROR_INIT;
    const zi_json_reader json = {object, "dir/config.json", &error};
    const int64_t fallback = 5;
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        int64_t value = 42;
        char field[32];
        snprintf(field, sizeof field, "\"%s\"", integers[i].field);
        assert_error(&error, zi_json_int(&json, integers[i].field, 1, 100, NULL, &value), ZIMAGE_ERROR_MODEL,
                     "dir/config.json: ", field, integers[i].says);
        assert_int_equal(value, 42);
    }
    int64_t values[2];
    size_t count;
    double number;
    int boolean;
    const char *string;
    assert_error(&error, zi_json_int(&json, "i", 1, 100, &fallback, values), ZIMAGE_ERROR_MODEL, "-3", NULL, NULL);
    assert_error(&error, zi_json_number(&json, "i", 0, 0.5, NULL, &number), ZIMAGE_ERROR_MODEL, "\"i\"",
                 "a number from 0 to 0.5", NULL);
    assert_error(&error, zi_json_number(&json, "s", 0, 1, NULL, &number), ZIMAGE_ERROR_MODEL, "\"s\"", NULL, NULL);
    assert_error(&error, zi_json_bool(&json, "i", NULL, &boolean), ZIMAGE_ERROR_MODEL, "\"i\"", "true or false", NULL);
    assert_error(&error, zi_json_string(&json, "absent", NULL, &string), ZIMAGE_ERROR_MODEL, "missing", "a string",
                 NULL);
    assert_error(&error, zi_json_int_array(&json, "a", 1, 9, values, 2, &count), ZIMAGE_ERROR_MODEL,
                 "\"a[1]\": 2.50000", NULL, NULL);
    assert_error(&error, zi_json_int_array(&json, "a", 1, 9, values, 1, &count), ZIMAGE_ERROR_MODEL,
                 "\"a\": 2 elements", "1 to 1", NULL);
    assert_error(&error, zi_json_int_array(&json, "e", 1, 9, values, 2, &count), ZIMAGE_ERROR_MODEL,
                 "\"e\": 0 elements", NULL, NULL);
    assert_error(&error, zi_json_int_array(&json, "i", 1, 9, values, 2, &count), ZIMAGE_ERROR_MODEL,
                 "an array of integers", NULL, NULL);
    json_decref(object);
}

static void json_files_are_checked(void **state)
{
    const struct {
        const char *text, *says;
    } cases[] = {
        {"", "empty"},
        {"[1]", "an array"},
        {"3", "holds 3,"},
        {"{} {}", "end of file"},
        {"{}]", "end of file"},
        {"{},{}", "end of file"},
        {"{\"a\": 1,\n\"a\": 2}", "line 2"},
        {"{\"a\": 1", "line 1"},
        {"{\"a\": 99999999999999999999}", "-2^63"},
        {"{\"a\": 1e999}", "1.8e308"},
        {"{\"a\xff\": 1}", "decode byte"},
        {"{\"a\\u0000b\": 1}", "line 1"},
        {"{} {}", "end of file"},
        {"{\"a\": NaN}", "invalid token"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        json_t *object;
        write_text(temporary("bad.json"), cases[i].text);
        assert_error(&error, zi_json_load(temporary("bad.json"), &object, &error), ZIMAGE_ERROR_FORMAT,
                     "bad.json: ", cases[i].says, NULL);
        assert_null(object);
    }
    zimage_error error = ZIMAGE_ERROR_INIT;
    json_t *object;
    char deep[100001];
    memset(deep, '[', 100000);
    deep[100000] = 0;
    write_text(temporary("deep.json"), deep);
    assert_error(&error, zi_json_load(temporary("deep.json"), &object, &error), ZIMAGE_ERROR_FORMAT,
                 "deep.json: ", "depth", NULL);
    assert_int_equal(truncate(temporary("deep.json"), (off_t)65 << 20), 0);
    assert_error(&error, zi_json_load(temporary("deep.json"), &object, &error), ZIMAGE_ERROR_FORMAT,
                 "deep.json: ", "at most", NULL);
    assert_error(&error, zi_json_load(temporary("absent.json"), &object, &error), ZIMAGE_ERROR_FILE, "absent.json",
                 NULL, NULL);
}

typedef struct counted {
    int64_t count;
    double unread;
} counted;

static zimage_status read_count(const zi_json_reader *json, void *out)
{
    return zi_json_int(json, "count", 1, 9, NULL, &((counted *)out)->count);
}

static void configurations_are_read(void **state)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    counted config = {5, 5};
    write_text(temporary("count.json"), "{\"count\": 3}");
    assert_int_equal(zi_config_read(temporary("count.json"), NULL, read_count, &config, sizeof config, &error),
                     ZIMAGE_OK);
    assert_int_equal(config.count, 3);
    assert_true(config.unread == 0);
    assert_int_equal(zi_config_read("name", "{\"count\": 4}", read_count, &config, sizeof config, &error), ZIMAGE_OK);
    assert_int_equal(config.count, 4);
    assert_error(&error, zi_config_read("name", "{\"count\": 10}", read_count, &config, sizeof config, &error),
                 ZIMAGE_ERROR_MODEL, "name: \"count\": 10, expected an integer from 1 to 9", NULL, NULL);
    assert_error(&error, zi_config_read("name", "[3]", read_count, &config, sizeof config, &error), ZIMAGE_ERROR_FORMAT,
                 "name: the configuration holds an array, expected a JSON object", NULL, NULL);
    assert_error(&error, zi_config_read("name", "{", read_count, &config, sizeof config, &error), ZIMAGE_ERROR_FORMAT,
                 "name: the configuration is not valid JSON", NULL, NULL);
    assert_error(&error, zi_config_read(temporary("no.json"), NULL, read_count, &config, sizeof config, &error),
                 ZIMAGE_ERROR_FILE, "no.json", NULL, NULL);
}

static void numbers_are_small_arithmetic(void **state)
{
    assert_int_equal(zi_min_size(3, 4), 3);
    assert_int_equal(zi_max_size(3, SIZE_MAX), SIZE_MAX);
    assert_int_equal(zi_min_int64(-3, 4), -3);
    assert_int_equal(zi_max_int64(-3, 4), 4);
    assert_int_equal(zi_mib(0), 0);
    assert_int_equal(zi_mib(1), 1);
    assert_int_equal(zi_mib(ZI_MIB), 1);
    assert_int_equal(zi_mib(ZI_MIB + 1), 2);
}

/* The sequence of the paper's generator; floats lie in [-1, 1), and their mean is near 0. */
static void random_numbers_follow_the_paper(void **state)
{
    uint64_t sequence = ZI_RANDOM_SEED;
    double sum = 0;
    assert_true(zi_random_next(&sequence) == UINT64_C(8748534153485358512));
    assert_true(zi_random_next(&sequence) == UINT64_C(3040900993826735515));
    for (int i = 0; i < 10000; i++) {
        float value = zi_random_float(&sequence);
        assert_true(value >= -1 && value < 1);
        sum += value;
    }
    assert_true(fabs(sum) < 300); /* five standard deviations: sqrt(10000 / 3) = 58 */
    assert_int_not_equal(zi_random_bits(&sequence), zi_random_bits(&sequence));
}

/* The value of a small float, by definition: a sign, exponent_bits, mantissa_bits. */
static float value_of(uint32_t bits, int exponent_bits, int mantissa_bits)
{
    int exponent = (int)(bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
    int mantissa = (int)bits & ((1 << mantissa_bits) - 1);
    int bias = (1 << (exponent_bits - 1)) - 1, lowest = 1 - bias - mantissa_bits;
    double value;
    if (exponent == (1 << exponent_bits) - 1)
        value = mantissa ? NAN : INFINITY;
    else if (exponent == 0)
        value = ldexp(mantissa, lowest);
    else
        value = ldexp((1 << mantissa_bits) + mantissa, lowest + exponent - 1);
    return (float)(bits >> (exponent_bits + mantissa_bits) ? -value : value);
}

static int same_float(float a, float b)
{
    return (isnan(a) && isnan(b)) || (a == b && signbit(a) == signbit(b));
}

static void every_half_converts(void **state)
{
    const struct {
        zi_dtype dtype;
        int exponent_bits, mantissa_bits;
        float (*convert)(uint16_t);
    } formats[] = {{ZI_F16, 5, 10, zi_f16_to_f32}, {ZI_BF16, 8, 7, zi_bf16_to_f32}};
    uint8_t *bytes = malloc(2 * 65536 + 1);
    float *unpacked = malloc(65536 * sizeof *unpacked);
    for (uint32_t i = 0; i < 65536; i++) {
        bytes[1 + 2 * i] = (uint8_t)i;
        bytes[2 + 2 * i] = (uint8_t)(i >> 8);
    }
    for (int f = 0; f < 2; f++) {
        zi_weight weight = {.name = "w",
                            .dtype = formats[f].dtype,
                            .dims = 2,
                            .shape = {256, 256},
                            .data = bytes + 1,
                            .bytes = 2 * 65536};
        zi_weight_unpack(&weight, 0, 65536, unpacked);
        for (uint32_t i = 0; i < 65536; i++) {
            float expected = value_of(i, formats[f].exponent_bits, formats[f].mantissa_bits);
            if (!same_float(formats[f].convert((uint16_t)i), expected) || !same_float(unpacked[i], expected))
                fail_msg("%s %04x: %a and %a, expected %a", zi_dtype_name(formats[f].dtype), i,
                         formats[f].convert((uint16_t)i), unpacked[i], expected);
        }
        zi_weight_unpack(&weight, 1001, 3, unpacked);
        assert_true(same_float(unpacked[2], value_of(1003, formats[f].exponent_bits, formats[f].mantissa_bits)));
    }
    free(bytes);
    free(unpacked);
}

static void float32_is_copied(void **state)
{
    const float values[4] = {1, -2.5f, 3e-42f, 4};
    uint8_t bytes[17];
    float out[2] = {0};
    memcpy(bytes + 1, values, sizeof values);
    zi_weight weight = {.name = "w", .dims = 1, .shape = {4}, .data = bytes + 1, .bytes = sizeof values};
    zi_weight_unpack(&weight, 1, 2, out);
    assert_memory_equal(out, values + 1, sizeof out);
    zi_weight_unpack(&weight, 4, 0, out);
    assert_int_equal(zi_weight_count(&weight), 4);
}

static void tensors_are_views(void **state)
{
    float data[24];
    zi_tensor tensor = zi_tensor_describe(ZI_F32, 3, (const int64_t[]){2, 3, 4});
    tensor.data = data;
    assert_int_equal(zi_tensor_count(&tensor), 24);
    zi_tensor rows = zi_tensor_rows(&tensor, 1, 1);
    assert_ptr_equal(zi_f32(&rows), data + 12);
    assert_int_equal(zi_tensor_count(&rows), 12);
    zi_tensor shaped = zi_tensor_shaped(&tensor, 2, (const int64_t[]){6, 4});
    assert_int_equal(shaped.dims, 2);
    assert_int_equal(shaped.shape[0], 6);
    assert_ptr_equal(zi_f32(&shaped), data);
    zi_tensor columns = zi_tensor_columns(&shaped, 1, 2);
    assert_int_equal(columns.ld, 4);
    assert_ptr_equal(zi_f32(&columns), data + 1);
    assert_false(zi_tensor_is_dense(&columns));
    columns = zi_tensor_rows(&columns, 3, 2);
    assert_ptr_equal(zi_f32(&columns), data + 13);
    assert_int_equal(zi_tensor_count(&columns), 4);
    zi_tensor scalar = {.dtype = ZI_F32};
    assert_int_equal(zi_tensor_count(&scalar), 1);
    assert_int_equal(zi_dtype_size(ZI_F32), 4);
    assert_int_equal(zi_dtype_size(ZI_BF16), 2);
    assert_int_equal(zi_dtype_size(ZI_DTYPE_OTHER), 0);
    assert_string_equal(zi_dtype_name(ZI_BF16), "BF16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_is_optional_and_keeps_its_text),
        cmocka_unit_test(error_is_one_line_of_utf8),
        cmocka_unit_test(error_is_cut_on_a_character),
        cmocka_unit_test(error_keeps_to_its_struct_size),
        cmocka_unit_test(structs_of_other_versions_are_taken),
        cmocka_unit_test(structs_of_other_versions_are_given),
        cmocka_unit_test(warning_reaches_the_log),
        cmocka_unit_test(arena_is_a_stack),
        cmocka_unit_test(arena_grows_and_shrinks),
        cmocka_unit_test(imaginary_arenas_are_as_large_as_real_ones),
        cmocka_unit_test(pool_runs_each_task_once),
        cmocka_unit_test(pools_work_side_by_side),
        cmocka_unit_test(pool_checks_its_threads),
        cmocka_unit_test(cpu_quotas_are_read),
        cmocka_unit_test(resident_bytes_follow_the_memory_in_use),
        cmocka_unit_test(cpu_has_a_model),
        cmocka_unit_test(cache_folder_is_the_users),
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
        cmocka_unit_test(json_fields_are_read),
        cmocka_unit_test(json_fields_are_checked),
        cmocka_unit_test(json_files_are_checked),
        cmocka_unit_test(configurations_are_read),
        cmocka_unit_test(numbers_are_small_arithmetic),
        cmocka_unit_test(random_numbers_follow_the_paper),
        cmocka_unit_test(every_half_converts),
        cmocka_unit_test(float32_is_copied),
        cmocka_unit_test(tensors_are_views),
    };
    return cmocka_run_group_tests(tests, make_temporary_folder, remove_temporary_folder);
}
