/* Operations on the rows of sequences: attention, modulation, patches. */
#include "mlx/internal.h"

#include <cassert>
#include <cmath>

namespace
{

/* ---- attention --------------------------------------------------------------------------------------------------- */

constexpr int64_t QUERIES = 512; /* at a time, where MLX would hold queries x keys numbers */

/* Rows [first, first + count) as [1, heads, count, head_dim], a view. */
mx::array split_heads(const mx::array &x, int64_t first, int64_t count, int64_t heads, int64_t dim)
{
    int columns = static_cast<int>(heads * dim), from = static_cast<int>(first), to = static_cast<int>(first + count);
    mx::array rows = mx::slice(x, {from, 0}, {to, columns});
    return mx::transpose(mx::reshape(rows, {1, to - from, static_cast<int>(heads), static_cast<int>(dim)}),
                         {0, 2, 1, 3});
}

/* Heads that MLX's kernels compute without holding queries x keys numbers (fast::scaled_dot_product_attention). */
bool is_fused(const zi_mlx &mlx, int64_t dim)
{
    return mlx.on_gpu() && (dim == 64 || dim == 80 || dim == 96 || dim == 128);
}

/* One call of MLX's attention: [queries, heads * head_dim]. Where it holds the scores, they must be float32: those of
 * sharp attention reach thousands, which bf16 would round to whole numbers. */
mx::array attend_at_once(const zi_mlx &mlx, const mx::array &q, const mx::array &k, const mx::array &v,
                         const zi_sequence &rows, const zi_attention *a, bool causal)
{
    mx::array queries = split_heads(q, rows.query, rows.queries, a->heads, a->head_dim);
    mx::array keys = split_heads(k, rows.key, rows.keys, a->kv_heads, a->head_dim);
    mx::array values = split_heads(v, rows.key, rows.keys, a->kv_heads, a->head_dim);
    if (!is_fused(mlx, a->head_dim)) {
        queries = mx::astype(queries, mx::float32);
        keys = mx::astype(keys, mx::float32);
        values = mx::astype(values, mx::float32);
    }
    mx::array found = mx::fast::scaled_dot_product_attention(
        queries, keys, values, 1 / std::sqrt(static_cast<float>(a->head_dim)), causal ? "causal" : "");
    return mx::reshape(mx::transpose(found, {0, 2, 1, 3}),
                       {static_cast<int>(rows.queries), static_cast<int>(a->heads * a->head_dim)});
}

/* Query i of a causal attention sees keys 0 to i, of those that are real. MLX counts from the last key. So as many
 * queries as there are real keys are causal, and those behind them see every real key. */
mx::array attend(const zi_mlx &mlx, const mx::array &q, const mx::array &k, const mx::array &v, const zi_sequence &rows,
                 const zi_attention *a)
{
    int64_t step = is_fused(mlx, a->head_dim) ? rows.queries : QUERIES, first = 0;
    std::vector<mx::array> parts;
    if (a->causal) {
        first = std::min(rows.queries, rows.keys);
        parts.push_back(attend_at_once(mlx, q, k, v, {rows.query, first, rows.key, first}, a, true));
    }
    for (int64_t i = first; i < rows.queries; i += step) {
        int64_t count = std::min(step, rows.queries - i);
        parts.push_back(attend_at_once(mlx, q, k, v, {rows.query + i, count, rows.key, rows.keys}, a, false));
    }
    return parts.size() == 1 ? parts[0] : mx::concatenate(parts, 0);
}

/* Scores of as many queries as are computed at a time, in float32, twice: before and after the softmax. */
double score_bytes(const zi_mlx &mlx, const zi_tensor *q, const zi_tensor *k, const zi_attention *a)
{
    if (is_fused(mlx, a->head_dim))
        return 0;
    int64_t queries = a->causal ? zi_row_count(q) : std::min(QUERIES, zi_row_count(q));
    return 8.0 * static_cast<double>(a->heads) * static_cast<double>(queries) * static_cast<double>(zi_row_count(k));
}

} // namespace

