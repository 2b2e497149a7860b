#include "mlx/cells.h"

#include <algorithm>
#include <optional>
#include <stdexcept>

namespace
{

zi_place place_of(const zi_tensor *x)
{
    int64_t columns = x->dims > 0 ? x->shape[x->dims - 1] : 1, count = zi_tensor_count(x);
    if (zi_tensor_is_dense(x) || columns == count)
        return {x->offset, 1, count, count};
    return {x->offset, count / columns, columns, x->ld};
}

int size_of(int64_t size)
{
    if (size > INT32_MAX)
        throw std::runtime_error("an array has " + std::to_string(size) +
                                 " elements in one dimension, but MLX's sizes "
                                 "have 32 bits");
    return static_cast<int>(size);
}

mx::array flat(const mx::array &values)
{
    return mx::reshape(values, {size_of(static_cast<int64_t>(values.size()))});
}

/* [rows, columns] of a fragment. */
mx::array matrix(const zi_fragment &f)
{
    return mx::reshape(f.values, {size_of(f.place.rows), size_of(f.place.columns)});
}

/* Elements [first, first + count) of an array; whole rows of its first dimension where that is possible, so that a
 * large array need not be flattened. */
mx::array elements(const mx::array &values, int64_t first, int64_t count)
{
    auto size = static_cast<int64_t>(values.size());
    if (first == 0 && count == size)
        return values;
    int64_t row = values.ndim() > 0 && values.shape(0) > 0 ? size / values.shape(0) : 1;
    if (values.ndim() < 2 || first % row != 0 || count % row != 0)
        return mx::slice(flat(values), {size_of(first)}, {size_of(first + count)});
    mx::Shape from(values.ndim(), 0), to = values.shape();
    from[0] = size_of(first / row);
    to[0] = size_of((first + count) / row);
    return mx::slice(values, from, to);
}

/* Rows and columns of a matrix. */
mx::array part(const mx::array &m, int64_t row, int64_t rows, int64_t column, int64_t columns)
{
    return mx::slice(m, {size_of(row), size_of(column)}, {size_of(row + rows), size_of(column + columns)});
}

/* ---- one place within another ------------------------------------------------------------------------------------ */

/* Where a place begins in the rows of another: f's row and column of p's first element. */
struct corner {
    int64_t row, column;
};

corner corner_in(const zi_place &f, const zi_place &p)
{
    int64_t distance = p.first - f.first, row = distance / f.ld;
    if (distance < 0 && row * f.ld != distance)
        row--;
    return {row, distance - row * f.ld};
}

/* Whether f has all elements of p, and p can be cut out of it by one slice. */
bool contains(const zi_place &f, const zi_place &p)
{
    if (f.rows == 1)
        return p.first >= f.first && p.end() <= f.end();
    if (p.rows > 1 && p.ld != f.ld)
        return false;
    corner at = corner_in(f, p);
    return at.row >= 0 && at.row + p.rows <= f.rows && at.column + p.columns <= f.columns;
}

/* Columns of rows that follow one another without a gap. */
mx::array strip(const mx::array &values, int64_t first, const zi_place &p)
{
    auto size = static_cast<int64_t>(values.size());
    int64_t row = first / p.ld, column = first % p.ld;
    if (size % p.ld == 0 && column + p.columns <= p.ld)
        return part(mx::reshape(values, {size_of(size / p.ld), size_of(p.ld)}), row, p.rows, column, p.columns);
    return mx::as_strided(flat(values), {size_of(p.rows), size_of(p.columns)}, {p.ld, 1}, static_cast<size_t>(first));
}

/* p out of a fragment that contains it. */
mx::array cut(const zi_fragment &f, const zi_place &p)
{
    if (f.place == p)
        return f.values;
    int64_t first = p.first - f.place.first;
    if (f.place.rows == 1)
        return p.rows == 1 ? elements(f.values, first, p.columns) : strip(f.values, first, p);
    corner at = corner_in(f.place, p);
    return part(matrix(f), at.row, p.rows, at.column, p.columns);
}

/* Whether two places surely have no element in common. */
bool are_apart(const zi_place &f, const zi_place &p)
{
    if (f.end() <= p.first || p.end() <= f.first)
        return true;
    if (f.rows == 1 || p.rows == 1 || f.ld != p.ld)
        return false;
    int64_t column = corner_in(f, p).column;
    return column >= f.columns && column + p.columns <= f.ld;
}

/* ---- taking a place out of a fragment ---------------------------------------------------------------------------- */

using remainder = std::optional<std::vector<zi_fragment>>;

void keep(std::vector<zi_fragment> &left, const zi_fragment &f, const zi_place &p)
{
    if (p.rows > 0 && p.columns > 0)
        left.push_back({p, cut(f, p)});
}

zi_place run_of(int64_t first, int64_t end)
{
    return {first, 1, end - first, end - first};
}

/* Both are runs of elements. */
remainder run_without_run(const zi_fragment &f, const zi_place &p)
{
    std::vector<zi_fragment> left;
    keep(left, f, run_of(f.place.first, std::max(f.place.first, p.first)));
    keep(left, f, run_of(std::min(p.end(), f.place.end()), f.place.end()));
    return left;
}

/* What is left of a run are the elements before, those between p's rows, which are a strip, too, and those behind. */
remainder run_without_strip(const zi_fragment &f, const zi_place &p)
{
    std::vector<zi_fragment> left;
    if (!contains(f.place, p))
        return std::nullopt;
    int64_t whole = p.first + p.rows * p.ld <= f.place.end() ? p.rows : p.rows - 1;
    keep(left, f, run_of(f.place.first, p.first));
    keep(left, f, {p.first + p.columns, whole, p.ld - p.columns, p.ld});
    keep(left, f, run_of(whole == p.rows ? p.first + p.rows * p.ld : p.end(), f.place.end()));
    return left;
}

/* Rows above and below, columns to the left and to the right. */
remainder strip_without_strip(const zi_fragment &f, const zi_place &p)
{
    std::vector<zi_fragment> left;
    if (!contains(f.place, p))
        return std::nullopt;
    corner at = corner_in(f.place, p);
    int64_t row = f.place.first + at.row * f.place.ld, below = at.row + p.rows, right = at.column + p.columns;
    keep(left, f, {f.place.first, at.row, f.place.columns, f.place.ld});
    keep(left, f, {row, p.rows, at.column, f.place.ld});
    keep(left, f, {row + right, p.rows, f.place.columns - right, f.place.ld});
    keep(left, f, {f.place.first + below * f.place.ld, f.place.rows - below, f.place.columns, f.place.ld});
    return left;
}

/* A run that covers whole rows of the strip. */
remainder strip_without_run(const zi_fragment &f, const zi_place &p)
{
    std::vector<zi_fragment> left;
    const zi_place &s = f.place;
    int64_t above = 0, below = s.rows;
    while (above < s.rows && s.first + above * s.ld + s.columns <= p.first)
        above++;
    while (below > above && s.first + (below - 1) * s.ld >= p.end())
        below--;
    bool whole = s.first + above * s.ld >= p.first && s.first + (below - 1) * s.ld + s.columns <= p.end();
    if (!whole)
        return std::nullopt;
    keep(left, f, {s.first, above, s.columns, s.ld});
    keep(left, f, {s.first + below * s.ld, s.rows - below, s.columns, s.ld});
    return left;
}

/* Nothing: it can't be said by slices. */
remainder without(const zi_fragment &f, const zi_place &p)
{
    if (are_apart(f.place, p))
        return std::vector<zi_fragment>{f};
    if (f.place.rows == 1)
        return p.rows == 1 ? run_without_run(f, p) : run_without_strip(f, p);
    if (p.rows == 1)
        return strip_without_run(f, p);
    return f.place.ld == p.ld ? strip_without_strip(f, p) : std::nullopt;
}

/* ---- joining ----------------------------------------------------------------------------------------------------- */

/* Makes one run of the whole cell: what every case can fall back on. */
void join_all(zi_cell &c)
{
    int64_t padded = c.count;
    for (const zi_fragment &f : c.fragments)
        padded = std::max(padded, f.place.first + f.place.rows * f.place.ld);
    mx::array all = mx::zeros({size_of(padded)}, zi_mlx_type(c.type));
    for (const zi_fragment &f : c.fragments) {
        int64_t end = f.place.rows == 1 ? f.place.end() : f.place.first + f.place.rows * f.place.ld;
        mx::Shape from = {size_of(f.place.first)}, to = {size_of(end)};
        mx::array values = flat(f.values);
        if (f.place.rows > 1) {
            int rows = size_of(f.place.rows), columns = size_of(f.place.columns);
            mx::array m = mx::reshape(mx::slice(all, from, to), {rows, size_of(f.place.ld)});
            values = flat(mx::slice_update(m, matrix(f), mx::Shape{0, 0}, mx::Shape{rows, columns}));
        }
        all = mx::slice_update(all, values, from, to);
    }
    c.fragments = {{run_of(0, c.count), mx::slice(all, {0}, {size_of(c.count)})}};
}

void take_out(zi_cell &c, const zi_place &p)
{
    std::vector<zi_fragment> kept;
    for (const zi_fragment &f : c.fragments) {
        remainder left = without(f, p);
        if (!left) {
            join_all(c);
            take_out(c, p);
            return;
        }
        kept.insert(kept.end(), left->begin(), left->end());
    }
    c.fragments = std::move(kept);
}

std::vector<zi_fragment> touching(const zi_cell &c, const zi_place &p)
{
    std::vector<zi_fragment> found;
    for (const zi_fragment &f : c.fragments)
        if (!are_apart(f.place, p))
            found.push_back(f);
    std::sort(found.begin(), found.end(),
              [](const zi_fragment &a, const zi_fragment &b) { return a.place.first < b.place.first; });
    return found;
}

/* Runs one after the other, with zeros where nothing was written. */
std::optional<mx::array> join_runs(const zi_cell &c, const std::vector<zi_fragment> &found, const zi_place &p)
{
    std::vector<mx::array> parts;
    int64_t at = p.first;
    auto zeros = [&](int64_t end) {
        if (at < end)
            parts.push_back(mx::zeros({size_of(end - at)}, zi_mlx_type(c.type)));
    };
    for (const zi_fragment &f : found) {
        if (f.place.rows > 1)
            return std::nullopt;
        int64_t from = std::max(at, f.place.first), to = std::min(p.end(), f.place.end());
        zeros(from);
        parts.push_back(flat(elements(f.values, from - f.place.first, to - from)));
        at = to;
    }
    zeros(p.end());
    return parts.size() == 1 ? parts[0] : mx::concatenate(parts, 0);
}

/* Strips side by side that are p together: a run of whole rows, or a wider strip. */
std::optional<mx::array> join_strips(const std::vector<zi_fragment> &found, const zi_place &p)
{
    std::vector<mx::array> parts;
    if (found.empty() || found[0].place.rows < 2)
        return std::nullopt;
    int64_t rows = found[0].place.rows, ld = found[0].place.ld, at = p.first;
    for (const zi_fragment &f : found) {
        if (f.place.rows != rows || f.place.ld != ld || f.place.first != at)
            return std::nullopt;
        parts.push_back(matrix(f));
        at += f.place.columns;
    }
    bool is_run = p.rows == 1 && p.columns == rows * ld && at == p.first + ld;
    bool is_strip = p.rows == rows && p.ld == ld && at == p.first + p.columns;
    if (!is_run && !is_strip)
        return std::nullopt;
    return mx::concatenate(parts, 1);
}

void insert(zi_cell &c, const zi_place &p, const mx::array &values)
{
    take_out(c, p);
    c.fragments.push_back({p, values});
}

mx::array read(zi_cell &c, const zi_place &p)
{
    for (const zi_fragment &f : c.fragments)
        if (contains(f.place, p))
            return cut(f, p);
    const std::vector<zi_fragment> found = touching(c, p);
    std::optional<mx::array> joined = p.rows == 1 ? join_runs(c, found, p) : std::nullopt;
    if (!joined)
        joined = join_strips(found, p);
    if (!joined) {
        join_all(c);
        return cut(c.fragments[0], p);
    }
    insert(c, p, *joined); /* the next reader finds it joined */
    return *joined;
}

zi_cell &cell_of(const zi_tensor *x)
{
    return *static_cast<zi_cell *>(x->data);
}

} // namespace

