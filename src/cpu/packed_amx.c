/*
 * Packed gemms in AMX tiles of 16 rows x 64 bytes. A block is three tiles of tokens by two panels of 16 outputs: tiles
 * 0 to 5 hold the sums, tile 6 activations, tile 7 weights. A product takes 16 cycles, a load from L1 takes 8. So the
 * two tiles of tokens that are loaded twice cost nothing, and 5 tiles from L2 serve 6 products.
 *
 * Sums stay in tiles for BLOCK chunks. Storing a tile takes 13 cycles to L1 and 50 to L2.
 */
#if defined(__x86_64__)
#include <string.h>

#include "cpu/table.h"

#if defined(ZI_AMX_EMULATED)
#include "amx_emulated.h"
#else
#include <immintrin.h>
/* Macros, because GCC 12 removes calls of a function that only prefetches. */
#define FETCH(place)    _mm_prefetch((const char *)(place), _MM_HINT_T0)
#define FETCH_L2(place) _mm_prefetch((const char *)(place), _MM_HINT_T1)
#endif

#define MR 48
#define NR 16
/* BLOCK chunks of the packed weights of GROUP panels take 1 MiB of L2. */
#define BLOCK 64
#define GROUP 16

/* The compiler does not know that the tile intrinsics read and write memory. */
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
    __asm__ volatile("" : : "r"(&config) : "memory"); /* the compiler must store all 64 bytes */
    _tile_loadconfig(&config);
}

/* Calls MOVE for the tile of each `tiles` x 16 tokens and each panel: tile 2 i + j has tokens 16 i and on of panel
 * j. */
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

/* Adds the products of tiles a and b to tile `sum`. The instructions hold the tiles' numbers, which must be literal. */
#define DOT(number, sum, a, b)                                                                                         \
    do {                                                                                                               \
        if ((number) == ZI_NUMBER_BF16)                                                                                \
            _tile_dpbf16ps(sum, a, b);                                                                                 \
        else                                                                                                           \
            _tile_dpbssd(sum, a, b);                                                                                   \
    } while (0)

/* One chunk of `tiles` x 16 tokens at `rows` and of one or two panels at b. */
ALWAYS_INLINE void multiply_chunk(const zi_cpu_tiles *t, const zi_cpu_number number, const uint8_t *rows,
                                  const uint8_t *b, const int tiles, const int panels)
{
    _tile_loadd(7, b, ZI_CHUNK);
    _tile_loadd(6, rows, t->a_row);
    DOT(number, 0, 6, 7);
    if (tiles > 1) {
        _tile_loadd(6, rows + 16 * t->a_row, t->a_row);
        DOT(number, 2, 6, 7);
    }
    if (tiles > 2) {
        _tile_loadd(6, rows + 32 * t->a_row, t->a_row);
        DOT(number, 4, 6, 7);
    }
    if (panels == 1)
        return;
    _tile_loadd(7, b + t->b_panel, ZI_CHUNK); /* tokens in reverse: tile 6 still holds the last ones */
    if (tiles > 2) {
        DOT(number, 5, 6, 7);
        _tile_loadd(6, rows + 16 * t->a_row, t->a_row);
    }
    if (tiles > 1) {
        DOT(number, 3, 6, 7);
        _tile_loadd(6, rows, t->a_row);
    }
    DOT(number, 1, 6, 7);
}

/* The sums of one block: `tiles` x 16 tokens by one or two panels. Meanwhile `step` bytes from `fetch` on are
 * fetched for each chunk: two lines of them; the CPU fetches their neighbours by itself. Nine parameters: it is
 * inlined, three are constants, and the pointers stay in registers. */
ALWAYS_INLINE void multiply_block(const zi_cpu_tiles *t, const zi_cpu_number number, const uint8_t *a, const uint8_t *b,
                                  uint8_t *c, const uint8_t *fetch, int64_t step, const int tiles, const int panels)
{
    if (t->accumulate) {
        FOR_SUMS(_tile_loadd)
    } else {
        FOR_SUMS(ZERO)
    }
    for (int64_t chunk = 0; chunk < t->chunks; chunk++, b += NR * ZI_CHUNK, fetch += step) {
        FETCH_L2(fetch);
        FETCH_L2(fetch + step / 2);
        multiply_chunk(t, number, a + t->a_chunks[chunk], b, tiles, panels);
    }
    FOR_SUMS(_tile_stored)
}

