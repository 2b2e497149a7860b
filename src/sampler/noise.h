/* Standard normal noise with the same numbers as the generators of torch, MLX and NumPy (docs/spec/rng.md). */
#ifndef ZI_SAMPLER_NOISE_H
#define ZI_SAMPLER_NOISE_H

#include "base/error.h"

/* torch.Generator("cpu"): mt19937, and the second number of a Box-Muller pair, which a later call may return. */
typedef struct zi_torch_cpu_rng {
    uint32_t state[624];
    int next; /* index into state; 624: state must be refilled first */
    int has_cached;
    double cached;
} zi_torch_cpu_rng;

void zi_torch_cpu_seed(zi_torch_cpu_rng *rng, uint64_t seed);
void zi_torch_cpu_randn(zi_torch_cpu_rng *rng, float *out, int64_t count);      /* float32 */
void zi_torch_cpu_randn_bf16(zi_torch_cpu_rng *rng, float *out, int64_t count); /* bf16 values, widened */

/*
 * torch.Generator("cuda"): philox 4x32-10. threads: how many threads torch's GPU runs at once (multiprocessors *
 * threads of one), on which the numbers depend; 0: as if there were a thread for every element. *offset: the
 * generator's offset, 0 after seeding; it is advanced.
 */
void zi_torch_cuda_randn(uint64_t seed, uint64_t *offset, int64_t threads, float *out, int64_t count);

/* mlx.core.random: normal and uniform (float32) with an explicit key, key, split. */
void zi_mlx_normal(const uint32_t key[2], float *out, int64_t count);
void zi_mlx_uniform(const uint32_t key[2], float *out, int64_t count);
void zi_mlx_key(uint64_t seed, uint32_t key[2]);
void zi_mlx_split(const uint32_t key[2], uint32_t next[2], uint32_t sub[2]);

/* numpy.random.seed(seed & 0xffffffff) is zi_torch_cpu_seed; then randn(count), converted to float32. Of an odd count
 * the second number of the last pair is the first of the next call. */
void zi_numpy_randn(zi_torch_cpu_rng *rng, float *out, int64_t count);

/* What numbers are for. Only MLX, which has keys instead of a state, asks. */
typedef enum zi_noise_use {
    ZI_NOISE_LATENTS,   /* the initial noise */
    ZI_NOISE_POSTERIOR, /* a sample of what the VAE's encoder computes for an image */
} zi_noise_use;

/* A generator of one of these kinds: calls of zi_noise_next continue each other. */
typedef struct zi_noise {
    zimage_rng kind;
    uint64_t seed, offset; /* offset: torch-cuda's */
    zi_torch_cpu_rng rng;  /* torch-cpu's and numpy's */
} zi_noise;

void zi_noise_seed(zi_noise *noise, zimage_rng kind, uint64_t seed);
/*
 * out [count] <- the generator's next numbers. in_bf16: as drawn with dtype bfloat16; with torch-cpu these are other
 * numbers, with the other kinds the rounded ones. mlx: the initial noise is normal(key = key(seed)) whatever else is
 * drawn, as in mflux; the posterior's is normal(key = the sub-key of split(key(seed))).
 */
void zi_noise_next(zi_noise *noise, zi_noise_use use, int in_bf16, float *out, int64_t count);

#endif
