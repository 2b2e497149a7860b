/*
 * The diffusion transformer of FLUX.2-klein (docs/spec/flux2-klein.md). The formulas also fit other models of the class
 * Flux2Transformer2DModel that embed no guidance.
 */
#ifndef ZI_MODEL_FLUX2_DIT_H
#define ZI_MODEL_FLUX2_DIT_H

#include "model/common.h"

#define ZI_FLUX2_AXES 4 /* of positions: T, H, W, L */

typedef struct zi_flux2_dit_config {
    int64_t in_channels, num_layers, num_single_layers, heads, head_dim, joint_dim, time_channels;
    int64_t axes_dims[ZI_FLUX2_AXES];
    double mlp_ratio, rope_theta, eps;
    /* derived */
    int64_t dim, mlp_dim;
} zi_flux2_dit_config;

/* The part of a double block that works on the tokens of the image, or on those of the text. */
typedef struct zi_flux2_half {
    const zi_weight *to_q, *to_k, *to_v, *to_out, *norm_q, *norm_k, *linear_in, *linear_out;
    zi_weight gate, up; /* the halves of linear_in */
} zi_flux2_half;

typedef struct zi_flux2_double_block {
    zi_flux2_half image, text;
} zi_flux2_double_block;

typedef struct zi_flux2_single_block {
    const zi_weight *to_qkv_mlp_proj, *to_out, *norm_q, *norm_k;
    zi_weight to_q, to_k, to_v, gate, up; /* the rows of to_qkv_mlp_proj, in this order */
} zi_flux2_single_block;

typedef struct zi_flux2_dit {
    zi_flux2_dit_config config;
    const zi_weight *x_embedder, *context_embedder, *time_linear1, *time_linear2, *image_modulation, *text_modulation,
        *single_modulation, *norm_out, *proj_out;
    zi_flux2_double_block *double_blocks; /* [num_layers], owned */
    zi_flux2_single_block *single_blocks; /* [num_single_layers], owned */
} zi_flux2_dit;

/* Every field of the configuration, NULL-ended. */
extern const char *const zi_flux2_dit_fields[];
/* From the file `path`, or where text is not NULL from that JSON text, with `path` for messages. */
zimage_status zi_flux2_dit_config_read(const char *path, const char *text, zi_flux2_dit_config *config,
                                       zimage_error *error);
/* Fills the derived fields from the others; done by zi_flux2_dit_config_read. */
void zi_flux2_dit_config_derive(zi_flux2_dit_config *config);
zimage_status zi_flux2_dit_bind(zi_flux2_dit *model, const zi_flux2_dit_config *config, zi_store *store,
                                const zi_log *log, zimage_error *error);
void zi_flux2_dit_free(zi_flux2_dit *model);

/* Once per prompt: features [tokens, joint_dim] -> context [tokens, dim]. Every row counts, pads too. */
zimage_status zi_flux2_dit_context(const zi_flux2_dit *model, zi_run *run, const zi_tensor *features,
                                   zi_tensor *context);

/* References, and how their tokens take part in a job. */
typedef struct zi_flux2_references {
    const zi_reference *images;
    int count;
    /* 0: they pass through every block at every step, beside the image's tokens. 1 (klein-9B-KV): they see each other
     * only, at timestep 0; so they pass through the blocks once, and all steps read their keys and values. */
    int once;
} zi_flux2_references;

/* What all forward passes of one size with one context and the same references share; its tensors lie on the stack. */
typedef struct zi_flux2_dit_inputs {
    const zi_flux2_dit *model;
    int64_t rows, columns;  /* of the latents; each is a token */
    zi_tensor context;      /* [text tokens, dim], the caller's */
    zi_tensor references;   /* [reference tokens, dim], embedded; data is NULL if no step embeds any */
    zi_tensor keys, values; /* [blocks x reference tokens, dim] of references that passed once; else data is NULL */
    int64_t kept;           /* reference tokens of a block in keys and in values */
    zi_rope rope;           /* of the tokens of a forward pass: text, image, references */
} zi_flux2_dit_inputs;

/* context [text tokens, dim] from zi_flux2_dit_context; latents of [rows, columns]; references may be NULL. Reference
 * number r is at 10 + 10 r on axis T. What this allocates stays; of references that pass once these are two numbers for
 * each block, token and feature. */
zimage_status zi_flux2_dit_prepare(const zi_flux2_dit *model, zi_run *run, const zi_tensor *context, int64_t rows,
                                   int64_t columns, const zi_flux2_references *references, zi_flux2_dit_inputs *inputs);
/* What the transformer is told of the time, about 1000 sigma: with the reference's rounding in float32, or in bf16
 * (docs/spec/scheduler.md 3). */
float zi_flux2_timestep(float sigma, int in_bf16);
/* A batch of `count` forward passes (common.h), whose inputs are of one model, one size and the same references; one
 * pass only if references pass once. latents, out[count] [in_channels, rows, columns] from alloc_f32. out: the
 * velocity, noise - clean. */
zimage_status zi_flux2_dit_forward_passes(const zi_flux2_dit_inputs *const *inputs, int count, zi_run *run,
                                          const zi_tensor *latents, float timestep, zi_tensor *out);
/* Blocks that the calls above report through zi_end_block, for progress. */
int64_t zi_flux2_dit_context_blocks(const zi_flux2_dit *model);
int64_t zi_flux2_dit_prepare_blocks(const zi_flux2_dit *model, const zi_flux2_references *references);
int64_t zi_flux2_dit_forward_blocks(const zi_flux2_dit *model);

#endif
