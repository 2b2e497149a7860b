/* Instructions of sm_90a without a name in CUDA C++ (PTX ISA): wgmma, products of a warp group; cp.async.bulk.tensor,
 * copies of tiles by the copy engine; mbarrier, barriers in shared memory that wait for copies. */
#ifndef ZI_CUDA_HOPPER_CUH
#define ZI_CUDA_HOPPER_CUH

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp8.h>

/* Defined in the passes of the compiler for sm_90a and for the host, which know these instructions. */
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define ZI_SM90A_PASS
#endif

static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* ---- clusters ---------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ uint32_t cluster_rank(void)
{
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
    return rank;
}

/* A barrier of all threads of the cluster. */
static __device__ __forceinline__ void cluster_sync(void)
{
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;\n" ::: "memory");
}

/* ---- barriers ---------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ void barrier_init(uint64_t *barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

/* Makes initialised barriers visible to the copy engine and to the other blocks. */
static __device__ __forceinline__ void barrier_init_done(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}

/* Arrives, and makes the barrier expect so many bytes of copies, too. */
static __device__ __forceinline__ void barrier_expect(uint64_t *barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}

/* Arrives at the same barrier of the block of that rank. It is relaxed and publishes no writes: a release at cluster
 * scope would cost as much as a stage. */
static __device__ __forceinline__ void barrier_arrive_at(uint64_t *barrier, uint32_t rank)
{
    asm volatile("{\n.reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [there];\n}\n" ::"r"(shared_address(barrier)),
                 "r"(rank)
                 : "memory");
}

/* Arrives at a barrier of this block. */
static __device__ __forceinline__ void barrier_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(barrier)) : "memory");
}

/* Waits for the end of the phase of that parity. */
static __device__ __forceinline__ void barrier_wait(uint64_t *barrier, uint32_t parity)
{
    asm volatile("{\n.reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra over;\n"
                 "bra again;\n"
                 "over:\n}\n" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}

/* A barrier of `threads` threads of the block. id: 1 to 15. */
static __device__ __forceinline__ void barrier_of_threads(int id, int threads)
{
    asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}

/* Arrives at such a barrier without waiting; the threads that wait count, too. */
static __device__ __forceinline__ void barrier_of_threads_arrive(int id, int threads)
{
    asm volatile("bar.arrive %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

/* Copies the map's box at (column, row) to shared memory; its bytes arrive at the barrier. */
static __device__ __forceinline__ void tile_load(void *to, const CUtensorMap *map, int column, int row,
                                                 uint64_t *barrier)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
        "\n" ::"r"(shared_address(to)),
        "l"(map), "r"(column), "r"(row), "r"(shared_address(barrier))
        : "memory");
}

/* The same to that address in each block of the cluster whose bit is set, with that block's barrier. */
static __device__ __forceinline__ void tile_load_all(void *to, const CUtensorMap *map, int column, int row,
                                                     uint64_t *barrier, uint16_t blocks)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
                 "[%1, {%2, %3}], [%4], %5;\n" ::"r"(shared_address(to)),
                 "l"(map), "r"(column), "r"(row), "r"(shared_address(barrier)), "h"(blocks)
                 : "memory");
}

/* Makes a map of a matrix of `rows` rows and `columns` columns of 2 bytes, dense, from the map of another one with the
 * same boxes. All lanes of one warp call it. `copy`: in shared memory, at a multiple of 128; `to`: in device memory, at
 * a multiple of 64. Before a thread uses `to`, it calls tile_map_acquire. */
