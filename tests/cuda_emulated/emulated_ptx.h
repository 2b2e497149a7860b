/* The functions of src/cuda/ptx.cuh for the emulated GPU. Fragments: PTX ISA, mma.m16n8k16 and ldmatrix. */
#ifndef ZI_EMULATED_PTX_H
#define ZI_EMULATED_PTX_H

#include "cuda_bf16.h"

void emulated_multiply(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1);
void emulated_load_matrices(uint32_t r[4], const void *row, int transposed);
void emulated_copy_16(void *to, const void *from, int valid);
void emulated_commit_copies(void);
void emulated_wait_copies(int left);

static inline void ptx_multiply(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    emulated_multiply(c, a, b0, b1);
}

static inline void ptx_load_matrices(uint32_t r[4], const __nv_bfloat16 *p)
{
    emulated_load_matrices(r, p, 0);
}

static inline void ptx_load_transposed(uint32_t r[4], const __nv_bfloat16 *p)
{
    emulated_load_matrices(r, p, 1);
}

static inline void ptx_copy_16(void *to, const void *from, int valid)
{
    emulated_copy_16(to, from, valid);
}

static inline void ptx_commit_copies(void)
{
    emulated_commit_copies();
}

template <int Left> static inline void ptx_wait_copies(void)
{
    emulated_wait_copies(Left);
}

static inline float ptx_inverse_root(float x)
{
    return 1 / sqrtf(x);
}

static inline float ptx_exp2(float x)
{
    return exp2f(x);
}

static inline float ptx_reciprocal(float x)
{
    return 1.0f / x;
}

#endif
