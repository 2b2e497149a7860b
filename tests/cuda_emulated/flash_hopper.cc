/* src/cuda/flash_hopper.cu on the emulated GPU, as plain sums: its instructions are not emulated. */
#include <math.h>

#include <vector>

#include "cuda/kernels.h"
#include "cuda_bf16.h"
#include "emulated.h"

namespace
{

typedef zi_cuda_attention attention;

std::vector<float> numbers(const void *data, int64_t first, int64_t count)
{
    std::vector<float> all((size_t)count);
    for (int64_t i = 0; i < count; i++)
        all[(size_t)i] = __bfloat162float(((const __nv_bfloat16 *)data)[first + i]);
    return all;
}

/* One query of a head; its weights are rounded as the kernel rounds them. */
std::vector<float> attend(const attention &a, const std::vector<float> &q, int64_t kv_column)
{
    std::vector<float> weights((size_t)a.keys), o((size_t)a.head_dim);
    float top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < a.keys; i++) {
        const std::vector<float> k = numbers(a.k, i * a.ldk + kv_column, a.head_dim);
        float logit = 0;
        for (size_t j = 0; j < k.size(); j++)
            logit += q[j] * k[j];
        weights[(size_t)i] = logit / sqrtf((float)a.head_dim);
        top = fmaxf(top, weights[(size_t)i]);
    }
    for (int64_t i = 0; i < a.keys; i++) {
        const std::vector<float> v = numbers(a.v, i * a.ldv + kv_column, a.head_dim);
        const float weight = expf(weights[(size_t)i] - top);
        sum += weight;
        for (size_t j = 0; j < v.size(); j++)
            o[j] += __bfloat162float(__float2bfloat16_rn(weight)) * v[j];
    }
    for (float &x : o)
        x /= sum;
    return o;
}

void compute(const attention &a)
{
    for (int64_t head = 0; head < a.heads; head++)
        for (int64_t i = 0; i < a.queries; i++) {
            const int64_t column = head * a.head_dim, kv_column = head / (a.heads / a.kv_heads) * a.head_dim;
            const std::vector<float> o = attend(a, numbers(a.q, i * a.ldq + column, a.head_dim), kv_column);
            for (int64_t j = 0; j < a.head_dim; j++)
                ((__nv_bfloat16 *)a.o)[i * a.ldo + column + j] = __float2bfloat16_rn(o[(size_t)j]);
        }
}

/* A view ends with its last token's heads. */
bool is_device(const void *data, int64_t tokens, int64_t ld, int64_t width)
{
    return emulated::is_device(data, (size_t)((tokens - 1) * ld + width) * sizeof(__nv_bfloat16));
}

} // namespace

extern "C" int zi_cuda_flash_hopper_fits(const zi_cuda_attention *a)
{
    const uintptr_t pointers = (uintptr_t)a->o | (uintptr_t)a->q | (uintptr_t)a->k | (uintptr_t)a->v;
    return a->head_dim == 128 && !a->causal && pointers % 16 == 0 && (a->ldo | a->ldq | a->ldk | a->ldv) % 8 == 0;
}

extern "C" cudaError_t zi_cuda_flash_hopper(const zi_cuda_attention *args, void *scratch, size_t bytes,
                                            cudaStream_t stream)
{
    std::lock_guard<std::recursive_mutex> held(emulated::lock());
    const attention a = *args;
    if (!zi_cuda_flash_hopper_fits(&a) || !emulated::is_device(scratch, bytes) || a.heads % a.kv_heads != 0 ||
        !is_device(a.o, a.queries, a.ldo, a.heads * a.head_dim) ||
        !is_device(a.q, a.queries, a.ldq, a.heads * a.head_dim) ||
        !is_device(a.k, a.keys, a.ldk, a.kv_heads * a.head_dim) ||
        !is_device(a.v, a.keys, a.ldv, a.kv_heads * a.head_dim))
        return cudaErrorInvalidValue;
    return emulated::enqueue(stream, [a] { compute(a); });
}
