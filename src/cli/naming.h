/* Names of the files that are written. */
#ifndef ZI_CLI_NAMING_H
#define ZI_CLI_NAMING_H

#include <limits.h>

#include "options.h"

/* The library writes PATH and a suffix first, which has to fit, too. */
#define CLI_PATH_MAX (PATH_MAX - 40)

uint64_t cli_random_seed(void);
/* The extension of a name that stands for a format of images; NULL: it has none. */
const char *cli_image_suffix(const char *path);
#define CLI_IMAGE_SUFFIXES ".png, .jpg, .jpeg or .webp"

/* The file name of image `index` (from 1) of options->count: that of --output, else one made of the prompt and the
 * seed. Such a default name is UTF-8: letters, digits and dashes. */
void cli_name_image(const cli_options *options, uint64_t seed, int64_t index, char path[PATH_MAX]);
/* The name with which a default name that is taken is replaced: "a-7.png" -> "a-7-2.png"; 1: the name itself. */
void cli_number_name(const char *path, int number, char numbered[PATH_MAX]);
/* A folder's own name, without the folders that it lies in: "/home/a/models/emoji/" -> "emoji". A snapshot of the hub's
 * cache keeps the repository's name: "models--A--B/snapshots/REVISION". */
void cli_name_folder(const char *path, char name[PATH_MAX]);

#endif
