#include "hub/segments.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC     "zimage segments 1\n"
#define NAME_SIZE (HUB_ETAG_MAX + 32)
#define COUNT_MAX (1 << 20) /* segments of a file */

/* The beginning of the list of segments; a byte of hub_segment for each follows. Numbers are the machine's own: the
 * file is read on the machine that wrote it, and what is damaged is found by the hash at the end. */
typedef struct list_head {
    char magic[24];
    uint64_t size, segment_bytes;
} list_head;

static void name_part(char name[NAME_SIZE], const char *etag, const char *ending)
{
    snprintf(name, NAME_SIZE, "%s%s", etag, ending);
}

static size_t count_of(uint64_t size, uint64_t segment_bytes)
{
    uint64_t count = (size + segment_bytes - 1) / segment_bytes;
    return count < COUNT_MAX ? (size_t)count : COUNT_MAX;
}

void hub_segments_bounds(const hub_segments *s, size_t index, uint64_t *offset, uint64_t *end)
{
    *offset = index * s->segment_bytes;
    *end = index + 1 == s->count ? s->size : *offset + s->segment_bytes;
}

static uint64_t bytes_of(const hub_segments *s, size_t index)
{
    uint64_t offset, end;
    hub_segments_bounds(s, index, &offset, &end);
    return end - offset;
}

/* ---- the list ---- */

static int read_all(int file, void *data, size_t size, off_t offset)
{
    for (size_t done = 0; done < size;) {
        ssize_t part = pread(file, (char *)data + done, size - done, offset + (off_t)done);
        if (part == 0 || (part < 0 && errno != EINTR))
            return 0;
        done += part > 0 ? (size_t)part : 0;
    }
    return 1;
}

static int write_all(int file, const void *data, size_t size, off_t offset)
{
    for (size_t done = 0; done < size;) {
        ssize_t part = pwrite(file, (const char *)data + done, size - done, offset + (off_t)done);
        if (part < 0 && errno != EINTR)
            return 0;
        done += part > 0 ? (size_t)part : 0;
    }
    return 1;
}

/* Takes the list that an earlier run left; 0: it does not fit the file. Segments that were under way are missing. */
static int take_list(hub_segments *s)
{
    list_head head;
    struct stat content;
    if (!read_all(s->list, &head, sizeof head, 0) || memcmp(head.magic, MAGIC, sizeof MAGIC) != 0 ||
        head.size != s->size || head.segment_bytes == 0 || count_of(s->size, head.segment_bytes) == COUNT_MAX ||
        fstat(s->content, &content) != 0 || (uint64_t)content.st_size != s->size)
        return 0;
    size_t count = count_of(s->size, head.segment_bytes);
    unsigned char *states = malloc(count);
    if (!states || !read_all(s->list, states, count, sizeof head)) {
        free(states);
        return 0;
    }
    free(s->states);
    s->states = states;
    s->count = count;
    s->segment_bytes = head.segment_bytes;
    for (size_t i = 0; i < count; i++) {
        states[i] = states[i] == HUB_COMPLETE ? HUB_COMPLETE : HUB_MISSING;
        s->found += states[i] == HUB_COMPLETE ? bytes_of(s, i) : 0;
    }
    return 1;
}

static int begin_list(const hub_segments *s)
{
    list_head head = {.magic = MAGIC, .size = s->size, .segment_bytes = s->segment_bytes};
    return ftruncate(s->list, 0) == 0 && write_all(s->list, &head, sizeof head, 0) &&
           write_all(s->list, s->states, s->count, sizeof head);
}

/* ---- opening ---- */

