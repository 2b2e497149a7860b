/*
 * The CUDA kernels between the products, as C functions that launch them. Activations are ZI_BF16 or ZI_F32; statistics
 * and arithmetic are float32, sums over images float64. Formulas: ops/ops.h. Sizes are in elements and may be any; all
 * pointers are device memory. They return cudaGetLastError().
 */
#ifndef ZI_CUDA_KERNELS_H
#define ZI_CUDA_KERNELS_H

#include <cuda_runtime_api.h>

#include "ops/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* dst[i] = src[i]; from: also ZI_F16. */
cudaError_t zi_cuda_convert(zi_dtype to, void *dst, zi_dtype from, const void *src, int64_t n, cudaStream_t stream);
/* y[i] = clamp(x[i] / 2 + 0.5, 0, 1) * 255, rounded half to even. */
cudaError_t zi_cuda_rgb8(uint8_t *y, const float *x, int64_t n, cudaStream_t stream);
/* Random numbers of variance 1, other ones for another seed. */
cudaError_t zi_cuda_random(zi_dtype type, void *dst, int64_t n, uint32_t seed, cudaStream_t stream);
/* Filters [out, in, taps] to [padded, taps, in], zero behind `out`. from: also ZI_F16. */
cudaError_t zi_cuda_arrange_filter(zi_dtype to, void *dst, zi_dtype from, const void *src, int64_t out, int64_t padded,
                                   int64_t in, int64_t taps, cudaStream_t stream);
/* MLX groups (ops/tensor.h: zi_weight) to numbers: scale * q + bias. stored: of scales and biases. */
cudaError_t zi_cuda_unpack_groups(zi_dtype to, void *dst, const uint8_t *q, int bits, int64_t group, zi_dtype stored,
                                  const void *scales, const void *biases, int64_t count, cudaStream_t stream);

/* Rows of e4m3 numbers, each to be multiplied by its row's scale: the row's largest magnitude / 448. */
typedef struct zi_cuda_rows8 {
    void *data;
    float *scales;
} zi_cuda_rows8;

/* Norms of rows of n. w, gain, gate: [n] float32, each may be NULL (= 1). y NULL: to y8, of rows that fit. */
cudaError_t zi_cuda_rms_norm(zi_dtype type, void *y, zi_cuda_rows8 y8, const void *x, const float *w, const float *gain,
                             int64_t rows, int64_t n, float eps, cudaStream_t stream);
/* Whether threads can hold a row of n. */
int zi_cuda_row_fits(zi_dtype type, int64_t n);
cudaError_t zi_cuda_layer_norm(zi_dtype type, void *y, const void *x, const float *gain, int64_t rows, int64_t n,
                               float eps, cudaStream_t stream);
typedef struct zi_cuda_residual_args {
    void *x, *h;
    zi_cuda_rows8 h8; /* instead of h, or data NULL */
    const void *y;
    const float *w, *gate, *w_next, *gain_next;
    float eps;
    int *not_finite; /* NULL, or set to 1 where x is */
} zi_cuda_residual_args;
/* x += gate * rms(y) * w; h (may be NULL or y) = rms(x) * w_next * gain_next */
cudaError_t zi_cuda_residual(zi_dtype type, const zi_cuda_residual_args *args, int64_t rows, int64_t n,
                             cudaStream_t stream);
/* float32; cos may be the angles. */
cudaError_t zi_cuda_cos_sin(float *cos, float *sin, const float *angles, int64_t n, cudaStream_t stream);
/* In place on heads [rows][heads][dim]; w [dim]; cos, sin [rows][dim / 2]. half_split: pairs (j, j + dim / 2) instead
 * of (2 j, 2 j + 1). */
cudaError_t zi_cuda_qk_norm_rope(zi_dtype type, void *x, const float *w, const float *cos, const float *sin,
                                 int64_t rows, int64_t heads, int64_t dim, int half_split, float eps,
                                 cudaStream_t stream);

/* y[r][i] = silu(x[r][i]) * x[r][n + i]: rows of 2 n to rows of n. */
cudaError_t zi_cuda_glu(zi_dtype type, void *y, const void *x, int64_t rows, int64_t n, cudaStream_t stream);
cudaError_t zi_cuda_silu(zi_dtype type, void *y, const void *x, int64_t n, cudaStream_t stream);
/* m [4 n] in place: 1 + scale, tanh(gate), 1 + scale, tanh(gate) */
cudaError_t zi_cuda_modulation(zi_dtype type, void *m, int64_t n, cudaStream_t stream);
cudaError_t zi_cuda_add_one(zi_dtype type, void *y, const void *x, int64_t n, cudaStream_t stream);
/* latents [channels][height][width], tokens [height / p * width / p][p * p * channels], each of either type. */
cudaError_t zi_cuda_patchify(zi_dtype to, void *tokens, zi_dtype from, const void *latents,
                             const int64_t latents_shape[3], int64_t p, cudaStream_t stream);
cudaError_t zi_cuda_unpatchify(zi_dtype to, void *latents, zi_dtype from, const void *tokens,
                               const int64_t latents_shape[3], int64_t p, cudaStream_t stream);
