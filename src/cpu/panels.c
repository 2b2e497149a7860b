#include "cpu/panels.h"

/* Scratch begins with one row: [in] float32, or the scales and biases of its groups. Packed rows follow:
 * [nr][depth][ZI_CHUNK]. */
static int64_t row_floats(const zi_panels *panels)
{
    return zi_round_up(panels->in, 16);
}

int64_t zi_panel_scratch(const zi_panels *panels, int64_t depth)
{
    return row_floats(panels) + depth * ZI_CHUNK / 4 * panels->gemm->nr;
}

static int is_integer(const zi_panels *panels)
{
    return panels->gemm->b != ZI_NUMBER_BF16;
}

int zi_has_nibbles(const zi_weight *weight)
{
    return weight->dtype == ZI_GROUPED && weight->bits == 4 &&
           (weight->scale_dtype == ZI_F16 || weight->scale_dtype == ZI_BF16);
}

static size_t scale_place(const zi_weight *weight, int64_t in, int64_t row, int64_t input)
{
    return (size_t)((row * in + input) / weight->group) * zi_dtype_size(weight->scale_dtype);
}

zi_nibble_rows zi_nibble_rows_of(const zi_weight *weight, int64_t in, int64_t row, int64_t first, int64_t count)
{
    size_t place = scale_place(weight, in, row, first);
    return (zi_nibble_rows){
        .group = weight->group,
        .groups = count / weight->group,
        .nibbles = weight->data + (row * in + first) / 2,
        .ld = in / 2,
        .scale_dtype = weight->scale_dtype,
        .scales = weight->scales + place,
        .biases = weight->biases + place,
        .scale_ld = (int64_t)scale_place(weight, in, 1, 0),
    };
}

/* Writes the scales and then the biases of the groups of `count` inputs to scratch. Returns how many groups that
 * are. */
static int64_t unpack_scales(const zi_panels *panels, const zi_weight *weight, int64_t row, int64_t first,
                             int64_t count, float *scratch)
{
    int64_t groups = count / weight->group;
    size_t place = scale_place(weight, panels->in, row, first);
    panels->kernels->unpack(weight->scale_dtype, weight->scales + place, groups, scratch);
    panels->kernels->unpack(weight->scale_dtype, weight->biases + place, groups, scratch + groups);
    return groups;
}

/* The largest magnitude that the groups of a row could hold. It lies at one end of a group's range. */
static float largest_of_groups(const zi_panels *panels, const zi_weight *weight, int64_t row, float *scratch)
{
    int64_t groups = unpack_scales(panels, weight, row, 0, panels->in, scratch);
    float *scales = scratch, *biases = scratch + groups;
    for (int64_t g = 0; g < groups; g++)
        scales[g] = biases[g] + 15 * scales[g];
    return panels->kernels->largest(ZI_F32, scratch, 2 * groups);
}

/* Inputs [first, first + count) of a row, with their dtype: as stored if the kernels read that, else float32 in
 * scratch. */
static const void *numbers_of(const zi_panels *panels, const zi_weight *weight, int64_t row, int64_t first,
                              int64_t count, float *scratch, zi_dtype *dtype)
{
    int64_t ld;
    *dtype = weight->dtype;
    if (zi_is_plain(weight->dtype))
        return weight->data + (size_t)(row * panels->in + first) * zi_dtype_size(weight->dtype);
    *dtype = ZI_F32;
    const zi_weight_part part = {weight, panels->in, row, 1, first, count};
    return zi_cpu_weight_rows(panels->kernels, &part, scratch, &ld);
}

void zi_panel_largest(const zi_weight_rows *rows, float *largest)
{
    const zi_panels *panels = rows->panels;
    for (int64_t r = 0; r < rows->count; r++) {
        zi_dtype dtype;
        if (zi_has_nibbles(rows->weight)) {
            largest[r] = largest_of_groups(panels, rows->weight, rows->row + r, rows->scratch);
        } else {
            const void *x = numbers_of(panels, rows->weight, rows->row + r, 0, panels->in, rows->scratch, &dtype);
            largest[r] = panels->kernels->largest(dtype, x, panels->in);
        }
    }
}

/* Packs inputs [first, first + count) of row number r of the rows. */
static void pack_row(const zi_weight_rows *rows, int64_t r, int64_t first, int64_t count, float factor, uint8_t *target)
{
    const zi_panels *panels = rows->panels;
    const zi_weight *weight = rows->weight;
    int64_t row = rows->row + r;
    float *scratch = rows->scratch;
    zi_dtype dtype;
    if (zi_has_nibbles(weight)) {
        int64_t groups = unpack_scales(panels, weight, row, first, count, scratch);
        panels->kernels->pack_nibbles(panels->gemm->b, weight->group, weight->data + (row * panels->in + first) / 2,
                                      scratch, scratch + groups, groups, factor, target, ZI_CHUNK);
        return;
    }
    const void *x = numbers_of(panels, weight, row, first, count, scratch, &dtype);
    panels->kernels->pack(panels->gemm->b, dtype, x, count, factor, target, ZI_CHUNK);
}

