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

static float __int_as_float(int bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
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
constexpr float EPS = 1e-5F;
constexpr int EPS_BITS = 0x3727c5ac; /* of 1e-5 */
constexpr double BOUND = 0x1p-8;     /* a result is rounded once: half of this, of its own value */

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
std::vector<double> norm(const gpu_vector<float> &x, int n, bool layer, const float *gain, const float *shift)
{
    std::vector<double> y;
    for (size_t row = 0; row < x.size(); row += static_cast<size_t>(n)) {
        double mean = 0, square = 0;
        for (int i = 0; i < n && layer; i++)
            mean += x[row + i] / static_cast<double>(n);
        for (int i = 0; i < n; i++)
            square += (x[row + i] - mean) * (x[row + i] - mean) / n;
        for (int i = 0; i < n; i++)
            y.push_back((x[row + i] - mean) / std::sqrt(square + EPS) * (gain != nullptr ? gain[i] : 1) +
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

template <int N, int NEXT, bool GAIN, bool SHIFT> void check_norm()
{
    char name[64];
    numbers x = random_numbers(static_cast<size_t>(ROWS) * N);
    gpu_vector<float> gain = random_floats(N), shift = random_floats(N);
    gpu_vector<number> h(x.stored.size());
    ZI_LAUNCH((zimage_norm<number, N, THREADS, NEXT, EPS_BITS, GAIN, SHIFT>), dim3(ROWS), dim3(THREADS), 0, stream,
              x.stored.data(), gain.data(), shift.data(), h.data());
    (void)cudaStreamSynchronize(stream);
    snprintf(name, sizeof name, "norm of %d, kind %d", N, NEXT);
    compare(name, h, norm(x.plain, N, NEXT == 2, GAIN ? gain.data() : nullptr, SHIFT ? shift.data() : nullptr));
}

template <int N, int NEXT, bool POST, bool GAIN> void check_residual(int spoiled)
{
    char name[64];
    numbers x = random_numbers(static_cast<size_t>(ROWS) * N), y = random_numbers(x.stored.size());
    gpu_vector<float> gain = random_floats(N), next_gain = random_floats(N), shift = random_floats(N), finite(ROWS);
    gpu_vector<number> sum(x.stored.size()), h(x.stored.size());
    if (spoiled >= 0)
        x.stored[static_cast<size_t>(spoiled) * N + N - 1] = number(INFINITY);
    ZI_LAUNCH((zimage_residual<number, N, THREADS, NEXT, EPS_BITS, true, true, POST, EPS_BITS, GAIN>), dim3(ROWS),
              dim3(THREADS), 0, stream, x.stored.data(), y.stored.data(), gain.data(), next_gain.data(), shift.data(),
              sum.data(), h.data(), finite.data());
    (void)cudaStreamSynchronize(stream);
    for (int row = 0; row < ROWS; row++)
        failures += (finite[static_cast<size_t>(row)] != 0) != (row != spoiled);
    if (spoiled >= 0)
        return;
    std::vector<double> branch(y.plain.begin(), y.plain.end());
    if (POST)
        branch = norm(y.plain, N, false, nullptr, nullptr);
    for (size_t i = 0; i < branch.size(); i++)
        branch[i] = x.plain[i] + branch[i] * (GAIN ? gain[i % N] : 1);
    snprintf(name, sizeof name, "sum of %d", N);
    compare(name, sum, branch);
    snprintf(name, sizeof name, "norm of the sum, kind %d", NEXT);
    compare(name, h, norm(plain(sum), N, NEXT == 2, next_gain.data(), shift.data()));
}

template <int DIM, int HEADS, bool ADJACENT> void check_rotate()
{
    char name[64];
    const int tokens = 7;
    const gpu_vector<int> shape = {tokens, HEADS * DIM};
    numbers x = random_numbers(static_cast<size_t>(tokens) * HEADS * DIM);
    gpu_vector<float> gain = random_floats(DIM), cosines = random_floats(static_cast<size_t>(tokens) * DIM / 2);
    gpu_vector<float> sines = random_floats(cosines.size());
    gpu_vector<number> rotated(x.stored.size());
    const int per_block = THREADS / 32;
    ZI_LAUNCH((zimage_rotate<number, DIM, THREADS, HEADS, EPS_BITS, ADJACENT>),
              dim3((tokens * HEADS + per_block - 1) / per_block), dim3(THREADS), 0, stream, x.stored.data(),
              shape.data(), gain.data(), cosines.data(), sines.data(), rotated.data());
    (void)cudaStreamSynchronize(stream);
    std::vector<double> normed = norm(x.plain, DIM, false, gain.data(), nullptr), expected(normed.size());
    for (size_t head = 0; head < static_cast<size_t>(tokens) * HEADS; head++)
        for (size_t j = 0; j < DIM / 2; j++) {
            size_t a = head * DIM + (ADJACENT ? 2 * j : j), b = ADJACENT ? a + 1 : a + DIM / 2;
            double c = cosines[head / HEADS * (DIM / 2) + j], s = sines[head / HEADS * (DIM / 2) + j];
            expected[a] = normed[a] * c - normed[b] * s;
            expected[b] = normed[b] * c + normed[a] * s;
        }
    snprintf(name, sizeof name, "rotation of %d heads of %d", HEADS, DIM);
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
    check_norm<328, 1, true, false>();
    check_norm<100, 2, true, true>();
    check_norm<256, 1, false, false>();
    check_residual<328, 1, true, true>(-1);
    check_residual<96, 2, false, true>(-1);
    check_residual<512, 2, true, false>(-1);
    check_residual<328, 1, true, true>(3);
    check_residual<96, 0, false, false>(0);
    check_rotate<64, 3, true>();
    check_rotate<128, 2, false>();
    check_rotate<34, 5, true>();
    check_unpack<4, 32>();
    check_unpack<4, 64>();
    check_unpack<8, 32>();
    check_unpack<2, 128>();
    if (failures != 0)
        std::printf("%d failures\n", failures);
    return failures != 0;
}
