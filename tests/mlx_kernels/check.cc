/*
 * The MLX backend's own kernels (mlx/kernel_sources.h) on the emulated GPU, against their formulas in float64. The
 * emulated GPU runs the threads of a block in random order, so a missing barrier shows.
 */
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cuda/device_code.cuh"

/* What MLX's kernels have and the emulated headers do not. */
struct number {
    __nv_bfloat16 value;

    number() = default;
    explicit number(float x) : value(__float2bfloat16_rn(x))
    {
    }
    explicit operator float() const
    {
        return __bfloat162float(value);
    }
};

static uint16_t __bfloat16_as_ushort(number x)
{
    return x.value.bits;
}

static unsigned __float_as_uint(float value)
{
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

struct uint4 {
    unsigned x, y, z, w;
};

static uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}

#include "mlx_kernels.inc"

namespace
{

constexpr int THREADS = 256, ROWS = 5;
constexpr float EPS = 0.25F, POST_EPS = 2; /* large, so that results show which one was used */
constexpr double BOUND = 0x1p-8;           /* a result is rounded once: half of this, of its own value */

/* The emulated GPU refuses memory that is not its own. The host may read and write it all the same. */
template <typename T> struct gpu_allocator {
    using value_type = T;
    gpu_allocator() = default;
    template <typename U> explicit gpu_allocator(const gpu_allocator<U> &)
    {
    }
    T *allocate(size_t count)
    {
        void *data = nullptr;
        if (cudaMalloc(&data, count * sizeof(T)) != cudaSuccess)
            abort();
        return static_cast<T *>(data);
    }
    void deallocate(T *data, size_t)
    {
        (void)cudaFree(data);
    }
    bool operator==(const gpu_allocator &) const
    {
        return true;
    }
    bool operator!=(const gpu_allocator &) const
    {
        return false;
    }
};

template <typename T> using gpu_vector = std::vector<T, gpu_allocator<T>>;

int failures;
cudaStream_t stream;

struct numbers {
    gpu_vector<number> stored;
    gpu_vector<float> plain;
};

float random_float()
{
    static uint64_t state = 20261129;
    state = state * 6364136223846793005U + 1442695040888963407U;
    return static_cast<float>(static_cast<int32_t>(state >> 33) - (1 << 30)) / static_cast<float>(1 << 29);
}

gpu_vector<float> random_floats(size_t count)
{
    gpu_vector<float> values(count);
    for (float &value : values)
        value = random_float();
    return values;
}

numbers random_numbers(size_t count)
{
    numbers n;
    for (size_t i = 0; i < count; i++) {
        n.stored.emplace_back(random_float());
        n.plain.push_back(static_cast<float>(n.stored.back()));
    }
    return n;
}

void compare(const char *name, const gpu_vector<number> &found, const std::vector<double> &expected)
{
    double worst = 0, largest = 0;
    for (size_t i = 0; i < expected.size(); i++) {
        double apart = std::fabs(static_cast<double>(static_cast<float>(found[i])) - expected[i]);
        worst = apart <= worst ? worst : apart;
        largest = std::fmax(largest, std::fabs(expected[i]));
    }
    bool right = worst <= BOUND * largest;
    std::printf("%s: error %.2g of the largest%s\n", name, worst / largest, right ? "" : ": FAILED");
    failures += !right;
}

/* norm(row) * gain + shift */
std::vector<double> norm(const gpu_vector<float> &x, int n, bool layer, const float *gain, const float *shift,
                         double eps = EPS)
{
    std::vector<double> y;
    for (size_t row = 0; row < x.size(); row += static_cast<size_t>(n)) {
        double mean = 0, square = 0;
        for (int i = 0; i < n && layer; i++)
            mean += x[row + i] / static_cast<double>(n);
        for (int i = 0; i < n; i++)
            square += (x[row + i] - mean) * (x[row + i] - mean) / n;
        for (int i = 0; i < n; i++)
            y.push_back((x[row + i] - mean) / std::sqrt(square + eps) * (gain != nullptr ? gain[i] : 1) +
                        (shift != nullptr ? shift[i] : 0));
    }
    return y;
}

gpu_vector<float> plain(const gpu_vector<number> &stored)
{
    gpu_vector<float> values;
    for (const number &value : stored)
        values.push_back(static_cast<float>(value));
    return values;
}

/* x has three dimensions: the features are the last one. */
template <int NEXT, bool GAIN, bool SHIFT> void check_norm(int n)
{
    char name[64];
    const gpu_vector<int> shape = {1, ROWS, n};
    const gpu_vector<float> eps = {EPS, POST_EPS};
    numbers x = random_numbers(static_cast<size_t>(ROWS * n));
    gpu_vector<float> gain = random_floats(static_cast<size_t>(n)), shift = random_floats(gain.size());
    gpu_vector<number> h(x.stored.size());
    ZI_LAUNCH((zimage_norm<number, THREADS, NEXT, GAIN, SHIFT>), dim3(ROWS), dim3(THREADS), 0, stream, x.stored.data(),
              shape.data(), 3, gain.data(), shift.data(), eps.data(), h.data());
    (void)cudaStreamSynchronize(stream);
    snprintf(name, sizeof name, "norm of %d, kind %d", n, NEXT);
    compare(name, h, norm(x.plain, n, NEXT == 2, GAIN ? gain.data() : nullptr, SHIFT ? shift.data() : nullptr));
}

template <int NEXT, bool POST, bool GAIN> void check_residual(int n, int spoiled)
{
    char name[64];
    const auto width = static_cast<size_t>(n);
    const gpu_vector<int> shape = {ROWS, n};
    const gpu_vector<float> eps = {EPS, POST_EPS};
    numbers x = random_numbers(ROWS * width), y = random_numbers(x.stored.size());
    gpu_vector<float> gain = random_floats(width), next_gain = random_floats(width), shift = random_floats(width);
    gpu_vector<float> finite(ROWS);
    gpu_vector<number> sum(x.stored.size()), h(x.stored.size());
    if (spoiled >= 0)
        x.stored[static_cast<size_t>(spoiled) * width + width - 1] = number(INFINITY);
    ZI_LAUNCH((zimage_residual<number, THREADS, NEXT, true, true, POST, GAIN>), dim3(ROWS), dim3(THREADS), 0, stream,
              x.stored.data(), shape.data(), 2, y.stored.data(), gain.data(), next_gain.data(), shift.data(),
              eps.data(), sum.data(), h.data(), finite.data());
    (void)cudaStreamSynchronize(stream);
    for (int row = 0; row < ROWS; row++)
        failures += (finite[static_cast<size_t>(row)] != 0) != (row != spoiled);
    if (spoiled >= 0)
        return;
    std::vector<double> branch(y.plain.begin(), y.plain.end());
    if (POST)
        branch = norm(y.plain, n, false, nullptr, nullptr, POST_EPS);
    for (size_t i = 0; i < branch.size(); i++)
        branch[i] = x.plain[i] + branch[i] * (GAIN ? gain[i % width] : 1);
    snprintf(name, sizeof name, "sum of %d", n);
    compare(name, sum, branch);
    snprintf(name, sizeof name, "norm of the sum, kind %d", NEXT);
    compare(name, h, norm(plain(sum), n, NEXT == 2, next_gain.data(), shift.data()));
}

template <bool ADJACENT> void check_rotate(int dim, int heads)
{
    char name[64];
    const int tokens = 7, per_block = THREADS / 32;
    const auto width = static_cast<size_t>(dim), half = width / 2;
    const gpu_vector<int> shape = {tokens, heads * dim}, gain_shape = {dim};
    const gpu_vector<float> eps = {EPS, POST_EPS};
    numbers x = random_numbers(static_cast<size_t>(tokens * heads) * width);
    gpu_vector<float> gain = random_floats(width), cosines = random_floats(tokens * half);
    gpu_vector<float> sines = random_floats(cosines.size());
    gpu_vector<number> rotated(x.stored.size());
    ZI_LAUNCH((zimage_rotate<number, THREADS, ADJACENT>), dim3((tokens * heads + per_block - 1) / per_block),
              dim3(THREADS), 0, stream, x.stored.data(), shape.data(), gain.data(), gain_shape.data(), cosines.data(),
              sines.data(), eps.data(), rotated.data());
    (void)cudaStreamSynchronize(stream);
    std::vector<double> normed = norm(x.plain, dim, false, gain.data(), nullptr), expected(normed.size());
    for (size_t head = 0; head < static_cast<size_t>(tokens * heads); head++)
        for (size_t j = 0; j < half; j++) {
            size_t a = head * width + (ADJACENT ? 2 * j : j), b = ADJACENT ? a + 1 : a + half;
            size_t angle = head / static_cast<size_t>(heads) * half + j;
            double c = cosines[angle], s = sines[angle];
            expected[a] = normed[a] * c - normed[b] * s;
            expected[b] = normed[b] * c + normed[a] * s;
        }
    snprintf(name, sizeof name, "rotation of %d heads of %d", heads, dim);
    compare(name, rotated, expected);
}

template <int BITS, int GROUP> void check_unpack()
{
    char name[64];
    const int rows = 3, columns = 3 * GROUP, words = rows * columns * BITS / 32;
    const gpu_vector<int> shape = {rows, words / rows};
    gpu_vector<unsigned> w(static_cast<size_t>(words));
    for (unsigned &word : w)
        word = __float_as_uint(random_float()) * 2654435761U;
    numbers scales = random_numbers(static_cast<size_t>(rows) * 3), biases = random_numbers(scales.stored.size());
    gpu_vector<number> unpacked(static_cast<size_t>(rows) * columns);
    ZI_LAUNCH((zimage_unpack<number, number, THREADS, BITS, GROUP>), dim3((words + THREADS - 1) / THREADS),
              dim3(THREADS), 0, stream, w.data(), shape.data(), scales.stored.data(), biases.stored.data(),
              unpacked.data());
    (void)cudaStreamSynchronize(stream);
    std::vector<double> expected;
    for (size_t i = 0; i < unpacked.size(); i++) {
        unsigned q = w[i * BITS / 32] >> (i * BITS % 32) & ((1U << BITS) - 1);
        expected.push_back(static_cast<double>(scales.plain[i / GROUP]) * q + biases.plain[i / GROUP]);
    }
    snprintf(name, sizeof name, "unpacking %d bits in groups of %d", BITS, GROUP);
    compare(name, unpacked, expected);
}

} // namespace

int main()
{
    if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess)
        return 1;
    check_norm<1, true, false>(328);
    check_norm<2, true, true>(100);
    check_norm<1, false, false>(256);
    check_residual<1, true, true>(328, -1);
    check_residual<2, false, true>(96, -1);
    check_residual<2, true, false>(512, -1);
    check_residual<1, true, true>(328, 3);
    check_residual<0, false, false>(96, 0);
    check_rotate<true>(64, 3);
    check_rotate<false>(128, 2);
    check_rotate<true>(34, 5);
    check_unpack<4, 32>();
    check_unpack<4, 64>();
    check_unpack<8, 32>();
    check_unpack<2, 128>();
    if (failures != 0)
        std::printf("%d failures\n", failures);
    return failures != 0;
}
