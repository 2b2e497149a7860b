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
    {"zimage_norm", "typename T, int N, int THREADS, int NEXT, int NEXT_EPS, bool HAS_GAIN, bool HAS_SHIFT",
     "const T *x, const float *gain, const float *shift, T *h"},
    {"zimage_residual",
     "typename T, int N, int THREADS, int NEXT, int NEXT_EPS, bool HAS_GAIN, bool HAS_SHIFT, bool HAS_POST, "
     "int POST_EPS, bool HAS_POST_GAIN",
     "const T *x, const T *y, const float *post_gain, const float *gain, const float *shift, T *sum, T *h, "
     "float *finite"},
    {"zimage_rotate", "typename T, int N, int THREADS, int HEADS, int NEXT_EPS, bool ADJACENT",
     "const T *x, const int *x_shape, const float *gain, const float *cosines, const float *sines, T *rotated"},
    {"zimage_unpack", "typename T, typename S, int THREADS, int BITS, int GROUP",
     "const uint *w, const int *w_shape, const S *scales, const S *biases, T *unpacked"},
};

} // namespace

int main()
{
    std::printf("%s\n", zi_kernel_header(false).c_str());
    for (const head &h : heads)
        std::printf("template <%s> static __global__ void %s(%s)\n{%s}\n#undef SUM\n#undef VALUE\n", h.arguments,
                    h.name, h.parameters, zi_kernel_body(zi_kernel_find(h.name), false).c_str());
    return 0;
}
