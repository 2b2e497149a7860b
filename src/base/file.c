#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

zimage_status zi_fail_file(zimage_error *error, int code, const char *path, const char *what)
{
    return zi_fail_errno(error, code == ENOMEM ? ZIMAGE_ERROR_MEMORY : ZIMAGE_ERROR_FILE, code, "%s: %s", path, what);
}

/* O_NONBLOCK: opening a FIFO by mistake must not wait for its writer. */
zimage_status zi_file_open(const char *path, zi_file *file, zimage_error *error)
{
    struct stat status;
    *file = (zi_file){path, -1, 0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return zi_fail_file(error, errno, path, "the file can't be opened");
    if (fstat(fd, &status) != 0) {
        int code = errno;
        close(fd);
        return zi_fail_file(error, code, path, "the file can't be examined");
    }
    if (!S_ISREG(status.st_mode)) {
        close(fd);
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: this is %s, expected a regular file", path,
                       S_ISDIR(status.st_mode) ? "a folder" : "a device, pipe or socket");
    }
    file->descriptor = fd;
    file->size = (uint64_t)status.st_size;
    return ZIMAGE_OK;
}

void zi_file_close(zi_file *file)
{
    if (file->descriptor >= 0)
        close(file->descriptor);
    file->descriptor = -1;
}

/* Reads until `size` bytes or the end of the file; returns an errno value. */
static int read_fully(const zi_file *file, uint64_t offset, char *buffer, size_t size, size_t *length)
{
    *length = 0;
    while (*length < size) {
        ssize_t got = pread(file->descriptor, buffer + *length, size - *length, (off_t)(offset + *length));
        if (got == 0)
            return 0;
        if (got > 0)
            *length += (size_t)got;
        else if (errno != EINTR)
            return errno;
    }
    return 0;
}

zimage_status zi_file_read(const zi_file *file, uint64_t offset, void *buffer, size_t size, zimage_error *error)
{
    size_t length;
    int code = read_fully(file, offset, buffer, size, &length);
    if (code != 0)
        return zi_fail_file(error, code, file->path, "the file can't be read");
    if (length < size)
        return zi_fail(error, ZIMAGE_ERROR_FILE,
                       "%s: the file became shorter while it was read: it ends after byte %llu", file->path,
                       (unsigned long long)(offset + length));
    return ZIMAGE_OK;
}

zimage_status zi_read_file(const char *path, size_t limit, char **text, size_t *length, zimage_error *error)
{
    zi_file file;
    *text = NULL;
    *length = 0;
    ZI_TRY(zi_file_open(path, &file, error));
    if (file.size > limit) {
        zi_file_close(&file);
        return zi_fail(error, ZIMAGE_ERROR_FORMAT, "%s: the file has %llu bytes, expected at most %zu", path,
                       (unsigned long long)file.size, limit);
    }
    size_t size = (size_t)file.size;
    char *buffer = malloc(size + 1);
    if (!buffer) {
        zi_file_close(&file);
        return zi_fail_memory(error, path, size + 1);
    }
    int code = read_fully(&file, 0, buffer, size, length);
    zi_file_close(&file);
    if (code != 0) {
        free(buffer);
        *length = 0;
        return zi_fail_file(error, code, path, "the file can't be read");
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

void zi_release_pages(const void *data, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = ((uintptr_t)data + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)data + bytes) / page * page;
    if (first < end)
        madvise((void *)first, end - first, MADV_DONTNEED);
}
