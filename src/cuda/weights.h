/* Weights for the operations, in device memory and in the form that kernels read. */
#ifndef ZI_CUDA_WEIGHTS_H
#define ZI_CUDA_WEIGHTS_H

#include "cuda/forms.h"
#include "cuda/kernels.h"

/* All weights that were ever used: a hash table with open addressing. */
typedef struct zi_cuda_weights {
    zi_cuda_weight **places;
    size_t count, capacity; /* capacity is a power of two */
} zi_cuda_weights;

/*
 * The operation that calls these has begun (zi_cuda_begin), and what they return may be read until the next one begins.
 * Unpacked weights lie on the stack: mark before, release when the kernels that read them are queued.
 */

/* [out, in] in the compute type. */
zimage_status zi_cuda_matrix(zi_cuda *cuda, const zi_weight *w, void **data);
/* Packed numbers as they are stored, with their scales and biases. w: of ZI_GROUPED. */
zimage_status zi_cuda_groups_in(zi_cuda *cuda, const zi_weight *w, zi_cuda_packed_weight *packed);
/* [a's rows + b's rows, in]: two matrices as one. */
zimage_status zi_cuda_pair(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, void **data);
/* The same in e4m3 with a scale for each row; b may be NULL. */
zimage_status zi_cuda_fp8(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, zi_cuda_rows8 *rows);
/* float32; w NULL: *data is NULL. */
zimage_status zi_cuda_vector(zi_cuda *cuda, const zi_weight *w, const float **data);
/* A convolution's weight as ZI_FORM_FILTER. */
zimage_status zi_cuda_filter(zi_cuda *cuda, const zi_weight *w, void **data);
/* Forgets all weights; no kernel may be reading one. */
void zi_cuda_weights_free(zi_cuda *cuda);

#endif
