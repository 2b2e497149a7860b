/*
 * A packed gemm (kernels.h) with Arm's matrix instructions (Arm Architecture Reference Manual, SMMLA and BFMMLA). One
 * instruction takes 8 bytes each of 2 tokens and of 2 outputs, and adds to 2 x 2 sums. Define first:
 *   TITLE, NEEDS               the gemm's name; the feature that it needs
 *   NUMBER, GEMM               what both operands are packed as; the variable
 *   SUMS, MULTIPLY, PRODUCTS   as packed_neon.h reads them
 *
 * In a panel the lanes of one output are nr lanes apart, but the instruction needs two of them side by side. So each
 * call copies a block of a panel in the order [pair of lanes][nr][8 bytes], and all its tokens use the copy. Registers
 * combine the 8 bytes of two tokens.
 */
#include "cpu/packed_neon.h"

#define MR    6 /* 3 x 8 sums, 3 vectors of activations, the weights: 32 registers */
#define NR    16
#define BLOCK (16384 / (NR * ZI_CHUNK)) /* chunks of a panel that stay in L1 */

static inline uint64x2_t load(const uint8_t *p)
{
    return vreinterpretq_u64_u8(vld1q_u8(p));
}

static inline void store_sums(uint8_t *p, uint64x2_t sums, int accumulate)
{
    SUMS x = (SUMS)sums;
    if (accumulate)
        x += (SUMS)load(p);
    vst1q_u8(p, vreinterpretq_u8_u64((uint64x2_t)x));
}

/* Copies [lane][NR] to [pair of lanes][NR][2 lanes]. */
static void pair_lanes(const uint8_t *panel, int64_t chunks, uint8_t *pairs)
{
    for (int64_t pair = 0; pair < chunks * ZI_CHUNK / 8; pair++, panel += 8 * NR, pairs += 8 * NR)
        for (int n = 0; n < NR; n += 4) {
            uint32x4_t low = vreinterpretq_u32_u8(vld1q_u8(panel + 4 * n));
            uint32x4_t high = vreinterpretq_u32_u8(vld1q_u8(panel + 4 * (NR + n)));
            vst1q_u8(pairs + 8 * n, vreinterpretq_u8_u32(vzip1q_u32(low, high)));
            vst1q_u8(pairs + 8 * n + 16, vreinterpretq_u8_u32(vzip2q_u32(low, high)));
        }
}

/* One tile: MR tokens by NR outputs, over `chunks` chunks. places: where the chunks of the activations lie. */
static inline void tile(const zi_cpu_tiles *t, const int64_t *places, int64_t chunks, const uint8_t *a,
                        const uint8_t *b, uint8_t *c, int accumulate)
{
    SUMS sums[MR / 2][NR / 2];
    FOR_UNROLLED(r, MR / 2)
        FOR_UNROLLED(j, NR / 2)
            sums[r][j] = (SUMS){0};
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        const uint8_t *rows = a + places[chunk];
        for (int i = 0; i < ZI_CHUNK; i += 8, b += 8 * NR) {
            uint64x2_t x[MR / 2];
            FOR_UNROLLED(r, MR / 2)
                x[r] = vcombine_u64(vreinterpret_u64_u8(vld1_u8(rows + 2 * r * t->a_row + i)),
                                    vreinterpret_u64_u8(vld1_u8(rows + (2 * r + 1) * t->a_row + i)));
            FOR_UNROLLED(j, NR / 2) {
                IN_ORDER();
                uint64x2_t weights = load(b + 16 * j);
                FOR_UNROLLED(r, MR / 2)
                    sums[r][j] = MULTIPLY(sums[r][j], x[r], weights);
            }
        }
    }
    FOR_UNROLLED(r, MR / 2)
        FOR_UNROLLED_BY(j, NR / 2, 2) {
            uint64x2_t left = (uint64x2_t)sums[r][j], right = (uint64x2_t)sums[r][j + 1];
            store_sums(c + 2 * r * t->c_row + 8 * j, vzip1q_u64(left, right), accumulate);
            store_sums(c + (2 * r + 1) * t->c_row + 8 * j, vzip2q_u64(left, right), accumulate);
        }
}

static void product(const zi_cpu_tiles *t)
{
    uint8_t pairs[BLOCK * NR * ZI_CHUNK] __attribute__((aligned(64)));
    for (int64_t panel = 0; panel < t->panels; panel++)
        for (int64_t chunk = 0; chunk < t->chunks; chunk += BLOCK) {
            int64_t chunks = t->chunks - chunk < BLOCK ? t->chunks - chunk : BLOCK;
            pair_lanes(t->b + panel * t->b_panel + chunk * NR * ZI_CHUNK, chunks, pairs);
            for (int64_t row = 0; row < t->rows; row += MR)
                tile(t, t->a_chunks + chunk, chunks, t->a + row / MR * t->a_block, pairs,
                     t->c + panel * t->c_panel + row * t->c_row, t->accumulate || chunk > 0);
        }
}

const zi_packed_gemm GEMM = {
    .name = TITLE,
    .feature = NEEDS,
    .a = NUMBER,
    .b = NUMBER,
    .mr = MR,
    .nr = NR,
    .block = BLOCK,
    .rows = 96 / MR * MR,
    .group = 128 / NR,
    .product = product,
    .peak = peak,
};
