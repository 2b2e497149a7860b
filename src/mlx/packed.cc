#include "mlx/packed.h"

#include "cuda/packed.h"

#ifdef ZI_HAS_PACKED_KERNELS
#include <cuda.h>
#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

namespace
{

const zi_packed_code &code_of(int tokens, bool gated)
{
    for (int i = 0; i < zi_packed_code_count; i++)
        if (zi_packed_codes[i].tokens == tokens && zi_packed_codes[i].gated == static_cast<int>(gated))
            return zi_packed_codes[i];
    throw std::logic_error("packed_kernels.cmake lacks " + std::to_string(tokens) + " tokens");
}

/* A function of the driver, which MLX has loaded; NULL: it has none of that name. */
template <typename F> F *driver_function(const char *name)
{
    static void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    return driver != nullptr ? reinterpret_cast<F *>(dlsym(driver, name)) : nullptr;
}

decltype(&cuTensorMapEncodeTiled) tile_encoder()
{
    static auto *found = driver_function<decltype(cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled");
    return found;
}

/* Of the default device; 0: not known. */
int device_number(CUdevice_attribute which)
{
    auto *get = driver_function<decltype(cuDeviceGetAttribute)>("cuDeviceGetAttribute");
    int value = 0;
    bool known = get != nullptr && get(&value, which, mx::default_device().index) == CUDA_SUCCESS;
    return known ? value : 0;
}

/* A map for boxes of so many tokens. The GPU replaces the matrix that it describes, which does not exist. */
mx::array make_pattern(int tokens)
{
    alignas(64) CUtensorMap map;
    const cuuint64_t sizes[] = {PACKED_STEP, 1}, stride = PACKED_ROW_BYTES;
    const cuuint32_t box[] = {PACKED_STEP, static_cast<cuuint32_t>(tokens)}, each[] = {1, 1};
    void *anywhere = reinterpret_cast<void *>(uintptr_t{1} << 20);
    CUresult code = tile_encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, anywhere, sizes, &stride, box, each,
                                   CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (code != CUDA_SUCCESS)
        throw std::runtime_error("the driver refuses a map of tiles: error " + std::to_string(code));
    return mx::array(reinterpret_cast<const uint8_t *>(&map), mx::Shape{sizeof map}, mx::uint8);
}

mx::array pattern_of(int tokens)
{
    static std::mutex lock;
    static auto &patterns = *new std::map<int, mx::array>; /* they live as long as the kernels */
    const std::lock_guard<std::mutex> guard(lock);
    auto found = patterns.find(tokens);
    if (found == patterns.end())
        found = patterns.emplace(tokens, make_pattern(tokens)).first;
    return found->second;
}

int processors()
{
    static const int count = device_number(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    return std::max(count, 1);
}

bool device_fits()
{
    static const bool fits = device_number(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) == 9 &&
                             device_number(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR) == 0 &&
                             tile_encoder() != nullptr;
    return fits;
}

} // namespace

bool zi_packed_is_best(int64_t rows, int64_t out, int64_t in, const zi_packed_kind &kind, bool gated)
{
    return kind.scales == ZI_BF16 && zi_packed_fits(rows, out, in, kind.bits, kind.group, gated) != 0 &&
           device_fits() &&
           zi_packed_pays(static_cast<int>(rows), static_cast<int>(out), static_cast<int>(in), gated, processors()) !=
               0;
}

mx::array zi_packed_product(const mx::array &x, const zi_packed_matrix &w, const zi_packed_matrix *w3, int group)
{
    const zi_packed_matrix &other = w3 != nullptr ? *w3 : w;
    const bool gated = w3 != nullptr;
    const int rows = x.shape(0), in = x.shape(1), out = w.numbers.shape(0);
    const int tokens = zi_packed_tokens(rows, out, gated, processors());
    const int blocks = std::min(zi_packed_tiles(rows, out, tokens, gated), processors());
    const zi_packed_code &code = code_of(tokens, gated);
    return mx::fast::precompiled_cuda_kernel(
        code.name, std::string(reinterpret_cast<const char *>(code.code), code.bytes),
        {mx::astype(x, mx::bfloat16), w.numbers, w.scales, w.biases, other.numbers, other.scales, other.biases,
         pattern_of(tokens)},
        {{rows, out}, {blocks * static_cast<int>(sizeof(CUtensorMap))}}, {mx::bfloat16, mx::uint8},
        {rows, out, in, group}, {blocks * PACKED_THREADS, 1, 1}, {PACKED_THREADS, 1, 1}, zi_packed_shared_bytes(tokens),
        std::nullopt, true)[0];
}

#else

bool zi_packed_is_best(int64_t rows, int64_t out, int64_t in, const zi_packed_kind &kind, bool gated)
{
    return false;
}

mx::array zi_packed_product(const mx::array &x, const zi_packed_matrix &w, const zi_packed_matrix *w3, int group)
{
    return x; /* nobody calls it: zi_packed_is_best */
}

#endif
