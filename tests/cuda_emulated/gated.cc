/* src/cuda/gated.cu on the emulated GPU, as plain sums: its instructions are not emulated. */
#include <math.h>

#include <vector>

#include "cuda/kernels.h"
#include "cuda_bf16.h"
#include "cuda_fp8.h"
#include "emulated.h"
#include "sums.h"

namespace
{

typedef zi_cuda_gated_args gated;

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

template <typename E> void compute(const gated &g)
{
    __nv_bfloat16 *y = (__nv_bfloat16 *)g.y;
    std::vector<std::vector<float>> x;
    for (int64_t row = 0; row < g.rows; row++)
        x.push_back(numbers<E>(g.x, row * g.ldx, g.in));
    for (int64_t i = 0; i < g.out; i++) {
        const std::vector<float> w1 = numbers<E>(g.w, i * g.in, g.in), w3 = numbers<E>(g.w, (g.out + i) * g.in, g.in);
        for (int64_t row = 0; row < g.rows; row++) {
            float gate = product(x[(size_t)row].data(), w1), up = product(x[(size_t)row].data(), w3);
            if (g.x_scales != NULL) {
                gate *= g.x_scales[row] * g.w_scales[i];
                up *= g.x_scales[row] * g.w_scales[g.out + i];
            }
            y[row * g.ldy + i] = __float2bfloat16_rn(gate / (1 + expf(-gate)) * up);
        }
    }
}

bool are_right(const gated &g)
{
    const size_t size = g.x_scales != NULL ? 1 : 2;
    const int64_t scales = (int64_t)sizeof(float);
    const int64_t last = g.rows - 1; /* a view ends with its last row's elements */
    return emulated::is_device(g.y, (size_t)(last * g.ldy + g.out) * 2) &&
           emulated::is_device(g.x, (size_t)(last * g.ldx + g.in) * size) &&
           emulated::is_device(g.w, (size_t)(2 * g.out * g.in) * size) &&
           ((uintptr_t)g.y | (uintptr_t)g.x | (uintptr_t)g.w) % 16 == 0 &&
           (g.x_scales == NULL ||
            (emulated::is_device(g.x_scales, (size_t)(g.rows * scales)) &&
             emulated::is_device(g.w_scales, (size_t)(2 * g.out * scales)) && (uintptr_t)g.w_scales % 8 == 0));
}

} // namespace

extern "C" int zi_cuda_gated_fits(const zi_cuda_gated_args *a)
{
    const int64_t size = a->x_scales != NULL ? 1 : 2;
    return a->rows > 0 && a->out % 256 == 0 && a->in * size % 128 == 0 && a->ldx * size % 16 == 0 && a->ldy % 8 == 0 &&
           ((uintptr_t)a->y | (uintptr_t)a->x | (uintptr_t)a->w) % 16 == 0;
}

extern "C" cudaError_t zi_cuda_gated(const zi_cuda_gated_args *a, cudaStream_t stream)
{
    std::lock_guard<std::recursive_mutex> held(emulated::lock());
    const gated g = *a;
    const int fp8 = g.x_scales != NULL;
    if (!zi_cuda_gated_fits(a) || (g.w_scales != NULL) != fp8 || !are_right(g))
        return cudaErrorInvalidValue;
    return emulated::enqueue(stream, [g, fp8] { fp8 ? compute<__nv_fp8_e4m3>(g) : compute<__nv_bfloat16>(g); });
}
