#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static zimage_status fail(zimage_error *error, int code, const char *path, const char *what)
{
    return zi_fail_errno(error, code == ENOMEM ? ZIMAGE_ERROR_MEMORY : ZIMAGE_ERROR_FILE, code, "%s: %s", path, what);
}

/* Opens a regular file for reading. O_NONBLOCK: opening a FIFO by mistake must not wait for its writer. */
static zimage_status open_regular(const char *path, int *descriptor, struct stat *status, zimage_error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fail(error, errno, path, "the file can't be opened");
    if (fstat(fd, status) != 0) {
        int code = errno;
        close(fd);
        return fail(error, code, path, "the file can't be examined");
    }
    if (!S_ISREG(status->st_mode)) {
        close(fd);
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: this is %s, expected a regular file", path,
                       S_ISDIR(status->st_mode) ? "a folder" : "a device, pipe or socket");
    }
    *descriptor = fd;
    return ZIMAGE_OK;
}

zimage_status zi_map_file(const char *path, zi_mapping *mapping, zimage_error *error)
{
    struct stat status = {0};
    int fd = -1;
    *mapping = (zi_mapping){NULL, 0};
    ZI_TRY(open_regular(path, &fd, &status, error));
    if (status.st_size == 0) {
        close(fd);
        return ZIMAGE_OK;
    }
    void *data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    int code = errno;
    close(fd);
    if (data == MAP_FAILED)
        return fail(error, code, path, "the file can't be mapped into memory");
    *mapping = (zi_mapping){data, (size_t)status.st_size};
    return ZIMAGE_OK;
}

void zi_unmap(zi_mapping *mapping)
{
    if (mapping->data)
        munmap((void *)mapping->data, mapping->size);
    *mapping = (zi_mapping){NULL, 0};
}

void zi_drop_pages(const zi_mapping *mapping)
{
    if (mapping->data)
        madvise((void *)mapping->data, mapping->size, MADV_DONTNEED);
}

/* Reads until `size` bytes or the end of the file; returns an errno value. */
static int read_fully(int fd, char *buffer, size_t size, size_t *length)
{
    *length = 0;
    while (*length < size) {
        ssize_t got = read(fd, buffer + *length, size - *length);
        if (got == 0)
            return 0;
        if (got > 0)
            *length += (size_t)got;
        else if (errno != EINTR)
            return errno;
    }
    return 0;
}

zimage_status zi_read_file(const char *path, size_t limit, char **text, size_t *length, zimage_error *error)
{
    struct stat status = {0};
    int fd = -1;
    *text = NULL;
    *length = 0;
    ZI_TRY(open_regular(path, &fd, &status, error));
    if ((uint64_t)status.st_size > limit) {
        close(fd);
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, "%s: the file has %lld bytes, expected at most %zu", path,
                       (long long)status.st_size, limit);
    }
    size_t size = (size_t)status.st_size;
    char *buffer = malloc(size + 1);
    if (!buffer) {
        close(fd);
        return zi_fail_memory(error, path, size + 1);
    }
    int code = read_fully(fd, buffer, size, length);
    close(fd);
    if (code != 0) {
        free(buffer);
        *length = 0;
        return fail(error, code, path, "the file can't be read");
    }
    buffer[*length] = 0;
    *text = buffer;
    return ZIMAGE_OK;
}

char *zi_path_join(const char *folder, const char *name)
{
    size_t length = strlen(folder), size = length + strlen(name) + 2;
    const char *slash = length > 0 && folder[length - 1] != '/' ? "/" : "";
    char *path = malloc(size);
    if (path)
        snprintf(path, size, "%s%s%s", folder, slash, name);
    return path;
}

int zi_file_exists(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

int zi_folder_exists(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

int zi_folder_create(const char *path)
{
    char *part = strdup(path);
    char *slash = part && *part ? strchr(part + 1, '/') : NULL;
    for (; slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(part, 0755);
        *slash = '/';
    }
    free(part);
    mkdir(path, 0755);
    return zi_folder_exists(path);
}

/*
 * Whether path names an open descriptor, as /dev/stdout does (-> /proc/self/fd/1). It may look like a regular file, to
 * which the shell redirected the output. A rename would replace that file, but the descriptor would keep the old one.
 */
static int names_descriptor(const char *path)
{
    return strncmp(path, "/dev/std", 8) == 0 || strncmp(path, "/dev/fd/", 8) == 0 || strncmp(path, "/proc/", 6) == 0;
}

/* For devices, pipes and descriptors, which a rename can't replace. */
static zimage_status open_in_place(zi_output *output, const char *path, zimage_error *error)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    int code = errno;
    output->file = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!output->file && fd >= 0) {
        code = errno;
        close(fd);
    }
    if (!output->file)
        return fail(error, code, path, "can't be written");
    return ZIMAGE_OK;
}

