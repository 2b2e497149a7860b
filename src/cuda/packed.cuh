/*
 * A product with 4-bit weights as one kernel of sm_90a: y = x w^T, or y = silu(x w1^T) * (x w3^T). Weights never lie
 * unpacked in device memory. Tiles have 128 rows of weights, or 64 of w1 and 64 of w3, and two parts of `Tokens` rows
 * of x. A block has two warp groups that fill stages and two that multiply. The first two take turns: each reads 64
 * numbers of every row of weights and unpacks them to bf16 in shared memory; the copy engine puts those of x beside
 * them. The other two multiply all weights of a stage with a part of the tokens each. Blocks are persistent: they go
 * from tile to tile.
 *
 * Weights are groups as MLX stores them, in its mode "affine": a number q of 4 bits is q * scale + bias, rounded once.
 */
#ifndef ZI_CUDA_PACKED_CUH
#define ZI_CUDA_PACKED_CUH

#include "cuda/device_code.cuh"
#include "cuda/hopper.cuh"
#include "cuda/packed.h"

/* [out, in] numbers of 4 bits with a scale and a bias for each group of a row. */
typedef struct packed_matrix {
    const uint8_t *numbers;
    const bf16 *scales, *biases;
} packed_matrix;

typedef struct packed_args {
    bf16 *y;            /* [rows, out] */
    packed_matrix w[2]; /* gated: w1 and w3 */
    int rows, out, in, group;
    int64_t ldy; /* elements from a row of y to the next */
} packed_args;

#ifdef ZI_SM90A_PASS
typedef struct packed_place {
    int token, column; /* the first ones of a tile */
} packed_place;

/* Tiles of the same weights follow one another. */
template <int Tokens, bool Gated> static __device__ packed_place packed_place_of(const packed_args &args, int tile)
{
    const int tiles = zi_packed_token_tiles(args.rows, Tokens);
    return {tile % tiles * (PACKED_MULTIPLIERS * Tokens), tile / tiles * zi_packed_columns(Gated)};
}

typedef struct packed_room {
    uint8_t *stages, *scales;
    uint64_t *full, *empty, *scales_full;
} packed_room;

/* Which of 16 rows of weights lies in row i in shared memory. In this order a thread gets 4 columns of y in a row. */
static __device__ __forceinline__ int packed_row(int i)
{
    return i % 8 / 2 * 4 + i / 8 * 2 + i % 2;
}

/* The row of weights that is row i of a tile in shared memory. */
template <bool Gated>
static __device__ __forceinline__ int packed_row_of(const packed_args &args, const packed_place &place, int i)
{
    return place.column + (Gated ? i % (PACKED_ROWS / 2) : i) / 16 * 16 + packed_row(i % 16);
}

/* 8 numbers of 4 bits as bf16. magic: 128 in bf16, twice. 128 + q is exact, and q is its lowest 4 bits. */
static __device__ __forceinline__ uint4 packed_unpack(uint32_t numbers, __nv_bfloat162 scale, __nv_bfloat162 bias,
                                                      uint32_t magic)
{
    uint32_t pairs[4]; /* numbers i and i + 4 */
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t plus_128;
        asm("lop3.b32 %0, %1, 0x000f000f, %2, 0xea;\n" : "=r"(plus_128) : "r"(numbers >> (4 * i)), "r"(magic));
        __nv_bfloat162 q = *reinterpret_cast<__nv_bfloat162 *>(&plus_128);
        q = __hfma2(__hsub2(q, __float2bfloat162_rn(128)), scale, bias);
        pairs[i] = *reinterpret_cast<uint32_t *>(&q);
    }
    return {__byte_perm(pairs[0], pairs[1], 0x5410), __byte_perm(pairs[2], pairs[3], 0x5410),
            __byte_perm(pairs[0], pairs[1], 0x7632), __byte_perm(pairs[2], pairs[3], 0x7632)};
}

/* Loads what is read once. It is volatile, so that it stays behind the fence, which waits for all loads before it. */
static __device__ __forceinline__ uint4 packed_load(const uint8_t *p)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

/* A thread's numbers of a step: a half of rows i and i + 64 of the tile. */
typedef struct packed_reads {
    uint4 of[2];
} packed_reads;

