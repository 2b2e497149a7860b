/*
 * What the VAE's decoder and encoder share: images in one region of memory with two ends, convolutions, GroupNorm,
 * residual blocks, attention. Images are channels-last [rows, columns, channels]. GroupNorm + SiLU is never a pass of
 * its own: its statistics become a scale and a shift for each channel, applied when the next convolution reads.
 */
#ifndef ZI_MODEL_VAE_BLOCKS_H
#define ZI_MODEL_VAE_BLOCKS_H

#include "model/common.h"

typedef struct zi_vae_affine {
    const zi_weight *weight, *bias;
} zi_vae_affine;

typedef struct zi_vae_resnet {
    int64_t in_channels, out_channels;
    zi_vae_affine norm1, conv1, norm2, conv2, conv_shortcut; /* conv_shortcut only if in != out */
} zi_vae_resnet;

typedef struct zi_vae_attention {
    zi_vae_affine norm, to_q, to_k, to_v, to_out;
} zi_vae_attention;

typedef struct zi_vae_mid_block {
    zi_vae_resnet resnets[2];
    int has_attention; /* between the two */
    zi_vae_attention attention;
} zi_vae_mid_block;

enum { ZI_VAE_LOW_END = 0, ZI_VAE_HIGH_END = 1 };

/* The current image and the memory that images live in. */
typedef struct zi_vae_canvas {
    zi_run *run;
    int64_t groups;   /* of GroupNorm */
    zi_tensor sums;   /* [groups, 4], for group_norm_sums */
    zi_tensor region; /* all images */
    zi_tensor x;      /* the current image [rows, columns, channels] ... */
    int end;          /* ... lies at this end of the region */
} zi_vae_canvas;

/* Elements of an image, rounded up to a cache line, so that every image of the region starts on one. */
int64_t zi_vae_image_size(int64_t rows, int64_t columns, int64_t channels);
/* An image `skip` elements away from an end of the region. */
zi_tensor zi_vae_image_at(const zi_vae_canvas *c, int end, int64_t skip, int64_t rows, int64_t columns,
                          int64_t channels);
/* An image with x's sides, `skip` elements away from the other end. */
zi_tensor zi_vae_image_opposite(const zi_vae_canvas *c, int64_t skip, int64_t channels);
/* x <- y, which lies at the other end */
void zi_vae_replace_x(zi_vae_canvas *c, zi_tensor y);

/* A convolution of stride 1 from a whole image to a whole image; affine may be NULL. */
zimage_status zi_vae_convolve(zi_vae_canvas *c, zi_tensor *y, const zi_tensor *x, const zi_vae_affine *weights,
                              const zi_channel_affine *affine, int upsample, int accumulate);
/* Rows [first, first + its rows) of an image. */
typedef struct zi_vae_band {
    zi_tensor rows;
    int64_t first;
} zi_vae_band;

/* Rows of a band: as asked for, or where asked is 0 all rows of a small image, else as many as BAND_BYTES hold. */
int64_t zi_vae_band_rows(const zi_vae_canvas *c, int64_t asked, int64_t rows, int64_t columns, int64_t channels);
/* Rows of a buffer in host memory, through which an image with rows of so many float32 numbers goes in parts. */
int64_t zi_vae_host_rows(int64_t rows, int64_t row_count);
/* Rows [row, row + count) of y <- conv(x) of stride 1, of which `from` holds the rows that they read. */
zimage_status zi_vae_convolve_band(zi_vae_canvas *c, zi_tensor *y, int64_t row, int64_t count, const zi_vae_band *from,
                                   const zi_vae_affine *weights, const zi_channel_affine *affine);
zimage_status zi_vae_alloc_affine(zi_vae_canvas *c, zi_channel_affine *affine, int64_t channels);
/* From c->sums over `elements` elements. */
zimage_status zi_vae_fold_norm(zi_vae_canvas *c, zi_channel_affine *affine, int64_t elements,
                               const zi_vae_affine *norm);
/* GroupNorm of a stored image as a scale and a shift for each channel; allocates them. */
zimage_status zi_vae_normalize(zi_vae_canvas *c, zi_channel_affine *affine, const zi_tensor *x,
                               const zi_vae_affine *norm);
/* y += conv2(SiLU(norm2(h))) */
zimage_status zi_vae_add_second_half(zi_vae_canvas *c, const zi_vae_resnet *resnet, zi_tensor *y, const zi_tensor *h);
/* x <- the residual block of x */
zimage_status zi_vae_run_resnet(zi_vae_canvas *c, const zi_vae_resnet *resnet);
/* x += attention of x, one head, pixels as tokens */
zimage_status zi_vae_run_attention(zi_vae_canvas *c, const zi_vae_attention *attention);
/* x <- mid_block(x) of "encoder" or "decoder", two or three blocks that end with zi_end_block */
zimage_status zi_vae_run_mid_block(zi_vae_canvas *c, const zi_vae_mid_block *mid, const char *half);

#endif
