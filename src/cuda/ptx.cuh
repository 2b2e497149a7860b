/* Instructions without a name in CUDA C++ (PTX ISA). Other compilers than nvcc get those of the emulated GPU. */
#ifndef ZI_CUDA_PTX_CUH
#define ZI_CUDA_PTX_CUH

#include <cuda_bf16.h>

#ifdef __CUDACC__

/* c [16, 8] += a [16, 16] b [16, 8]. */
static __device__ __forceinline__ void ptx_multiply(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Loads four 8 x 8 matrices from shared memory; lane 8 j + i points to row i of matrix j. */
static __device__ __forceinline__ void ptx_load_matrices(uint32_t r[4], const __nv_bfloat16 *p)
{
    uint32_t address = (uint32_t)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

static __device__ __forceinline__ void ptx_load_transposed(uint32_t r[4], const __nv_bfloat16 *p)
{
    uint32_t address = (uint32_t)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

/* Begins to copy 16 bytes from device to shared memory, or zeros if `valid` is 0. */
static __device__ __forceinline__ void ptx_copy_16(void *to, const void *from, int valid)
{
    uint32_t address = (uint32_t)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}

/* Ends a group of the thread's copies. */
static __device__ __forceinline__ void ptx_commit_copies(void)
{
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}

/* Waits until all but the last `Left` groups of the thread's copies have arrived. */
template <int Left> static __device__ __forceinline__ void ptx_wait_copies(void)
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(Left) : "memory");
}

/* 1 / sqrt(x), to two units in the last place; denormal numbers count as 0. */
static __device__ __forceinline__ float ptx_inverse_root(float x)
{
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

/* 2^x; denormal numbers count as 0. */
static __device__ __forceinline__ float ptx_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

/* 1 / x; denormal numbers count as 0. */
static __device__ __forceinline__ float ptx_reciprocal(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

#else
#include <emulated_ptx.h>
#endif

#endif