static __device__ __forceinline__ packed_reads packed_read(const uint8_t *const (&rows)[2], int step)
{
    return {packed_load(rows[0] + step * (PACKED_STEP / 2)), packed_load(rows[1] + step * (PACKED_STEP / 2))};
}

/* What a thread copies to shared memory: the scales, or the biases, of one row. A piece is what 4 steps need. Two
 * pieces are a period; their copies begin together. */
typedef struct packed_factors {
    const bf16 *from;
    int group, pieces;
    uint32_t to; /* of the first of two periods */
} packed_factors;

/* filler: the warp group; the first one copies scales. `to`: where scales lie in shared memory. */
template <bool Gated>
static __device__ __forceinline__ packed_factors packed_factors_of(const packed_args &args, const packed_place &place,
                                                                   int filler, int thread, uint32_t to)
{
    const bool is_second = Gated && thread >= PACKED_ROWS / 2;
    const bf16 *scales = is_second ? args.w[1].scales : args.w[0].scales;
    const bf16 *biases = is_second ? args.w[1].biases : args.w[0].biases;
    const int64_t first = (int64_t)packed_row_of<Gated>(args, place, thread) * (args.in / args.group);
    return {(filler == 0 ? scales : biases) + first, args.group, args.in / (PACKED_STEP * PACKED_PIECE),
            to + filler * PACKED_SCALE_BYTES + thread * PACKED_SCALE_ROW};
}

/* Begins to copy those of a period; they arrive at the barrier. */
static __device__ __forceinline__ void packed_copy_factors(const packed_factors &f, int period, int buffer,
                                                           uint64_t *barrier)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int piece = 2 * period + i;
        const bf16 *from = f.from + piece * (PACKED_PIECE * PACKED_STEP / f.group);
        const uint32_t to = f.to + buffer * (2 * PACKED_SCALE_BYTES) + i * 16;
        if (piece >= f.pieces)
            break;
        if (f.group == 32)
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(to), "l"(from) : "memory");
        else
            asm volatile("cp.async.ca.shared.global [%0], [%1], 8;\n" ::"r"(to), "l"(from) : "memory");
    }
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];\n" ::"r"(shared_address(barrier)) : "memory");
}

static __device__ __forceinline__ __nv_bfloat162 packed_factor(uint32_t place)
{
    uint16_t v;
    asm volatile("ld.shared.u16 %0, [%1];\n" : "=h"(v) : "r"(place) : "memory");
    return __bfloat162bfloat162(__ushort_as_bfloat16(v));
}

/* Writes a half step of a row to shared memory. `place`: of its first 16 bytes; the swizzle is in bits 4 to 6. scale:
 * the place of the row's scale. */
static __device__ __forceinline__ void packed_write(uint32_t tile, uint32_t place, const uint4 &numbers, uint32_t scale,
                                                    uint32_t magic)
{
    const __nv_bfloat162 s = packed_factor(scale), b = packed_factor(scale + PACKED_SCALE_BYTES);
    const uint32_t of[4] = {numbers.x, numbers.y, numbers.z, numbers.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint4 v = packed_unpack(of[i], s, b, magic);
        asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};\n" ::"r"(tile + (place ^ (16 * i))), "r"(v.x), "r"(v.y),
                     "r"(v.z), "r"(v.w)
                     : "memory");
    }
}

