/* The input images of a request: from their pixels to latents, from which denoising starts or that the transformer
 * reads; the mask; and all noise, because image and noise are drawn from one generator. */
#ifndef ZI_PIPELINE_INPUTS_H
#define ZI_PIPELINE_INPUTS_H

#include "image/pixels.h"
#include "pipeline/job.h"
#include "sampler/noise.h"

typedef struct zi_inputs {
    zi_noise noise;
    int draws_bf16, in_bf16;       /* noise is drawn in bf16; latents are rounded to it */
    zi_pixels pixels;              /* of the image that is encoded now */
    float *moments;                /* likewise */
    float *latents[ZI_IMAGES_MAX]; /* [C, rows, columns] of each image */
    float *start_noise;            /* with a mask: the initial noise [C, rows, columns] */
    float *weights;                /* of the mask, [rows, columns] */
} zi_inputs;

/* Fills in the model's defaults; sizes that the request does not give become those of the first image. Checks whether
 * images and mask, their number, sizes and the strength are such as the model takes, and nothing else. */
zimage_status zi_inputs_complete(const zi_model *model, zimage_request *request, zimage_error *error);
/* A mask as it is scaled: what is white is repainted; or what is transparent, if anything is. The caller frees it. */
zimage_status zi_inputs_mask(const zimage_image *mask, zi_pixels *pixels, zimage_error *error);
/* Fills the job's input images and references; no data. */
void zi_inputs_describe(const zimage_request *request, zi_job *job);
/* Most bytes in host memory during a stage that a job takes for its input images. */
size_t zi_inputs_bytes(const zi_job *job, int stage);

/* Release with zi_inputs_free, also after a failure. */
zimage_status zi_inputs_begin(zi_inputs *inputs, const zimage_request *request, const zi_job *job, zimage_error *error);
/* Before and after the job encodes image `index`; all images in order. */
zimage_status zi_inputs_fit(zi_inputs *inputs, const zimage_request *request, zi_job *job, int index,
                            zimage_error *error);
zimage_status zi_inputs_take(zi_inputs *inputs, zi_job *job, int index, zimage_error *error);
/* latents [C, rows, columns] <- those that the first step reads; sigma: of that step */
void zi_inputs_start(zi_inputs *inputs, const zimage_request *request, const zi_job *job, float sigma, float *latents);
/* After a step, with a mask: what stays in latents becomes the start image again, with the noise of the next sigma.
 * scratch: as large as latents. */
void zi_inputs_keep(const zi_inputs *inputs, const zi_job *job, float sigma_next, float *scratch, float *latents);
void zi_inputs_free(zi_inputs *inputs);

#endif
