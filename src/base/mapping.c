#include "base/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the list of mapped files -------------------------------------------------------------------------------------
 *
 * A handler of SIGBUS knows nothing but an address, so the list belongs to the process: it and base/output.c's list of
 * temporary names are the only state that the library keeps outside of its handles. A handler may interrupt any
 * instruction. So an entry is taken, filled and released with atomic operations, and its address is written last. */

#define MOST_FILES 1024 /* of all open models; a file beyond is not found by its addresses */

#define FREE  ((uintptr_t)0)
#define TAKEN ((uintptr_t)1) /* no mapping begins there */

typedef struct zi_mapped {
    atomic_uintptr_t begin;
    atomic_size_t size, page;
    _Atomic(const char *) path;
    atomic_int lost; /* 1: pages were lost */
} zi_mapped;

static zi_mapped files[MOST_FILES];
static atomic_uint repairs;

static zi_mapped *add_entry(const void *data, size_t size, const char *path)
{
    for (int i = 0; i < MOST_FILES; i++) {
        zi_mapped *file = &files[i];
        uintptr_t expected = FREE;
        if (!atomic_compare_exchange_strong(&file->begin, &expected, TAKEN))
            continue;
        atomic_store(&file->size, size);
        atomic_store(&file->page, (size_t)sysconf(_SC_PAGESIZE));
        atomic_store(&file->path, path);
        atomic_store(&file->lost, 0);
        atomic_store(&file->begin, (uintptr_t)data);
        return file;
    }
    return NULL;
}

/* Before the pages are unmapped: another mapping may take their addresses at once. */
static void remove_entry(zi_mapped *file)
{
    if (file)
        atomic_store(&file->begin, FREE);
}

static zi_mapped *find_entry(uintptr_t address)
{
    for (int i = 0; i < MOST_FILES; i++) {
        uintptr_t begin = atomic_load(&files[i].begin);
        if (begin != FREE && begin != TAKEN && address >= begin && address - begin < atomic_load(&files[i].size))
            return &files[i];
    }
    return NULL;
}