/* Packs 4-bit rows as a panel of bf16 in registers. Returns 0 if there is no kernel for that. */
static int pack_nibble_rows(const zi_weight_rows *rows, int64_t first, int64_t count, uint8_t *panel)
{
    const zi_panels *panels = rows->panels;
    const zi_cpu_kernels *kernels = panels->kernels;
    int64_t nr = panels->gemm->nr;
    if (kernels->pack_nibble_panel == NULL || is_integer(panels) || rows->count < nr || nr % 16 != 0 ||
        !zi_has_nibbles(rows->weight))
        return 0;
    for (int64_t r = 0; r < nr; r += 16) {
        zi_nibble_rows source = zi_nibble_rows_of(rows->weight, panels->in, rows->row + r, first, count);
        kernels->pack_nibble_panel(&source, panel + r * 4, nr);
    }
    return 1;
}

int32_t zi_packed_offset(const uint8_t *row, int64_t bytes)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < bytes; i++)
        sum += (int8_t)row[i];
    return 128 * sum;
}

void zi_pack_panel(const zi_weight_rows *rows, int64_t chunk, int64_t chunks, const float *largest, uint8_t *panel,
                   int32_t *offsets)
{
    const zi_panels *panels = rows->panels;
    const zi_weight *weight = rows->weight;
    int64_t numbers = zi_numbers_per_chunk(panels->gemm->b), bytes = chunks * ZI_CHUNK, ld = bytes;
    int64_t first = chunk * numbers, inputs = zi_min_int64(chunks * numbers, panels->in - first);
    uint8_t *packed = (uint8_t *)(rows->scratch + row_floats(panels));
    const uint8_t *source = packed;
    if (pack_nibble_rows(rows, first, inputs, panel))
        return;
    if (weight->dtype == ZI_BF16 && !is_integer(panels) && inputs * 2 == bytes && panels->in % 2 == 0 &&
        (uintptr_t)weight->data % 4 == 0) {
        source = weight->data + (rows->row * panels->in + first) * 2; /* stored as a gemm reads them */
        ld = panels->in * 2;
    } else {
        for (int64_t r = 0; r < rows->count; r++)
            pack_row(rows, r, first, inputs, is_integer(panels) ? zi_int8_factor(largest[r]) : 1, packed + r * bytes);
    }
    panels->kernels->transpose(source, ld / 4, rows->count, bytes / 4, panel, panels->gemm->nr);
    for (int64_t r = 0; r < rows->count && offsets != NULL; r++)
        offsets[r] += zi_packed_offset(packed + r * bytes, bytes);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* Rows from packing to prefetching. The hardware prefetcher does not know where the next row begins. */
#define ROWS_AHEAD 2

/* The scales of all rows, then their biases (a group has at least 32 numbers), then one row as float32. */
int64_t zi_weight_rows_scratch(int64_t in, int64_t count)
{
    return zi_round_up(2 * count * zi_ceil_div(in, 32) + in, 16);
}

static float *all_scales(const zi_weight_rows *rows, float **biases)
{
    *biases = rows->scratch + rows->count * (rows->panels->in / rows->weight->group);
    return rows->scratch;
}

void zi_weight_rows_begin(const zi_weight_rows *rows, float *largest)
{
    const zi_panels *panels = rows->panels;
    const zi_weight *weight = rows->weight;
    if (largest != NULL)
        zi_panel_largest(rows, largest);
    if (zi_has_nibbles(weight)) {
        float *biases, *scales = all_scales(rows, &biases);
        size_t place = scale_place(weight, panels->in, rows->row, 0);
        panels->kernels->unpack(weight->scale_dtype, weight->scales + place, biases - scales, scales);
        panels->kernels->unpack(weight->scale_dtype, weight->biases + place, biases - scales, biases);
    }
}

void zi_weight_rows_pack(const zi_weight_rows *rows, int64_t chunk, int64_t chunks, const float *largest,
                         uint8_t *target)
{
    const zi_panels *panels = rows->panels;
    const zi_weight *weight = rows->weight;
    const zi_cpu_kernels *kernels = panels->kernels;
    zi_cpu_number number = panels->gemm->a;
    int64_t mr = panels->gemm->mr, numbers = zi_numbers_per_chunk(number), first = chunk * numbers;
    int64_t count = zi_min_int64(chunks * numbers, panels->in - first);
    for (int64_t r = 0; r < rows->count; r++) {
        uint8_t *place = target + (r / mr * chunks * mr + r % mr) * ZI_CHUNK;
        float factor = largest != NULL ? zi_int8_factor(largest[r]) : 1;
        if (zi_has_nibbles(weight)) {
            float *biases, *scales = all_scales(rows, &biases);
            int64_t group = (r * panels->in + first) / weight->group;
            const uint8_t *nibbles = weight->data + ((rows->row + r) * panels->in + first) / 2;
            for (int64_t ahead = 0; ahead < count / 2 && r + ROWS_AHEAD < rows->count; ahead += ZI_CHUNK)
                __builtin_prefetch(nibbles + ROWS_AHEAD * panels->in / 2 + ahead);
            kernels->pack_nibbles(number, weight->group, nibbles, scales + group, biases + group, count / weight->group,
                                  factor, place, mr * ZI_CHUNK);
            continue;
        }
        zi_dtype dtype;
        const void *x = numbers_of(panels, weight, rows->row + r, first, count, rows->scratch, &dtype);
        kernels->pack(number, dtype, x, count, factor, place, mr * ZI_CHUNK);
    }
}
