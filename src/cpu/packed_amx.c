/*
 * Packed products in AMX tiles: 16 rows of 64 bytes. Two tiles of tokens by two of outputs: tiles 0-3 hold the sums, 4
 * and 5 the activations, 6 and 7 the weights; each load serves two products.
 *
 * Two blocks of activations (2 x 32 tokens) meet a panel from L2 together: 16 KiB each of activations and weights at a time.
 */
#if defined(__x86_64__)
#if defined(ZI_AMX_EMULATED)
#include "amx_emulated.h"
#else
#include <immintrin.h>
#endif

#include "cpu/kernels.h"

#define MR 32
#define NR 32

/* The intrinsics do not tell the compiler that they read and write memory. */
#define MEMORY() __asm__ volatile("" ::: "memory")

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_a_row[16];
    uint8_t rows[16];
} tile_config;

static void configure(void)
{
    tile_config config __attribute__((aligned(64))) = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.bytes_a_row[i] = ZI_CHUNK;
        config.rows[i] = 16;
    }
    __asm__ volatile("" : : "r"(&config) : "memory"); /* all 64 bytes are read, not only the first that it is told of */
    _tile_loadconfig(&config);
}

/* The sums of one block and one panel; `half`: only 16 tokens. DOT is the instruction. */
#define TILES(DOT)                                                                                                     \
    do {                                                                                                               \
        if (t->accumulate) {                                                                                           \
            _tile_loadd(0, c, t->c_row);                                                                               \
            _tile_loadd(1, c + 64, t->c_row);                                                                          \
            if (!half) {                                                                                               \
                _tile_loadd(2, c + 16 * t->c_row, t->c_row);                                                           \
                _tile_loadd(3, c + 16 * t->c_row + 64, t->c_row);                                                      \
            }                                                                                                          \
        } else {                                                                                                       \
            _tile_zero(0);                                                                                             \
            _tile_zero(1);                                                                                             \
            _tile_zero(2);                                                                                             \
            _tile_zero(3);                                                                                             \
        }                                                                                                              \
        for (int64_t chunk = 0; chunk < t->chunks; chunk++, b += NR * ZI_CHUNK) {                                      \
            const uint8_t *rows = a + t->a_chunks[chunk];                                                              \
            _tile_loadd(6, b, 4 * NR);                                                                                 \
            _tile_loadd(4, rows, t->a_row);                                                                            \
            DOT(0, 4, 6);                                                                                              \
            _tile_loadd(7, b + 64, 4 * NR);                                                                            \
            DOT(1, 4, 7);                                                                                              \
            if (!half) {                                                                                               \
                _tile_loadd(5, rows + 16 * t->a_row, t->a_row);                                                        \
                DOT(2, 5, 6);                                                                                          \
                DOT(3, 5, 7);                                                                                          \
            }                                                                                                          \
        }                                                                                                              \
        _tile_stored(0, c, t->c_row);                                                                                  \
        _tile_stored(1, c + 64, t->c_row);                                                                             \
        if (!half) {                                                                                                   \
            _tile_stored(2, c + 16 * t->c_row, t->c_row);                                                              \
            _tile_stored(3, c + 16 * t->c_row + 64, t->c_row);                                                         \
        }                                                                                                              \
    } while (0)

static inline void tiles_bf16(const zi_cpu_tiles *t, const uint8_t *a, const uint8_t *b, uint8_t *c, const int half)
{
    TILES(_tile_dpbf16ps);
}

static inline void tiles_int8(const zi_cpu_tiles *t, const uint8_t *a, const uint8_t *b, uint8_t *c, const int half)
{
    TILES(_tile_dpbssd);
}

typedef void tiles_fn(const zi_cpu_tiles *t, const uint8_t *a, const uint8_t *b, uint8_t *c, const int half);

static inline __attribute__((always_inline)) void product(const zi_cpu_tiles *t, tiles_fn *tiles)
{
    configure();
    for (int64_t first = 0; first < t->rows; first += 2 * MR)
        for (int64_t panel = 0; panel < t->panels; panel++)
            for (int64_t row = first; row < t->rows && row < first + 2 * MR; row += MR)
                tiles(t, t->a + row / MR * t->a_block, t->b + panel * t->b_panel,
                      t->c + panel * t->c_panel + row * t->c_row, t->rows - row <= MR / 2);
    _tile_release();
    MEMORY();
}

static void product_bf16(const zi_cpu_tiles *t)
{
    product(t, tiles_bf16);
}

static void product_int8(const zi_cpu_tiles *t)
{
    product(t, tiles_int8);
}

/* Four independent sums, as in the product: an instruction takes 16 cycles and its result 52. */
#define PEAK(DOT)                                                                                                      \
    configure();                                                                                                       \
    for (int64_t i = 0; i < rounds; i++) {                                                                             \
        DOT(0, 4, 6);                                                                                                  \
        DOT(1, 4, 7);                                                                                                  \
        DOT(2, 5, 6);                                                                                                  \
        DOT(3, 5, 7);                                                                                                  \
    }                                                                                                                  \
    _tile_release();                                                                                                   \
    MEMORY()

static double peak_bf16(int64_t rounds, float *sink)
{
    PEAK(_tile_dpbf16ps);
    return 2.0 * 4 * 16 * 16 * 32 * (double)rounds;
}

static double peak_int8(int64_t rounds, float *sink)
{
    PEAK(_tile_dpbssd);
    return 2.0 * 4 * 16 * 16 * 64 * (double)rounds;
}

const zi_cpu_packed zi_cpu_packed_bf16_amx = {
    .name = "bf16 amx",
    .feature = ZI_CPU_AMX_BF16,
    .a = ZI_NUMBER_BF16,
    .b = ZI_NUMBER_BF16,
    .mr = MR,
    .nr = NR,
    .block = 8,
    .group = 4,
    .product = product_bf16,
    .peak = peak_bf16,
};

const zi_cpu_packed zi_cpu_packed_int8_amx = {
    .name = "int8 amx",
    .feature = ZI_CPU_AMX_INT8,
    .a = ZI_NUMBER_I8,
    .b = ZI_NUMBER_I8,
    .mr = MR,
    .nr = NR,
    .block = 8,
    .group = 4,
    .product = product_int8,
    .peak = peak_int8,
};
#else
typedef int zi_no_amx; /* ISO C wants something in every file */
#endif
