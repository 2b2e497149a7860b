/* Names of the files that are written, and whether they can be. */
#ifndef ZI_CLI_NAMING_H
#define ZI_CLI_NAMING_H

#include <limits.h>

#include "options.h"

/* The library writes PATH and a suffix first, which has to fit, too. */
#define CLI_PATH_MAX (PATH_MAX - 40)

uint64_t cli_random_seed(void);
int cli_has_png_suffix(const char *path);
/* The file name of image `index` (from 1) of options->count. */
void cli_name_image(const cli_options *options, uint64_t seed, int64_t index, char path[PATH_MAX]);

/* Whether the folder of a file can be written, and for an image whether its name ends in .png: looked at before minutes
 * of work. 0: a printed sentence. label begins the sentence: "--output". */
int cli_can_write(const char *command, const char *label, const char *path);
int cli_can_write_image(const char *command, const char *label, const char *path);

#endif