zimage_status zi_mlx_attention(zi_run *run, zi_tensor *o, const zi_tensor *q, const zi_tensor *k, const zi_tensor *v,
                               const zi_attention *attention)
{
    assert(zi_features(q) == attention->heads * attention->head_dim && zi_tensor_count(o) == zi_tensor_count(q));
    assert(zi_features(k) == attention->kv_heads * attention->head_dim && zi_tensor_count(v) == zi_tensor_count(k));
    ZI_TRY(zi_mlx_hand_over_block(run));
    zi_mlx_scratch(zi_mlx_state(run->ops), zi_mlx_bytes(o) + score_bytes(zi_mlx_state(run->ops), q, k, attention));
    return zi_mlx_queue(run, [&](zi_mlx &mlx) {
        std::vector<mx::array> parts;
        mx::array queries = zi_cell_read_rows(q), keys = zi_cell_read_rows(k), values = zi_cell_read_rows(v);
        for (int i = 0; i < zi_sequence_count(attention); i++)
            parts.push_back(attend(mlx, queries, keys, values, zi_sequence_of(attention, q, k, i), attention));
        zi_cell_write(o, parts.size() == 1 ? parts[0] : mx::concatenate(parts, 0));
    });
}

zimage_status zi_mlx_modulation(zi_run *run, zi_tensor *m, int parts, const zi_modulation *kinds)
{
    assert(parts >= 1 && parts <= ZI_MODULATION_PARTS_MAX && zi_tensor_count(m) % parts == 0);
    const int64_t shape[] = {parts, zi_tensor_count(m) / parts};
    zi_tensor all = zi_tensor_shaped(m, 2, shape);
    return zi_mlx_queue(run, [&](zi_mlx &) {
        std::vector<mx::array> found = mx::split(zi_cell_read_vector(m), parts, 0);
        for (int i = 0; i < parts; i++) {
            zi_tensor part = zi_tensor_rows(&all, i, 1);
            zi_cell_write(&part, kinds[i] == ZI_MODULATION_ONE_PLUS ? mx::add(found[i], mx::array(1.0F))
                                 : kinds[i] == ZI_MODULATION_TANH   ? mx::tanh(found[i])
                                                                    : found[i]);
        }
    });
}

/* Latents [C, H/p, p, W/p, p] and tokens [H/p, W/p, ...] differ by the order of their dimensions. */
zimage_status zi_mlx_patchify(zi_run *run, zi_tensor *tokens, const zi_tensor *latents, int64_t patch,
                              zi_patch_order order)
{
    zi_check_patches(tokens, latents, patch);
    const std::vector<int> axes =
        order == ZI_PATCH_CHANNELS_LAST ? std::vector<int>{1, 3, 2, 4, 0} : std::vector<int>{1, 3, 0, 2, 4};
    const int64_t *s = latents->shape, shape[] = {s[0], s[1] / patch, patch, s[2] / patch, patch};
    return zi_mlx_queue(run, [&](zi_mlx &) {
        zi_cell_write(tokens, mx::transpose(mx::reshape(zi_cell_read(latents), zi_mlx_shape(5, shape)), axes));
    });
}

zimage_status zi_mlx_unpatchify(zi_run *run, zi_tensor *latents, const zi_tensor *tokens, int64_t patch,
                                zi_patch_order order)
{
    zi_check_patches(tokens, latents, patch);
    bool last = order == ZI_PATCH_CHANNELS_LAST;
    const std::vector<int> axes = last ? std::vector<int>{4, 0, 2, 1, 3} : std::vector<int>{2, 0, 3, 1, 4};
    const int64_t *s = latents->shape, rows = s[1] / patch, columns = s[2] / patch;
    const int64_t by_place[] = {rows, columns, patch, patch, s[0]}, by_channel[] = {rows, columns, s[0], patch, patch};
    return zi_mlx_queue(run, [&](zi_mlx &) {
        mx::array values = mx::reshape(zi_cell_read(tokens), zi_mlx_shape(5, last ? by_place : by_channel));
        zi_cell_write(latents, mx::transpose(values, axes));
    });
}
