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

#endif
