/* The Z-Image diffusion transformer, S3-DiT; "caption" is its word for the prompt's text features
 * (docs/spec/zimage.md). */
#ifndef ZI_MODEL_ZIMAGE_DIT_H
#define ZI_MODEL_ZIMAGE_DIT_H

#include "model/common.h"

#define ZI_ZIMAGE_DIT_SEQUENCE_MULTIPLE 32 /* captions and images are padded to this many tokens */

typedef struct zi_zimage_dit_config {
    int64_t patch, f_patch, in_channels, dim, n_layers, n_refiner_layers, n_heads, cap_feat_dim;
    double norm_eps, rope_theta, t_scale;
    int64_t axes_dims[3], axes_lens[3];
    int64_t patch_pairs; /* entries of all_patch_size */
    /* derived */
    int64_t head_dim, ffn_dim, adaln_dim, t_hidden;
} zi_zimage_dit_config;

typedef struct zi_zimage_dit_block {
    const zi_weight *to_q, *to_k, *to_v, *to_out, *norm_q, *norm_k, *w1, *w2, *w3;
    const zi_weight *attention_norm1, *attention_norm2, *ffn_norm1, *ffn_norm2;
    const zi_weight *adaln, *adaln_bias; /* NULL in the context refiner */
} zi_zimage_dit_block;

typedef struct zi_zimage_dit {
    zi_zimage_dit_config config;
    const zi_weight *x_pad_token, *cap_pad_token, *x_embedder, *x_embedder_bias, *cap_norm, *cap_embedder,
        *cap_embedder_bias, *t_mlp0, *t_mlp0_bias, *t_mlp2, *t_mlp2_bias, *final_linear, *final_linear_bias,
        *final_adaln, *final_adaln_bias;
    /* One allocation that starts at noise_refiner, owned. */
    zi_zimage_dit_block *noise_refiner, *context_refiner, *layers;
} zi_zimage_dit;

/* Every field of the configuration, NULL-ended. */
extern const char *const zi_zimage_dit_fields[];
/* From the file `path`, or where text is not NULL from that JSON text, with `path` for messages. */
zimage_status zi_zimage_dit_config_read(const char *path, const char *text, zi_zimage_dit_config *config,
                                        zimage_error *error);
/* Fills the derived fields from the others; done by zi_zimage_dit_config_read. */
void zi_zimage_dit_config_derive(zi_zimage_dit_config *config);
zimage_status zi_zimage_dit_bind(zi_zimage_dit *model, const zi_zimage_dit_config *config, zi_store *store,
                                 const zi_log *log, zimage_error *error);
void zi_zimage_dit_free(zi_zimage_dit *model);

/* Tokens after padding to a multiple of 32. */
int64_t zi_zimage_dit_padded(int64_t tokens);
/* Whether positions of this caption and grid (latent sizes / patch) lie within axes_lens; else an error that says which
 * positions would. */
zimage_status zi_zimage_dit_check_positions(const zi_zimage_dit *model, int64_t caption_tokens, int64_t grid_rows,
                                            int64_t grid_columns, zimage_error *error);
/* Caption embedder and context refiner, once per prompt: features [m, cap_feat_dim] -> out [padded(m), dim]. */
zimage_status zi_zimage_dit_caption(const zi_zimage_dit *model, zi_run *run, const zi_tensor *features, zi_tensor *out);

/* What all forward passes of one size with one caption share; its tensors lie on the stack. */
typedef struct zi_zimage_dit_inputs {
    const zi_zimage_dit *model;
    int64_t grid_rows, grid_columns; /* of image tokens */
    zi_tensor caption;               /* [padded m, dim], the caller's */
    zi_rope rope;                    /* of the image's tokens, then the caption's */
    zi_tensor pads;                  /* [image pads, dim]; no rows: data is NULL */
} zi_zimage_dit_inputs;

/* caption [padded m, dim] from zi_zimage_dit_caption; latents of [rows, columns]. What it allocates stays. */
zimage_status zi_zimage_dit_prepare(const zi_zimage_dit *model, zi_run *run, const zi_tensor *caption, int64_t rows,
                                    int64_t columns, zi_zimage_dit_inputs *inputs);
/* A batch of `count` forward passes (common.h), whose inputs are of one model and one size. latents, out[count] [C, H,
 * W]; t = 1 - sigma. The output is clean - noise; the family (pipeline/zimage.c) negates it. */
zimage_status zi_zimage_dit_forward_passes(const zi_zimage_dit_inputs *const *inputs, int count, zi_run *run,
                                           const zi_tensor *latents, float t, zi_tensor *out);
/* Both, for a single forward pass. */
zimage_status zi_zimage_dit_forward(const zi_zimage_dit *model, zi_run *run, const zi_tensor *latents, float t,
                                    const zi_tensor *caption, zi_tensor *out);
/* Blocks that the calls above report through zi_end_block, for progress. */
int64_t zi_zimage_dit_caption_blocks(const zi_zimage_dit *model);
int64_t zi_zimage_dit_forward_blocks(const zi_zimage_dit *model);

#endif
