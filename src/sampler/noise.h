/* Standard normal noise, equal to the generators of other frameworks (spec rng.md). */
#ifndef ZI_SAMPLER_NOISE_H
#define ZI_SAMPLER_NOISE_H

#include "base/error.h"

/* torch.Generator("cpu"): mt19937 with the Box-Muller cache that survives between calls. */
typedef struct zi_torch_cpu_rng {
    uint32_t state[624];
    int next; /* 624 = refill first */
    int has_cached;
    double cached;
} zi_torch_cpu_rng;

void zi_torch_cpu_seed(zi_torch_cpu_rng *rng, uint64_t seed);
void zi_torch_cpu_randn(zi_torch_cpu_rng *rng, float *out, int64_t count);      /* float32 */
void zi_torch_cpu_randn_bf16(zi_torch_cpu_rng *rng, float *out, int64_t count); /* bf16 values, widened */

/* torch.Generator("cuda"), philox 4x32-10. threads: how many the card runs at once (SMs * threads a SM; T of the spec
 * is the smaller of this and what count needs), 0 = one element a thread (independent of the card). *offset: the
 * generator's, 0 after seeding; advanced. */
void zi_torch_cuda_randn(uint64_t seed, uint64_t *offset, int64_t threads, float *out, int64_t count);

/* mlx.core.random.normal and .uniform with an explicit key, float32. */
void zi_mlx_normal(const uint32_t key[2], float *out, int64_t count);
void zi_mlx_uniform(const uint32_t key[2], float *out, int64_t count);
void zi_mlx_key(uint64_t seed, uint32_t key[2]);
void zi_mlx_split(const uint32_t key[2], uint32_t next[2], uint32_t sub[2]);

/* numpy.random.seed(seed & 0xffffffff); randn(count), cast to float32. */
void zi_numpy_randn(uint64_t seed, float *out, int64_t count);

/* One fresh draw of `count` values from `seed` by the named generator. */
void zi_noise(zimage_rng rng, uint64_t seed, float *out, int64_t count);

#endif
