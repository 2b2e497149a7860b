/* The state of a CUDA table, shared by the files of src/cuda. Each part belongs to the file whose header declares
 * it. */
#ifndef ZI_CUDA_INTERNAL_H
#define ZI_CUDA_INTERNAL_H

#include <assert.h>
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include "base/choices.h"
#include "cuda/cuda.h"
#include "cuda/memory.h"
#include "cuda/weights.h"

#define ZI_CHECKS          256 /* blocks whose flags are read together */
#define ZI_BLOCK_NAME      160
#define ZI_WORKSPACE_BYTES ((size_t)64 << 20)

typedef struct zi_cuda_residency zi_cuda_residency; /* residency.h */
typedef struct zi_cuda_plan zi_cuda_plan;           /* a product's algorithm: products.c */
typedef struct zi_cuda_graph zi_cuda_graph;         /* a plan of cuDNN's: graphs.c */
typedef struct zi_cuda_recording zi_cuda_recording; /* work as one CUDA graph: record.c */

struct zi_cuda {
    zi_ops ops;          /* first: zi_cuda_state */
    zimage_error *error; /* of the run that the entry under way belongs to: zi_cuda_enter */
    int device;
    zi_dtype type; /* the compute type: of activations and of products */
    int fp8;       /* linear layers multiply in fp8, except those whose weights are marked as precise */
    char name[80];
    cudaStream_t stream;
    cublasLtHandle_t blas;
    cudnnHandle_t dnn;  /* NULL: our own kernels only */
    void *workspace;    /* of cuBLASLt and cuDNN: ZI_WORKSPACE_BYTES */
    uint64_t asked;     /* device memory that the caller allows, in bytes; 0: what is free */
    size_t limit, used; /* bytes; used: all that zi_cuda_memory gave */
    size_t fixed;       /* used when the table was made */
    size_t whole_image; /* zi_ops_table.whole_image_bytes */
    zi_cuda_stack stack;
    zi_cuda_staging staging;
    zi_cuda_weights weights;
    zi_uploader uploader;
    zi_cuda_residency *residency;
    zi_choices choices;
    zi_cuda_plan *plans;
    int plan_count, plan_capacity;
    zi_cuda_graph *graphs;
    int graph_count, graph_capacity;
    /* Blocks that were checked for NaN and infinity since the flags were last read. */
    int *flags; /* [ZI_CHECKS] in device memory */
    int *host_flags;
    char (*names)[ZI_BLOCK_NAME];
    int checks, named;
    zi_cuda_recording *recordings; /* NULL: none yet */
    uint64_t recordings_used;      /* how often one was asked for */
};

/* The state of the table, unchanged. */
static inline zi_cuda *zi_cuda_state(const zi_ops *ops)
{
    return (zi_cuda *)ops;
}

/* ZIMAGE_OK, or an error that says what failed. */
zimage_status zi_cuda_result(zi_cuda *cuda, cudaError_t code, const char *what);
/* Calls CUDA, and does not in a rehearsal: for everything that the GPU does. */
#define ZI_CUDA_RUN(cuda, call, what) ((cuda)->ops.rehearsing ? ZIMAGE_OK : zi_cuda_result(cuda, call, what))
#define ZI_CUDA_TRY(cuda, call, what) ZI_TRY(ZI_CUDA_RUN(cuda, call, what))

/* The first element of a tensor; of an operand (operand.h) its first byte. */
static inline void *zi_cuda_data(const zi_tensor *tensor)
{
    return (uint8_t *)tensor->data + (size_t)tensor->offset * zi_dtype_size(tensor->dtype);
}

/* An optional factor of n features, from alloc_f32. */
static inline const float *zi_cuda_factor(const zi_tensor *factor, int64_t n)
{
    assert(factor == NULL || (factor->dtype == ZI_F32 && zi_tensor_count(factor) == n && zi_tensor_is_dense(factor)));
    (void)n;
    return factor != NULL ? zi_cuda_data(factor) : NULL;
}

/* The address `count` elements of that type behind data. */
static inline void *zi_cuda_at(void *data, zi_dtype type, int64_t count)
{
    return (uint8_t *)data + (size_t)count * zi_dtype_size(type);
}

#endif