/* A block of up to 48 tokens from `row` on. */
ALWAYS_INLINE void block(const zi_cpu_tiles *t, const zi_cpu_number number, int64_t row, int64_t panel,
                         const uint8_t *fetch, int64_t step, const int panels)
{
    const uint8_t *a = t->a + row / MR * t->a_block, *b = t->b + panel * t->b_panel;
    uint8_t *c = t->c + panel * t->c_panel + row * t->c_row;
    int64_t left = t->rows - row;
    if (left > 32)
        multiply_block(t, number, a, b, c, fetch, step, 3, panels);
    else if (left > 16)
        multiply_block(t, number, a, b, c, fetch, step, 2, panels);
    else
        multiply_block(t, number, a, b, c, fetch, step, 1, panels);
}

ALWAYS_INLINE void product(const zi_cpu_tiles *t, const zi_cpu_number number)
{
    int64_t chunks = zi_ceil_div(t->rows, MR) * zi_ceil_div(t->panels, 2) * t->chunks; /* of all blocks */
    const uint8_t *fetch = t->fetch_bytes > 0 ? t->fetch : t->b; /* nothing to fetch: a line that is in L1 anyway */
    int64_t step = t->fetch_bytes / chunks;
    configure();
    for (int64_t row = 0; row < t->rows; row += MR)
        for (int64_t panel = 0; panel < t->panels; panel += 2, fetch += step * t->chunks) {
            if (panel + 2 <= t->panels)
                block(t, number, row, panel, fetch, step, 2);
            else
                block(t, number, row, panel, fetch, step, 1);
        }
    _tile_release();
    MEMORY();
}

static void product_bf16(const zi_cpu_tiles *t)
{
    product(t, ZI_NUMBER_BF16);
}

static void product_int8(const zi_cpu_tiles *t)
{
    product(t, ZI_NUMBER_I8);
}

/* ---- few tokens, weights in groups of 4 bits --------------------------------------------------------------------- */

#define UNIT_BYTES  (ZI_NIBBLE_UNIT / 2) /* of a row */
#define UNIT_CHUNKS (ZI_NIBBLE_UNIT * 2 / ZI_CHUNK)
#define TILE_ROWS   ZI_NIBBLE_ROWS
#define AND_OR      0xea /* (a & b) | c */
#define AHEAD       8    /* units from reading nibbles to prefetching them. Scales: one tile, as units share lines. */

typedef uint8_t unit_tiles[UNIT_CHUNKS][TILE_ROWS][ZI_CHUNK];

/* A unit of 16 rows of weights. Behind the last unit of these rows comes the first unit of the next 16 rows. */
typedef struct unit_place {
    int64_t row, unit;
} unit_place;

static inline unit_place place_after(unit_place place, int64_t steps, int64_t units)
{
    for (place.unit += steps; place.unit >= units; place.unit -= units)
        place.row += TILE_ROWS;
    return place;
}

#if !defined(ZI_AMX_EMULATED)
/* The two bf16 numbers of a pair, each in all lanes of a float32 vector. */
ALWAYS_INLINE void widen_pair(const uint8_t *pair, __m512 *first, __m512 *second)
{
    __m512i both = _mm512_broadcastd_epi32(_mm_loadu_si32(pair));
    *first = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    *second = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32((int)0xffff0000)));
}

/* The tables of two groups: the 16 numbers that each can hold, in bf16. Subnormal numbers become zero. */
ALWAYS_INLINE __m512i two_tables(const uint8_t *scales, const uint8_t *biases)
{
    const __m512 q = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512 scale[2], bias[2];
    widen_pair(scales, &scale[0], &scale[1]);
    widen_pair(biases, &bias[0], &bias[1]);
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_fmadd_ps(q, scale[1], bias[1]), _mm512_fmadd_ps(q, scale[0], bias[0]));
}

