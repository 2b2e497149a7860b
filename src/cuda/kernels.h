/*
 * Our own CUDA kernels: C functions that launch them on a stream and return cudaGetLastError(). ops/ops.h has the
 * formulas. Activations are ZI_BF16 or ZI_F32; arithmetic is float32, sums over images are float64. Unless said
 * otherwise pointers are device memory, and sizes count elements and may have any value. Some functions have more than
 * seven parameters, the kernel's own: a struct would name each of them twice more.
 */
#ifndef ZI_CUDA_KERNELS_H
#define ZI_CUDA_KERNELS_H

#include <cuda_runtime_api.h>

#include "ops/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* dst[i] = src[i]; from may be ZI_F16. */
cudaError_t zi_cuda_convert(zi_dtype to, void *dst, zi_dtype from, const void *src, int64_t n, cudaStream_t stream);
/* Rows of n elements, ld_* apart. */
cudaError_t zi_cuda_copy_rows(zi_dtype to, void *dst, int64_t ld_dst, zi_dtype from, const void *src, int64_t ld_src,
                              int64_t rows, int64_t n, cudaStream_t stream);
/* y[i] = clamp(x[i] / 2 + 0.5, 0, 1) * 255, rounded half to even. */
cudaError_t zi_cuda_rgb8(uint8_t *y, const float *x, int64_t n, cudaStream_t stream);
/* Random numbers of variance 1. */
cudaError_t zi_cuda_random(zi_dtype type, void *dst, int64_t n, uint32_t seed, cudaStream_t stream);
/* Filters [out, in, taps] to [padded, taps, in], with zeros from `out` on. from may be ZI_F16. */
cudaError_t zi_cuda_arrange_filter(zi_dtype to, void *dst, zi_dtype from, const void *src, int64_t out, int64_t padded,
                                   int64_t in, int64_t taps, cudaStream_t stream);
/* Dequantises MLX's groups (ops/tensor.h: zi_weight): scale * q + bias. stored: the type of scales and biases. */
cudaError_t zi_cuda_unpack_groups(zi_dtype to, void *dst, const uint8_t *q, int bits, int64_t group, zi_dtype stored,
                                  const void *scales, const void *biases, int64_t count, cudaStream_t stream);

/* Rows of e4m3 numbers with a scale for each row, which is the row's largest magnitude / 448: x = number * scale. */
typedef struct zi_cuda_rows8 {
    void *data;
    float *scales;
} zi_cuda_rows8;

/* normalised(x) * w * gain + shift: [n] float32, each may be NULL. */
typedef struct zi_cuda_norm_args {
    int layer; /* a layer norm, else an RMS norm */
    float eps;
    const float *w, *gain, *shift;
} zi_cuda_norm_args;
/* Norms of rows of n; y may be x. y NULL: to y8, of rows that fit. */
cudaError_t zi_cuda_norm(zi_dtype type, void *y, zi_cuda_rows8 y8, const void *x, const zi_cuda_norm_args *args,
                         int64_t rows, int64_t n, cudaStream_t stream);
/* Whether the threads of a block can hold a row of n. */
int zi_cuda_row_fits(zi_dtype type, int64_t n);
typedef struct zi_cuda_residual_args {
    void *x, *h;
    zi_cuda_rows8 h8; /* instead of h, or data NULL */
    const void *y;
    int post;                     /* y is normed before it is added */
    float eps;                    /* of that norm */
    const float *w, *gain, *gate; /* [n] float32, each may be NULL (= 1) */
    zi_cuda_norm_args next;
    int *not_finite; /* NULL, or set to 1 where x is not finite */
} zi_cuda_residual_args;
/* x += gate * rms(y) * w * gain (or gate * y); h (may be NULL or y) = next(x) */
cudaError_t zi_cuda_residual(zi_dtype type, const zi_cuda_residual_args *args, int64_t rows, int64_t n,
                             cudaStream_t stream);
/* float32; cos may be angles. */
cudaError_t zi_cuda_cos_sin(float *cos, float *sin, const float *angles, int64_t n, cudaStream_t stream);
typedef struct zi_cuda_heads {
    void *x; /* [rows][heads][dim], rows ld elements apart */
    int64_t ld, heads;
    const float *w; /* [dim] */
} zi_cuda_heads;
typedef struct zi_cuda_rope_args {
    zi_cuda_heads q, k;     /* k may have 0 heads */
    const float *cos, *sin; /* [rows][dim / 2] */
    int64_t rows, dim;
    int half_split; /* pairs (j, j + dim / 2), else (2 j, 2 j + 1) */
    float eps;
} zi_cuda_rope_args;
/* In place: an RMS norm of each head, then its pairs are rotated. */
cudaError_t zi_cuda_qk_norm_rope(zi_dtype type, const zi_cuda_rope_args *args, cudaStream_t stream);

