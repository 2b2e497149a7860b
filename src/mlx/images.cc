/* Operations on channels-last images: convolutions and group norms. */
#include "mlx/internal.h"

#include <cassert>

namespace
{

/* SiLU(x * scale + shift) */
std::vector<mx::array> affine_silu_piece(const std::vector<mx::array> &in)
{
    mx::array x = mx::add(mx::multiply(mx::astype(in[0], mx::float32), in[1]), in[2]);
    return {mx::astype(mx::multiply(x, mx::sigmoid(x)), in[0].dtype())};
}

std::vector<mx::array> affine_piece(const std::vector<mx::array> &in)
{
    mx::array x = mx::add(mx::multiply(mx::astype(in[0], mx::float32), in[1]), in[2]);
    return {mx::astype(x, in[0].dtype())};
}

/* The input rows that a convolution reads, of the image as it is before and after doubling, and zero rows around. */
struct input_rows {
    int64_t low, high;  /* before doubling */
    int64_t first, end; /* after doubling */
    int above, below;
};

input_rows rows_read(const zi_tensor *y, const zi_conv *conv)
{
    int64_t up = conv->upsample ? 2 : 1, image = conv->image_rows * up, size = conv->weight->shape[2];
    int64_t begin = conv->y_row * conv->stride - conv->pad_top;
    int64_t end = (conv->y_row + y->shape[0] - 1) * conv->stride - conv->pad_top + size;
    input_rows r = {};
    r.first = std::max<int64_t>(begin, 0);
    r.end = std::min(end, image);
    r.above = static_cast<int>(r.first - begin);
    r.below = static_cast<int>(end - r.end);
    r.low = r.first / up;
    r.high = (r.end + up - 1) / up;
    return r;
}

/* [1, rows, columns, channels] as the filter reads it, without zero rows. */
mx::array input_of(zi_mlx &mlx, const zi_tensor *x, const zi_conv *conv, const input_rows &r)
{
    zi_tensor read = zi_tensor_rows(x, r.low - conv->x_row, r.high - r.low);
    mx::array a = zi_cell_read(&read);
    if (conv->affine != nullptr)
        a = zi_mlx_piece(mlx, affine_silu_piece,
                         {a, zi_cell_read_vector(&conv->affine->scale), zi_cell_read_vector(&conv->affine->shift)});
    a = mx::astype(a, mlx.dtype());
    int channels = a.shape(2), columns = a.shape(1);
    if (conv->upsample) {
        mx::array wide = mx::broadcast_to(mx::reshape(a, {a.shape(0), 1, columns, 1, channels}),
                                          {a.shape(0), 2, columns, 2, channels});
        columns *= 2;
        a = mx::reshape(wide, {2 * a.shape(0), columns, channels});
        int from = static_cast<int>(r.first - 2 * r.low), to = static_cast<int>(r.end - 2 * r.low);
        a = mx::slice(a, {from, 0, 0}, {to, columns, channels});
    }
    return mx::reshape(a, {1, a.shape(0), columns, channels});
}

/* Each group's sums: [groups] of [rows, columns, groups, channels of a group], rows last, so that no sum is long. */
mx::array sum_groups(const mx::array &a)
{
    return mx::sum(mx::sum(a, std::vector<int>{1, 3}), 0);
}

mx::array column(const mx::array &sums, int i)
{
    return mx::reshape(mx::slice(sums, {0, i}, {sums.shape(0), i + 1}), {sums.shape(0)});
}

/* [groups] to [channels] */
mx::array each_channel(const mx::array &values, int64_t channels)
{
    return mx::repeat(values, static_cast<int>(channels / values.shape(0)), 0);
}

/* Bytes of one row of y's unfolded input: where MLX has no other kernel it computes a convolution as a product, and
 * writes each input as often as the filter has taps. */
double unfolded_row(const zi_mlx &mlx, const zi_tensor *y, const zi_conv *conv)
{
    const int64_t *filter = conv->weight->shape;
    return static_cast<double>(y->shape[1] * filter[1] * filter[2] * filter[3]) *
           static_cast<double>(mx::size_of(mlx.dtype()));
}

/* New arrays: the output, the unfolded input, and twice the input if it is changed first. */
double conv_bytes(const zi_mlx &mlx, const zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    input_rows r = rows_read(y, conv);
    double changed = conv->affine != nullptr || conv->upsample ? 2 : 0;
    int64_t read = (r.end - r.first) * (x->shape[1] << conv->upsample) * x->shape[2];
    double input = static_cast<double>(read) * static_cast<double>(mx::size_of(mlx.dtype()));
    return zi_mlx_bytes(y) + changed * input + static_cast<double>(y->shape[0]) * unfolded_row(mlx, y, conv);
}

zimage_status convolve(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    zi_mlx_scratch(zi_mlx_state(run->ops), conv_bytes(zi_mlx_state(run->ops), y, x, conv));
    return zi_mlx_queue(run, [&](zi_mlx &mlx) {
        input_rows r = rows_read(y, conv);
        mx::array filter = mx::astype(zi_mlx_weight(mlx, conv->weight, zi_form::FILTER).values, mlx.dtype());
        mx::array result = mx::conv_general(input_of(mlx, x, conv, r), filter, {conv->stride, conv->stride},
                                            {r.above, conv->pad_left}, {r.below, conv->pad_right}, {1, 1}, {1, 1}, 1);
        result = mx::reshape(result, zi_mlx_shape(y->dims, y->shape));
        if (conv->bias != nullptr)
            result = mx::add(result, *zi_mlx_vector(mlx, conv->bias));
        if (conv->accumulate)
            result = mx::add(result, zi_cell_read(y));
        zi_cell_write(y, result);
    });
}

} // namespace

