/*
 * Packed products in AMX tiles: 16 rows of 64 bytes. Three tiles of tokens by two panels of 16 outputs: tiles 0-5 hold the
 * sums, 6 the activations, 7 the weights. A load takes 8 cycles from L1, a product 16: the two tiles that are loaded twice
 * cost nothing, and 5 tiles from L2 serve 6 products.
 *
 * Sums stay in tiles for `block` chunks: storing a tile takes 13 cycles if it goes to L1 and 50 if to L2.
 */
#if defined(__x86_64__)
#if defined(ZI_AMX_EMULATED)
#include "amx_emulated.h"
#else
#include <immintrin.h>
#endif

#include <string.h>

#include "cpu/kernels.h"

#define MR 48
#define NR 16
/* Packed weights of a group take 1 MiB of L2. */
#define BLOCK 64
#define GROUP 16

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

/* Tile (i, j) of the sums: tokens 16 i and on, panel j. */
#define FOR_SUMS(MOVE)                                                                                                 \
    MOVE(0, c, t->c_row);                                                                                              \
    if (panels > 1)                                                                                                    \
        MOVE(1, c + t->c_panel, t->c_row);                                                                             \
    if (tiles > 1) {                                                                                                   \
        MOVE(2, c + 16 * t->c_row, t->c_row);                                                                          \
        if (panels > 1)                                                                                                \
            MOVE(3, c + t->c_panel + 16 * t->c_row, t->c_row);                                                         \
    }                                                                                                                  \
    if (tiles > 2) {                                                                                                   \
        MOVE(4, c + 32 * t->c_row, t->c_row);                                                                          \
        if (panels > 1)                                                                                                \
            MOVE(5, c + t->c_panel + 32 * t->c_row, t->c_row);                                                         \
    }
#define ZERO(tile, place, stride) _tile_zero(tile)

/* The sums of one block; tiles: of tokens. */
#define TILES(DOT)                                                                                                     \
    do {                                                                                                               \
        if (t->accumulate) {                                                                                           \
            FOR_SUMS(_tile_loadd)                                                                                      \
        } else {                                                                                                       \
            FOR_SUMS(ZERO)                                                                                             \
        }                                                                                                              \
        for (int64_t chunk = 0; chunk < t->chunks; chunk++, b += NR * ZI_CHUNK) {                                      \
            const uint8_t *rows = a + t->a_chunks[chunk];                                                              \
            _tile_loadd(7, b, ZI_CHUNK);                                                                               \
            _tile_loadd(6, rows, t->a_row);                                                                            \
            DOT(0, 6, 7);                                                                                              \
            if (tiles > 1) {                                                                                           \
                _tile_loadd(6, rows + 16 * t->a_row, t->a_row);                                                        \
                DOT(2, 6, 7);                                                                                          \
            }                                                                                                          \
            if (tiles > 2) {                                                                                           \
                _tile_loadd(6, rows + 32 * t->a_row, t->a_row);                                                        \
                DOT(4, 6, 7);                                                                                          \
            }                                                                                                          \
            if (panels == 1)                                                                                           \
                continue;                                                                                              \
            _tile_loadd(7, b + t->b_panel, ZI_CHUNK);                                                                  \
            if (tiles > 2) {                                                                                           \
                DOT(5, 6, 7);                                                                                          \
                _tile_loadd(6, rows + 16 * t->a_row, t->a_row);                                                        \
            }                                                                                                          \
            if (tiles > 1) {                                                                                           \
                DOT(3, 6, 7);                                                                                          \
                _tile_loadd(6, rows, t->a_row);                                                                        \
            }                                                                                                          \
            DOT(1, 6, 7);                                                                                              \
        }                                                                                                              \
        FOR_SUMS(_tile_stored)                                                                                         \
    } while (0)

typedef void sums_fn(const zi_cpu_tiles *t, const uint8_t *a, const uint8_t *b, uint8_t *c, const int tiles,
                     const int panels);

static inline __attribute__((always_inline)) void sums_bf16(const zi_cpu_tiles *t, const uint8_t *a, const uint8_t *b,
                                                            uint8_t *c, const int tiles, const int panels)
{
    TILES(_tile_dpbf16ps);
}

