/*
 * A packed gemm with SDOT of Arm's FEAT_DotProd. Its form "by element" multiplies four lanes of four bytes by one lane
 * of another vector. So 16 bytes of a token take one load; packed_body.h would broadcast each lane with an instruction.
 */
#if defined(__aarch64__)
#define SUMS                 int32x4_t
#define MULTIPLY(sums, x, y) vdotq_s32(sums, vreinterpretq_s8_u64(x), vreinterpretq_s8_u64(y))
#define PRODUCTS             16
#include "cpu/packed_neon.h"

#define MR 6 /* 6 x 4 sums, 6 vectors of activations, 2 of weights: 32 registers */
#define NV 4
#define NR (4 * NV)

static inline int8x16_t load(const uint8_t *p)
{
    return vreinterpretq_s8_u8(vld1q_u8(p));
}

#define MULTIPLY_LANE(lane)                                                                                            \
    FOR_UNROLLED(j, NV) {                                                                                              \
        IN_ORDER();                                                                                                    \
        int8x16_t weights = load(b + 16 * (j + NV * (lane)));                                                          \
        FOR_UNROLLED(r, MR)                                                                                            \
            sums[r][j] = vdotq_laneq_s32(sums[r][j], weights, x[r], lane);                                             \
    }

/* One tile: MR tokens by NR outputs. */
static inline void tile(const zi_cpu_tiles *t, const uint8_t *a, const uint8_t *b, uint8_t *c)
{
    SUMS sums[MR][NV];
    FOR_UNROLLED(r, MR)
        FOR_UNROLLED(j, NV)
            sums[r][j] = vdupq_n_s32(0);
    for (int64_t chunk = 0; chunk < t->chunks; chunk++) {
        const uint8_t *rows = a + t->a_chunks[chunk];
        for (int i = 0; i < ZI_CHUNK; i += 16, b += 16 * NR) {
            int8x16_t x[MR];
            FOR_UNROLLED(r, MR)
                x[r] = load(rows + r * t->a_row + i);
            MULTIPLY_LANE(0)
            MULTIPLY_LANE(1)
            MULTIPLY_LANE(2)
            MULTIPLY_LANE(3)
        }
    }
    FOR_UNROLLED(r, MR)
        FOR_UNROLLED(j, NV) {
            uint8_t *p = c + r * t->c_row + 16 * j;
            int32x4_t sum = sums[r][j];
            if (t->accumulate)
                sum = vaddq_s32(sum, vreinterpretq_s32_u8(vld1q_u8(p)));
            vst1q_u8(p, vreinterpretq_u8_s32(sum));
        }
}

static void product(const zi_cpu_tiles *t)
{
    for (int64_t panel = 0; panel < t->panels; panel++)
        for (int64_t row = 0; row < t->rows; row += MR)
            tile(t, t->a + row / MR * t->a_block, t->b + panel * t->b_panel,
                 t->c + panel * t->c_panel + row * t->c_row);
}

const zi_packed_gemm zi_packed_gemm_int8_neondotprod = {
    .name = "int8 neon-dotprod",
    .feature = ZI_CPU_NEON_DOTPROD,
    .a = ZI_NUMBER_I8,
    .b = ZI_NUMBER_I8,
    .mr = MR,
    .nr = NR,
    .block = 16384 / (NR * ZI_CHUNK),
    .rows = 96 / MR * MR,
    .group = 128 / NR,
    .product = product,
    .peak = peak,
};
#else
typedef int zi_no_neondotprod; /* ISO C wants a declaration in every file */
#endif
