/* The state of the MLX backend, and what its files share. */
#ifndef ZI_MLX_INTERNAL_H
#define ZI_MLX_INTERNAL_H

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "mlx/cells.h"

extern "C" {
#include "base/choices.h"
#include "mlx/library.h"
#include "ops/shapes.h"
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

/* In which form MLX keeps a weight. None is larger than the stored weight, except vectors, which are small. */
enum class zi_form {
    MATRIX, /* [in, out], a view of the stored matrix in its type; float32 becomes bf16 where that is computed in */
    VECTOR, /* float32 */
    FILTER, /* the same types as a matrix, [out, k, k, in] */
    GROUPS, /* packed numbers, scales and biases as they are stored */
};

struct zi_kept {
    mx::array values;
    std::optional<mx::array> scales, biases; /* of GROUPS */
};

/* A weight's id, its data, what it is, and its form: weights of one id, or without one, may begin at one address. */
struct zi_kept_key {
    uint64_t id;
    const uint8_t *data;
    int64_t rows, count;
    zi_dtype stored;
    zi_form form;

    auto operator<=>(const zi_kept_key &other) const = default;
};

/* ---- the backend ------------------------------------------------------------------------------------------------- */

/*
 * From so many bytes of new arrays on, the graph is handed over, also in the middle of a block. A large limit is
 * faster: a GPU computes independent operations of one graph side by side. But what was handed over stays in memory for
 * a while. So the limit is a part of the memory that the job may take, between these two.
 */
constexpr double ZI_MLX_LEAST_QUEUE = 256.0 * 1024 * 1024, ZI_MLX_MOST_QUEUE = 4 * ZI_MLX_LEAST_QUEUE;
constexpr int ZI_MLX_QUEUES = 32; /* in that memory */

struct zi_mlx_check {
    mx::array finite; /* a bool, or what a kernel of our own says of each row: 1, or 0 where it is not finite */
    std::string name;
};

/* A kind of packed numbers. */
struct zi_packed_kind {
    int bits, group;
    zi_dtype scales;

    auto operator<=>(const zi_packed_kind &other) const = default;
};

struct zi_mlx {
    zi_ops ops; /* first */
    mx::Stream stream;
    zi_dtype type;                               /* of activations */
    std::vector<std::unique_ptr<zi_cell>> cells; /* the stack */
    size_t top = 0, peak = 0;                    /* bytes of the stack */
    size_t set_aside = 0, peak_aside = 0;        /* height and peak of the stack before a rehearsal */
    std::map<zi_kept_key, zi_kept> weights;
    std::vector<zi_mlx_check> checks; /* since the host last waited */
    size_t named = 0;                 /* of the checks */
    double most_queued = ZI_MLX_LEAST_QUEUE;
    double queued = 0;             /* bytes of arrays since the last hand-over */
    double handed[3] = {0, 0, 0};  /* of the last hand-overs, the newest first */
    std::optional<mx::array> last; /* an array of the last hand-over */
    zi_choices choices;
    zi_graph_info graph = {}; /* since the last question */
    int counts_nodes = 0;     /* somebody asks */
    bool block_ended = false; /* its operations are not handed over yet */
    bool cuda = false;        /* MLX's build for NVIDIA GPUs */
    size_t memory = 0;        /* bytes of a GPU's memory; 0: not known */
    bool own_kernels = false; /* those of kernels.h can be used, but for the one that unpacks */
    /* Whether that one, and that of packed.h, can be used for a kind, as far as somebody asked. */
    std::map<zi_packed_kind, bool> unpacks, products;

    explicit zi_mlx(mx::Stream s, zi_dtype t) : ops{}, stream(s), type(t), choices{}
    {
    }
    bool on_gpu() const
    {
        return stream.device == mx::Device::gpu;
    }
    mx::Dtype dtype() const
    {
        return zi_mlx_type(type);
    }
};

static inline zi_mlx &zi_mlx_state(const zi_ops *ops)
{
    return *(zi_mlx *)const_cast<zi_ops *>(ops);
}

/* Makes the backend's device and stream the calling thread's. */
void zi_mlx_enter(zi_mlx &mlx);
/* Turns the exception under way into an error. */
zimage_status zi_mlx_fail(zimage_error *error);
/* Seconds of a steady clock. */
double zi_mlx_now();
/* An operation is queued whose new arrays take so many bytes: its outputs, and those between its own steps. */
void zi_mlx_scratch(zi_mlx &mlx, double bytes);
/* What is queued of blocks that have ended begins to be computed. */
zimage_status zi_mlx_hand_over_block(zi_run *run);
/* What is queued begins to be computed; the host waits for the hand-over before the last one. */
void zi_mlx_hand_over(zi_mlx &mlx);

/* Bytes of a tensor's elements. */
static inline double zi_mlx_bytes(const zi_tensor *x)
{
    return static_cast<double>(zi_tensor_count(x)) * static_cast<double>(zi_dtype_size(x->dtype));
}

/* Runs an operation's code, which may throw. In a rehearsal it does nothing. */
template <typename Work> zimage_status zi_mlx_queue(zi_run *run, Work &&work)
{
    zi_mlx &mlx = zi_mlx_state(run->ops);
    if (mlx.ops.rehearsing)
        return ZIMAGE_OK;
    double start = zi_mlx_now();
    try {
        zi_mlx_enter(mlx);
        work(mlx);
        if (mlx.queued > mlx.most_queued)
            zi_mlx_hand_over(mlx);
    } catch (...) {
        return zi_mlx_fail(run->error);
    }
    mlx.graph.building += zi_mlx_now() - start;
    return ZIMAGE_OK;
}

/* The form of a weight; it is made at the first use, and the stored pages are given back to the system.
 * Throws zi_mlx_refusal if the stored type has no such form. */
const zi_kept &zi_mlx_weight(zi_mlx &mlx, const zi_weight *weight, zi_form form);
/* A vector in float32; nothing for NULL. */
std::optional<mx::array> zi_mlx_vector(zi_mlx &mlx, const zi_weight *weight);
/* ZIMAGE_OK, or an error that names the weight and its type. */
zimage_status zi_mlx_check_weight(zi_run *run, const zi_weight *weight, int is_vector);

/* A small function of elements. On a GPU it is compiled into one kernel. */
using zi_piece = std::vector<mx::array> (*)(const std::vector<mx::array> &);
mx::array zi_mlx_piece(const zi_mlx &mlx, zi_piece piece, const std::vector<mx::array> &inputs);

/* Whether the kernels of kernels.h, without the one that unpacks, agree with MLX's operations on the default device, a
 * GPU; whether that one does, for numbers of a kind. */
bool zi_mlx_kernels_agree();
bool zi_mlx_unpacking_agrees(const zi_packed_kind &kind);
/* The same for the kernel of packed.h, which the default device can run. */
bool zi_mlx_products_agree(const zi_packed_kind &kind);
/* Whether the largest difference is at most 2^-8 of the largest number of b. */
bool zi_mlx_near(const mx::array &a, const mx::array &b);

/* What zi_op_check_finite does; also for residual. */
void zi_mlx_note_check(zi_mlx &mlx, const mx::array &x, int *finite);

extern zi_op_linear zi_mlx_linear;
extern zi_op_linears zi_mlx_linears;
extern zi_op_linear_glu zi_mlx_linear_glu;
extern zi_op_silu zi_mlx_silu;
extern zi_op_norm zi_mlx_norm;
extern zi_op_residual zi_mlx_residual;
extern zi_op_rope_table zi_mlx_rope_table;
extern zi_op_qk_norm_rope zi_mlx_qk_norm_rope;
extern zi_op_attention zi_mlx_attention;
extern zi_op_modulation zi_mlx_modulation;
extern zi_op_patchify zi_mlx_patchify;
extern zi_op_unpatchify zi_mlx_unpatchify;
extern zi_op_conv2d zi_mlx_conv2d;
extern zi_op_group_norm_sums zi_mlx_group_norm_sums;
extern zi_op_group_norm_fold zi_mlx_group_norm_fold;
extern zi_op_channel_affine zi_mlx_channel_affine;

#endif
