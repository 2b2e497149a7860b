/* src/cuda/gated.cu on the emulated card, as plain sums: its instructions are not emulated. */
#include <math.h>

#include <vector>

#include "cuda/kernels.h"
#include "cuda_bf16.h"
#include "cuda_fp8.h"
#include "emulated.h"

namespace
{

struct gated {
    __nv_bfloat16 *y;
    const void *x, *w;
    const float *x_scales, *w_scales;
    int64_t rows, out, in;
};

float number(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

float number(__nv_fp8_e4m3 x)
{
    return (float)x;
}

template <typename E> std::vector<float> numbers(const void *data, int64_t first, int64_t count)
{
    std::vector<float> all((size_t)count);
    for (int64_t i = 0; i < count; i++)
        all[(size_t)i] = number(((const E *)data)[first + i]);
    return all;
}

float product(const float *x, const std::vector<float> &w)
{
    float sums[8] = {0}; /* rows are multiples of 64 */
    for (size_t i = 0; i < w.size(); i += 8)
        for (size_t j = 0; j < 8; j++)
            sums[j] += x[i + j] * w[i + j];
    return (sums[0] + sums[1] + sums[2] + sums[3]) + (sums[4] + sums[5] + sums[6] + sums[7]);
}

template <typename E> void compute(const gated &g)
{
    const std::vector<float> x = numbers<E>(g.x, 0, g.rows * g.in);
    for (int64_t i = 0; i < g.out; i++) {
        const std::vector<float> w1 = numbers<E>(g.w, i * g.in, g.in), w3 = numbers<E>(g.w, (g.out + i) * g.in, g.in);
        for (int64_t row = 0; row < g.rows; row++) {
            float gate = product(&x[(size_t)(row * g.in)], w1), up = product(&x[(size_t)(row * g.in)], w3);
            if (g.x_scales != NULL) {
                gate *= g.x_scales[row] * g.w_scales[i];
                up *= g.x_scales[row] * g.w_scales[g.out + i];
            }
            g.y[row * g.out + i] = __float2bfloat16_rn(gate / (1 + expf(-gate)) * up);
        }
    }
}

bool are_right(const gated &g)
{
    const size_t size = g.x_scales != NULL ? 1 : 2;
    const int64_t scales = (int64_t)sizeof(float);
    return emulated::is_device(g.y, (size_t)(g.rows * g.out) * 2) &&
           emulated::is_device(g.x, (size_t)(g.rows * g.in) * size) &&
           emulated::is_device(g.w, (size_t)(2 * g.out * g.in) * size) &&
           ((uintptr_t)g.y | (uintptr_t)g.x | (uintptr_t)g.w) % 16 == 0 &&
           (g.x_scales == NULL ||
            (emulated::is_device(g.x_scales, (size_t)(g.rows * scales)) &&
             emulated::is_device(g.w_scales, (size_t)(2 * g.out * scales)) && (uintptr_t)g.w_scales % 8 == 0));
}

} // namespace

extern "C" int zi_cuda_gated_fits(int64_t rows, int64_t out, int64_t in, int fp8)
{
    return rows > 0 && out % 256 == 0 && in * (fp8 ? 1 : 2) % 128 == 0;
}

extern "C" cudaError_t zi_cuda_gated(void *y, const void *x, const float *x_scales, const void *w,
                                     const float *w_scales, int64_t rows, int64_t out, int64_t in, cudaStream_t stream)
{
    std::lock_guard<std::recursive_mutex> held(emulated::lock());
    const gated g = {(__nv_bfloat16 *)y, x, w, x_scales, w_scales, rows, out, in};
    const int fp8 = x_scales != NULL;
    if (!zi_cuda_gated_fits(rows, out, in, fp8) || (w_scales != NULL) != fp8 || !are_right(g))
        return cudaErrorInvalidValue;
    return emulated::enqueue(stream, [g, fp8] { fp8 ? compute<__nv_fp8_e4m3>(g) : compute<__nv_bfloat16>(g); });
}
