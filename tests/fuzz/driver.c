/*
 * The one driver of all fuzz targets. Compiled with ZI_FUZZ_TARGET (a target of fuzz.h) it holds libFuzzer's functions;
 * otherwise it is a program that replays files:
 *   fuzz_replay FOLDER                   every file of FOLDER/TARGET, for all targets
 *   fuzz_replay TARGET FILE...           these files; it prints what the library says of them
 * It fails at an input that takes too long, and where an input breaks the library, the process ends.
 */
#include "fuzz.h"

#include <dirent.h>
#include <ftw.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"

/* ---- the folder ---- */

static char folder[PATH_MAX / 2];
static pid_t owner;

void zi_fuzz_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("fuzz: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

static int prints_notes;

void zi_fuzz_note(const char *message)
{
    if (prints_notes)
        printf("%s\n", message);
}

static int remove_below(const char *path, const struct stat *status, int type, struct FTW *place)
{
    return place->level == 0 ? 0 : remove(path);
}

void zi_fuzz_clear(void)
{
    if (folder[0] && nftw(folder, remove_below, 16, FTW_DEPTH | FTW_PHYS) != 0)
        zi_fuzz_fail("%s can't be emptied", folder);
}

static void remove_folder(void)
{
    if (getpid() != owner)
        return;
    zi_fuzz_clear();
    rmdir(folder);
}

const char *zi_fuzz_folder_path(void)
{
    const char *parent = getenv("TMPDIR");
    if (folder[0])
        return folder;
    if (!parent || !*parent)
        parent = zi_folder_exists("/dev/shm") ? "/dev/shm" : "/tmp";
    snprintf(folder, sizeof folder, "%s/zimage-fuzz-XXXXXX", parent);
    if (!mkdtemp(folder))
        zi_fuzz_fail("%s can't be made", folder);
    owner = getpid();
    atexit(remove_folder);
    return folder;
}

const char *zi_fuzz_path(const char *name)
{
    static char paths[8][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", zi_fuzz_folder_path(), name);
    return path;
}

void zi_fuzz_write(const char *name, const void *data, size_t size)
{
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", zi_fuzz_path(name));
    *strrchr(parent, '/') = 0;
    zi_folder_create(parent);
    FILE *file = fopen(zi_fuzz_path(name), "wb");
    if (!file)
        return; /* the name is that of a folder */
    size_t written = size ? fwrite(data, 1, size, file) : 0;
    if (fclose(file) != 0 || written != size)
        zi_fuzz_fail("%s can't be written", zi_fuzz_path(name));
}

/* ---- one input ---- */

/* Of this process: what other processes do is not counted. */
static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int run(const zi_fuzz_target *target, const uint8_t *data, size_t size)
{
    /* A copy of the exact size: a sanitizer sees what is read beyond it. */
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        zi_fuzz_fail("out of memory");
    memcpy(copy, data, size);
    int result = target->run(copy, size);
    free(copy);
    return result;
}

/* The address sanitizer reads it: no allocation and no sum of them may be larger than 1 GiB. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "max_allocation_size_mb=1024:hard_rss_limit_mb=1024:quarantine_size_mb=16";
}

#ifdef ZI_FUZZ_TARGET

/* ---- libFuzzer ---- */

#define LIMIT_SECONDS 1.0 /* of one input, of a CPU: libFuzzer's own -timeout is of a clock on the wall */

static double slowest;
static size_t slowest_size;

static void print_slowest(void)
{
    fprintf(stderr, "slowest input: %.3f s of CPU, %zu bytes\n", slowest, slowest_size);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t capacity, unsigned seed);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    if (ZI_FUZZ_TARGET.prepare)
        ZI_FUZZ_TARGET.prepare();
    atexit(print_slowest);
    return 0;
}

static double timed_run(const uint8_t *data, size_t size, int *result)
{
    double start = cpu_seconds();
    *result = run(&ZI_FUZZ_TARGET, data, size);
    return cpu_seconds() - start;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int result;
    double seconds = timed_run(data, size, &result);
    if (seconds > LIMIT_SECONDS) /* what a virtual machine waits for its host counts, too: not twice */
        seconds = timed_run(data, size, &result);
    if (seconds > slowest) {
        slowest = seconds;
        slowest_size = size;
    }
    if (seconds > LIMIT_SECONDS)
        zi_fuzz_fail("the input took %.2f s of CPU", seconds);
    return result;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t capacity, unsigned seed)
{
    return ZI_FUZZ_TARGET.mutate ? ZI_FUZZ_TARGET.mutate(data, size, capacity, seed)
                                 : LLVMFuzzerMutate(data, size, capacity);
}

#else

/* ---- replaying ---- */

#define LIMIT_SECONDS 2.0 /* of a CPU, of one input, with sanitizers */
#define LIMIT_BYTES   ((size_t)16 << 20)

static const zi_fuzz_target *const targets[] = {
    &zi_fuzz_base64, &zi_fuzz_batch,       &zi_fuzz_caches, &zi_fuzz_chat,      &zi_fuzz_fields, &zi_fuzz_folder,
    &zi_fuzz_form,   &zi_fuzz_generate,    &zi_fuzz_hub,    &zi_fuzz_image,     &zi_fuzz_policy, &zi_fuzz_recipe,
    &zi_fuzz_route,  &zi_fuzz_safetensors, &zi_fuzz_text,   &zi_fuzz_tokenizer, &zi_fuzz_words,
};
#define TARGETS       (sizeof targets / sizeof *targets)

typedef struct replay {
    const zi_fuzz_target *target;
    int files, slow;
    double slowest;
} replay;

static void replay_file(replay *r, const char *path)
{
    char *text = NULL;
    size_t length = 0;
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (zi_read_file(path, LIMIT_BYTES, &text, &length, &error) != ZIMAGE_OK)
        zi_fuzz_fail("%s", error.message);
    if (r->files++ == 0 && r->target->prepare)
        r->target->prepare();
    double start = cpu_seconds();
    run(r->target, (const uint8_t *)text, length);
    double seconds = cpu_seconds() - start;
    free(text);
    if (seconds > r->slowest)
        r->slowest = seconds;
    if (seconds > LIMIT_SECONDS) {
        printf("%s: took %.2f s of CPU, expected at most %g s\n", path, seconds, LIMIT_SECONDS);
        r->slow = 1;
    }
}

static int is_file(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void replay_folder(replay *r, const char *path)
{
    struct dirent **entries = NULL;
    int count = scandir(path, &entries, is_file, alphasort);
    if (count < 0)
        zi_fuzz_fail("%s can't be read", path);
    for (int i = 0; i < count; i++) {
        char *file = zi_path_join(path, entries[i]->d_name);
        if (!file)
            zi_fuzz_fail("out of memory");
        replay_file(r, file);
        free(file);
        free(entries[i]);
    }
    free(entries);
}

static int finish(const replay *r)
{
    printf("fuzz corpus | %-12s | %4d files | slowest %.3f s\n", r->target->name, r->files, r->slowest);
    fflush(stdout);
    return r->slow || r->files == 0;
}

int main(int argc, char **argv)
{
    int failed = 0, known = 0;
    prints_notes = argc > 2;
    for (size_t i = 0; argc >= 2 && i < TARGETS; i++) {
        replay r = {.target = targets[i]};
        char path[PATH_MAX];
        if (argc > 2 && strcmp(argv[1], r.target->name) != 0)
            continue;
        known = 1;
        snprintf(path, sizeof path, "%s/%s", argv[1], r.target->name);
        if (argc == 2)
            replay_folder(&r, path);
        for (int k = 2; k < argc; k++)
            replay_file(&r, argv[k]);
        failed |= finish(&r);
    }
    if (!known)
        fprintf(stderr, "usage: fuzz_replay CORPORA | fuzz_replay TARGET FILE...\n");
    return !known || failed;
}

#endif
