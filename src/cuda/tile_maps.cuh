/* Maps of matrices for the copy engine of sm_90: hopper.cuh copies their boxes. For the host. */
#ifndef ZI_CUDA_TILE_MAPS_CUH
#define ZI_CUDA_TILE_MAPS_CUH

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stdint.h>

typedef CUresult tile_encode_fn(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                                const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                                CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* cuTensorMapEncodeTiled, looked up so that the library does not link the driver; NULL: this driver lacks it. */
static tile_encode_fn *tile_encoder(void)
{
    void *found = nullptr;
    cudaDriverEntryPointQueryResult result;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result) !=
            cudaSuccess ||
        result != cudaDriverEntryPointSuccess)
        return nullptr;
    return (tile_encode_fn *)found;
}

/* Whether the current GPU has sm_90a, and the driver the maps. */
static int has_tiles(void)
{
    int device, major = 0, minor = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
           cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess && major == 9 &&
           minor == 0 && tile_encoder() != nullptr;
}

/* A matrix [rows][columns] in device memory, its rows ld elements apart, and the boxes in which it is copied. What lies
 * outside of the matrix is read as 0, and not written. */
typedef struct tiled_matrix {
    const void *data; /* a multiple of 16, and so is ld in bytes */
    int64_t rows, columns, ld;
    int bytes;                 /* of an element: 2 (bf16) or 1 */
    int box_rows, box_columns; /* at most 256 */
    int swizzled;              /* the rows of a box have 128 bytes, and lie in shared memory as wgmma reads them */
} tiled_matrix;

/* Returns 0 if the driver refuses. */
static int describe_tiles(CUtensorMap *map, const tiled_matrix &m)
{
    tile_encode_fn *encode = tile_encoder();
    const cuuint64_t sizes[2] = {(cuuint64_t)m.columns, (cuuint64_t)m.rows};
    const cuuint64_t stride = (cuuint64_t)m.ld * (cuuint64_t)m.bytes;
    const cuuint32_t box[2] = {(cuuint32_t)m.box_columns, (cuuint32_t)m.box_rows}, each[2] = {1, 1};
    return encode != nullptr &&
           encode(map, m.bytes == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2,
                  (void *)m.data, sizes, &stride, box, each, CU_TENSOR_MAP_INTERLEAVE_NONE,
                  m.swizzled ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

#endif
