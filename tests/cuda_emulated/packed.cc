/* src/cuda/packed.cu on the emulated GPU, as plain sums: its instructions are not emulated. */
#include "cuda/packed.h"

#include <math.h>

#include <vector>

#include "cuda/kernels.h"
#include "cuda_bf16.h"
#include "emulated.h"
#include "sums.h"

namespace
{

typedef zi_cuda_packed_args packed;

float bf16_at(const void *data, int64_t i)
{
    return __bfloat162float(((const __nv_bfloat16 *)data)[i]);
}

/* A row of w, of w1 or of w3, in bf16. */
std::vector<float> unpacked(const packed &p, int which, int64_t row)
{
    std::vector<float> all((size_t)p.in);
    for (int64_t i = 0; i < p.in; i++) {
        const int64_t at = row * p.in + i, group = at / p.group;
        const int q = ((const uint8_t *)p.w[which].numbers)[at / 2] >> (at % 2 * 4) & 15;
        const float value = fmaf((float)q, bf16_at(p.w[which].scales, group), bf16_at(p.w[which].biases, group));
        all[(size_t)i] = __bfloat162float(__float2bfloat16_rn(value));
    }
    return all;
}

void compute(const packed &p)
{
    __nv_bfloat16 *y = (__nv_bfloat16 *)p.y;
    std::vector<std::vector<float>> x((size_t)p.rows);
    for (int64_t row = 0; row < p.rows; row++)
        for (int64_t i = 0; i < p.in; i++)
            x[(size_t)row].push_back(bf16_at(p.x, row * p.ldx + i));
    for (int64_t i = 0; i < p.out; i++) {
        const std::vector<float> w = unpacked(p, 0, i), w3 = p.gated ? unpacked(p, 1, i) : w;
        for (int64_t row = 0; row < p.rows; row++) {
            const float *of = x[(size_t)row].data(), sum = product(of, w);
            y[row * p.ldy + i] = __float2bfloat16_rn(p.gated ? sum / (1 + expf(-sum)) * product(of, w3) : sum);
        }
    }
}

bool are_right(const packed &p)
{
    const int64_t last = p.rows - 1; /* a view ends with its last row's elements */
    bool right = emulated::is_device(p.y, (size_t)(last * p.ldy + p.out) * 2) &&
                 emulated::is_device(p.x, (size_t)(last * p.ldx + p.in) * 2);
    for (int i = 0; i <= p.gated; i++)
        right = right && ((uintptr_t)p.w[i].numbers | (uintptr_t)p.w[i].scales | (uintptr_t)p.w[i].biases) % 16 == 0 &&
                emulated::is_device(p.w[i].numbers, (size_t)(p.out * p.in / 2)) &&
                emulated::is_device(p.w[i].scales, (size_t)(p.out * p.in / p.group * 2)) &&
                emulated::is_device(p.w[i].biases, (size_t)(p.out * p.in / p.group * 2));
    return right;
}

} // namespace

extern "C" int zi_cuda_packed_fits(const zi_cuda_packed_args *a)
{
    return ((uintptr_t)a->y | (uintptr_t)a->x) % 16 == 0 && a->ldx % 8 == 0 && a->ldy % 8 == 0 &&
           zi_packed_fits(a->rows, a->out, a->in, 4, a->group, a->gated);
}

extern "C" cudaError_t zi_cuda_packed(const zi_cuda_packed_args *a, cudaStream_t stream)
{
    std::lock_guard<std::recursive_mutex> held(emulated::lock());
    const packed p = *a;
    if (!zi_cuda_packed_fits(a) || !are_right(p))
        return cudaErrorInvalidValue;
    return emulated::enqueue(stream, [p] { compute(p); });
}
