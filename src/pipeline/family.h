/*
 * A family is a kind of model: its networks, and what its reference pipeline does with them. Each family is one table
 * of functions in a file of its own (pipeline/zimage.c), listed in family.c. Everything that opens, plans, runs or
 * measures a model goes through this table; nothing else in the project names a family's networks.
 */
#ifndef ZI_PIPELINE_FAMILY_H
#define ZI_PIPELINE_FAMILY_H

#include "model/common.h"
#include "ops/ops.h"
#include "pipeline/sizes.h"
#include "sampler/flow_match.h"
#include "text/tokenizer.h"
#include "weights/store.h"

/* The parts of a model that have weights. */
typedef enum zi_component_kind { ZI_TEXT_ENCODER, ZI_TRANSFORMER, ZI_VAE, ZI_COMPONENTS } zi_component_kind;

/* A family's networks, in a struct of its own. */
typedef struct zi_networks zi_networks;

/* 8-bit pixels in host memory (image/pixels.h). */
typedef struct zi_pixels zi_pixels;

/* What an input image is for. */
typedef enum zi_image_role {
    ZI_IMAGE_START,     /* denoising starts from its latents and noise: image-to-image, inpainting */
    ZI_IMAGE_REFERENCE, /* the transformer reads its latents at every step */
} zi_image_role;

/* Classes that read their files as this program does: ["diffusers", "AutoencoderKL"] in model_index.json. */
typedef struct zi_classes {
    const char *library;
    const char *const *names; /* NULL-ended */
} zi_classes;

#define ZI_CLASSES(...)                                                                                                \
    (const char *const[])                                                                                              \
    {                                                                                                                  \
        __VA_ARGS__, NULL                                                                                              \
    }

typedef struct zi_component {
    const char *folder;    /* in the model folder: "transformer" */
    const char *base_name; /* of the weights' files: "diffusion_pytorch_model" */
    zi_classes classes;    /* what model_index.json may call it */
    /* Every field of its configuration, NULL-ended: others are warned of. NULL: its class keeps any field. */
    const char *const *fields;
    int optional;
    /* Reads config.json at `path`, or where text is not NULL that text, with `path` for messages. */
    zimage_status (*configure)(zi_networks *networks, const char *path, const char *text, zimage_error *error);
    /* For measurements of a part of the network: at most so many layers. After configure, or after bind. */
    void (*limit_layers)(zi_networks *networks, int64_t layers);
    int64_t (*layers)(const zi_networks *networks); /* that a forward pass runs */
    /* Gives the configured network its weights; the store must outlive it. */
    zimage_status (*bind)(zi_networks *networks, zi_store *store, const zi_log *log, zimage_error *error);
    void (*unbind)(zi_networks *networks); /* what bind allocated; nothing if it was never called */
} zi_component;

/* Sizes that requests are measured by. Pixels are of the image, rows and columns of the latents. */
typedef struct zi_facts {
    int64_t latent_channels, scale_factor; /* pixels for each latent, each way */
    int64_t size_multiple;                 /* pixels: width and height are multiples of it */
    int64_t max_width, max_height, default_side;
    int64_t features;   /* width of the text features */
    int64_t vocabulary; /* token ids are below it */
    int64_t max_prompt_tokens;
    zi_sizes sizes; /* that the model was trained at */
    int default_steps, distilled;
    float default_guidance; /* of the reference pipeline; 0: none */
    /* ---- input images ---- */
    int has_image_encoder;                          /* 0: the VAE's file has a decoder only */
    int max_references;                             /* that the transformer reads; 0: it reads none */
    int can_start_from_image;                       /* without a mask an image is the start image; else a reference */
    int inpaint_reads_image;                        /* with a mask the start image is the first reference, too */
    double default_strength, default_mask_strength; /* without and with a mask; 0: the first can't be */
} zi_facts;

