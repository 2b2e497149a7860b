#include "spool.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "files.h"

#define FIRST_ALLOCATED ((size_t)4 << 10)

/* The file loses its name at once, so nobody else finds it, and nothing stays behind when the process ends. */
static int open_unnamed(void)
{
    const char *folder = getenv("TMPDIR");
    char path[1024];
    folder = folder && *folder == '/' ? folder : "/tmp";
    if (snprintf(path, sizeof path, "%s/zimage-XXXXXX", folder) >= (int)sizeof path)
        return -1;
    int fd = mkstemp(path);
    if (fd < 0)
        return -1;
    unlink(path);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
}

static int move_to_file(spool *s)
{
    int fd = open_unnamed();
    if (fd < 0)
        return 0;
    s->has_file = 1;
    s->file = fd;
    if (!file_write(fd, s->data, s->size))
        return 0;
    free(s->data);
    s->data = NULL;
    s->allocated = 0;
    return 1;
}

static int grow(spool *s, size_t wanted)
{
    size_t allocated = 2 * s->allocated > wanted ? 2 * s->allocated : wanted;
    char *data = realloc(s->data, allocated < FIRST_ALLOCATED ? FIRST_ALLOCATED : allocated);
    if (!data)
        return 0;
    s->data = data;
    s->allocated = allocated < FIRST_ALLOCATED ? FIRST_ALLOCATED : allocated;
    return 1;
}

static void unmap(spool *s)
{
    if (s->mapped)
        munmap(s->mapped, s->size);
    s->mapped = NULL;
}

int spool_append(spool *s, const char *data, size_t size)
{
    unmap(s);
    if (size == 0)
        return 1;
    if (!s->has_file && s->size + size > SPOOL_MEMORY_MAX && !move_to_file(s))
        return 0;
    if (s->has_file ? !file_write(s->file, data, size) : s->size + size > s->allocated && !grow(s, s->size + size))
        return 0;
    if (!s->has_file)
        memcpy(s->data + s->size, data, size);
    s->size += size;
    return 1;
}

const char *spool_view(spool *s)
{
    if (!s->has_file)
        return s->data ? s->data : "";
    if (!s->mapped) {
        void *mapped = mmap(NULL, s->size, PROT_READ, MAP_SHARED, s->file, 0);
        s->mapped = mapped == MAP_FAILED ? NULL : mapped;
    }
    return s->mapped;
}

void spool_free(spool *s)
{
    unmap(s);
    if (s->has_file)
        close(s->file);
    free(s->data);
    *s = (spool){0};
}
