/*
 * Tensors of the MLX backend. MLX's arrays never change, and an operation always makes a new one. The contract of ops.h
 * wants memory that is written in parts, through views and in place. A cell stands between them: it is what one alloc
 * gave, and a list of the arrays that were last written to its parts.
 *
 * Writing takes what it covers out of the older arrays, which become slices, and adds the new array. Reading gives the
 * array that was written there, a slice of it, or several of them joined. Nothing is copied where a view is read as it
 * was written, and slices are views of MLX. The graph that MLX builds is functional, whatever the order of writes.
 */
#ifndef ZI_MLX_CELLS_H
#define ZI_MLX_CELLS_H

#include <cstdint>
#include <vector>

#include <mlx/mlx.h>

extern "C" {
#include "ops/tensor.h"
}

namespace mx = mlx::core;

/* Elements first + row * ld + column of a cell. One row: the elements follow one another. */
struct zi_place {
    int64_t first, rows, columns, ld;

    int64_t end() const
    {
        return first + (rows - 1) * ld + columns;
    }
    bool operator==(const zi_place &other) const = default;
};

/* An array of the elements of a place, in any shape of that size. */
struct zi_fragment {
    zi_place place;
    mx::array values;
};

struct zi_cell {
    zi_dtype type;
    int64_t count; /* elements */
    /* In no order; none covers an element of another. What none covers was never written and reads as 0. */
    std::vector<zi_fragment> fragments;
};

mx::Dtype zi_mlx_type(zi_dtype type);
/* A shape of MLX, whose sizes have 32 bits; throws std::runtime_error if one does not fit. */
mx::Shape zi_mlx_shape(int dims, const int64_t *shape);
/* The tensor's elements in its own shape; in another shape; as a matrix of its rows; as a vector. A size of -1 would be
 * an operation more in the graph, so all sizes are given. */
mx::array zi_cell_read(const zi_tensor *x);
mx::array zi_cell_read_as(const zi_tensor *x, const mx::Shape &shape);
mx::array zi_cell_read_rows(const zi_tensor *x);
mx::array zi_cell_read_vector(const zi_tensor *x);
/* As many values as the tensor has elements, in any shape; they are converted to the cell's type. */
void zi_cell_write(const zi_tensor *x, const mx::array &values);

#endif