typedef struct zi_family {
    const char *name;
    const char *const *pipeline_classes;    /* _class_name in model_index.json, NULL-ended */
    const char *const *transformer_classes; /* in transformer/config.json, for a folder without model_index.json */
    zi_component components[ZI_COMPONENTS];
    zi_classes scheduler, tokenizer;
    const char *const *scheduler_fields; /* as fields of a component */
    const char *const *index_fields;     /* of model_index.json, beside the parts; NULL-ended; NULL: none */
    size_t networks_size;                /* bytes of its struct of networks */
    size_t inputs_size;                  /* bytes of what prepare fills */
    zimage_template chat_template;

    /* ---- the model ---- */

    /* Takes what model_index.json says beside the parts; its object is NULL where a conversion lacks the file. NULL:
     * the family takes nothing. So is read_tokenizer. */
    zimage_status (*read_index)(zi_networks *networks, const zi_json_reader *index, const zi_log *log);
    zimage_status (*read_tokenizer)(zi_networks *networks, const zi_tokenizer *tokenizer, zimage_error *error);
    /* Whether the components fit each other; only those in `present` are configured. */
    zimage_status (*check)(const zi_networks *networks, const int present[ZI_COMPONENTS], int64_t vocabulary,
                           const char *path, zimage_error *error);
    void (*describe)(const zi_networks *networks, const zi_scheduler_config *scheduler, zi_facts *facts);
    zi_scheduler_config (*default_scheduler)(void); /* of a conversion without scheduler/ */

    /* ---- in host memory ---- */

    /* Rows of text features that encode makes of a prompt: as many as its tokens, or more where the family pads. */
    int64_t (*feature_rows)(const zi_networks *networks, int64_t tokens);
    /* Whether positions of so many rows of text features and so large latents exist. */
    zimage_status (*check_positions)(const zi_networks *networks, int64_t tokens, int64_t rows, int64_t columns,
                                     zimage_error *error);
    /* sigmas [steps + 1], the last 0. An error if the scheduler's settings lead to one that is not finite. */
    zimage_status (*sigmas)(const zi_networks *networks, const zi_scheduler_config *scheduler, int steps, int64_t rows,
                            int64_t columns, float *sigmas, zimage_error *error);
    /* Whether the model guides with this scale: a second prompt, and two forward passes where guidance_at is not 0. */
    int (*guides)(const zi_networks *networks, float scale);
    /* The guidance scale at a sigma; 0: one forward pass. truncation: no guidance once 1 - sigma exceeds it. */
    float (*guidance_at)(float scale, double truncation, float sigma);
    /* positive [count] <- the guided velocity; normalization: limit of its norm relative to positive's, 0: none */
    void (*guide)(float *positive, const float *negative, int64_t count, float scale, float normalization);
    /* The velocity is noise - clean. It is this factor, 1 or -1, times what forward computes. */
    float velocity_sign;
    /* What the reference rounds to bf16 when its networks compute in bf16, beside what they compute: */
    int bf16_latents;     /* noise is drawn in bf16, and latents are rounded after each step */
    int bf16_start_noise; /* with a start image noise is drawn in bf16 */
    /* The network's time at a sigma, which forward takes; in_bf16: as the reference rounds it in bf16. */
    float (*time_at)(float sigma, int in_bf16);

    /* ---- input images, in host memory ---- */

    /* *width, *height: of an input image; becomes the size in pixels that the VAE encodes, if the request gives none.
     * References always have it. An error says what sizes are expected, without a field's name. */
    zimage_status (*fit_size)(const zi_networks *networks, zi_image_role role, int64_t *width, int64_t *height,
                              zimage_error *error);
    /* out, RGB of that size, which the caller frees <- an RGB image of any size */
    zimage_status (*fit_image)(const zi_networks *networks, zi_image_role role, const zi_pixels *image, int64_t width,
                               int64_t height, zi_pixels *out, zimage_error *error);
    /* weights [height / scale_factor, width / scale_factor] in 0 (keep) .. 1 (repaint) <- a mask of any size, of one
     * channel or RGB: white is repainted */
    zimage_status (*fit_mask)(const zi_networks *networks, const zi_pixels *mask, int64_t width, int64_t height,
                              float *weights, zimage_error *error);
    /* Numbers that encode_image makes of an image: mean and log-variance of its latents. */
    int64_t (*moments_count)(const zi_networks *networks, int64_t pixel_rows, int64_t pixel_columns);
    /* latents [C, rows, columns] of an image <- its moments and, where the family draws samples, noise of that shape */
    void (*image_latents)(const zi_networks *networks, const float *moments, const float *noise, int64_t rows,
                          int64_t columns, float *latents);
    int samples_start, samples_reference; /* image_latents takes noise for an image of that role */

    /* ---- on a backend ---- */

    /* features [feature_rows(tokens), facts.features] of a prompt's token ids, without padding */
    zimage_status (*encode)(zi_run *run, const zi_networks *networks, const int32_t *ids, int64_t tokens,
                            zi_tensor *features);
    /* The context: what steps read of a prompt. context_shape gives its shape for a number of rows of features. */
    void (*context_shape)(const zi_networks *networks, int64_t tokens, int64_t shape[2]);
    zimage_status (*make_context)(zi_run *run, const zi_networks *networks, const zi_tensor *features,
                                  zi_tensor *context);
    /* Makes what all steps of one size, context and list of references share: *inputs (inputs_size bytes) and tensors
     * that stay on the stack. */
    zimage_status (*prepare)(zi_run *run, const zi_networks *networks, const zi_tensor *context, int64_t rows,
                             int64_t columns, const zi_reference *references, int reference_count, void *inputs);
    /* A batch of `count` forward passes, at most ZI_PASSES_MAX, of the same latents: inputs[i] makes out[i]. latents,
     * out[count] [C, rows, columns] from alloc_f32; time from time_at. */
    zimage_status (*forward)(zi_run *run, const void *const *inputs, int count, const zi_tensor *latents, float time,
                             zi_tensor *out);
    /* moments [moments_count] in host memory <- rgb8 [pixel_rows, pixel_columns, 3] of a fitted image; both NULL in a
     * rehearsal. band_rows as for decode. */
    zimage_status (*encode_image)(zi_run *run, const zi_networks *networks, const uint8_t *rgb8, int64_t pixel_rows,
                                  int64_t pixel_columns, int64_t band_rows, float *moments);
    /* latents [C, rows, columns] in host memory (NULL in a rehearsal) to rgb8 [rows * scale, columns * scale, 3]. */
    zimage_status (*decode)(zi_run *run, const zi_networks *networks, const float *latents, int64_t rows,
                            int64_t columns, int64_t band_rows, uint8_t *rgb8);
    /* Blocks that these report through zi_end_block, for progress. */
    int64_t (*encode_blocks)(const zi_networks *networks);
    int64_t (*context_blocks)(const zi_networks *networks);
    int64_t (*prepare_blocks)(const zi_networks *networks, int reference_count);
    int64_t (*forward_blocks)(const zi_networks *networks);
    int64_t (*decode_blocks)(const zi_networks *networks);
    int64_t (*encode_image_blocks)(const zi_networks *networks);
} zi_family;

extern const zi_family zi_family_zimage, zi_family_klein;

/* All families, NULL-ended. */
extern const zi_family *const zi_families[];
/* The family that runs pipelines of that class, or transformers of that class; NULL: none does. */
const zi_family *zi_family_of_pipeline(const char *class_name);
const zi_family *zi_family_of_transformer(const char *class_name);

#endif