static int open_part(const hub_segments *s, const char *ending)
{
    char name[NAME_SIZE];
    name_part(name, s->etag, ending);
    return openat(s->folder, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
}

static int begin(hub_segments *s)
{
    s->content = open_part(s, HUB_INCOMPLETE);
    if (s->content < 0)
        return 0;
    if (s->count <= 1)
        return ftruncate(s->content, (off_t)s->size) == 0;
    s->list = open_part(s, HUB_SEGMENTS);
    if (s->list < 0)
        return 0;
    return take_list(s) || (ftruncate(s->content, (off_t)s->size) == 0 && begin_list(s));
}

static void move_prefix(hub_segments *s)
{
    while (s->prefix < s->count && s->states[s->prefix] == HUB_COMPLETE)
        s->prefix++;
}

hub_result hub_segments_open(int blobs, const hub_file *file, uint64_t segment_bytes, hub_segments *s,
                             zimage_error *error)
{
    *s = (hub_segments){.folder = blobs, .content = -1, .list = -1, .size = file->size};
    s->segment_bytes = segment_bytes;
    s->count = count_of(s->size, segment_bytes);
    snprintf(s->etag, sizeof s->etag, "%s", file->etag);
    if (s->count == COUNT_MAX)
        return hub_fail(error, HUB_USAGE, "segment: %llu bytes, expected more for %s, which has %llu bytes",
                        (unsigned long long)segment_bytes, file->path, (unsigned long long)s->size);
    s->states = calloc(s->count + 1, 1);
    if (!s->states)
        return hub_fail(error, HUB_FAILED, "out of memory: no room for a list of %zu segments", s->count);
    if (!begin(s)) {
        hub_fail_errno(error, HUB_DISK, "%s: the file of its download can't be made", file->path);
        hub_segments_close(s);
        return HUB_DISK;
    }
    move_prefix(s);
    return HUB_OK;
}

static void close_one(int *descriptor)
{
    if (*descriptor >= 0)
        close(*descriptor);
    *descriptor = -1;
}

void hub_segments_close(hub_segments *s)
{
    close_one(&s->content);
    close_one(&s->list);
    free(s->states);
    s->states = NULL;
}

/* ---- segments ---- */

size_t hub_segments_take(hub_segments *s)
{
    for (size_t i = s->prefix; i < s->count; i++)
        if (s->states[i] == HUB_MISSING) {
            s->states[i] = HUB_UNDER_WAY;
            return i;
        }
    return s->count;
}

void hub_segments_give_back(hub_segments *s, size_t index)
{
    if (s->states[index] == HUB_UNDER_WAY)
        s->states[index] = HUB_MISSING;
}

/* The byte of the list follows the data, so that after a kill no segment counts that is not written. */
hub_result hub_segments_complete(hub_segments *s, size_t index, zimage_error *error)
{
    s->states[index] = HUB_COMPLETE;
    move_prefix(s);
    if (s->list >= 0 && !write_all(s->list, &s->states[index], 1, (off_t)(sizeof(list_head) + index)))
        return hub_fail_errno(error, HUB_DISK, "%s: the list of segments can't be written", s->etag);
    return HUB_OK;
}

uint64_t hub_segments_prefix(const hub_segments *s)
{
    return s->prefix == s->count ? s->size : s->prefix * s->segment_bytes;
}

hub_result hub_segments_write(const hub_segments *s, uint64_t offset, const void *data, size_t size,
                              zimage_error *error)
{
    if (!write_all(s->content, data, size, (off_t)offset))
        return hub_fail_errno(error, HUB_DISK, "%s" HUB_INCOMPLETE ": can't be written", s->etag);
    return HUB_OK;
}

/* ---- the end ---- */

static void remove_part(const hub_segments *s, const char *ending)
{
    char name[NAME_SIZE];
    name_part(name, s->etag, ending);
    unlinkat(s->folder, name, 0);
}

hub_result hub_segments_finish(hub_segments *s, zimage_error *error)
{
    char name[NAME_SIZE];
    name_part(name, s->etag, HUB_INCOMPLETE);
    int done = renameat(s->folder, name, s->folder, s->etag) == 0;
    if (!done)
        hub_fail_errno(error, HUB_DISK, "%s: the file can't be completed", s->etag);
    else
        remove_part(s, HUB_SEGMENTS);
    hub_segments_close(s);
    return done ? HUB_OK : HUB_DISK;
}

void hub_segments_remove(hub_segments *s)
{
    remove_part(s, HUB_SEGMENTS);
    remove_part(s, HUB_INCOMPLETE);
    hub_segments_close(s);
}

uint64_t hub_segments_found(int blobs, const hub_file *file)
{
    hub_segments s = {.folder = blobs, .content = -1, .list = -1, .size = file->size};
    char name[NAME_SIZE];
    name_part(name, file->etag, HUB_INCOMPLETE);
    s.content = openat(blobs, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    name_part(name, file->etag, HUB_SEGMENTS);
    s.list = openat(blobs, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (s.content >= 0 && s.list >= 0)
        (void)take_list(&s);
    hub_segments_close(&s);
    return s.found;
}