/*
 * Unpacks a unit of one row into four tiles: nibbles are indices into the tables of their groups. Each 32 bytes are
 * used twice (v), with the words shifted so that number 16 w + i of chunk 2 h + v is input 64 h + 4 i + 2 v + w.
 */
ALWAYS_INLINE void unpack_unit(const int group, const uint8_t *nibbles, const uint8_t *scales, const uint8_t *biases,
                               uint8_t *target)
{
    const __m512i low = _mm512_set1_epi16(15), shifts = _mm512_maskz_set1_epi16(0xffff0000, 4);
    __m512i table = two_tables(scales, biases);
    FOR_UNROLLED(h, 2) {
        __m512i words = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)nibbles + h));
        __m512i second = _mm512_set1_epi16(16 * h); /* 16 in the words of the table's second group */
        if (group == 32)
            second = _mm512_maskz_set1_epi16(0xff00ff00, 16);
        if (group == 32 && h == 1)
            table = two_tables(scales + 4, biases + 4);
        FOR_UNROLLED(v, 2) {
            __m512i shifted = _mm512_srlv_epi16(words, v ? _mm512_add_epi16(shifts, _mm512_set1_epi16(8)) : shifts);
            __m512i index = _mm512_ternarylogic_epi32(shifted, low, second, AND_OR);
            _mm512_store_si512(target + (2 * h + v) * TILE_ROWS * ZI_CHUNK, _mm512_permutexvar_epi16(index, table));
        }
    }
}
#endif

/* The next row of a unit to unpack, where it goes, and the row to prefetch. */
typedef struct unit_row {
    const uint8_t *nibbles, *scales, *biases, *later;
    uint8_t *target;
} unit_row;

static inline unit_row first_row(const zi_nibble_rows *rows, unit_place place, int64_t units, unit_tiles target)
{
    unit_place later = place_after(place, AHEAD, units);
    int64_t scale = place.row * rows->scale_ld + place.unit * (2 * ZI_NIBBLE_UNIT / rows->group);
    return (unit_row){
        .nibbles = rows->nibbles + place.row * rows->ld + place.unit * UNIT_BYTES,
        .scales = rows->scales + scale,
        .biases = rows->biases + scale,
        .later = rows->nibbles + later.row * rows->ld + later.unit * UNIT_BYTES,
        .target = target[0][0],
    };
}

ALWAYS_INLINE void unpack_rows(const zi_nibble_rows *rows, const int group, unit_row *row, int count)
{
    FOR_UNROLLED(i, count) {
        unpack_unit(group, row->nibbles, row->scales, row->biases, row->target);
        FETCH(row->later);
        FETCH(row->scales + TILE_ROWS * rows->scale_ld);
        FETCH(row->biases + TILE_ROWS * rows->scale_ld);
        row->nibbles += rows->ld;
        row->later += rows->ld;
        row->scales += rows->scale_ld;
        row->biases += rows->scale_ld;
        row->target += ZI_CHUNK;
    }
}

/* Multiplies a chunk of a panel, and unpacks the panel's share of the four rows of the next unit that go with a
 * chunk. */
#define DOT_PANEL(panel)                                                                                               \
    if (panels > panel) {                                                                                              \
        _tile_loadd(7, b + panel * t->b_panel, ZI_CHUNK);                                                              \
        unpack_rows(rows, group, &row, (panel + 1) * 4 / panels - panel * 4 / panels);                                 \
        MEMORY();                                                                                                      \
        _tile_dpbf16ps(panel, 6, 7);                                                                                   \
    }
#define STORE_PANEL(panel)                                                                                             \
    if (panels > panel)                                                                                                \
        _tile_stored(panel, c + panel * t->c_panel, t->c_row);                                                         \
    _tile_zero(panel);

/*
 * The sums of up to six panels of tokens stay in tiles for all inputs of 16 rows. Tile instructions leave the vector
 * units idle, so the next unit is unpacked between those of this unit.
 */
