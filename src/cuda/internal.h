/* The CUDA table's own state, shared by its files. */
#ifndef ZI_CUDA_INTERNAL_H
#define ZI_CUDA_INTERNAL_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include "cuda/cuda.h"
#include "cuda/kernels.h"
#include "cuda/upload.h"
#include "ops/ops_common.h"

#define ZI_CHECKS          256 /* blocks whose flags wait to be read */
#define ZI_BLOCK_NAME      160
#define ZI_WORKSPACE_BYTES ((size_t)64 << 20)

typedef struct zi_cuda_chunk {
    uint8_t *data;
    size_t size, used;
} zi_cuda_chunk;

/* Device memory as a stack of chunks; what is released is reused in the order of the stream. */
typedef struct zi_cuda_stack {
    zi_cuda_chunk *chunks;
    int count, capacity, top; /* chunks[top] is allocated from; those behind it are empty */
    size_t in_use, peak;
    uint64_t changes; /* of the chunks */
} zi_cuda_stack;

/* What a stored weight became on the card. */
typedef enum zi_cuda_form {
    ZI_FORM_MATRIX, /* the computation's type, as it lies */
    ZI_FORM_VECTOR, /* float32 */
    ZI_FORM_FILTER, /* the computation's type, [out padded to 8, taps, in] */
    ZI_FORM_PACKED, /* groups as stored: numbers, scales, biases */
    ZI_FORM_FP8,    /* e4m3 with a scale a row */
} zi_cuda_form;

/* Weights may begin at one address and differ in what they are. */
typedef struct zi_cuda_weight_key {
    const uint8_t *first, *second; /* the host's data, and the next one's of a pair */
    int64_t rows, count;           /* the first one's rows, and its numbers */
    zi_dtype stored;
    zi_cuda_form form;
} zi_cuda_weight_key;

/* A weight in the form that kernels read. */
typedef struct zi_cuda_ready {
    void *data;
    void *scales, *biases; /* of groups; scales: of fp8, too */
} zi_cuda_ready;

typedef struct zi_cuda_load zi_cuda_load; /* on its way: residency.c */

typedef struct zi_cuda_weight {
    zi_cuda_weight_key key;
    const zi_weight *a, *b;
    size_t bytes, stored; /* on the card; as it is sent */
    int direct;           /* both are the same */
    uint8_t *data;        /* where it stays; NULL: nowhere */
    int owned;            /* that is memory of its own */
    int ready;            /* and holds it */
    int arranged;         /* the jobs of the arrangement read it */
    zi_cuda_load *load;   /* the first that is on its way */
    int64_t uses;         /* in the jobs to come, while their memory is divided */
    int stays;            /* what was decided then */
} zi_cuda_weight;

typedef struct zi_cuda_weights {
    zi_cuda_weight **places; /* open addressing; capacity is a power of two */
    size_t count, capacity;
} zi_cuda_weights;

/* Pinned host memory that copies to the card pass through: two halves that take turns. */
typedef struct zi_cuda_staging {
    uint8_t *data;
    cudaEvent_t free[2];
    int half;
} zi_cuda_staging;

/* What was found fastest: choices.c. */
typedef struct zi_cuda_choices {
    char *path; /* NULL: remembered by this process only */
    char header[256];
    int written; /* the file has that header */
    char **lines;
    int count, capacity;
} zi_cuda_choices;
typedef struct zi_cuda_residency zi_cuda_residency; /* which weights stay, and what comes next: residency.c */

typedef struct zi_cuda_plan zi_cuda_plan;   /* a product's algorithm: products.c */
typedef struct zi_cuda_graph zi_cuda_graph; /* a plan of cuDNN's: graphs.c */

typedef struct zi_cuda_recording zi_cuda_recording; /* work as one CUDA graph: record.c */

