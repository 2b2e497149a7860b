/* The text inside an image's file, which says how to make the image again. */
#ifndef ZI_CLI_METADATA_H
#define ZI_CLI_METADATA_H

#include "jobs.h"
#include "shared/job_key.h"
#include "zimage.h"

/* The key of a job. request: of its options, without the seed. */
zimage_status cli_job_key(const cli_job *job, const zimage_request *request, const zimage_model *model,
                          char key[JOB_KEY], zimage_error *error);
/* Whether the format of a job's file can hold its image and the texts: what can be known before the image is made. */
zimage_status cli_check_image(const cli_job *job, const zimage_request *request, const zimage_model *model,
                              zimage_error *error);
/* Writes a job's image file with texts for all that decides the image's bytes, or without them for --no-metadata. No
 * text names a folder of this machine. */
zimage_status cli_write_image(const cli_job *job, const zimage_request *request, const zimage_image *image,
                              const zimage_model *model, zimage_error *error);

/* The same in memory. Released with zimage_free. */
zimage_status cli_encode_image(const cli_job *job, const zimage_request *request, const zimage_image *image,
                               const zimage_model *model, uint8_t **data, size_t *size, zimage_error *error);

#endif
