/* The decoder of AutoencoderKL (FLUX.1 type, docs/spec/vae.md). */
#ifndef ZI_MODEL_VAE_H
#define ZI_MODEL_VAE_H

#include "model/vae_blocks.h"

#define ZI_VAE_MAX_LEVELS 8

typedef struct zi_vae_config {
    int64_t latent_channels, out_channels, layers_per_block, norm_num_groups, levels;
    int64_t block_out_channels[ZI_VAE_MAX_LEVELS];
    int mid_block_add_attention, use_post_quant_conv;
    double scaling_factor, shift_factor;
    int64_t scale_factor; /* 2^(levels - 1) image pixels a latent */
} zi_vae_config;

typedef struct zi_vae {
    zi_vae_config config;
    zi_vae_affine post_quant_conv, conv_in, conv_norm_out, conv_out;
    zi_vae_resnet mid[2];
    zi_vae_attention attention;
    zi_vae_resnet *up_resnets; /* [levels * (layers_per_block + 1)], owned */
    zi_vae_affine upsamplers[ZI_VAE_MAX_LEVELS];
} zi_vae;

/* Every field of the configuration, NULL-ended. */
extern const char *const zi_vae_fields[];
/* From the file `path`, or where text is not NULL from that JSON text, with `path` for messages. */
zimage_status zi_vae_config_read(const char *path, const char *text, zi_vae_config *config, zimage_error *error);
/* encoder.* and quant_conv.* are known and not needed. */
zimage_status zi_vae_bind(zi_vae *model, const zi_vae_config *config, zi_store *store, const zi_log *log,
                          zimage_error *error);
void zi_vae_free(zi_vae *model);
/* Where decoded pixels [h * scale, w * scale, 3] go, in host memory; either may be NULL. */
typedef struct zi_vae_output {
    float *rgb;    /* in [-1, 1] and beyond */
    uint8_t *rgb8; /* the same as bytes (ops.h, download_rgb8) */
} zi_vae_output;

/*
 * Decodes latents [C, h, w] in host memory as the transformer left them: scaling and shift are applied here. NULL in a
 * rehearsal. The widest level is computed in bands of rows, bit-equal to the whole; band_rows = 0 chooses the band by
 * size.
 */
zimage_status zi_vae_decode(const zi_vae *model, zi_run *run, const float *latents, int64_t rows, int64_t columns,
                            int64_t band_rows, const zi_vae_output *out);
/* Blocks that decode reports through zi_end_block, for progress. */
int64_t zi_vae_decode_blocks(const zi_vae *model);

#endif
