/*
 * Cells of the MLX backend (mlx/cells.h) against plain memory: random runs and strips are written and read, in any
 * order, and each read must give what plain memory holds. Elements that were never written are 0 in both.
 */
#include <cstdio>
#include <cstring>
#include <random>

#include "mlx/cells.h"

namespace
{

std::mt19937 random_bits(20261129);

int64_t random_below(int64_t end)
{
    return static_cast<int64_t>(random_bits() % static_cast<uint64_t>(end));
}

/* A run, or a strip of a matrix whose rows have `width` elements: rows begin anywhere, and a strip may wrap around. */
zi_tensor random_view(zi_cell &cell, int64_t width)
{
    zi_tensor view = {};
    view.dtype = cell.type;
    view.data = &cell;
    view.dims = 2;
    int64_t rows = 1 + random_below(cell.count / width - 1), columns = 1 + random_below(width);
    int whole_rows = random_below(2) == 0;
    view.shape[0] = rows;
    view.shape[1] = columns;
    view.ld = random_below(3) == 0 ? columns : width;
    int64_t end = (rows - 1) * view.ld + columns;
    int64_t places = cell.count - end + 1;
    view.offset = whole_rows ? random_below((places + width - 1) / width) * width : random_below(places);
    return view;
}

/* Writes numbers that nothing else has written. */
void write_both(const zi_tensor &view, std::vector<float> &plain, float &next)
{
    std::vector<float> values;
    for (int64_t row = 0; row < view.shape[0]; row++)
        for (int64_t column = 0; column < view.shape[1]; column++) {
            values.push_back(next);
            plain[static_cast<size_t>(view.offset + row * view.ld + column)] = next++;
        }
    zi_cell_write(&view, mx::array(values.data(), zi_mlx_shape(2, view.shape), mx::float32));
}

bool reads_the_same(const zi_tensor &view, const std::vector<float> &plain)
{
    mx::array found = mx::contiguous(zi_cell_read(&view));
    mx::eval(found);
    const float *values = found.data<float>();
    for (int64_t row = 0; row < view.shape[0]; row++)
        if (std::memcmp(values + row * view.shape[1], plain.data() + view.offset + row * view.ld,
                        static_cast<size_t>(view.shape[1]) * sizeof(float)) != 0)
            return false;
    return true;
}

/* The number of the round that read something else; -1: none did. */
int run_rounds(int64_t count, int64_t width, int rounds)
{
    zi_cell cell = {ZI_F32, count, {}};
    std::vector<float> plain(static_cast<size_t>(count), 0.0F);
    float next = 1;
    for (int round = 0; round < rounds; round++) {
        zi_tensor view = random_view(cell, width);
        if (random_below(2) == 0)
            write_both(view, plain, next);
        else if (!reads_the_same(view, plain))
            return round;
    }
    return -1;
}

} // namespace

int main()
{
    constexpr int CELLS = 60, ROUNDS = 60;
    mx::set_default_device(mx::Device(mx::Device::cpu));
    for (int i = 0; i < CELLS; i++) {
        int64_t width = 2 + random_below(12), count = width * (2 + random_below(6)) + random_below(width);
        int bad = run_rounds(count, width, ROUNDS);
        if (bad >= 0) {
            std::printf("cell %d of %lld elements, rows of %lld: round %d read something else\n", i,
                        static_cast<long long>(count), static_cast<long long>(width), bad);
            return 1;
        }
    }
    std::printf("%d cells, %d rounds each: all reads agree with plain memory\n", CELLS, ROUNDS);
    return 0;
}
