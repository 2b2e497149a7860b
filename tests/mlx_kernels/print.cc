/* Prints the kernels of the MLX backend, in CUDA's language, as functions that check.cc launches. */
#include <cstdio>

#include "mlx/kernel_sources.h"

namespace
{

/* What MLX writes before the body. */
struct head {
    const char *name, *arguments, *parameters;
};

const head heads[] = {
    {"zimage_norm", "typename T, int THREADS, int NEXT, bool HAS_GAIN, bool HAS_SHIFT",
     "const T *x, const int *x_shape, int x_ndim, const float *gain, const float *shift, const float *eps, T *h"},
    {"zimage_residual",
     "typename T, int THREADS, int NEXT, bool HAS_GAIN, bool HAS_SHIFT, bool HAS_POST, bool HAS_POST_GAIN",
     "const T *x, const int *x_shape, int x_ndim, const T *y, const float *post_gain, const float *gain, "
     "const float *shift, const float *eps, T *sum, T *h, float *finite"},
    {"zimage_rotate", "typename T, int THREADS, bool ADJACENT",
     "const T *x, const int *x_shape, const float *gain, const int *gain_shape, const float *cosines, "
     "const float *sines, const float *eps, T *rotated"},
    {"zimage_unpack", "typename T, typename S, int THREADS, int BITS, int GROUP",
     "const uint *w, const int *w_shape, const S *scales, const S *biases, T *unpacked"},
};

} // namespace

int main()
{
    std::printf("%s\n", zi_kernel_header(false).c_str());
    for (const head &h : heads)
        std::printf("template <%s> static __global__ void %s(%s)\n{%s}\n#undef SUM\n#undef VALUE\n#undef "
                    "FEATURES\n",
                    h.arguments, h.name, h.parameters, zi_kernel_body(zi_kernel_find(h.name), false).c_str());
    return 0;
}
