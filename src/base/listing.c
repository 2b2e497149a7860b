#include "base/listing.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#define GROWTH 64

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int is_counted(const char *name)
{
    return name[0] != '.' && !strstr(name, ":Zone.Identifier");
}

/* 0: out of memory. */
static int append(zi_listing *listing, const char *name)
{
    if (listing->count % GROWTH == 0) {
        char **names = realloc(listing->names, (listing->count + GROWTH) * sizeof *names);
        if (!names)
            return 0;
        listing->names = names;
    }
    char *copy = strdup(name);
    if (copy)
        listing->names[listing->count++] = copy;
    return copy != NULL;
}

zi_listing zi_listing_of(const char *folder)
{
    zi_listing listing = {NULL, 0};
    DIR *stream = opendir(folder);
    if (!stream)
        return listing;
    for (const struct dirent *entry = readdir(stream); entry && listing.count < ZI_LISTING_MAX; entry = readdir(stream))
        if (is_counted(entry->d_name) && !append(&listing, entry->d_name))
            break;
    closedir(stream);
    if (listing.count > 0)
        qsort(listing.names, listing.count, sizeof *listing.names, compare);
    return listing;
}

void zi_listing_free(zi_listing *listing)
{
    for (size_t i = 0; i < listing->count; i++)
        free(listing->names[i]);
    free(listing->names);
    *listing = (zi_listing){NULL, 0};
}

static int matches(const char *name, const char *beginning, const char *ending)
{
    size_t length = strlen(name), first = strlen(beginning), last = strlen(ending);
    return length > first + last && strncmp(name, beginning, first) == 0 && strcmp(name + length - last, ending) == 0;
}

const char *zi_listing_find(const zi_listing *listing, const char *beginning, const char *ending)
{
    for (size_t i = 0; i < listing->count; i++)
        if (matches(listing->names[i], beginning, ending))
            return listing->names[i];
    return NULL;
}

size_t zi_listing_matches(const zi_listing *listing, const char *beginning, const char *ending)
{
    size_t count = 0;
    for (size_t i = 0; i < listing->count; i++)
        count += (size_t)matches(listing->names[i], beginning, ending);
    return count;
}