zimage_status zi_mlx_conv2d(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_conv *conv)
{
    zi_check_conv(y, x, conv);
    ZI_TRY(zi_mlx_check_weight(run, conv->weight, 0));
    ZI_TRY(zi_mlx_check_weight(run, conv->bias, 1));
    double row = unfolded_row(zi_mlx_state(run->ops), y, conv);
    int64_t step = std::max<int64_t>(1, static_cast<int64_t>(zi_mlx_state(run->ops).most_queued / row));
    for (int64_t first = 0; first < y->shape[0]; first += step) {
        zi_tensor rows = zi_tensor_rows(y, first, std::min(step, y->shape[0] - first));
        zi_conv part = *conv;
        part.y_row += first;
        ZI_TRY(convolve(run, &rows, x, &part));
    }
    return ZIMAGE_OK;
}

/*
 * sums [groups, 4]: mean, sum of squared differences from it, elements. They are merged as in Chan, Golub, LeVeque,
 * "Updating formulae and a pairwise algorithm for computing sample variances" (1979): float32 is enough then, and
 * Apple's GPUs have no float64.
 */
zimage_status zi_mlx_group_norm_sums(zi_run *run, zi_tensor *sums, const zi_tensor *x, int accumulate)
{
    int64_t groups = sums->shape[0], size = x->shape[2] / groups;
    assert(size * groups == x->shape[2] && sums->shape[1] == 4);
    zi_mlx_scratch(zi_mlx_state(run->ops), 8.0 * static_cast<double>(zi_tensor_count(x)));
    return zi_mlx_queue(run, [&](zi_mlx &) {
        const int64_t shape[] = {x->shape[0], x->shape[1], groups, size};
        int g = static_cast<int>(groups);
        mx::array a = mx::astype(mx::reshape(zi_cell_read(x), zi_mlx_shape(4, shape)), mx::float32);
        mx::array count = mx::full({g}, static_cast<float>(shape[0] * shape[1] * size));
        mx::array mean = mx::divide(sum_groups(a), count);
        mx::array squares = sum_groups(mx::square(mx::subtract(a, mx::reshape(mean, {1, 1, g, 1}))));
        if (accumulate) {
            mx::array old = zi_cell_read(sums), before = column(old, 2), all = mx::add(before, count);
            mx::array delta = mx::subtract(mean, column(old, 0)), share = mx::divide(count, all);
            squares =
                mx::add(mx::add(squares, column(old, 1)), mx::multiply(mx::square(delta), mx::multiply(before, share)));
            mean = mx::add(column(old, 0), mx::multiply(delta, share));
            count = all;
        }
        zi_cell_write(sums, mx::stack({mean, squares, count, mx::zeros({g})}, 1));
    });
}

zimage_status zi_mlx_group_norm_fold(zi_run *run, zi_channel_affine *affine, const zi_tensor *sums, int64_t count,
                                     const zi_weight *w, const zi_weight *b, float eps)
{
    ZI_TRY(zi_mlx_check_weight(run, w, 1));
    ZI_TRY(zi_mlx_check_weight(run, b, 1));
    return zi_mlx_queue(run, [&](zi_mlx &mlx) {
        mx::array s = zi_cell_read(sums), variance = mx::divide(column(s, 1), mx::array(static_cast<float>(count)));
        int64_t channels = zi_weight_count(w);
        mx::array root = each_channel(mx::rsqrt(mx::add(variance, mx::array(eps))), channels);
        mx::array scale = mx::multiply(*zi_mlx_vector(mlx, w), root);
        zi_cell_write(&affine->scale, scale);
        zi_cell_write(&affine->shift,
                      mx::subtract(*zi_mlx_vector(mlx, b), mx::multiply(each_channel(column(s, 0), channels), scale)));
    });
}

zimage_status zi_mlx_channel_affine(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_channel_affine *affine)
{
    assert(zi_tensor_count(y) == zi_tensor_count(x));
    zi_mlx_scratch(zi_mlx_state(run->ops), zi_mlx_bytes(y));
    return zi_mlx_queue(run, [&](zi_mlx &mlx) {
        zi_cell_write(y, zi_mlx_piece(mlx, affine_piece,
                                      {zi_cell_read(x), zi_cell_read_vector(&affine->scale),
                                       zi_cell_read_vector(&affine->shift)}));
    });
}
