/* The autoencoders of images: AutoencoderKL (FLUX.1's, in Z-Image) and AutoencoderKLFlux2 (docs/spec/vae.md). */
#ifndef ZI_MODEL_VAE_H
#define ZI_MODEL_VAE_H

#include "model/vae_blocks.h"

#define ZI_VAE_MAX_LEVELS 8

typedef struct zi_vae_config {
    int64_t latent_channels, layers_per_block, norm_num_groups, levels;
    int64_t block_out_channels[ZI_VAE_MAX_LEVELS];         /* of the encoder */
    int64_t decoder_block_out_channels[ZI_VAE_MAX_LEVELS]; /* of the decoder: the same, or those of the small decoder */
    int mid_block_add_attention, use_quant_conv, use_post_quant_conv;
    int64_t scale_factor;                /* 2^(levels - 1) image pixels a latent */
    int64_t patch;                       /* AutoencoderKL: 1; AutoencoderKLFlux2: 2 */
    double scaling_factor, shift_factor; /* AutoencoderKL */
    double batch_norm_eps;               /* AutoencoderKLFlux2 */
} zi_vae_config;

/* The encoder or the decoder; levels in the order of computation. */
typedef struct zi_vae_half {
    const char *name; /* "encoder", "decoder" */
    int64_t in_channels, out_channels;
    int64_t levels, level_resnets; /* resnets of a level */
    int64_t channels[ZI_VAE_MAX_LEVELS];
    zi_vae_affine conv_in, conv_norm_out, conv_out;
    zi_vae_mid_block mid;
    zi_vae_resnet *resnets;                    /* [levels * level_resnets], owned */
    zi_vae_affine samplers[ZI_VAE_MAX_LEVELS]; /* the convolution between a level and the next one */
} zi_vae_half;

typedef struct zi_vae {
    zi_vae_config config;
    zi_store *store;
    const char *path; /* of the weights, for messages; owned by the store */
    int has_encoder;
    zi_vae_half encoder, decoder;
    zi_vae_affine quant_conv, post_quant_conv;
    const zi_weight *running_mean, *running_var; /* AutoencoderKLFlux2 */
    float *mean, *deviation;                     /* the same as factors of the latents' channels; owned */
} zi_vae;

/* Every field of the configuration, NULL-ended. */
extern const char *const zi_vae_fields[];       /* AutoencoderKL */
extern const char *const zi_vae_flux2_fields[]; /* AutoencoderKLFlux2 */
/* From the file `path`, or where text is not NULL from that JSON text, with `path` for messages. */
zimage_status zi_vae_config_read(const char *path, const char *text, zi_vae_config *config, zimage_error *error);
zimage_status zi_vae_flux2_config_read(const char *path, const char *text, zi_vae_config *config, zimage_error *error);
/* A file without encoder.* is fine as long as nothing is encoded. */
zimage_status zi_vae_bind(zi_vae *model, const zi_vae_config *config, zi_store *store, const zi_log *log,
                          zimage_error *error);
void zi_vae_free(zi_vae *model);

/*
 * Latents are what the transformer reads and writes: [C, h, w] of AutoencoderKL, scaled and shifted; of
 * AutoencoderKLFlux2 [4 C, h / 2, w / 2], patches of 2 x 2 with the mean and the variance of each channel taken out.
 */
int64_t zi_vae_latent_channels(const zi_vae_config *config);
/* Image pixels a latent, each way. Images have sides of multiples of it. */
int64_t zi_vae_latent_size(const zi_vae_config *config);

/* Where decoded pixels [h * scale, w * scale, 3] go, in host memory; either may be NULL. */
typedef struct zi_vae_output {
    float *rgb;    /* in [-1, 1] and beyond */
    uint8_t *rgb8; /* the same as bytes (ops.h, download_rgb8) */
} zi_vae_output;

/*
 * Decodes latents [channels, rows, columns] in host memory. NULL in a rehearsal. The widest level is computed in bands
 * of rows, bit-equal to the whole; band_rows = 0 chooses the band by size.
 */
zimage_status zi_vae_decode(const zi_vae *model, zi_run *run, const float *latents, int64_t rows, int64_t columns,
                            int64_t band_rows, const zi_vae_output *out);
/* Blocks that decode reports through zi_end_block, for progress. */
int64_t zi_vae_decode_blocks(const zi_vae *model);

/* ZIMAGE_ERROR_MODEL where the file has no encoder. */
zimage_status zi_vae_check_encoder(const zi_vae *model, zimage_error *error);
/*
 * Encodes an image rgb8 [pixel_rows, pixel_columns, 3] in host memory, whose sides are multiples of
 * zi_vae_latent_size. moments [2 C, h, w] in host memory, h = pixel_rows / scale_factor: the means, then the
 * logarithms of the variances, from -30 to 20. Both are NULL in a rehearsal. The image is read in bands of rows;
 * band_rows as in zi_vae_decode.
 */
zimage_status zi_vae_encode(const zi_vae *model, zi_run *run, const uint8_t *rgb8, int64_t pixel_rows,
                            int64_t pixel_columns, int64_t band_rows, float *moments);
int64_t zi_vae_encode_blocks(const zi_vae *model);
/*
 * Latents from the moments [2 C, rows, columns] of zi_vae_encode, in host memory: of a sample mean + deviation * noise
 * [C, rows, columns], or of the mean where noise is NULL.
 */
void zi_vae_latents(const zi_vae *model, const float *moments, const float *noise, int64_t rows, int64_t columns,
                    float *latents);

/*
 * Where in latents the value `place` (channel, row, column) of the encoder's grid [C, rows, columns] lies, and in which
 * channel: a patch of AutoencoderKLFlux2 is channel, row, column (fastest). The values at columns that are a patch
 * apart lie one behind the other.
 */
int64_t zi_vae_latent_index(const zi_vae_config *config, const int64_t place[3], int64_t rows, int64_t columns,
                            int64_t *channel);

#endif
