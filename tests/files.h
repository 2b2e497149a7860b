/* A temporary folder for a test's files, and safetensors files made of a header's text. */
#ifndef ZI_TESTS_FILES_H
#define ZI_TESTS_FILES_H

#include <dirent.h>
#include <ftw.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

static char temporary_folder[PATH_MAX];

static inline int make_temporary_folder(void **state)
{
    const char *parent = getenv("TMPDIR");
    snprintf(temporary_folder, sizeof temporary_folder, "%s/zimage-test-XXXXXX", parent && *parent ? parent : "/tmp");
    return mkdtemp(temporary_folder) ? 0 : -1;
}

static inline int remove_entry(const char *path, const struct stat *status, int type, struct FTW *place)
{
    return remove(path);
}

static inline int remove_temporary_folder(void **state)
{
    return nftw(temporary_folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* The path of a file in the temporary folder, in the next of a few buffers. */
static inline const char *temporary(const char *name)
{
    static char paths[8][2 * PATH_MAX];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", temporary_folder, name);
    return path;
}

static inline int files_in(const char *folder)
{
    int count = 0;
    DIR *list = opendir(folder);
    assert_non_null(list);
    for (struct dirent *entry = readdir(list); entry; entry = readdir(list))
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(list);
    return count;
}

static inline void write_bytes(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static inline void write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

/* A safetensors file: the header's length, the header, data_size bytes 0, 1, 2, ... */
static inline void write_safetensors(const char *path, const char *header, size_t data_size)
{
    size_t length = strlen(header), size = 8 + length + data_size;
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)length >> 8 * i);
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < data_size; i++)
        bytes[8 + length + i] = (uint8_t)i;
    write_bytes(path, bytes, size);
    free(bytes);
}

static inline void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" does not contain \"%s\"", text, part);
}

/* The status, and a message of one line that holds each of the parts (NULL ends them early). */
static inline void assert_error(const zimage_error *error, zimage_status status, zimage_status expected,
                                const char *part1, const char *part2, const char *part3)
{
    const char *parts[] = {part1, part2, part3};
    if (status != expected || error->status != expected)
        fail_msg("status %d, in the error %d (%s), but expected %d", status, error->status, error->message, expected);
    assert_null(strchr(error->message, '\n'));
    for (int i = 0; i < 3 && parts[i]; i++)
        assert_contains(error->message, parts[i]);
}

/* Runs a measurement of numbers[count] in a process of its own, whose memory begins without weights. */
static inline void in_a_process(void (*measure)(int argument, double *numbers), int argument, double *numbers,
                                size_t count)
{
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        measure(argument, numbers);
        _exit(write(ends[1], numbers, count * sizeof *numbers) != (ssize_t)(count * sizeof *numbers));
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], numbers, count * sizeof *numbers), count * sizeof *numbers);
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

#endif