static inline __attribute__((always_inline)) void sums_int8(const zi_cpu_tiles *t, const uint8_t *a, const uint8_t *b,
                                                            uint8_t *c, const int tiles, const int panels)
{
    TILES(_tile_dpbssd);
}

/* A block of up to 48 tokens. */
static inline __attribute__((always_inline)) void block(const zi_cpu_tiles *t, sums_fn *sums, int64_t row,
                                                        int64_t panel, const int panels)
{
    const uint8_t *a = t->a + row / MR * t->a_block, *b = t->b + panel * t->b_panel;
    uint8_t *c = t->c + panel * t->c_panel + row * t->c_row;
    int64_t left = t->rows - row;
    if (left > 32)
        sums(t, a, b, c, 3, panels);
    else if (left > 16)
        sums(t, a, b, c, 2, panels);
    else
        sums(t, a, b, c, 1, panels);
}

static inline __attribute__((always_inline)) void product(const zi_cpu_tiles *t, sums_fn *sums)
{
    configure();
    for (int64_t row = 0; row < t->rows; row += MR) {
        int64_t panel = 0;
        for (; panel + 2 <= t->panels; panel += 2)
            block(t, sums, row, panel, 2);
        if (panel < t->panels)
            block(t, sums, row, panel, 1);
    }
    _tile_release();
    MEMORY();
}

static void product_bf16(const zi_cpu_tiles *t)
{
    product(t, sums_bf16);
}

static void product_int8(const zi_cpu_tiles *t)
{
    product(t, sums_int8);
}

/* Random numbers in [-0.5, 0.5): on zeros the instructions take less power, and some processors run them faster. */
static void random_tiles(uint8_t tiles[4][16][ZI_CHUNK], zi_cpu_number number)
{
    uint32_t state = 1;
    for (int i = 0; i < 4 * 16 * ZI_CHUNK; i += 2) {
        state = state * 1664525 + 1013904223;
        uint16_t bits = number == ZI_NUMBER_BF16 ? zi_f32_to_bf16((float)((int32_t)state >> 8) * 0x1p-24f)
                                                 : (uint16_t)(state >> 16);
        memcpy(&tiles[0][0][0] + i, &bits, 2);
    }
}

/* Four independent sums, as in the product: an instruction takes 16 cycles and its result 52. */
#define PEAK(DOT, NUMBER)                                                                                              \
    uint8_t tiles[4][16][ZI_CHUNK] __attribute__((aligned(64)));                                                       \
    random_tiles(tiles, NUMBER);                                                                                       \
    MEMORY();                                                                                                          \
    configure();                                                                                                       \
    _tile_loadd(4, tiles[0], ZI_CHUNK);                                                                                \
    _tile_loadd(5, tiles[1], ZI_CHUNK);                                                                                \
    _tile_loadd(6, tiles[2], ZI_CHUNK);                                                                                \
    _tile_loadd(7, tiles[3], ZI_CHUNK);                                                                                \
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
    PEAK(_tile_dpbf16ps, ZI_NUMBER_BF16);
    return 2.0 * 4 * 16 * 16 * 32 * (double)rounds;
}

static double peak_int8(int64_t rounds, float *sink)
{
    PEAK(_tile_dpbssd, ZI_NUMBER_I8);
    return 2.0 * 4 * 16 * 16 * 64 * (double)rounds;
}

const zi_cpu_packed zi_cpu_packed_bf16_amx = {
    .name = "bf16 amx",
    .feature = ZI_CPU_AMX_BF16,
    .a = ZI_NUMBER_BF16,
    .b = ZI_NUMBER_BF16,
    .mr = MR,
    .nr = NR,
    .block = BLOCK,
    .rows = MR,
    .group = GROUP,
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
    .block = BLOCK,
    .rows = MR,
    .group = GROUP,
    .product = product_int8,
    .peak = peak_int8,
};
#else
typedef int zi_no_amx; /* ISO C wants something in every file */
#endif
