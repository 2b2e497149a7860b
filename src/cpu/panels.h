/* Stored weights as panels or rows of packed numbers (kernels.h says how those lie), a range of inputs at a time. */
#ifndef ZI_CPU_PANELS_H
#define ZI_CPU_PANELS_H

#include "cpu/table.h"

typedef struct zi_panels {
    const zi_cpu_kernels *kernels;
    const zi_packed_gemm *gemm;
    int64_t in; /* inputs of the weights */
} zi_panels;

/* Groups of 4 bits whose scales are stored in two bytes. */
int zi_has_nibbles(const zi_weight *weight);
/* Inputs [first, first + count), whole groups, of such rows from `row` on; in: inputs of the weight. */
zi_nibble_rows zi_nibble_rows_of(const zi_weight *weight, int64_t in, int64_t row, int64_t first, int64_t count);

/* Floats of scratch that the functions below need for passes of `depth` chunks. */
int64_t zi_panel_scratch(const zi_panels *panels, int64_t depth);

/* What brings numbers whose largest magnitude is `largest` to +-127; where that is next to 0 or not finite, the scale
 * largest / 127 makes the sums so. */
static inline float zi_int8_factor(float largest)
{
    return largest > 1e-30f && largest <= 3.4e38f ? 127 / largest : 0;
}

/* Integers only: the largest magnitude of each of rows [row, row + count). Where groups of 4 bits hold the row, the largest
 * that they could hold. */
void zi_panel_largest(const zi_panels *panels, const zi_weight *weight, int64_t row, int64_t count, float *scratch,
                      float *largest);

/* 128 times the sum of packed bytes: what numbers of the other operand that are 128 too large add to a sum. */
int32_t zi_packed_offset(const uint8_t *row, int64_t bytes);

/*
 * Chunks [chunk, chunk + chunks) of rows [row, row + count) as a panel [chunk][lane][nr]; chunk is a multiple of 4, so
 * that no group is cut. largest [nr]: of the whole rows (integers only). offsets [nr] grow by 128 times the sum of the packed numbers, what activations that are 128 too
 * large add to a sum; NULL: not wanted.
 */
void zi_pack_panel(const zi_panels *panels, const zi_weight *weight, int64_t row, int64_t count, int64_t chunk,
                   int64_t chunks, float *scratch, const float *largest, uint8_t *panel, int32_t *offsets);

/* Rows [row, row + count) of a weight as the left operand, in the family's numbers for it. */
typedef struct zi_weight_rows {
    const zi_panels *panels;
    const zi_weight *weight;
    int64_t row, count;
    float *scratch; /* zi_weight_rows_scratch floats */
} zi_weight_rows;

int64_t zi_weight_rows_scratch(int64_t in, int64_t count);
/* To be called once; fills `largest` [count] (integers only; else NULL). */
void zi_weight_rows_begin(const zi_weight_rows *rows, float *largest);
/* Chunks [chunk, chunk + chunks) of all rows to [block of mr rows][chunk][mr][64 bytes]; largest as above. */
void zi_weight_rows_pack(const zi_weight_rows *rows, int64_t chunk, int64_t chunks, const float *largest,
                         uint8_t *target);

#endif