static __device__ __forceinline__ void tile_map_make(CUtensorMap *to, CUtensorMap *copy, const CUtensorMap *pattern,
                                                     const void *matrix, uint32_t rows, uint32_t columns)
{
    const int lane = threadIdx.x % 32;
    const uint64_t stored = shared_address(copy);
    ((uint32_t *)copy)[lane] = ((const uint32_t *)pattern)[lane];
    __syncwarp();
    if (lane == 0) {
        asm volatile("tensormap.replace.tile.global_address.shared::cta.b1024.b64 [%0], %1;\n" ::"l"(stored),
                     "l"(matrix)
                     : "memory");
        asm volatile("tensormap.replace.tile.global_dim.shared::cta.b1024.b32 [%0], 0, %1;\n" ::"l"(stored),
                     "r"(columns)
                     : "memory");
        asm volatile("tensormap.replace.tile.global_dim.shared::cta.b1024.b32 [%0], 1, %1;\n" ::"l"(stored), "r"(rows)
                     : "memory");
        asm volatile("tensormap.replace.tile.global_stride.shared::cta.b1024.b64 [%0], 0, %1;\n" ::"l"(stored),
                     "l"((uint64_t)columns * 2)
                     : "memory");
    }
    __syncwarp();
    asm volatile("tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [%0], [%1], "
                 "128;\n" ::"l"(__cvta_generic_to_global(to)),
                 "r"(shared_address(copy))
                 : "memory");
}

static __device__ __forceinline__ void tile_map_acquire(const CUtensorMap *map)
{
    asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;\n" ::"l"(__cvta_generic_to_global(map))
                 : "memory");
}

/* Copies a box to device memory, without the part outside of the matrix. The threads that wrote the box to shared
 * memory must have called tile_store_fence. */
static __device__ __forceinline__ void tile_store(const CUtensorMap *map, int column, int row, const void *from)
{
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];\n" ::"l"(map),
                 "r"(column), "r"(row), "r"(shared_address(from))
                 : "memory");
}

static __device__ __forceinline__ void tile_store_fence(void)
{
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

static __device__ __forceinline__ void tile_store_commit(void)
{
    asm volatile("cp.async.bulk.commit_group;\n" ::: "memory");
}

/* Waits until the thread's stores have read shared memory. */
static __device__ __forceinline__ void tile_store_wait_read(void)
{
    asm volatile("cp.async.bulk.wait_group.read 0;\n" ::: "memory");
}

/* Stores two 8 x 8 matrices to shared memory; lane 8 j + i points to row i of matrix j, 16 bytes. */
static __device__ __forceinline__ void store_matrices(void *p, uint32_t a, uint32_t b)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};\n" ::"r"(shared_address(p)), "r"(a), "r"(b)
                 : "memory");
}

/* The same with four matrices. */
static __device__ __forceinline__ void store_matrices(void *p, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(shared_address(p)), "r"(a),
                 "r"(b), "r"(c), "r"(d)
                 : "memory");
}

/* Transposes an 8 x 8 matrix; a lane has two numbers of row lane / 4. */
static __device__ __forceinline__ uint32_t matrix_transposed(uint32_t two)
{
    uint32_t result;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;\n" : "=r"(result) : "r"(two));
    return result;
}

/* A position in a ring of stages: the stage, and the parity of its barriers' phase. */
typedef struct ring {
    int stage;
    uint32_t parity;
} ring;

/* ---- products of a warp group ------------------------------------------------------------------------------------ */

template <int Registers> static __device__ __forceinline__ void more_registers(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(Registers));
}

template <int Registers> static __device__ __forceinline__ void fewer_registers(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(Registers));
}

/* The descriptor of a tile with rows of 128 bytes that the copy engine swizzled (128-byte mode); its address is a
 * multiple of 1024. next: for b of a product a b (of a b^T it is not read), the bytes from the tile with 64 columns to
 * the one with the next 64. */
static __device__ __forceinline__ uint64_t tile_descriptor(const void *tile, int next = 16)
{
    return (uint64_t)((shared_address(tile) & 0x3ffff) >> 4) | (uint64_t)(next >> 4) << 16 |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

static __device__ __forceinline__ void products_begin(void)
{
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}

static __device__ __forceinline__ void products_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}

/* Waits until all but the last `Left` groups of products are done. */
template <int Left> static __device__ __forceinline__ void products_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(Left) : "memory");
}

