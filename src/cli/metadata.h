/* The text inside an image's file, which says how to make the image again. */
#ifndef ZI_CLI_METADATA_H
#define ZI_CLI_METADATA_H

#include "jobs.h"
#include "zimage.h"

/* Writes a job's PNG with text chunks for all that decides the image's bytes, or without them for --no-metadata. No
 * chunk names a folder of this machine. */
zimage_status cli_write_image(const cli_job *job, const zimage_request *request, const zimage_image *image,
                              zimage_error *error);

#endif
