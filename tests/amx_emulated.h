/*
 * Emulates in C what src/cpu/packed_amx.c needs: the tile instructions, and the unpacking that it does with AVX-512. So
 * its tiling is tested on CPUs without AMX. Semantics: Intel, Software Developer's Manual, volume 2: TDPBF16PS,
 * TDPBSSD, TILELOADD, TILESTORED, TILEZERO.
 */
#ifndef ZI_TEST_AMX_EMULATED_H
#define ZI_TEST_AMX_EMULATED_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ops/tensor.h"

static _Thread_local uint8_t emulated_tiles[8][16][64];
static _Thread_local int emulated_configured;

/* Not inlined: packed_amx.c is unrolled, and names these some hundred times. */
#define APART static __attribute__((noinline))
/* Sanitizers need not watch what touches nothing but tiles and its own arrays. */
#define UNWATCHED __attribute__((no_sanitize("address"), no_sanitize("undefined")))

APART void _tile_loadconfig(const void *config)
{
    const uint8_t *bytes = config;
    for (int i = 0; i < 8; i++)
        if (bytes[0] != 1 || bytes[16 + 2 * i] != 64 || bytes[48 + i] != 16)
            abort();
    memset(emulated_tiles, 0, sizeof(emulated_tiles));
    emulated_configured = 1;
}

APART void _tile_release(void)
{
    emulated_configured = 0;
}

APART void _tile_zero(int tile)
{
    memset(emulated_tiles[tile], 0, sizeof(emulated_tiles[tile]));
}

APART void _tile_loadd(int tile, const void *base, int64_t stride)
{
    if (!emulated_configured)
        abort();
    for (int r = 0; r < 16; r++)
        memcpy(emulated_tiles[tile][r], (const uint8_t *)base + r * stride, 64);
}

APART void _tile_stored(int tile, void *base, int64_t stride)
{
    for (int r = 0; r < 16; r++)
        memcpy((uint8_t *)base + r * stride, emulated_tiles[tile][r], 64);
}

static inline uint16_t emulated_word(const uint8_t *bytes)
{
    uint16_t bits;
    memcpy(&bits, bytes, sizeof(bits));
    return bits;
}

/* Sums in the order of the instruction, for 16 outputs at once. */
APART UNWATCHED void _tile_dpbf16ps(int c, int a, int b)
{
    float weights[16][2][16], inputs[16][32], sums[16][16];
    uint16_t words[16][32];
    memcpy(words, emulated_tiles[b], sizeof(words));
    for (int k = 0; k < 16; k++)
        for (int n = 0; n < 32; n++)
            weights[k][n % 2][n / 2] = zi_bf16_to_f32(words[k][n]);
    memcpy(words, emulated_tiles[a], sizeof(words));
    for (int m = 0; m < 16; m++)
        for (int k = 0; k < 32; k++)
            inputs[m][k] = zi_bf16_to_f32(words[m][k]);
    memcpy(sums, emulated_tiles[c], sizeof(sums));
    for (int m = 0; m < 16; m++)
        for (int k = 0; k < 32; k++)
            for (int n = 0; n < 16; n++)
                sums[m][n] += inputs[m][k] * weights[k / 2][k % 2][n];
    memcpy(emulated_tiles[c], sums, sizeof(sums));
}

APART UNWATCHED void _tile_dpbssd(int c, int a, int b)
{
    int32_t sums[16][16];
    memcpy(sums, emulated_tiles[c], sizeof(sums));
    for (int m = 0; m < 16; m++)
        for (int k = 0; k < 16; k++)
            for (int i = 0; i < 4; i++)
                for (int n = 0; n < 16; n++)
                    sums[m][n] += (int8_t)emulated_tiles[a][m][4 * k + i] * (int8_t)emulated_tiles[b][k][4 * n + i];
    memcpy(emulated_tiles[c], sums, sizeof(sums));
}

/* As the function of packed_amx.c in AVX-512: 128 inputs of a row go to four chunks of 16 rows. */
APART void unpack_unit(int group, const uint8_t *nibbles, const uint8_t *scales, const uint8_t *biases, uint8_t *target)
{
    for (int64_t input = 0; input < 128; input++) {
        int64_t h = input / 64, i = input % 64 / 4, v = input % 4 / 2, w = input % 2;
        float scale = zi_bf16_to_f32(emulated_word(scales + input / group * 2));
        float bias = zi_bf16_to_f32(emulated_word(biases + input / group * 2));
        uint16_t bits = zi_f32_to_bf16((float)(nibbles[input / 2] >> w * 4 & 15) * scale + bias);
        memcpy(target + (2 * h + v) * 16 * 64 + (16 * w + i) * 2, &bits, sizeof(bits));
    }
}

#define FETCH(place)    ((void)(place))
#define FETCH_L2(place) ((void)(place))

#endif
