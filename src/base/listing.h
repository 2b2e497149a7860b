/* The names in a folder, for messages that say what is there instead of what was expected. */
#ifndef ZI_BASE_LISTING_H
#define ZI_BASE_LISTING_H

#include <stddef.h>

#define ZI_LISTING_MAX 4096 /* names; a folder's others are left out */

typedef struct zi_listing {
    char **names; /* sorted */
    size_t count;
} zi_listing;

/*
 * Hidden names and the zone files of Windows ("NAME:Zone.Identifier") are left out. A folder that can't be read, and
 * memory that runs out, give fewer names. Free with zi_listing_free.
 */
zi_listing zi_listing_of(const char *folder);
void zi_listing_free(zi_listing *listing);

/* The first name with this beginning and ending, longer than both; NULL: there is none. */
const char *zi_listing_find(const zi_listing *listing, const char *beginning, const char *ending);
/* How many there are. */
size_t zi_listing_matches(const zi_listing *listing, const char *beginning, const char *ending);

#endif