/* y[r][i] = silu(x[r][i]) * x[r][n + i]: rows of 2 n to rows of n, which are ldy elements apart. */
cudaError_t zi_cuda_glu(zi_dtype type, void *y, int64_t ldy, const void *x, int64_t rows, int64_t n,
                        cudaStream_t stream);
cudaError_t zi_cuda_silu(zi_dtype type, void *y, const void *x, int64_t n, cudaStream_t stream);
/* m [parts * n] in place; kinds on the host, one for each part. */
cudaError_t zi_cuda_modulation(zi_dtype type, void *m, int parts, const zi_modulation *kinds, int64_t n,
                               cudaStream_t stream);
/* latents [channels][height][width], tokens [height / p * width / p][p * p * channels], each of either type. */
cudaError_t zi_cuda_patchify(zi_dtype to, void *tokens, zi_dtype from, const void *latents,
                             const int64_t latents_shape[3], int64_t p, zi_patch_order order, cudaStream_t stream);
cudaError_t zi_cuda_unpatchify(zi_dtype to, void *latents, zi_dtype from, const void *tokens,
                               const int64_t latents_shape[3], int64_t p, zi_patch_order order, cudaStream_t stream);
/* Sets *flag to 1 if an element is NaN or infinite. */
cudaError_t zi_cuda_not_finite(zi_dtype type, const void *x, int64_t n, int *flag, cudaStream_t stream);

/* y [rows][n] = x W^T + bias (float32, may be NULL) (+ y): float32 x [rows][in], W [n][in] of either type. Few rows,
 * which are ldy and ldx elements apart. */
cudaError_t zi_cuda_few(zi_dtype type, void *y, int64_t ldy, const float *x, int64_t ldx, zi_dtype w_type,
                        const void *w, const float *bias, int accumulate, int64_t rows, int64_t n, int64_t in,
                        cudaStream_t stream);
/* y [rows][n] = bias (+ x) (+ y), each may be NULL or 0; x may be y if not both are added. */
cudaError_t zi_cuda_add_bias(zi_dtype type, void *y, const void *x, const float *bias, int accumulate, int64_t rows,
                             int64_t n, cudaStream_t stream);

/* Rows from and to fp8; n is a multiple of 8 and at most this. ldx: elements from a row of x to the next. glu_fp8 is
 * zi_cuda_glu into fp8. */
#define ZI_CUDA_FP8_ROW_MAX 16384
cudaError_t zi_cuda_from_fp8(zi_dtype type, void *y, zi_cuda_rows8 x, int64_t rows, int64_t n, cudaStream_t stream);
cudaError_t zi_cuda_quantise_rows(zi_cuda_rows8 y, zi_dtype type, const void *x, int64_t ldx, int64_t rows, int64_t n,
                                  cudaStream_t stream);
cudaError_t zi_cuda_glu_fp8(zi_cuda_rows8 y, zi_dtype type, const void *x, int64_t rows, int64_t n,
                            cudaStream_t stream);

typedef struct zi_cuda_gated_args {
    void *y;                          /* bf16 [rows][out] */
    const void *x, *w;                /* [rows][in]; [2 out][in]: w1's rows and then w3's */
    const float *x_scales, *w_scales; /* both given: x and w are e4m3 with scales of their rows, else bf16 */
    int64_t rows, out, in;
    int64_t ldy, ldx; /* elements from a row to the next; w is dense */
} zi_cuda_gated_args;
/* y = silu(x w1^T) * (x w3^T) as one kernel. */
cudaError_t zi_cuda_gated(const zi_cuda_gated_args *args, cudaStream_t stream);
/* Whether this GPU has it for these sizes and addresses. */
int zi_cuda_gated_fits(const zi_cuda_gated_args *args);

/* Numbers of 4 bits as MLX stores them, with a scale and a bias in bf16 for each group. Addresses: multiples of 16. */
typedef struct zi_cuda_packed_weight {
    const void *numbers, *scales, *biases;
} zi_cuda_packed_weight;

typedef struct zi_cuda_packed_args {
    void *y;                    /* bf16 [rows][out] */
    const void *x;              /* bf16 [rows][in] */
    zi_cuda_packed_weight w[2]; /* w [out][in], or w1 and w3 */
    int gated, group;
    int64_t rows, out, in;
    int64_t ldy, ldx; /* elements from a row to the next; w is dense */
} zi_cuda_packed_args;
/* y = x w^T, or if gated y = silu(x w1^T) * (x w3^T), by one kernel that unpacks the weights. */
cudaError_t zi_cuda_packed(const zi_cuda_packed_args *args, cudaStream_t stream);
/* Whether this GPU has it for these sizes and addresses of x and y, and it is faster than unpacking w first. */
int zi_cuda_packed_fits(const zi_cuda_packed_args *args);

