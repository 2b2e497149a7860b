/*
 * A family is a kind of model: its networks, and what its reference pipeline does with them. Each family is one table
 * of functions in a file of its own (pipeline/zimage.c), listed in family.c. Everything that opens, plans, runs or
 * measures a model goes through this table; nothing else in the project names a family's networks.
 */
#ifndef ZI_PIPELINE_FAMILY_H
#define ZI_PIPELINE_FAMILY_H

#include "ops/ops.h"
#include "pipeline/sizes.h"
#include "sampler/flow_match.h"
#include "weights/store.h"

/* The parts of a model that have weights. */
typedef enum zi_component_kind { ZI_TEXT_ENCODER, ZI_TRANSFORMER, ZI_VAE, ZI_COMPONENTS } zi_component_kind;

/* A family's networks, in a struct of its own. */
typedef struct zi_networks zi_networks;

/* Classes that read their files as this program does: ["diffusers", "AutoencoderKL"] in model_index.json. */
typedef struct zi_classes {
    const char *library;
    const char *const *names; /* NULL-ended */
} zi_classes;

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
} zi_facts;

typedef struct zi_family {
    const char *name;
    const char *const *pipeline_classes;    /* _class_name in model_index.json, NULL-ended */
    const char *const *transformer_classes; /* in transformer/config.json, for a folder without model_index.json */
    zi_component components[ZI_COMPONENTS];
    zi_classes scheduler, tokenizer;
    const char *const *scheduler_fields; /* as fields of a component */
    size_t networks_size;                /* bytes of its struct of networks */
    size_t inputs_size;                  /* bytes of what prepare fills */
    zimage_template chat_template;

    /* ---- the model ---- */

    /* Whether the components fit each other; only those in `present` are configured. */
    zimage_status (*check)(const zi_networks *networks, const int present[ZI_COMPONENTS], int64_t vocabulary,
                           const char *path, zimage_error *error);
    void (*describe)(const zi_networks *networks, const zi_scheduler_config *scheduler, zi_facts *facts);
    zi_scheduler_config (*default_scheduler)(void); /* of a conversion without scheduler/ */

    /* ---- in host memory ---- */

    /* Whether positions of so many prompt tokens and so large latents exist. */
    zimage_status (*check_positions)(const zi_networks *networks, int64_t tokens, int64_t rows, int64_t columns,
                                     zimage_error *error);
    /* sigmas [steps + 1], the last 0. An error if the scheduler's settings lead to one that is not finite. */
    zimage_status (*sigmas)(const zi_networks *networks, const zi_scheduler_config *scheduler, int steps, int64_t rows,
                            int64_t columns, float *sigmas, zimage_error *error);
    /* The guidance scale at a sigma; 0: one forward pass. truncation: no guidance once 1 - sigma exceeds it. */
    float (*guidance_at)(float scale, double truncation, float sigma);
    /* positive [count] <- the guided velocity; normalization: limit of its norm relative to positive's, 0: none */
    void (*guide)(float *positive, const float *negative, int64_t count, float scale, float normalization);
    /* The velocity is noise - clean. It is this factor, 1 or -1, times what forward computes. */
    float velocity_sign;

    /* ---- on a backend ---- */

    /* features [tokens, facts.features] of a prompt's token ids */
    zimage_status (*encode)(zi_run *run, const zi_networks *networks, const int32_t *ids, int64_t tokens,
                            zi_tensor *features);
    /* The context: what steps read of a prompt. context_shape gives its shape for a number of tokens. */
    void (*context_shape)(const zi_networks *networks, int64_t tokens, int64_t shape[2]);
    zimage_status (*make_context)(zi_run *run, const zi_networks *networks, const zi_tensor *features,
                                  zi_tensor *context);
    /* Makes what all steps of one size and context share: *inputs (inputs_size bytes) and tensors that stay on the
     * stack. */
    zimage_status (*prepare)(zi_run *run, const zi_networks *networks, const zi_tensor *context, int64_t rows,
                             int64_t columns, void *inputs);
    /* One forward pass. latents, out [C, rows, columns] from alloc_f32. */
    zimage_status (*forward)(zi_run *run, const void *inputs, const zi_tensor *latents, float sigma, zi_tensor *out);
    /* latents [C, rows, columns] in host memory (NULL in a rehearsal) to rgb8 [rows * scale, columns * scale, 3]. */
    zimage_status (*decode)(zi_run *run, const zi_networks *networks, const float *latents, int64_t rows,
                            int64_t columns, int64_t band_rows, uint8_t *rgb8);
    /* Blocks that these report through zi_end_block, for progress. */
    int64_t (*encode_blocks)(const zi_networks *networks);
    int64_t (*context_blocks)(const zi_networks *networks);
    int64_t (*forward_blocks)(const zi_networks *networks);
    int64_t (*decode_blocks)(const zi_networks *networks);
} zi_family;

extern const zi_family zi_family_zimage;

/* All families, NULL-ended. */
extern const zi_family *const zi_families[];
/* The family that runs pipelines of that class, or transformers of that class; NULL: none does. */
const zi_family *zi_family_of_pipeline(const char *class_name);
const zi_family *zi_family_of_transformer(const char *class_name);

#endif