ALWAYS_INLINE void skinny_rows(const zi_nibble_rows *rows, const zi_cpu_tiles *t, const int group, const int panels)
{
    unit_tiles tiles[2] __attribute__((aligned(64)));
    int64_t units = t->chunks / UNIT_CHUNKS, steps = t->rows / TILE_ROWS * units;
    unit_place place = {0, 0};
    unit_row row = first_row(rows, place, units, tiles[0]);
    configure();
    for (int i = 0; i < TILE_ROWS; i++)
        unpack_rows(rows, group, &row, 1);
    for (int64_t step = 0; step < steps; step++) {
        unit_place next = place_after(place, step + 1 < steps, units); /* behind the last one: the same again */
        const uint8_t *a = tiles[step & 1][0][0], *b = t->b + place.unit * (int64_t)sizeof(unit_tiles);
        row = first_row(rows, next, units, tiles[~step & 1]);
        for (int j = 0; j < UNIT_CHUNKS; j++, a += TILE_ROWS * ZI_CHUNK, b += TILE_ROWS * ZI_CHUNK) {
            MEMORY();
            _tile_loadd(6, a, ZI_CHUNK);
            DOT_PANEL(0)
            DOT_PANEL(1)
            DOT_PANEL(2)
            DOT_PANEL(3)
            DOT_PANEL(4)
            DOT_PANEL(5)
        }
        if (place.unit == units - 1) {
            uint8_t *c = t->c + place.row * t->c_row;
            STORE_PANEL(0)
            STORE_PANEL(1)
            STORE_PANEL(2)
            STORE_PANEL(3)
            STORE_PANEL(4)
            STORE_PANEL(5)
        }
        place = next;
    }
    _tile_release();
    MEMORY();
}

ALWAYS_INLINE void nibbles(const zi_nibble_rows *rows, const zi_cpu_tiles *t, const int group)
{
    switch (t->panels) {
    case 1:
        skinny_rows(rows, t, group, 1);
        return;
    case 2:
        skinny_rows(rows, t, group, 2);
        return;
    case 3:
        skinny_rows(rows, t, group, 3);
        return;
    case 4:
        skinny_rows(rows, t, group, 4);
        return;
    case 5:
        skinny_rows(rows, t, group, 5);
        return;
    default:
        skinny_rows(rows, t, group, 6);
    }
}

static void product_nibbles(const zi_nibble_rows *rows, const zi_cpu_tiles *t)
{
    if (rows->group == 32)
        nibbles(rows, t, 32);
    else
        nibbles(rows, t, 64);
}

/* ---- peak -------------------------------------------------------------------------------------------------------- */

/* Random numbers in [-0.5, 0.5). With zeros the instructions take less power, and some CPUs run them faster. */
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

/* Four independent sums, because an instruction takes 16 cycles but its result 52. Returns the number of operations. */
ALWAYS_INLINE double peak(int64_t rounds, const zi_cpu_number number)
{
    uint8_t tiles[4][16][ZI_CHUNK] __attribute__((aligned(64)));
    random_tiles(tiles, number);
    MEMORY();
    configure();
    _tile_loadd(4, tiles[0], ZI_CHUNK);
    _tile_loadd(5, tiles[1], ZI_CHUNK);
    _tile_loadd(6, tiles[2], ZI_CHUNK);
    _tile_loadd(7, tiles[3], ZI_CHUNK);
    for (int64_t i = 0; i < rounds; i++) {
        DOT(number, 0, 4, 6);
        DOT(number, 1, 4, 7);
        DOT(number, 2, 5, 6);
        DOT(number, 3, 5, 7);
    }
    _tile_release();
    MEMORY();
    return 2.0 * 4 * 16 * 16 * zi_numbers_per_chunk(number) * (double)rounds;
}

static double peak_bf16(int64_t rounds, float *sink)
{
    return peak(rounds, ZI_NUMBER_BF16);
}

static double peak_int8(int64_t rounds, float *sink)
{
    return peak(rounds, ZI_NUMBER_I8);
}

const zi_packed_gemm zi_packed_gemm_bf16_amx = {
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
    .nibbles = product_nibbles,
    .peak = peak_bf16,
};

const zi_packed_gemm zi_packed_gemm_int8_amx = {
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
typedef int zi_no_amx; /* ISO C wants a declaration in every file */
#endif