/* After products_wait: keeps the compiler from reading the sums before it. */
template <int Sums> static __device__ __forceinline__ void products_end(float (&d)[Sums])
{
#pragma unroll
    for (int i = 0; i < Sums; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

/* clang-format off */
#define ZI_EIGHT(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), \
                       "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define ZI_SUMS_48(d) ZI_EIGHT(d, 0), ZI_EIGHT(d, 8), ZI_EIGHT(d, 16), ZI_EIGHT(d, 24), ZI_EIGHT(d, 32), ZI_EIGHT(d, 40)
#define ZI_SUMS_56(d) ZI_SUMS_48(d), ZI_EIGHT(d, 48)
#define ZI_SUMS_64(d) ZI_SUMS_56(d), ZI_EIGHT(d, 56)
#define ZI_NAMES_48                                                                                                    \
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                       \
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                             \
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define ZI_NAMES_56 ZI_NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define ZI_NAMES_64 ZI_NAMES_56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define ZI_PRODUCT_176(what, tail)                                                                                     \
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %90, 0;\n"                                                      \
        "wgmma.mma_async.sync.aligned." what " {" ZI_NAMES_64 ", "                                                     \
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "                             \
        "%80, %81, %82, %83, %84, %85, %86, %87}, %88, %89, add, 1, 1" tail ";\n}\n"                                   \
        : ZI_SUMS_64(d), ZI_EIGHT(d, 64), ZI_EIGHT(d, 72), ZI_EIGHT(d, 80)                                             \
        : "l"(a), "l"(b), "r"(add))
/* clang-format on */

/* d (+)= a b^T, [64, 176], over 32 bytes of each row. d[4 j + 2 h + i] is row lane / 4 + 8 h of the warp's 16 rows,
 * column 8 j + 2 (lane % 4) + i. */
static __device__ __forceinline__ void product_64x176(float (&d)[88], uint64_t a, uint64_t b, int add, __nv_bfloat16)
{
    ZI_PRODUCT_176("m64n176k16.f32.bf16.bf16", ", 0, 0");
}

static __device__ __forceinline__ void product_64x176(float (&d)[88], uint64_t a, uint64_t b, int add, __nv_fp8_e4m3)
{
    ZI_PRODUCT_176("m64n176k32.f32.e4m3.e4m3", "");
}

/* clang-format off */
#define ZI_PRODUCT_64(n, names, at_a, at_b, at_add, ...)                                                               \
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " at_add ", 0;\n"                                               \
        "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" names "}, "                                        \
        at_a ", " at_b ", add, 1, 1, 0, 0;\n}\n"                                                                       \
        : __VA_ARGS__                                                                                                  \
        : "l"(a), "l"(b), "r"(add))
/* clang-format on */

/* d (+)= a b^T, [64, 96 to 136], over 16 numbers of each row; d as above. */
static __device__ __forceinline__ void product_64(float (&d)[48], uint64_t a, uint64_t b, int add)
{
    ZI_PRODUCT_64("96", ZI_NAMES_48, "%48", "%49", "%50", ZI_SUMS_48(d));
}

static __device__ __forceinline__ void product_64(float (&d)[56], uint64_t a, uint64_t b, int add)
{
    ZI_PRODUCT_64("112", ZI_NAMES_56, "%56", "%57", "%58", ZI_SUMS_56(d));
}

static __device__ __forceinline__ void product_64(float (&d)[64], uint64_t a, uint64_t b, int add)
{
    ZI_PRODUCT_64("128", ZI_NAMES_64, "%64", "%65", "%66", ZI_SUMS_64(d));
}

static __device__ __forceinline__ void product_64(float (&d)[68], uint64_t a, uint64_t b, int add)
{
    ZI_PRODUCT_64("136", ZI_NAMES_64 ", %64, %65, %66, %67", "%68", "%69", "%70", ZI_SUMS_64(d), "+f"(d[64]),
                  "+f"(d[65]), "+f"(d[66]), "+f"(d[67]));
}

/* d (+)= a b, [64, 128]. a: 16 columns of each row, in registers. Each holds two numbers, of column 2 (lane % 4) and
 * the next one. a[0] is of row lane / 4 of the warp's 16 rows, a[1] 8 rows below it; a[2] and a[3] are 8 columns
 * further. b: 16 rows of a tile. */
static __device__ __forceinline__ void product_64x128(float (&d)[64], const uint32_t *a, uint64_t b, int add)
{
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" ZI_NAMES_64 "}, "
                 "{%64, %65, %66, %67}, %68, add, 1, 1, 1;\n}\n"
                 : ZI_SUMS_64(d)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

#endif