/* p = softmax(s * scale) of rows [heads][rows][keys], float32 to either type (in place if that is float32). causal: row
 * i, which is query first + i, sees keys 0 .. first + i. */
cudaError_t zi_cuda_softmax(zi_dtype type, void *p, const float *s, int64_t heads, int64_t rows, int64_t keys,
                            float scale, int causal, int64_t first, cudaStream_t stream);
/* As ops.h says, with tokens ld* elements apart. */
typedef struct zi_cuda_attention {
    void *o;                    /* [queries][heads][head_dim]; may be q */
    const void *q, *k, *v;      /* k, v: [keys][kv_heads][head_dim] */
    int64_t ldo, ldq, ldk, ldv; /* elements from a token to the next */
    int64_t queries, keys, heads, kv_heads, head_dim;
    int causal;
} zi_cuda_attention;
/* Attention of bf16 tensors by one kernel. flash_fits: whether it can do these sizes and addresses. */
int zi_cuda_flash_fits(const zi_cuda_attention *args);
cudaError_t zi_cuda_flash(const zi_cuda_attention *args, cudaStream_t stream);
/* The same by instructions of compute capability 9.0. fits: also whether this GPU has them. */
int zi_cuda_flash_hopper_fits(const zi_cuda_attention *args);
/* scratch: device memory for parts of the result, ZI_CUDA_FLASH_SCRATCH bytes for each multiprocessor. With less, most
 * blocks wait while a few compute the last tiles of queries. */
#define ZI_CUDA_FLASH_SCRATCH (2 * 69632)
cudaError_t zi_cuda_flash_hopper(const zi_cuda_attention *args, void *scratch, size_t bytes, cudaStream_t stream);

typedef struct zi_cuda_fold_args {
    const double *sums; /* [parts][groups][2]: all parts together are the sums over `count` elements a group */
    int parts;
    const float *w, *b; /* [channels] */
    int64_t channels, groups, count;
    double eps;
} zi_cuda_fold_args;
/* scale, shift [channels] float32 (ops.h); parts are added in their order. */
cudaError_t zi_cuda_group_fold(float *scale, float *shift, const zi_cuda_fold_args *args, cudaStream_t stream);
/* Images [pixels][channels]. sums [groups][2] += sum and sum of squares, float64. */
cudaError_t zi_cuda_group_sums(zi_dtype type, double *sums, const void *x, int64_t pixels, int64_t channels,
                               int64_t groups, cudaStream_t stream);
/* y = x * scale[c] + shift[c] */
cudaError_t zi_cuda_channel_affine(zi_dtype type, void *y, const void *x, const float *scale, const float *shift,
                                   int64_t pixels, int64_t channels, cudaStream_t stream);

/* The input of a convolution: rows [first, first + rows) of the (doubled) image; some may lie outside of it. */
typedef struct zi_cuda_band {
    const void *x; /* image rows [x_row, ...), [.][columns][channels] */
    int64_t x_row, image_rows, columns, channels;
    int doubled;
    const float *scale, *shift; /* [channels]: SiLU(x * scale + shift) is read; NULL: x */
    int64_t first, rows;
} zi_cuda_band;
/* y [rows][columns << doubled][channels], zeros outside of the image. */
cudaError_t zi_cuda_band_input(zi_dtype type, void *y, const zi_cuda_band *band, cudaStream_t stream);

typedef struct zi_cuda_conv {
    int64_t rows, columns, in, out; /* of y [rows][columns][out] */
    int64_t side;                   /* of the filter: 1 or 3 */
    /* x [(rows - 1) * stride + side][x_columns][in]: all rows are there, columns outside of x are zeros; the first
     * output column reads x from column -left on. */
    int64_t x_columns;
    int stride, left;
    const float *bias; /* [out] or NULL */
    int accumulate;
} zi_cuda_conv;
/* Of stride 1, with y's columns as many as x's and left = side / 2: y from the products of all pixels of x with all
 * taps, [out][side][side][pixel], `step` elements from one tap to the next. */
cudaError_t zi_cuda_sum_taps(zi_dtype y_type, void *y, const float *products, int64_t step, const zi_cuda_conv *conv,
                             cudaStream_t stream);
/* filter [out][side][side][in] of x's type. Does all sizes, slowly. */
cudaError_t zi_cuda_conv_any(zi_dtype y_type, void *y, zi_dtype type, const void *x, const void *filter,
                             const zi_cuda_conv *conv, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
