/* The form that a stored weight has on the GPU: its size, what is sent, and how the form is made from that. */
#ifndef ZI_CUDA_FORMS_H
#define ZI_CUDA_FORMS_H

#include "cuda/upload.h"
#include "ops/tensor.h"

typedef struct zi_cuda zi_cuda;           /* internal.h */
typedef struct zi_cuda_load zi_cuda_load; /* residency.h */
typedef struct zi_cuda_slab zi_cuda_slab; /* slabs.h */

#define ZI_FILTER_MULTIPLE 8 /* outputs of a filter are padded to a multiple of this: products read whole rows of 8 */

typedef enum zi_cuda_form {
    ZI_FORM_MATRIX, /* the compute type, [out, in] */
    ZI_FORM_VECTOR, /* float32 */
    ZI_FORM_FILTER, /* the compute type, [out padded to 8, taps, in] */
    ZI_FORM_PACKED, /* MLX's groups as they are stored: packed numbers, then scales, then biases */
    ZI_FORM_FP8,    /* e4m3 rows, then a float32 scale for each row */
} zi_cuda_form;

/* The identity of a weight. Two mappings may follow each other at one address, but never have the same id; weights of
 * one id, or without an id, may begin at one address and differ in what they are. */
typedef struct zi_cuda_weight_key {
    uint64_t first_id, second_id;  /* zi_weight.id of the weight, and of the second weight of a pair */
    const uint8_t *first, *second; /* their data on the host */
    int64_t rows, count;           /* of the first weight: rows and elements */
    zi_dtype stored;
    zi_cuda_form form;
} zi_cuda_weight_key;

/* A weight, or a pair [a's rows + b's rows, columns] that is used as one matrix. */
typedef struct zi_cuda_weight {
    zi_cuda_weight_key key;
    const zi_weight *a, *b; /* b: NULL unless it is a pair */
    size_t bytes, stored;   /* in its form on the GPU; as it is sent */
    int direct;             /* both are the same bytes: nothing is made on the GPU */
    /* The rest belongs to residency.c and arrange.c. */
    uint8_t *data;      /* where it stays in device memory; NULL: it does not stay */
    int owned;          /* data is an allocation of its own */
    zi_cuda_slab *slab; /* data is a part of it, which this session fills; NULL: it is not */
    int ready;          /* data holds it */
    int arranged;       /* the jobs of the arrangement read it */
    zi_cuda_load *load; /* the first load of it that is under way */
    int64_t uses;       /* how often the planned job reads it */
    int first_stage;    /* of the planned job that reads it */
    uint8_t *offered;   /* where it lies in a slab that stays whatever the plan is (slabs.h); NULL: nowhere */
    int offered_here;   /* the session itself owns that slab */
    int stays;          /* the plan keeps it in device memory */
} zi_cuda_weight;

/* Sizes and offsets of ZI_FORM_PACKED, in bytes. */
typedef struct zi_cuda_groups {
    size_t numbers, scales; /* bytes of the packed numbers; of the scales, and of the biases */
    size_t second, third;   /* where scales and biases begin */
} zi_cuda_groups;

/* ZIMAGE_OK, or an error that names the weight: its dtype can't be sent, or has no such form. */
zimage_status zi_cuda_check_form(zi_cuda *cuda, const zi_weight *weight, zi_cuda_form form);
/* Fills bytes, stored and direct from key.form, a and b. */
void zi_cuda_weight_measure(const zi_cuda *cuda, zi_cuda_weight *weight);
zi_cuda_groups zi_cuda_groups_of(const zi_weight *weight);
/* Where the scales of ZI_FORM_FP8 begin. */
size_t zi_cuda_fp8_scales(const zi_cuda_weight *weight);
/* Fills the copies that bring the stored weight to `to`. Parts that it does not need are empty. */
void zi_cuda_weight_parts(const zi_cuda_weight *weight, uint8_t *to, zi_upload_part parts[ZI_UPLOAD_PARTS]);
/* Queues the kernels that make the form at `data` from what was sent to `stored`. Takes stack memory for the moment. */
zimage_status zi_cuda_weight_form(zi_cuda *cuda, const zi_cuda_weight *weight, const uint8_t *stored, void *data);

#endif
