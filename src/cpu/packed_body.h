/*
 * A packed gemm (kernels.h) in vectors. Define first:
 *   FN(name)               a name that no other gemm of the file has
 *   TITLE, NEEDS           the gemm's name; the feature that it needs
 *   LANES                  four-byte lanes of a vector
 *   MR, NV                 tokens of a tile; vectors of its outputs
 *   NUMBER_A, NUMBER_B     what activations and weights are packed as
 *   SUMS                   the type of a vector of sums
 *   MULTIPLY(sums, a, b)   sums plus the products of two vectors of lanes
 * MR x NV sums, NV vectors of weights and one of activations must fit the registers. It undefines all of these at its
 * end, so a file can include it again.
 */
#define NR (NV * LANES)

_Static_assert(MR <= ZI_PACKED_MR_MAX && NR <= ZI_PACKED_NR_MAX && NR % 16 == 0,
               "buffers elsewhere are sized for these");

#ifndef ZI_PACKED_BODY
#define ZI_PACKED_BODY
/* The compiler must assume that this changes the vector. */
#if defined(__x86_64__)
#define OPAQUE(v) __asm__ volatile("" : "+v"(v))
#elif defined(__aarch64__)
#define OPAQUE(v) __asm__ volatile("" : "+w"(v))
#else
#define OPAQUE(v) __asm__ volatile("" : "+m"(v))
#endif
#endif

typedef int32_t FN(lanes) __attribute__((vector_size(4 * LANES)));
typedef int32_t FN(lanes_memory) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* One tile: MR tokens by NR outputs. next: the tokens of the next tile, to be prefetched, or NULL. */
static inline void FN(tile)(const zi_cpu_tiles *t, const uint8_t *a, const uint8_t *b, uint8_t *c, const uint8_t *next)
{
    SUMS sums[MR][NV];
    FOR_UNROLLED(r, MR)
        FOR_UNROLLED(j, NV)
            sums[r][j] = (SUMS){0};
    for (int64_t chunk = 0; chunk < t->chunks; chunk++) {
        const uint8_t *rows[MR];
        FOR_UNROLLED(r, MR)
            rows[r] = a + t->a_chunks[chunk] + r * t->a_row;
        if (next != NULL) {
            FOR_UNROLLED(r, MR)
                __builtin_prefetch(next + t->a_chunks[chunk] + r * t->a_row);
        }
        for (int i = 0; i < ZI_CHUNK; i += 4, b += 4 * NR) {
            FN(lanes) weights[NV];
            FOR_UNROLLED(j, NV)
                weights[j] = *(const FN(lanes_memory) *)(b + 4 * j * LANES);
            FOR_UNROLLED(r, MR) {
                int32_t lane;
                memcpy(&lane, rows[r] + i, sizeof(lane));
                FN(lanes) x = lane - (FN(lanes)){0};
                FOR_UNROLLED(j, NV)
                    sums[r][j] = MULTIPLY(sums[r][j], x, weights[j]);
            }
        }
    }
    FOR_UNROLLED(r, MR)
        FOR_UNROLLED(j, NV) {
            FN(lanes_memory) *p = (FN(lanes_memory) *)(c + r * t->c_row + 4 * j * LANES);
            *p = (FN(lanes))(t->accumulate ? (SUMS)*p + sums[r][j] : sums[r][j]);
        }
}

/* A panel stays in L1 while all tokens pass it. The pass over the first panel brings the tokens into L2. */
static void FN(product)(const zi_cpu_tiles *t)
{
    for (int64_t panel = 0; panel < t->panels; panel++)
        for (int64_t row = 0; row < t->rows; row += MR) {
            const uint8_t *a = t->a + row / MR * t->a_block, *b = t->b + panel * t->b_panel;
            uint8_t *c = t->c + panel * t->c_panel + row * t->c_row;
            FN(tile)(t, a, b, c, panel == 0 && row + MR < t->rows ? a + t->a_block : NULL);
        }
}

UNSANITIZED static double FN(peak)(int64_t rounds, float *sink)
{
    SUMS sums[MR][NV] = {{{0}}};
    FN(lanes) x = (int32_t)*sink - (FN(lanes)){0}, w[NV];
    for (int j = 0; j < NV; j++)
        w[j] = x + j;
    for (int64_t i = 0; i < rounds; i++)
        FOR_UNROLLED(r, MR) {
            OPAQUE(x); /* so that equal products are not computed once */
            FOR_UNROLLED(j, NV)
                sums[r][j] = MULTIPLY(sums[r][j], x, w[j]);
        }
    for (int r = 0; r < MR; r++)
        for (int j = 0; j < NV; j++)
            *sink += (float)sums[r][j][0];
    return 2.0 * LANES * (NUMBER_B == ZI_NUMBER_I8 ? 4 : 2) * MR * NV * (double)rounds;
}

const zi_packed_gemm FN(zi_packed_gemm) = {
    .name = TITLE,
    .feature = NEEDS,
    .a = NUMBER_A,
    .b = NUMBER_B,
    .mr = MR,
    .nr = NR,
    .block = 16384 / (NR * ZI_CHUNK),
    .rows = 96 / MR * MR,
    .group = 128 / NR,
    .product = FN(product),
    .peak = FN(peak),
};

#undef FN
#undef TITLE
#undef NEEDS
#undef NUMBER_A
#undef NUMBER_B
#undef LANES
#undef MR
#undef NV
#undef NR
#undef SUMS
#undef MULTIPLY
