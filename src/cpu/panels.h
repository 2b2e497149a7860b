/* Stored weights as panels of packed numbers (kernels.h says how those lie), a range of inputs at a time. */
#ifndef ZI_CPU_PANELS_H
#define ZI_CPU_PANELS_H

#include "cpu/table.h"

typedef struct zi_panels {
    const zi_cpu_kernels *kernels;
    const zi_cpu_packed *family;
    int64_t in; /* inputs of the weights */
} zi_panels;

/* Chunks of a pass over `chunks` of them, at most `most` or a little more: passes are alike and hold whole groups. */
int64_t zi_panel_depth(int64_t chunks, int64_t most);

/* Floats of scratch that the functions below need for passes of `depth` chunks. */
int64_t zi_panel_scratch(const zi_panels *panels, int64_t depth);

/* What brings numbers whose largest magnitude is `largest` to +-127; where that is next to 0 or not finite, the scale
 * largest / 127 makes the sums so. */
static inline float zi_int8_factor(float largest)
{
    return largest > 1e-30f && largest <= 3.4e38f ? 127 / largest : 0;
}

/* Integers only: the largest magnitude of each of rows [row, row + count); 0 for the rest of the family's nr. Where
 * groups of 4 bits hold the row, the largest that they could hold. */
void zi_panel_largest(const zi_panels *panels, const zi_weight *weight, int64_t row, int64_t count, float *scratch,
                      float *largest);

/*
 * Chunks [chunk, chunk + chunks) of rows [row, row + count) as a panel [chunk][lane][nr]. largest [nr]: of the whole
 * rows (integers only). offsets [nr] grow by 128 times the sum of the packed numbers, what activations that are 128 too
 * large add to a sum; NULL: not wanted.
 */
void zi_pack_panel(const zi_panels *panels, const zi_weight *weight, int64_t row, int64_t count, int64_t chunk,
                   int64_t chunks, float *scratch, const float *largest, uint8_t *panel, int32_t *offsets);

#endif
