#include "gallery.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "files.h"
#include "ids.h"

#define SIDE_FOLDER  ".zimage"
#define PART_ENDING  ".part"
#define NAME_MAX_ALL 256
#define STAMP_LENGTH 18 /* "20261129-215656123" */

/* The images of one owner. */
typedef struct shelf {
    struct shelf *next;
    char owner[64];
    int folder, side;      /* open folders */
    gallery_image *images; /* [count], oldest first */
    size_t count, allocated;
} shelf;

struct gallery {
    pthread_mutex_t lock; /* of the shelves' lists; files are read and written without it */
    int folder;
    shelf *shelves;
};

/* ---- names ---- */

static const char *const endings[] = {
    [ZIMAGE_FORMAT_PNG] = ".png", [ZIMAGE_FORMAT_JPEG] = ".jpg", [ZIMAGE_FORMAT_WEBP] = ".webp"};
#define FORMATS (sizeof endings / sizeof *endings)

static int is_id(const char *text, size_t length)
{
    if (length != GALLERY_ID_LENGTH || text[8] != '-' || text[STAMP_LENGTH] != '-')
        return 0;
    for (size_t i = 0; i < length; i++)
        if (i != 8 && i != STAMP_LENGTH &&
            !(i < STAMP_LENGTH ? isdigit((unsigned char)text[i]) : id_has_letter(text[i])))
            return 0;
    return 1;
}

/* 0: the file is none of the gallery's. */
static int read_name(const char *name, gallery_image *image)
{
    size_t length = strcspn(name, ".");
    if (!is_id(name, length))
        return 0;
    for (size_t i = 0; i < FORMATS; i++)
        if (!strcmp(name + length, endings[i])) {
            memcpy(image->id, name, length);
            image->id[length] = 0;
            image->format = (zimage_format)i;
            return 1;
        }
    return 0;
}