/* *flag = 1 if an element is NaN or infinite; else unchanged. */
cudaError_t zi_cuda_not_finite(zi_dtype type, const void *x, int64_t n, int *flag, cudaStream_t stream);

/* y [rows][n] = x W^T + bias (float32, may be NULL) (+ y): float32 x [rows][in], W [n][in] of either type. Few rows. */
cudaError_t zi_cuda_few(zi_dtype type, void *y, const float *x, zi_dtype w_type, const void *w, const float *bias,
                        int accumulate, int64_t rows, int64_t n, int64_t in, cudaStream_t stream);
/* y [rows][n] = bias (+ x) (+ y), each may be NULL or 0; x may be y if not both are added. */
cudaError_t zi_cuda_add_bias(zi_dtype type, void *y, const void *x, const float *bias, int accumulate, int64_t rows,
                             int64_t n, cudaStream_t stream);

/* Rows to fp8: n is a multiple of 8 and at most this. The second is zi_cuda_glu. */
#define ZI_CUDA_MOST_FP8 16384
cudaError_t zi_cuda_from_fp8(zi_dtype type, void *y, zi_cuda_rows8 x, int64_t rows, int64_t n, cudaStream_t stream);
cudaError_t zi_cuda_quantise_rows(zi_cuda_rows8 y, zi_dtype type, const void *x, int64_t rows, int64_t n,
                                  cudaStream_t stream);
cudaError_t zi_cuda_glu_fp8(zi_cuda_rows8 y, zi_dtype type, const void *x, int64_t rows, int64_t n,
                            cudaStream_t stream);

/* y = silu(x w1^T) * (x w3^T), bf16 [rows][out], as one kernel: x [rows][in], w [2 out][in], w1's rows and then w3's, both
 * bf16, or both e4m3 with scales of their rows. */
cudaError_t zi_cuda_gated(void *y, const void *x, const float *x_scales, const void *w, const float *w_scales,
                          int64_t rows, int64_t out, int64_t in, cudaStream_t stream);
/* Whether this card and these sizes have it. */
int zi_cuda_gated_fits(int64_t rows, int64_t out, int64_t in, int fp8);

/* p = softmax(s * scale) of rows [heads][rows][keys], float32 to either type (in place if that is float32). causal: row
 * i, which is query first + i, sees keys 0 .. first + i. */
cudaError_t zi_cuda_softmax(zi_dtype type, void *p, const float *s, int64_t heads, int64_t rows, int64_t keys,
                            float scale, int causal, int64_t first, cudaStream_t stream);
/* Attention of bf16 tensors as in ops.h; 1: these sizes can be done. */
int zi_cuda_flash_fits(int64_t head_dim);
cudaError_t zi_cuda_flash(void *o, const void *q, const void *k, const void *v, int64_t queries, int64_t keys,
                          int64_t heads, int64_t kv_heads, int64_t head_dim, int causal, cudaStream_t stream);

/* scale, shift [channels] float32 from the sums over `count` elements a group (ops.h). */
cudaError_t zi_cuda_group_fold(float *scale, float *shift, const double *sums, const float *w, const float *b,
                               int64_t channels, int64_t groups, int64_t count, float eps, cudaStream_t stream);
/* Images [pixels][channels]. sums [groups][2] float64: += sum, sum of squares. */
cudaError_t zi_cuda_group_sums(zi_dtype type, double *sums, const void *x, int64_t pixels, int64_t channels,
                               int64_t groups, cudaStream_t stream);
/* y = x * scale[c] + shift[c] */
cudaError_t zi_cuda_channel_affine(zi_dtype type, void *y, const void *x, const float *scale, const float *shift,
                                   int64_t pixels, int64_t channels, cudaStream_t stream);

/* What a convolution reads: rows [first, first + rows) of the (doubled) image, which may lie outside it. */
typedef struct zi_cuda_band {
    const void *x; /* image rows [x_row, ...), [.][columns][channels] */
    int64_t x_row, image_rows, columns, channels;
    int doubled;
    const float *scale, *shift; /* NULL, or SiLU(x * scale + shift) is read */
    int64_t first, rows;
} zi_cuda_band;
/* y [rows][columns << doubled][channels], zero outside the image. */
cudaError_t zi_cuda_band_input(zi_dtype type, void *y, const zi_cuda_band *band, cudaStream_t stream);

typedef struct zi_cuda_conv {
    int64_t rows, columns, in, out; /* of y [rows][columns][out] */
    int64_t side;                   /* 1 or 3; x [rows + side - 1][columns][in]; columns are padded with zeros */
    const float *bias;              /* [out] or NULL */
    int accumulate;
} zi_cuda_conv;
/* y from the products of all x's pixels with all taps, [out][side][side][.], `step` apart: x's pixels [rows + side - 1]
 * [columns]. */
cudaError_t zi_cuda_sum_taps(zi_dtype y_type, void *y, const float *products, int64_t step, const zi_cuda_conv *conv,
                             cudaStream_t stream);
/* filter [out][side][side][in] of x's type: any sizes, slowly. */
cudaError_t zi_cuda_conv_any(zi_dtype y_type, void *y, zi_dtype type, const void *x, const void *filter,
                             const zi_cuda_conv *conv, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