mx::Dtype zi_mlx_type(zi_dtype type)
{
    return type == ZI_F32 ? mx::float32 : type == ZI_F16 ? mx::float16 : mx::bfloat16;
}

mx::Shape zi_mlx_shape(int dims, const int64_t *shape)
{
    mx::Shape sizes;
    for (int i = 0; i < dims; i++)
        sizes.push_back(size_of(shape[i]));
    return sizes;
}

mx::array zi_cell_read_as(const zi_tensor *x, const mx::Shape &shape)
{
    return mx::reshape(read(cell_of(x), place_of(x)), shape);
}

mx::array zi_cell_read(const zi_tensor *x)
{
    return zi_cell_read_as(x, zi_mlx_shape(x->dims, x->shape));
}

mx::array zi_cell_read_rows(const zi_tensor *x)
{
    const int64_t columns = x->shape[x->dims - 1], shape[] = {zi_tensor_count(x) / columns, columns};
    return zi_cell_read_as(x, zi_mlx_shape(2, shape));
}

mx::array zi_cell_read_vector(const zi_tensor *x)
{
    const int64_t count = zi_tensor_count(x);
    return zi_cell_read_as(x, zi_mlx_shape(1, &count));
}

void zi_cell_write(const zi_tensor *x, const mx::array &values)
{
    zi_cell &c = cell_of(x);
    insert(c, place_of(x), mx::astype(values, zi_mlx_type(c.type)));
}
