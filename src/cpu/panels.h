/* Stored weights as packed panels or packed rows (kernels.h), some chunks of inputs at a time. */
#ifndef ZI_CPU_PANELS_H
#define ZI_CPU_PANELS_H

#include "cpu/table.h"

typedef struct zi_panels {
    const zi_cpu_kernels *kernels;
    const zi_packed_gemm *gemm;
    int64_t in; /* inputs of a weight row */
} zi_panels;

/* Whether a weight is in groups of 4 bits with scales of two bytes. Those have kernels. */
int zi_has_nibbles(const zi_weight *weight);
/* Such rows from row `row` on, inputs [first, first + count), which are whole groups. in: inputs of a row. */
zi_nibble_rows zi_nibble_rows_of(const zi_weight *weight, int64_t in, int64_t row, int64_t first, int64_t count);

/* Rows [row, row + count) of a weight. */
typedef struct zi_weight_rows {
    const zi_panels *panels;
    const zi_weight *weight;
    int64_t row, count;
    float *scratch; /* zi_panel_scratch or zi_weight_rows_scratch floats */
} zi_weight_rows;

/* ---- panels ------------------------------------------------------------------------------------------------------ */

/* Floats of scratch that zi_panel_largest and zi_pack_panel need for passes of `depth` chunks. */
int64_t zi_panel_scratch(const zi_panels *panels, int64_t depth);

/* The factor that brings numbers of at most `largest` to +-127. If `largest` is next to 0 or not finite, the
 * integers are 0, and the scale largest / 127 makes the products 0 or NaN. */
static inline float zi_int8_factor(float largest)
{
    return largest > 1e-30f && largest <= 3.4e38f ? 127 / largest : 0;
}

/* The factor of a row of n activations; *scale is what undoes it in a product. scale NULL: bf16, whose factor is 1. */
static inline float zi_row_factor(const zi_cpu_kernels *kernels, const float *x, int64_t n, float *scale)
{
    if (scale == NULL)
        return 1;
    float largest = kernels->largest(ZI_F32, x, n);
    *scale = largest / 127;
    return zi_int8_factor(largest);
}

/* int8: the largest magnitude of each row. For groups of 4 bits, the largest that they could hold. */
void zi_panel_largest(const zi_weight_rows *rows, float *largest);

/* 128 times the sum of packed bytes. If the numbers of the other operand are 128 too large (ZI_NUMBER_U8), a sum of
 * products is too large by that. */
int32_t zi_packed_offset(const uint8_t *row, int64_t bytes);

/*
 * Packs chunks [chunk, chunk + chunks) of the rows as a panel [chunk][lane][nr]. `chunk` is a multiple of 4, so that no
 * group is cut. largest [nr]: the largest magnitudes of the whole rows; int8 only. offsets [nr] grow by
 * zi_packed_offset of the packed rows; NULL: not needed.
 */
void zi_pack_panel(const zi_weight_rows *rows, int64_t chunk, int64_t chunks, const float *largest, uint8_t *panel,
                   int32_t *offsets);

/* ---- rows that take the place of activations in a packed gemm ---------------------------------------------------- */

int64_t zi_weight_rows_scratch(int64_t in, int64_t count);
/* Call it first. It fills `largest` [count] with the largest magnitudes; NULL: bf16. */
void zi_weight_rows_begin(const zi_weight_rows *rows, float *largest);
/* Packs chunks [chunk, chunk + chunks) of all rows to [block of mr rows][chunk][mr][ZI_CHUNK]. largest: as filled
 * above. */
void zi_weight_rows_pack(const zi_weight_rows *rows, int64_t chunk, int64_t chunks, const float *largest,
                         uint8_t *target);

#endif