typedef struct zi_cuda {
    zi_ops ops; /* first */
    int device;
    zi_dtype type; /* of activations and of products' operands */
    int fp8;       /* linear layers multiply fp8, but for those that are marked as precise */
    char name[80];
    cudaStream_t stream;
    cublasLtHandle_t blas;
    cudnnHandle_t dnn;  /* NULL: own kernels only */
    void *workspace;    /* ZI_WORKSPACE_BYTES */
    uint64_t asked;     /* most bytes to take; 0: what is free */
    size_t limit, used; /* bytes; used: of all that zi_cuda_memory gave */
    size_t fixed;       /* used when nothing was computed yet */
    zi_cuda_stack stack;
    zi_cuda_weights weights;
    zi_cuda_staging staging;
    zi_cuda_choices choices;
    zi_uploader uploader;
    zi_cuda_residency *residency;
    int rehearsing; /* operations compute nothing */
    zi_cuda_plan *plans;
    int plan_count, plan_capacity;
    zi_cuda_graph *graphs;
    int graph_count, graph_capacity;
    /* Blocks that were checked since the flags were last read. */
    int *flags; /* [ZI_CHECKS] on the card */
    int *host_flags;
    char (*names)[ZI_BLOCK_NAME];
    int checks, named;
    zi_cuda_recording *recordings; /* NULL: none yet */
    uint64_t turns;                /* of their use */
} zi_cuda;

/* The table's state, with its card made the thread's own. */
zi_cuda *zi_cuda_of(zi_ops *ops);

/* ZIMAGE_OK, or an error that says what failed. */
zimage_status zi_cuda_result(zi_cuda *cuda, cudaError_t code, const char *what);
zimage_status zi_cuda_check_blas(zi_cuda *cuda, cublasStatus_t code, const char *what);
/* What works on the card: not done in a rehearsal. */
#define ZI_CUDA_RUN(cuda, call, what) ((cuda)->rehearsing ? ZIMAGE_OK : zi_cuda_result(cuda, call, what))
#define ZI_CUDA_TRY(cuda, call, what) ZI_TRY(ZI_CUDA_RUN(cuda, call, what))

