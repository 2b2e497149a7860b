#include "names.h"

#include <stddef.h>

#include "zimage.h"

#define WORD(words, value) ((unsigned)(value) < sizeof(words) / sizeof *(words) ? (words)[value] : NULL)

const char *cli_rng_name(int value)
{
    static const char *const words[] = {
        [ZIMAGE_RNG_TORCH_CPU] = "torch-cpu",
        [ZIMAGE_RNG_TORCH_CUDA] = "torch-cuda",
        [ZIMAGE_RNG_MLX] = "mlx",
        [ZIMAGE_RNG_NUMPY] = "numpy",
    };
    return WORD(words, value);
}

const char *cli_compute_name(int value)
{
    static const char *const words[] = {
        [ZIMAGE_COMPUTE_AUTO] = "auto", [ZIMAGE_COMPUTE_F32] = "f32", [ZIMAGE_COMPUTE_BF16] = "bf16",
        [ZIMAGE_COMPUTE_INT8] = "int8", [ZIMAGE_COMPUTE_FP8] = "fp8",
    };
    return WORD(words, value);
}

const char *cli_dequantize_name(int value)
{
    static const char *const words[] = {
        [ZIMAGE_DEQUANTIZE_NONE] = "none",
        [ZIMAGE_DEQUANTIZE_BF16] = "bf16",
        [ZIMAGE_DEQUANTIZE_F32] = "f32",
    };
    return WORD(words, value);
}

const char *cli_template_name(int value)
{
    static const char *const words[] = {
        [ZIMAGE_TEMPLATE_NONE] = "none",
        [ZIMAGE_TEMPLATE_Z_IMAGE] = "z-image",
        [ZIMAGE_TEMPLATE_KLEIN] = "klein",
    };
    return WORD(words, value);
}

const char *cli_shell_name(int value)
{
    static const char *const words[] = {"bash", "zsh", "fish"};
    return WORD(words, value);
}
