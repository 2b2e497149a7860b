/*
 * The kernels of one tier, in vectors of LANES floats (vectors.h). The tier's file defines first:
 *   LANES     floats of a vector
 *   MR, NV    tokens of a tile of gemm; vectors of its outputs
 *   NIBBLES   the file that looks up 4-bit numbers
 *   KERNELS   the variable;  NAME  the tier's name;  FEATURE  the feature that it needs
 * MR x NV sums, NV vectors of the panel and one factor must fit the registers. The tier's file is compiled with
 * -ffp-contract=fast: a * b + c is rounded once where the tier has FMA.
 */
#include "cpu/vectors.h"

#define NR (NV * LANES)

_Static_assert(MR <= ZI_MR_MAX && NR <= ZI_NR_MAX && NR % 4 == 0, "buffers elsewhere are sized for these");

#include "cpu/kernels_gemm.h"
#include "cpu/kernels_rows.h"
#include NIBBLES
#include "cpu/kernels_pack.h"

const zi_cpu_kernels KERNELS = {
    .name = NAME,
    .feature = FEATURE,
    .mr = MR,
    .nr = NR,
    .gemm = gemm,
    .dot = dot,
    .unpack = unpack,
    .unpack_groups = unpack_groups,
    .transpose = transpose,
    .store = store_tile,
    .store_glu = store_glu,
    .store_glu_bf16 = store_glu_bf16,
    .stores_done = stores_done,
    .softmax = softmax,
    .softmax_bf16 = softmax_bf16,
    .multiply = multiply,
    .add = add,
    .add_scaled = add_scaled,
    .silu = silu,
    .affine = affine,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .residual = residual,
    .qk_norm_rope = qk_norm_rope,
    .channel_sums = channel_sums,
    .finite = all_finite,
    .peak = peak,
    .pack = pack,
    .pack_nibbles = pack_nibbles,
    .pack_nibble_panel = PACK_NIBBLE_PANEL,
    .pack_pairs = pack_pairs,
    .largest = largest,
    .scale_sums = scale_sums,
};