/* Memory. */
zimage_status zi_cuda_stack_alloc(zi_cuda *cuda, size_t bytes, const char *what, void **data);
zi_arena_mark zi_cuda_mark(zi_ops *ops);
void zi_cuda_release(zi_ops *ops, zi_arena_mark mark);
void zi_cuda_stack_free(zi_cuda *cuda);
/* One chunk of that size instead of all there are; the stack must be empty. */
zimage_status zi_cuda_stack_reserve(zi_cuda *cuda, size_t bytes);
size_t zi_cuda_stack_bytes(const zi_cuda *cuda);
/* A stack that is never read or written. */
zimage_status zi_cuda_stack_imaginary(zi_cuda *cuda, zi_cuda_stack *stack);
zimage_status zi_cuda_memory(zi_cuda *cuda, size_t bytes, const char *what, void **data);
void zi_cuda_memory_free(zi_cuda *cuda, void *data, size_t bytes);
/* What the table may take now, with all that it has. */
size_t zi_cuda_limit(const zi_cuda *cuda);
/* Copies host memory, which may be changed or freed at once, to the card. */
zimage_status zi_cuda_send(zi_cuda *cuda, void *dst, const void *src, size_t bytes);
zimage_status zi_cuda_staging_open(zi_cuda *cuda);
void zi_cuda_staging_close(zi_cuda_staging *staging);
static inline size_t zi_cuda_round_up(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

/* Whether products with that weight are computed in fp8. */
int zi_cuda_wants_fp8(const zi_cuda *cuda, const zi_weight *w);
/* An operand (ops.h) of such products: its rows, then their scales. Others are plain. */
zimage_status zi_cuda_alloc_operand(zi_ops *ops, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *w);
zi_cuda_rows8 zi_cuda_rows8_of(const zi_tensor *operand);
/* For what writes no fp8: a plain tensor on the stack, to be quantised. */
zimage_status zi_cuda_stand_in(zi_cuda *cuda, const zi_tensor *operand, zi_tensor *plain);
zimage_status zi_cuda_quantise(zi_cuda *cuda, const zi_tensor *plain, zi_cuda_rows8 rows);
/* For what reads no fp8: the operand's numbers in a plain tensor on the stack. */
zimage_status zi_cuda_plain(zi_cuda *cuda, const zi_tensor *operand, zi_tensor *plain);

/* Weights on the card. What is unpacked for the moment lies on the stack: mark and release around the use. */
zimage_status zi_cuda_matrix(zi_cuda *cuda, const zi_weight *w, void **data);
/* [a's rows + b's rows, columns]: two matrices as one. */
zimage_status zi_cuda_pair(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, void **data);
/* The same in fp8 with its rows' scales; b may be NULL. */
zimage_status zi_cuda_fp8(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, zi_cuda_rows8 *rows);
zimage_status zi_cuda_vector(zi_cuda *cuda, const zi_weight *w, const float **data); /* w NULL: NULL */
zimage_status zi_cuda_filter(zi_cuda *cuda, const zi_weight *w, void **data);
void zi_cuda_weights_free(zi_cuda *cuda);
/* Where a weight's parts go, and how it gets its form from what arrived there; b may be NULL. */
int zi_cuda_weight_parts(const zi_cuda_weight *weight, uint8_t *to, zi_upload_part parts[ZI_UPLOAD_PARTS]);
zimage_status zi_cuda_weight_form(zi_cuda *cuda, const zi_cuda_weight *weight, const uint8_t *stored, void *data);

/* Which weights stay on the card and which pass through it. */
zimage_status zi_cuda_residency_open(zi_cuda *cuda);
void zi_cuda_residency_close(zi_cuda *cuda);
/* Makes the weight readable by what is queued next, until the next operation begins or, if it had to be formed, until the
 * stack is released. */
zimage_status zi_cuda_residency_get(zi_cuda *cuda, zi_cuda_weight *weight, void **data);
/* How many weights the card has waited for. */
int64_t zi_cuda_residency_sent(const zi_cuda *cuda);
/* An operation begins: those before it have been queued. */
void zi_cuda_residency_next(zi_cuda *cuda);
/* No arrangement, no weight on the card, nothing rehearsed. */
void zi_cuda_residency_clear(zi_cuda *cuda);
extern const zi_ops_memory zi_cuda_ops_memory;

/* y = alpha x w^T, or x w, `batch` times; row-major with the rows ld* elements apart, the batch's operands step_* apart. */
typedef struct zi_cuda_product {
    int64_t rows, out, in;
    zi_dtype type, y_type; /* of x and w; of y */
    int64_t ldx, ldw, ldy;
    int inputs_first; /* w is [in, out], else [out, in] */
    int accumulate;   /* y += */
    int batch;
    int64_t step_x, step_w, step_y;
    const float *x_scales, *w_scales; /* both: x and w are e4m3 with a scale a row, whatever type says */
    const void *bias;                 /* [out] of y's type, added before y is rounded; or NULL */
} zi_cuda_product;

zimage_status zi_cuda_multiply(zi_cuda *cuda, const zi_cuda_product *p, void *y, const void *x, const void *w);
/* Whether a product is so large that the ways to do it are timed; smaller ones take the first. */
int zi_cuda_is_timed(const zi_cuda_product *p);
void zi_cuda_plans_free(zi_cuda *cuda);
/* folder may be NULL. header: one line that names the card and the libraries. */
void zi_cuda_choices_open(zi_cuda_choices *choices, const char *folder, const char *header);
void zi_cuda_choices_close(zi_cuda_choices *choices);
/* The value that was remembered for the key, if there is one of that size. Never trust it: the file may be anything. */
int zi_cuda_recall(const zi_cuda_choices *choices, const char *kind, const void *key, size_t size, void *value,
                   size_t value_size);
void zi_cuda_remember(zi_cuda_choices *choices, const char *kind, const void *key, size_t size, const void *value,
                      size_t value_size);
/* Milliseconds of the work that is queued, the mean of a few times behind one that warms. */
zimage_status zi_cuda_time(zi_cuda *cuda, zi_work_fn *work, const void *user, float *milliseconds);

/* zi_ops.repeat. What is freed on the card makes recordings invalid: free them, or count a change of the stack. */
zimage_status zi_cuda_repeat(zi_ops *ops, const void *key, size_t size, zi_work_fn *work, const void *user);
void zi_cuda_recordings_free(zi_cuda *cuda);

/* Operations a second of a large product. */
double zi_cuda_peak(zi_ops *ops);

/* Entries of the table that have files of their own. */
zimage_status zi_cuda_linear(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *weight,
                             const zi_weight *bias, int accumulate);
zimage_status zi_cuda_linears(zi_ops *ops, int count, zi_tensor *y, const zi_tensor *x,
                              const zi_weight *const *weights);
zimage_status zi_cuda_linear_glu(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w1,
                                 const zi_weight *w3);
zimage_status zi_cuda_attention(zi_ops *ops, zi_tensor *o, const zi_tensor *q, const zi_tensor *k, const zi_tensor *v,
                                const zi_attention_shape *shape);
zimage_status zi_cuda_conv2d(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_conv *conv);

/* Elements of a tensor behind a pointer of that type. */
static inline void *zi_cuda_at(void *data, zi_dtype type, int64_t count)
{
    return (uint8_t *)data + (size_t)count * zi_dtype_size(type);
}

#endif
