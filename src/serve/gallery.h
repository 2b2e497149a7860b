/*
 * Finished images in a folder. Names of files are the server's own and begin with the time, so their order is that of
 * the images. A request names an image by its id, which is looked up and never becomes a path as it came.
 *
 *   FOLDER/ID.png            the image, as it was sent
 *   FOLDER/.zimage/ID.jpg    its thumbnail
 *   FOLDER/.zimage/ID.json   the request that made it
 *
 * Images of an API key with a name lie in a folder of that name inside, and only this key sees them. A file has its
 * name when it is complete.
 */
#ifndef ZI_SERVE_GALLERY_H
#define ZI_SERVE_GALLERY_H

#include <stddef.h>
#include <stdint.h>

#include "zimage.h"

#define GALLERY_ID_LENGTH 28 /* "20261129-215656123-" and nine letters */

typedef struct gallery gallery;

typedef struct gallery_image {
    char id[GALLERY_ID_LENGTH + 1];
    zimage_format format;
} gallery_image;

/* An image to keep. */
typedef struct gallery_item {
    zimage_format format;
    const uint8_t *data, *thumb; /* thumb may be NULL */
    size_t size, thumb_size;
    const char *about; /* JSON; may be NULL */
} gallery_item;

typedef enum gallery_part { GALLERY_IMAGE, GALLERY_THUMB, GALLERY_ABOUT } gallery_part;

/* Opens the folder, which is made if it is not there. NULL: failed. */
gallery *gallery_open(const char *folder, zimage_error *error);
void gallery_close(gallery *g);

/* All of these may be called from any thread, without the server's lock. owner: the key's name; "": none. */

/* Writes an image. *id is its id; empty, and an error: it could not be written. */
int gallery_keep(gallery *g, const char *owner, const gallery_item *item, char id[GALLERY_ID_LENGTH + 1],
                 zimage_error *error);
/* The newest images before an id (NULL: of all), newest first. Returns how many; *has_more: whether there are others.
 */
size_t gallery_list(gallery *g, const char *owner, const char *before, size_t limit, gallery_image *images,
                    int *has_more);
/* Opens a file of an image; -1: there is none. *format: of the image. */
int gallery_file(gallery *g, const char *owner, const char *id, gallery_part part, zimage_format *format);
/* Removes the files of an image. 0: there is no such image. */
int gallery_remove(gallery *g, const char *owner, const char *id);

#endif