const char *zi_mapping_repair(const void *address)
{
    zi_mapped *file = find_entry((uintptr_t)address);
    if (!file)
        return NULL;
    size_t page = atomic_load(&file->page);
    uintptr_t begin = (uintptr_t)address / page * page, end = atomic_load(&file->begin) + atomic_load(&file->size);
    void *pages = mmap((void *)begin, end - begin, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (pages == MAP_FAILED)
        return NULL;
    atomic_store(&file->lost, 1);
    atomic_fetch_add(&repairs, 1);
    return atomic_load(&file->path);
}

unsigned zi_mapping_repairs(void)
{
    return atomic_load(&repairs);
}

/* ---- mappings ---------------------------------------------------------------------------------------------------- */

static void set_changed(const struct stat *status, int64_t changed[2])
{
#if defined(__APPLE__)
    changed[0] = status->st_mtimespec.tv_sec;
    changed[1] = status->st_mtimespec.tv_nsec;
#else
    changed[0] = status->st_mtim.tv_sec;
    changed[1] = status->st_mtim.tv_nsec;
#endif
}

zimage_status zi_map_file(const zi_file *file, zi_mapping *mapping, zimage_error *error)
{
    struct stat status;
    *mapping = (zi_mapping){.descriptor = -1};
    if (file->size == 0)
        return ZIMAGE_OK;
    int descriptor = fcntl(file->descriptor, F_DUPFD_CLOEXEC, 0);
    if (descriptor < 0 || fstat(descriptor, &status) != 0) {
        int code = errno;
        if (descriptor >= 0)
            close(descriptor);
        return zi_fail_file(error, code, file->path, "the file can't be examined");
    }
    void *data = mmap(NULL, (size_t)file->size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (data == MAP_FAILED) {
        int code = errno;
        close(descriptor);
        return zi_fail_file(error, code, file->path, "the file can't be mapped into memory");
    }
    *mapping = (zi_mapping){.data = data, .size = (size_t)file->size, .descriptor = descriptor};
    set_changed(&status, mapping->changed);
    mapping->device = (uint64_t)status.st_dev;
    mapping->inode = (uint64_t)status.st_ino;
    mapping->entry = add_entry(data, mapping->size, file->path);
    return ZIMAGE_OK;
}

zimage_status zi_map_memory(const char *label, size_t size, zi_mapping *mapping, zimage_error *error)
{
    *mapping = (zi_mapping){.descriptor = -1};
    void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        return zi_fail_memory(error, label, size);
#if defined(MADV_HUGEPAGE)
    madvise(data, size, MADV_HUGEPAGE); /* a hint: one page fault for 2 MiB instead of 512 */
#endif
    mapping->data = data;
    mapping->size = size;
    return ZIMAGE_OK;
}

void zi_unmap(zi_mapping *mapping)
{
    if (mapping->data) {
        remove_entry(mapping->entry);
        munmap((void *)mapping->data, mapping->size);
        if (mapping->descriptor >= 0)
            close(mapping->descriptor);
    }
    *mapping = (zi_mapping){.descriptor = -1};
}

/*
 * On macOS MADV_DONTNEED is a hint, after which the pages still belong to the process (xnu: vm_map_behavior_set). A new
 * mapping of the same file in the same place has no pages yet.
 */
void zi_drop_pages(const zi_mapping *mapping)
{
    if (!mapping->data)
        return;
#if defined(__APPLE__)
    if (mapping->descriptor >= 0)
        (void)mmap((void *)mapping->data, mapping->size, PROT_READ, MAP_PRIVATE | MAP_FIXED, mapping->descriptor, 0);
#else
    madvise((void *)mapping->data, mapping->size, MADV_DONTNEED);
#endif
}

zimage_status zi_mapping_check(const zi_mapping *mapping, const char *path, int *written, zimage_error *error)
{
    struct stat status;
    int64_t changed[2];
    *written = 0;
    if (!mapping->data || mapping->descriptor < 0 || fstat(mapping->descriptor, &status) != 0)
        return ZIMAGE_OK;
    if (status.st_size < 0 || (uint64_t)status.st_size < mapping->size)
        return zi_fail(error, ZIMAGE_ERROR_FILE,
                       "%s: the file has become shorter while it was in use: %lld bytes, expected %zu", path,
                       (long long)status.st_size, mapping->size);
    if (mapping->entry && atomic_load(&mapping->entry->lost))
        return zi_fail(error, ZIMAGE_ERROR_FILE,
                       "%s: a part of the file could not be read while it was in use: it was shorter for some time, or "
                       "its disk fails",
                       path);
    set_changed(&status, changed);
    *written = changed[0] != mapping->changed[0] || changed[1] != mapping->changed[1];
    return ZIMAGE_OK;
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

int zi_mapping_is_same(const zi_mapping *a, const zi_mapping *b)
{
    return a->data && b->data && a->descriptor >= 0 && b->descriptor >= 0 && a->device == b->device &&
           a->inode == b->inode && a->size == b->size && a->changed[0] == b->changed[0] &&
           a->changed[1] == b->changed[1];
}

static int read_part(const zi_mapping *mapping, size_t at, uint8_t *buffer, size_t size)
{
    const zi_file file = {"", mapping->descriptor, mapping->size};
    return zi_file_read(&file, at, buffer, size, NULL) == ZIMAGE_OK;
}

int zi_mapping_equal(const zi_mapping *a, size_t a_at, const zi_mapping *b, size_t b_at, size_t size, uint8_t *buffer,
                     size_t room)
{
    for (size_t done = 0; done < size; done += room) {
        size_t part = size - done < room ? size - done : room;
        if (!read_part(a, a_at + done, buffer, part) || !read_part(b, b_at + done, buffer + room, part) ||
            memcmp(buffer, buffer + room, part) != 0)
            return 0;
    }
    return 1;
}

void zi_mapping_forget(const zi_mapping *mapping, size_t at, size_t size)
{
#ifdef POSIX_FADV_DONTNEED
    if (mapping->descriptor >= 0)
        (void)posix_fadvise(mapping->descriptor, (off_t)at, (off_t)size, POSIX_FADV_DONTNEED);
#endif
}