/* Fills every other stage. */
static_assert(PACKED_FILLERS == 2 && PACKED_STAGES == 4, "a warp group has two stages");
template <int Tokens, bool Gated>
static __device__ void packed_fill(const packed_args &args, const CUtensorMap *map, const packed_room &at)
{
    const int group = threadIdx.x / PACKED_GROUP, thread = threadIdx.x % PACKED_GROUP;
    const int steps = args.in / PACKED_STEP, row = thread / 2, half = thread % 2;
    const int shift = args.group == 32 ? 0 : 1; /* from half steps to groups */
    const uint32_t place_of_row = row * PACKED_ROW_BYTES + ((4 * half) ^ (row % 8)) * 16;
    const uint32_t scales = shared_address(at.scales), scales_of_row = scales + row * PACKED_SCALE_ROW;
    uint32_t magic = 0x43004300;
    asm volatile("" : "+r"(magic)); /* so that it stays in a register: an instruction has one constant at most */
    ring ring = {group, 1};
    uint32_t buffer = 0, buffer_parity = 0;
    for (int tile = blockIdx.x; tile < zi_packed_tiles(args.rows, args.out, Tokens, Gated); tile += gridDim.x) {
        const packed_place place = packed_place_of<Tokens, Gated>(args, tile);
        const uint8_t *rows[2];
        const packed_factors factors = packed_factors_of<Gated>(args, place, group, thread, scales);
#pragma unroll
        for (int i = 0; i < 2; i++)
            rows[i] = args.w[Gated ? i : 0].numbers + half * (PACKED_STEP / 4) +
                      (int64_t)packed_row_of<Gated>(args, place, row + i * (PACKED_ROWS / 2)) * (args.in / 2);
        packed_reads reads[2] = {packed_read(rows, group), packed_read(rows, group + PACKED_FILLERS)};
        if (tile != (int)blockIdx.x) /* the other group may still read scales of the tile before */
            barrier_of_threads(1, PACKED_FILLERS * PACKED_GROUP);
        packed_copy_factors(factors, 0, buffer, &at.scales_full[buffer]);
        for (int piece = 0; piece < factors.pieces; piece++) {
            const int second = piece % 2; /* of its period */
            if (!second)
                barrier_wait(&at.scales_full[buffer], buffer_parity);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int step = piece * PACKED_PIECE + i * PACKED_FILLERS + group;
                uint8_t *w = at.stages + ring.stage * zi_packed_stage_bytes(Tokens), *x = w + 2 * PACKED_HALF_BYTES;
                uint64_t *full = &at.full[ring.stage];
                barrier_wait(&at.empty[ring.stage], ring.parity);
                if (thread == 0) {
                    barrier_expect(full, PACKED_MULTIPLIERS * Tokens * PACKED_ROW_BYTES);
#pragma unroll
                    for (int j = 0; j < PACKED_MULTIPLIERS; j++)
                        tile_load(x + j * (Tokens * PACKED_ROW_BYTES), map, step * PACKED_STEP,
                                  place.token + j * Tokens, full);
                }
                __syncwarp();
                /* The other buffer is free. This stage held step 0 or 1 of the period, and the multipliers have
                 * released it. They take steps in order, so both groups had filled all of the period before. */
                if (i == 0 && second && piece + 1 < factors.pieces)
                    packed_copy_factors(factors, piece / 2 + 1, buffer ^ 1, &at.scales_full[buffer ^ 1]);
                const uint32_t scale = scales_of_row + buffer * (2 * PACKED_SCALE_BYTES) + second * 16 +
                                       ((2 * (step % PACKED_PIECE) + half) >> shift) * 2;
#pragma unroll
                for (int j = 0; j < 2; j++)
                    packed_write(shared_address(w) + j * PACKED_HALF_BYTES, place_of_row, reads[i].of[j],
                                 scale + j * (PACKED_ROWS / 2 * PACKED_SCALE_ROW), magic);
                tile_store_fence();
                __syncwarp();
                if (thread % 32 == 0)
                    barrier_arrive(full);
                reads[i] = packed_read(rows, min(step + PACKED_PIECE, steps - 1));
                ring.stage ^= PACKED_FILLERS;
                ring.parity ^= ring.stage == group;
            }
            if (second || piece + 1 == factors.pieces) {
                buffer_parity ^= buffer;
                buffer ^= 1;
            }
        }
    }
}

/* The products of the next stage, those with half `lead` of the weights first; leaves the stage before. Each stage
 * begins with the half that the stage before ended with: products in a row with the same sums take less power. */
template <int Tokens>
static __device__ __forceinline__ void packed_next(const packed_room &at, int group, ring &ring, int &before, int lead,
                                                   int add, float (&of_lead)[Tokens / 2], float (&of_other)[Tokens / 2])
{
    const uint8_t *w = at.stages + ring.stage * zi_packed_stage_bytes(Tokens);
    const uint64_t b = tile_descriptor(w + 2 * PACKED_HALF_BYTES + group * (Tokens * PACKED_ROW_BYTES));
    const uint64_t a = tile_descriptor(w + lead * PACKED_HALF_BYTES);
    const uint64_t other = tile_descriptor(w + (1 - lead) * PACKED_HALF_BYTES);
    barrier_wait(&at.full[ring.stage], ring.parity);
    products_begin();
#pragma unroll
    for (int part = 0; part < PACKED_STEP / 16; part++)
        product_64(of_lead, a + 2 * part, b + 2 * part, add || part > 0);
#pragma unroll
    for (int part = 0; part < PACKED_STEP / 16; part++)
        product_64(of_other, other + 2 * part, b + 2 * part, add || part > 0);
    products_commit();
    products_wait<1>();
    if (before >= 0 && threadIdx.x % PACKED_GROUP == 0)
        barrier_arrive(&at.empty[before]);
    before = ring.stage;
    ring.stage = (ring.stage + 1) % PACKED_STAGES;
    ring.parity ^= ring.stage == 0;
}