static int make_id(char id[GALLERY_ID_LENGTH + 1])
{
    struct timespec now;
    struct tm parts;
    char letters[ID_LENGTH + 1];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    char stamp[STAMP_LENGTH + 1];
    if (!id_make(letters) || strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", &parts) != STAMP_LENGTH - 3)
        return 0;
    snprintf(id, GALLERY_ID_LENGTH + 1, "%.15s%03u-%.9s", stamp, (unsigned)(now.tv_nsec / 1000000) % 1000u, letters);
    return 1;
}

/* Whether a key's name may be that of a folder. */
static int is_folder_name(const char *owner)
{
    int ok = *owner && *owner != '.';
    for (const char *c = owner; *c; c++)
        ok &= isalnum((unsigned char)*c) || strchr("-_.", *c);
    return ok;
}

/* ---- shelves; with the lock ---- */

static int by_id(const void *a, const void *b)
{
    return strcmp(((const gallery_image *)a)->id, ((const gallery_image *)b)->id);
}

static int add_image(shelf *s, const gallery_image *image)
{
    if (s->count == s->allocated) {
        size_t allocated = s->allocated ? 2 * s->allocated : 64;
        void *images = realloc(s->images, allocated * sizeof *s->images);
        if (!images)
            return 0;
        s->images = images;
        s->allocated = allocated;
    }
    size_t at = s->count;
    while (at > 0 && by_id(&s->images[at - 1], image) > 0) /* two images of one moment */
        at--;
    memmove(&s->images[at + 1], &s->images[at], (s->count - at) * sizeof *s->images);
    s->images[at] = *image;
    s->count++;
    return 1;
}

/* The place of the first image that is not before the id. */
static size_t place_of(const shelf *s, const char *id)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(s->images[middle].id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static gallery_image *find(const shelf *s, const char *id)
{
    size_t place = place_of(s, id);
    return place < s->count && !strcmp(s->images[place].id, id) ? &s->images[place] : NULL;
}

/* What a server that was ended in the middle has left. */
static void remove_parts(int side)
{
    DIR *list = fdopendir(openat(side, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (struct dirent *entry; list && (entry = readdir(list));) {
        size_t length = strcspn(entry->d_name, ".");
        if (is_id(entry->d_name, length) && !strcmp(entry->d_name + length, PART_ENDING))
            unlinkat(side, entry->d_name, 0);
    }
    if (list)
        closedir(list);
}

static int read_images(shelf *s)
{
    DIR *list = fdopendir(openat(s->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int ok = list != NULL;
    for (struct dirent *entry; ok && (entry = readdir(list));) {
        gallery_image image;
        if (!read_name(entry->d_name, &image))
            continue;
        if (s->count < s->allocated)
            s->images[s->count++] = image; /* sorted below */
        else
            ok = add_image(s, &image);
    }
    if (list)
        closedir(list);
    if (s->count > 0)
        qsort(s->images, s->count, sizeof *s->images, by_id);
    return ok;
}

/* A folder inside another, which is made if it is not there. A symbolic link is refused. */
static int open_inside(int folder, const char *name)
{
    if (mkdirat(folder, name, 0777) != 0 && errno != EEXIST)
        return -1;
    return openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static void free_shelf(shelf *s)
{
    if (s->folder >= 0)
        close(s->folder);
    if (s->side >= 0)
        close(s->side);
    free(s->images);
    free(s);
}

static shelf *open_shelf(gallery *g, const char *owner)
{
    shelf *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    snprintf(s->owner, sizeof s->owner, "%s", owner);
    s->folder = *owner ? open_inside(g->folder, owner) : openat(g->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    s->side = s->folder >= 0 ? open_inside(s->folder, SIDE_FOLDER) : -1;
    if (s->side < 0 || !read_images(s)) {
        free_shelf(s);
        return NULL;
    }
    remove_parts(s->side);
    s->next = g->shelves;
    g->shelves = s;
    return s;
}

/* Shelves stay until the end, so they may be used without the lock, but for their lists. NULL: it can't be opened. */
static shelf *shelf_of(gallery *g, const char *owner)
{
    const char *name = is_folder_name(owner) ? owner : "";
    shelf *s = g->shelves;
    while (s && strcmp(s->owner, name) != 0)
        s = s->next;
    return s ? s : open_shelf(g, name);
}

gallery *gallery_open(const char *folder, zimage_error *error)
{
    gallery *g = calloc(1, sizeof *g);
    if (g && mkdir(folder, 0777) != 0 && errno != EEXIST)
        g->folder = -1;
    else if (g)
        g->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (g && pthread_mutex_init(&g->lock, NULL) == 0) {
        if (g->folder >= 0 && shelf_of(g, ""))
            return g;
        snprintf(error->message, sizeof error->message, "gallery: %s: can't be used: %s", folder, strerror(errno));
        error->status = ZIMAGE_ERROR_FILE;
        gallery_close(g);
        return NULL;
    }
    free(g);
    snprintf(error->message, sizeof error->message, "gallery: there is no memory");
    error->status = ZIMAGE_ERROR_MEMORY;
    return NULL;
}

void gallery_close(gallery *g)
{
    if (!g)
        return;
    for (shelf *next, *s = g->shelves; s; s = next) {
        next = s->next;
        free_shelf(s);
    }
    if (g->folder >= 0)
        close(g->folder);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

/* ---- files ---- */

static void name_of(const char *id, const char *ending, char name[NAME_MAX_ALL])
{
    snprintf(name, NAME_MAX_ALL, "%s%s", id, ending);
}

/* Writes a part beside, and gives it its name when it is complete and on the disk. */
static int write_file(const shelf *s, int folder, const char *id, const char *ending, const void *data, size_t size)
{
    char part[NAME_MAX_ALL], name[NAME_MAX_ALL];
    name_of(id, PART_ENDING, part);
    name_of(id, ending, name);
    int fd = openat(s->side, part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return 0;
    int ok = file_write(fd, data, size) && fsync(fd) == 0;
    ok = close(fd) == 0 && ok;
    ok = ok && renameat(s->side, part, folder, name) == 0;
    if (!ok) {
        int reason = errno;
        unlinkat(s->side, part, 0);
        errno = reason;
    }
    return ok;
}

static void remove_files(const shelf *s, const gallery_image *image)
{
    char name[NAME_MAX_ALL];
    name_of(image->id, endings[image->format], name);
    unlinkat(s->folder, name, 0);
    name_of(image->id, ".jpg", name);
    unlinkat(s->side, name, 0);
    name_of(image->id, ".json", name);
    unlinkat(s->side, name, 0);
}

static int write_item(const shelf *s, const gallery_item *item, const char *id)
{
    return (!item->thumb || write_file(s, s->side, id, ".jpg", item->thumb, item->thumb_size)) &&
           (!item->about || write_file(s, s->side, id, ".json", item->about, strlen(item->about))) &&
           write_file(s, s->folder, id, endings[item->format], item->data, item->size);
}

int gallery_keep(gallery *g, const char *owner, const gallery_item *item, char id[GALLERY_ID_LENGTH + 1],
                 zimage_error *error)
{
    gallery_image image = {.format = item->format};
    pthread_mutex_lock(&g->lock);
    shelf *s = shelf_of(g, owner);
    pthread_mutex_unlock(&g->lock);
    *id = 0;
    int ok = s && make_id(image.id) && write_item(s, item, image.id);
    if (ok) {
        pthread_mutex_lock(&g->lock);
        ok = add_image(s, &image);
        pthread_mutex_unlock(&g->lock);
    }
    if (!ok) {
        snprintf(error->message, sizeof error->message, "gallery: an image can't be written: %s", strerror(errno));
        error->status = ZIMAGE_ERROR_FILE;
        if (s)
            remove_files(s, &image);
        return 0;
    }
    memcpy(id, image.id, sizeof image.id);
    return 1;
}

/* ---- for requests ---- */

size_t gallery_list(gallery *g, const char *owner, const char *before, size_t limit, gallery_image *images,
                    int *has_more)
{
    size_t count = 0;
    pthread_mutex_lock(&g->lock);
    const shelf *s = shelf_of(g, owner);
    size_t place = !s ? 0 : before ? place_of(s, before) : s->count;
    for (; place > 0 && count < limit; place--)
        images[count++] = s->images[place - 1];
    *has_more = place > 0;
    pthread_mutex_unlock(&g->lock);
    return count;
}

/* 0: there is none. */
static int look_up(gallery *g, const char *owner, const char *id, shelf **s, gallery_image *image)
{
    pthread_mutex_lock(&g->lock);
    *s = shelf_of(g, owner);
    const gallery_image *found = *s ? find(*s, id) : NULL;
    if (found)
        *image = *found;
    pthread_mutex_unlock(&g->lock);
    return found != NULL;
}

int gallery_file(gallery *g, const char *owner, const char *id, gallery_part part, zimage_format *format)
{
    static const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    gallery_image image;
    char name[NAME_MAX_ALL];
    shelf *s;
    struct stat status;
    if (!look_up(g, owner, id, &s, &image))
        return -1;
    *format = image.format;
    name_of(image.id, part == GALLERY_IMAGE ? endings[image.format] : part == GALLERY_THUMB ? ".jpg" : ".json", name);
    int fd = openat(part == GALLERY_IMAGE ? s->folder : s->side, name, flags);
    if (fd < 0 || (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)))
        return fd;
    close(fd);
    return -1;
}

int gallery_remove(gallery *g, const char *owner, const char *id)
{
    gallery_image image;
    shelf *s;
    if (!look_up(g, owner, id, &s, &image))
        return 0;
    remove_files(s, &image);
    pthread_mutex_lock(&g->lock);
    gallery_image *found = find(s, id);
    if (found) {
        memmove(found, found + 1, (size_t)(s->images + s->count - found - 1) * sizeof *found);
        s->count--;
    }
    pthread_mutex_unlock(&g->lock);
    return 1;
}
