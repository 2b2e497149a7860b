/* The decoder of AutoencoderKL (FLUX.1 type, spec vae.md). */
#ifndef ZI_MODEL_VAE_H
#define ZI_MODEL_VAE_H

#include "ops/ops.h"
#include "weights/store.h"

#define ZI_VAE_MAX_LEVELS 8

typedef struct zi_vae_config {
    int64_t latent_channels, out_channels, layers_per_block, norm_num_groups, levels;
    int64_t block_out_channels[ZI_VAE_MAX_LEVELS];
    int mid_block_add_attention, use_post_quant_conv;
    double scaling_factor, shift_factor;
    int64_t scale_factor; /* 2^(levels - 1) image pixels a latent */
} zi_vae_config;

typedef struct zi_vae_affine {
    const zi_weight *weight, *bias;
} zi_vae_affine;

typedef struct zi_vae_resnet {
    int64_t in_channels, out_channels;
    zi_vae_affine norm1, conv1, norm2, conv2, conv_shortcut; /* conv_shortcut only if in != out */
} zi_vae_resnet;

typedef struct zi_vae {
    zi_vae_config config;
    zi_vae_affine post_quant_conv, conv_in, conv_norm_out, conv_out;
    zi_vae_resnet mid[2];
    zi_vae_affine attention_norm, to_q, to_k, to_v, to_out;
    zi_vae_resnet *up_resnets; /* [levels * (layers_per_block + 1)], owned */
    zi_vae_affine upsamplers[ZI_VAE_MAX_LEVELS];
} zi_vae;

/* From the file `path`, or where text is not NULL from that JSON text, with `path` for messages. */
zimage_status zi_vae_config_read(const char *path, const char *text, zi_vae_config *config, zimage_error *error);
/* encoder.* and quant_conv.* are known and not needed. */
zimage_status zi_vae_bind(zi_vae *model, const zi_vae_config *config, zi_store *store, const zi_log *log,
                          zimage_error *error);
void zi_vae_free(zi_vae *model);
/*
 * latents [C, h, w] on the host as the transformer left them (scaling and shift are applied here) -> rgb [h * scale, w
 * * scale, 3] in [-1, 1] and beyond, host float32, and rgb8, the same as bytes (table.download_rgb8); either may be
 * NULL. The widest level is streamed in bands of rows, bit-equal to the whole: band_rows = 0 chooses the band by size.
 */
zimage_status zi_vae_decode(const zi_vae *model, zi_run *run, const float *latents, int64_t rows, int64_t columns,
                            int64_t band_rows, float *rgb, uint8_t *rgb8);
/* Blocks that decode reports through zi_end_block, for progress. */
int64_t zi_vae_decode_blocks(const zi_vae *model);

#endif