/* Stores sums of 64 rows of weights and `Tokens` tokens, or gates those of two times 64. */
template <int Tokens, bool Gated>
static __device__ __forceinline__ void packed_store(const packed_args &args, int token, int column,
                                                    const float (&sums)[Tokens / 2], const float (&up)[Tokens / 2])
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    bf16 *to = args.y + column + 16 * warp + 4 * (lane % 4);
#pragma unroll
    for (int j = 0; j < Tokens / 8; j++) {
        uint32_t four[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float v[2] = {sums[4 * j + 2 * h], sums[4 * j + 2 * h + 1]};
            for (int i = 0; i < 2 && Gated; i++)
                v[i] = silu_of<bf16>(v[i]) * up[4 * j + 2 * h + i];
            four[h] = matrix_transposed(pack_bf16(v[0], v[1]));
        }
        const int at = token + 8 * j + lane / 4;
        if (at < args.rows)
            *(uint2 *)(to + at * args.ldy) = {four[0], four[1]};
    }
}

template <int Tokens, bool Gated> static __device__ void packed_multiply(const packed_args &args, const packed_room &at)
{
    const int group = __shfl_sync(~0u, threadIdx.x / PACKED_GROUP, 0) - PACKED_FILLERS;
    const int steps = args.in / PACKED_STEP;
    ring ring = {0, 0};
    for (int tile = blockIdx.x; tile < zi_packed_tiles(args.rows, args.out, Tokens, Gated); tile += gridDim.x) {
        const packed_place place = packed_place_of<Tokens, Gated>(args, tile);
        const int token = place.token + group * Tokens;
        float sums[2][Tokens / 2];
        int before = -1;
        for (int step = 0; step < steps; step += 2) {
            packed_next<Tokens>(at, group, ring, before, 0, step > 0, sums[0], sums[1]);
            packed_next<Tokens>(at, group, ring, before, 1, 1, sums[1], sums[0]);
        }
        products_wait<0>();
        products_end(sums[0]);
        products_end(sums[1]);
        if (threadIdx.x % PACKED_GROUP == 0)
            barrier_arrive(&at.empty[before]);
        packed_store<Tokens, Gated>(args, token, place.column, sums[0], sums[1]);
        if (!Gated)
            packed_store<Tokens, Gated>(args, token, place.column + PACKED_ROWS / 2, sums[1], sums[0]);
    }
}

/* A block's work, for sizes that zi_packed_fits allows. x: a map with boxes of `Tokens` rows of a step. */
template <int Tokens, bool Gated>
static __device__ __forceinline__ void packed_product(const packed_args &args, const CUtensorMap *x)
{
    extern __shared__ uint8_t shared[];
    packed_room at;
    at.stages = (uint8_t *)(((uintptr_t)shared + 1023) / 1024 * 1024);
    at.scales = at.stages + PACKED_STAGES * zi_packed_stage_bytes(Tokens);
    at.full = (uint64_t *)(at.scales + 2 * 2 * PACKED_SCALE_BYTES);
    at.empty = at.full + PACKED_STAGES;
    at.scales_full = at.empty + PACKED_STAGES;
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++)
            barrier_init(&at.scales_full[i], PACKED_FILLERS * PACKED_GROUP);
        for (int i = 0; i < PACKED_STAGES; i++) {
            barrier_init(&at.full[i], PACKED_GROUP / 32 + 1); /* warps, and the copy of x */
            barrier_init(&at.empty[i], PACKED_MULTIPLIERS);
        }
        barrier_init_done();
    }
    __syncthreads();
    if (threadIdx.x < PACKED_FILLERS * PACKED_GROUP) {
        fewer_registers<72>();
        packed_fill<Tokens, Gated>(args, x, at);
    } else {
        more_registers<184>();
        packed_multiply<Tokens, Gated>(args, at);
    }
}
#endif

#endif