/* Bytes of the file's name that the temporary name keeps, so that it stays below NAME_MAX. */
#define BASE_BYTES 200
#define ATTEMPTS   1000

/* Creates "path.<pid>-<n>.tmp" with the first free n. output->path is set already. */
static zimage_status open_temporary(zi_output *output, zimage_error *error)
{
    const char *slash = strrchr(output->path, '/');
    size_t folder = slash ? (size_t)(slash - output->path) + 1 : 0;
    size_t base = strlen(output->path + folder);
    int kept = (int)(folder + (base < BASE_BYTES ? base : BASE_BYTES));
    size_t size = (size_t)kept + 64;
    output->temporary = malloc(size);
    if (!output->temporary)
        return zi_fail_memory(error, "a path", size);

    int fd = -1, code = EEXIST;
    for (int n = 0; n < ATTEMPTS && code == EEXIST; n++) {
        snprintf(output->temporary, size, "%.*s.%ld-%d.tmp", kept, output->path, (long)getpid(), n);
        fd = open(output->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0666);
        code = fd < 0 ? errno : 0;
    }
    if (fd < 0)
        return fail(error, code, output->path, "can't be written");
    output->file = fdopen(fd, "wb");
    if (output->file)
        return ZIMAGE_OK;
    code = errno;
    close(fd);
    unlink(output->temporary);
    return fail(error, code, output->path, "can't be written");
}

/* The path that a rename replaces: the target of an existing symbolic link, not the link. NULL: out of memory. */
static char *final_path(const char *path, int exists)
{
    struct stat status;
    char *resolved = NULL;
    errno = 0;
    if (exists && lstat(path, &status) == 0 && S_ISLNK(status.st_mode))
        resolved = realpath(path, NULL);
    if (!resolved && errno == ENOMEM)
        return NULL;
    return resolved ? resolved : strdup(path);
}

static zimage_status open_output(zi_output *output, const char *path, zimage_error *error)
{
    struct stat status;
    if (*path == 0)
        return zi_fail(error, ZIMAGE_ERROR_FILE, "the path of the output file is empty");
    int exists = stat(path, &status) == 0;
    if (exists && S_ISDIR(status.st_mode))
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: can't be written: this is a folder", path);
    output->path = final_path(path, exists);
    if (!output->path)
        return zi_fail_memory(error, "a path", strlen(path) + 1);
    if (exists && (!S_ISREG(status.st_mode) || names_descriptor(path)))
        return open_in_place(output, path, error);
    /* A rename would replace a read-only file, too; but a file that can't be written must stay. */
    if (exists && access(path, W_OK) != 0)
        return fail(error, errno, path, "can't be written");
    return open_temporary(output, error);
}

static void forget(zi_output *output)
{
    free(output->path);
    free(output->temporary);
    *output = (zi_output){NULL, NULL, NULL};
}

zimage_status zi_output_open(zi_output *output, const char *path, zimage_error *error)
{
    *output = (zi_output){NULL, NULL, NULL};
    zimage_status status = open_output(output, path, error);
    if (status != ZIMAGE_OK)
        forget(output);
    return status;
}

#define UNKNOWN_ERROR (-1)

/*
 * Flushes, syncs and closes; returns an errno value. Some failures appear only here (full disk, quota, network). If an
 * earlier write failed, stdio keeps only a flag and no errno value: that is UNKNOWN_ERROR, unless flushing fails, too.
 */
static int finish_writing(zi_output *output)
{
    int code = ferror(output->file) ? UNKNOWN_ERROR : 0;
    if (fflush(output->file) != 0)
        code = errno;
    if (code == 0 && output->temporary && fsync(fileno(output->file)) != 0 && errno != EINVAL)
        code = errno;
    if (fclose(output->file) != 0 && code == 0)
        code = errno;
    output->file = NULL;
    return code;
}

zimage_status zi_output_commit(zi_output *output, zimage_error *error)
{
    int code = finish_writing(output);
    if (code == 0 && output->temporary && rename(output->temporary, output->path) != 0)
        code = errno;
    if (code == 0) {
        forget(output);
        return ZIMAGE_OK;
    }
    zimage_status status;
    if (code == UNKNOWN_ERROR)
        status = zi_fail(error, ZIMAGE_ERROR_FILE, "%s: can't be written completely; is the disk full?", output->path);
    else
        status = fail(error, code, output->path, "can't be written");
    zi_output_abandon(output);
    return status;
}

void zi_output_abandon(zi_output *output)
{
    if (output->file)
        fclose(output->file);
    if (output->temporary)
        unlink(output->temporary);
    forget(output);
}
