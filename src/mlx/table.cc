/* The MLX backend's table: the stack, moving data, checks, waiting, rehearsals; then opening and closing. */
#include "mlx/internal.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <unordered_set>

#include <mlx/version.h>

extern "C" {
#include "base/choices.h"
}

double zi_mlx_now()
{
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void zi_mlx_enter(zi_mlx &mlx)
{
    mx::set_default_device(mlx.stream.device);
    mx::set_default_stream(mlx.stream); /* both belong to the thread */
}

zimage_status zi_mlx_fail(zimage_error *error)
{
    try {
        throw;
    } catch (const std::bad_alloc &) {
        return zi_fail_memory(error, "MLX", 0);
    } catch (const std::exception &e) {
        return zi_fail(error, ZIMAGE_ERROR_INTERNAL, "MLX: %s", e.what());
    }
}

/* The pieces are few, and each keeps its compiled form for the life of the process. */
mx::array zi_mlx_piece(const zi_mlx &mlx, zi_piece piece, const std::vector<mx::array> &inputs)
{
    static std::mutex lock;
    static std::map<zi_piece, std::function<std::vector<mx::array>(const std::vector<mx::array> &)>> compiled;
    if (!mlx.on_gpu()) /* MLX would start a C++ compiler */
        return piece(inputs)[0];
    std::lock_guard<std::mutex> guard(lock);
    auto &function = compiled[piece];
    if (!function)
        function = mx::compile(piece, true);
    return function(inputs)[0];
}

namespace
{

/* ---- the stack --------------------------------------------------------------------------------------------------- */

constexpr size_t ALIGNMENT = 64;

zimage_status alloc_typed(zi_run *run, zi_tensor *tensor, zi_dtype type, int dims, const int64_t *shape)
{
    zi_mlx &mlx = zi_mlx_state(run->ops);
    ZI_TRY(zi_check_tensor(run, tensor, type, dims, shape));
    int64_t count = zi_tensor_count(tensor);
    size_t bytes = (static_cast<size_t>(count) * zi_dtype_size(type) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    try {
        mlx.cells.push_back(std::make_unique<zi_cell>(zi_cell{type, count, {}}));
    } catch (...) {
        return zi_mlx_fail(run->error);
    }
    tensor->data = mlx.cells.back().get();
    mlx.top += bytes;
    mlx.peak = std::max(mlx.peak, mlx.top);
    return ZIMAGE_OK;
}

zimage_status mlx_alloc(zi_run *run, zi_tensor *tensor, int dims, const int64_t *shape)
{
    return alloc_typed(run, tensor, zi_mlx_state(run->ops).type, dims, shape);
}

zimage_status mlx_alloc_f32(zi_run *run, zi_tensor *tensor, int dims, const int64_t *shape)
{
    return alloc_typed(run, tensor, ZI_F32, dims, shape);
}

zimage_status mlx_alloc_operand(zi_run *run, zi_tensor *x, int64_t rows, int64_t columns, const zi_weight *)
{
    const int64_t shape[] = {rows, columns};
    return mlx_alloc(run, x, 2, shape);
}

zi_arena_mark mlx_mark(zi_run *run)
{
    zi_mlx &mlx = zi_mlx_state(run->ops);
    zi_arena_mark mark = {};
    mark.used = mlx.top;
    mark.in_use = mlx.cells.size();
    return mark;
}

/* The arrays of released cells live on while something that is queued reads them. */
void mlx_release(zi_run *run, zi_arena_mark mark)
{
    zi_mlx &mlx = zi_mlx_state(run->ops);
    mlx.cells.resize(mark.in_use);
    mlx.top = mark.used;
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

/* Adds the operations of an array that are queued and not computed yet, each once. */
void count_nodes(const mx::array &a, std::unordered_set<uintptr_t> &seen)
{
    std::vector<mx::array> left = {a};
    while (!left.empty()) {
        mx::array next = left.back();
        left.pop_back();
        if (next.status() != mx::array::Status::unscheduled || !next.has_primitive() || !seen.insert(next.id()).second)
            continue;
        left.insert(left.end(), next.inputs().begin(), next.inputs().end());
    }
}

void note_evaluation(zi_mlx &mlx, const std::vector<mx::array> &outputs)
{
    mlx.graph.evaluations++;
    if (!mlx.counts_nodes)
        return;
    std::unordered_set<uintptr_t> seen;
    for (const mx::array &output : outputs)
        count_nodes(output, seen);
    mlx.graph.nodes += static_cast<int64_t>(seen.size());
}

/* Everything that the stack holds. */
void add_cells(const zi_mlx &mlx, std::vector<mx::array> &values)
{
    for (const auto &cell : mlx.cells)
        for (const zi_fragment &f : cell->fragments)
            values.push_back(f.values);
}

void add_checks(const zi_mlx &mlx, std::vector<mx::array> &values)
{
    for (const zi_mlx_check &check : mlx.checks)
        values.push_back(check.finite);
}

/* Whether each row of each check is finite: one answer, so that the usual case takes one operation. */
mx::array all_finite(const zi_mlx &mlx)
{
    std::vector<mx::array> rows;
    for (const zi_mlx_check &check : mlx.checks)
        rows.push_back(mx::astype(mx::flatten(check.finite), mx::float32));
    return mx::all(mx::concatenate(rows));
}

std::string first_bad(const zi_mlx &mlx)
{
    for (const zi_mlx_check &check : mlx.checks)
        if (!mx::all(check.finite).item<bool>())
            return check.name.empty() ? "an operation" : check.name;
    return "";
}

void forget_checks(zi_mlx &mlx)
{
    mlx.checks.clear();
    mlx.named = 0;
}

void forget_queued(zi_mlx &mlx)
{
    mlx.queued = mlx.handed[0] = mlx.handed[1] = mlx.handed[2] = 0;
    mlx.block_ended = false;
}

/* Waits for the checks and for `wanted`, if there is any. *bad: the name of the first check that failed. */
void wait(zi_mlx &mlx, const std::optional<mx::array> &wanted, std::string &bad)
{
    std::vector<mx::array> values;
    if (wanted)
        values.push_back(*wanted);
    else
        add_cells(mlx, values);
    if (!mlx.checks.empty())
        values.push_back(all_finite(mlx));
    note_evaluation(mlx, values);
    double start = zi_mlx_now();
    mx::eval(values);
    mlx.graph.building -= zi_mlx_now() - start;
    if (!mlx.checks.empty() && !values.back().item<bool>())
        bad = first_bad(mlx);
    forget_checks(mlx);
    forget_queued(mlx);
    mlx.last.reset();
}

zimage_status finish(zi_run *run, const std::optional<mx::array> &wanted)
{
    std::string bad;
    ZI_TRY(zi_mlx_queue(run, [&](zi_mlx &mlx) { wait(mlx, wanted, bad); }));
    return bad.empty() ? ZIMAGE_OK : zi_fail_not_finite(run->error, bad.c_str());
}

zimage_status mlx_finish(zi_run *run)
{
    return finish(run, std::nullopt);
}

zimage_status mlx_check_finite(zi_run *run, const zi_tensor *x, int *finite)
{
    *finite = 1;
    return zi_mlx_queue(run, [&](zi_mlx &mlx) { zi_mlx_note_check(mlx, zi_cell_read(x), finite); });
}

/* A block of a network ends (zi_mlx_hand_over_block). */
zimage_status mlx_name_check(zi_run *run, const char *name)
{
    zi_mlx_state(run->ops).block_ended = true;
    return zi_mlx_queue(run, [&](zi_mlx &mlx) {
        for (; mlx.named < mlx.checks.size(); mlx.named++)
            mlx.checks[mlx.named].name = name;
    });
}

/* Building the graph of a step takes some milliseconds beside a step of a second: it is built anew each time. */
zimage_status mlx_repeat(zi_run *run, const void *, size_t, zi_work_fn *work, const void *user)
{
    return work(run, user);
}

/* ---- moving ------------------------------------------------------------------------------------------------------ */

zimage_status mlx_upload(zi_run *run, zi_tensor *dst, const float *src)
{
    assert(zi_tensor_is_dense(dst));
    return zi_mlx_queue(
        run, [&](zi_mlx &) { zi_cell_write(dst, mx::array(src, zi_mlx_shape(dst->dims, dst->shape), mx::float32)); });
}

/* Computes what `make` returns, and copies its elements to dst. */
template <typename T, typename Make> zimage_status bring(zi_run *run, T *dst, Make &&make)
{
    std::optional<mx::array> values;
    ZI_TRY(zi_mlx_queue(run, [&](zi_mlx &) { values = mx::contiguous(make()); }));
    if (!values)
        return ZIMAGE_OK;
    ZI_TRY(finish(run, values));
    memcpy(dst, values->data<T>(), values->nbytes());
    return ZIMAGE_OK;
}

zimage_status mlx_download(zi_run *run, float *dst, const zi_tensor *src)
{
    assert(zi_tensor_is_dense(src));
    return bring(run, dst, [&] { return mx::astype(zi_cell_read(src), mx::float32); });
}

/* MLX rounds half to even, as numpy does. */
zimage_status mlx_download_rgb8(zi_run *run, uint8_t *dst, const zi_tensor *src)
{
    assert(zi_tensor_is_dense(src));
    return bring(run, dst, [&] {
        mx::array x = zi_cell_read(src), one = mx::array(1.0F), zero = mx::array(0.0F);
        x = mx::add(mx::multiply(x, mx::array(0.5F)), mx::array(0.5F));
        x = mx::clip(mx::where(mx::isnan(x), zero, x), zero, one);
        return mx::astype(mx::round(mx::multiply(x, mx::array(255.0F))), mx::uint8);
    });
}

/* Copies nothing where the types are equal: arrays never change, so both tensors may have one. */
zimage_status mlx_copy(zi_run *run, zi_tensor *dst, const zi_tensor *src)
{
    assert(zi_tensor_count(dst) == zi_tensor_count(src));
    return zi_mlx_queue(run, [&](zi_mlx &) { zi_cell_write(dst, zi_cell_read(src)); });
}

/* Few rows of a large table are read, so the host converts them, and the table needs no other memory. */
zimage_status mlx_embed_rows(zi_run *run, zi_tensor *y, const zi_weight *table, const int32_t *ids)
{
    int64_t features = table->shape[1], rows = zi_row_count(y);
    assert(table->dims == 2 && zi_features(y) == features);
    ZI_TRY(zi_mlx_check_weight(run, table, 0));
    return zi_mlx_queue(run, [&](zi_mlx &) {
        std::vector<float> values(static_cast<size_t>(rows * features));
        for (int64_t i = 0; i < rows; i++) {
            assert(ids[i] >= 0 && ids[i] < table->shape[0]);
            zi_weight_unpack(table, ids[i] * features, features, values.data() + i * features);
        }
        zi_cell_write(y, mx::array(values.data(), zi_mlx_shape(y->dims, y->shape), mx::float32));
    });
}

/* ---- planning memory --------------------------------------------------------------------------------------------- */

/* Of a job, beside arrays: pages of MLX's code that are used first then, and the nodes of its graphs. Measured on a
 * CPU: 3 to 5 MiB. */
constexpr size_t OVERHEAD = static_cast<size_t>(8) << 20;

double queue_in(uint64_t memory)
{
    return std::clamp(static_cast<double>(memory) / ZI_MLX_QUEUES, ZI_MLX_LEAST_QUEUE, ZI_MLX_MOST_QUEUE);
}

zimage_status mlx_rehearse_begin(zi_run *run)
{
    zi_mlx &mlx = zi_mlx_state(run->ops);
    assert(!mlx.ops.rehearsing);
    mlx.set_aside = mlx.top;
    mlx.peak_aside = mlx.peak;
    mlx.top = mlx.peak = 0;
    mlx.most_queued = queue_in(mlx.ops.room > 0 ? mlx.ops.room : mlx.memory);
    forget_queued(mlx);
    mlx.ops.rehearsing = 1;
    return ZIMAGE_OK;
}

zimage_status mlx_rehearse_stage(zi_run *run, int, size_t *peak)
{
    zi_mlx &mlx = zi_mlx_state(run->ops);
    *peak = mlx.peak + OVERHEAD;
    mlx.peak = mlx.top;
    return ZIMAGE_OK;
}

/* A job begins with a rehearsal: what a cancelled one has queued is not its concern. */
void mlx_rehearse_end(zi_run *run)
{
    zi_mlx &mlx = zi_mlx_state(run->ops);
    if (!mlx.ops.rehearsing)
        return;
    mlx.top = mlx.set_aside;
    mlx.peak = mlx.peak_aside;
    forget_checks(mlx);
    forget_queued(mlx);
    mlx.ops.rehearsing = 0;
}

/* MLX keeps freed memory for later. It may keep as much as the activations take; with a limit, what it allows. */
zimage_status mlx_arrange(zi_run *run, const zi_stage_runs *, int, size_t activations, uint64_t limit, int commit,
                          zi_memory_plan *plan)
{
    *plan = {};
    plan->activations = activations;
    if (!commit)
        return ZIMAGE_OK;
    return zi_mlx_queue(run, [&](zi_mlx &) {
        static const size_t usual = mx::get_memory_limit();
        mx::set_memory_limit(limit > 0 ? static_cast<size_t>(limit) : usual);
        mx::set_cache_limit(activations);
    });
}

zimage_status mlx_forget_weights(zi_run *run)
{
    return zi_mlx_queue(run, [](zi_mlx &mlx) {
        mlx.weights.clear();
        mx::clear_cache();
    });
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

std::string device_name(const mx::Device &device)
{
    auto info = mx::device_info(device);
    auto found = info.find("device_name");
    const std::string *name = found == info.end() ? nullptr : std::get_if<std::string>(&found->second);
    return name != nullptr ? *name : "unknown";
}

/* 0: MLX does not say. */
size_t memory_of(const mx::Device &device)
{
    auto info = mx::device_info(device);
    for (const char *name : {"memory_size", "total_memory"}) { /* Metal's, CUDA's */
        auto found = info.find(name);
        if (found != info.end() && std::holds_alternative<size_t>(found->second))
            return std::get<size_t>(found->second);
    }
    return 0;
}

void mlx_describe(const zi_ops *ops, char *text, size_t size)
{
    const zi_mlx &mlx = zi_mlx_state(ops);
    snprintf(text, size, "mlx %s %s %s%s", mx::version(), mlx.on_gpu() ? device_name(mlx.stream.device).c_str() : "CPU",
             mlx.type == ZI_F32 ? "f32" : "bf16", mlx.own_kernels ? ", own kernels" : "");
}

/* The rate of large dense products in the backend's type: several at a time, because waiting takes time, too. */
double mlx_peak_rate(zi_run *run)
{
    constexpr int RUNS = 3;
    double best = 0;
    zimage_status status = zi_mlx_queue(run, [&](zi_mlx &mlx) {
        int n = mlx.on_gpu() ? 4096 : 512, count = mlx.on_gpu() ? 16 : 1;
        mx::array a = mx::astype(mx::random::normal({n, n}), mlx.dtype());
        mx::eval(a);
        for (int i = 0; i <= RUNS; i++) {
            std::vector<mx::array> products;
            for (int k = 0; k < count; k++)
                products.push_back(mx::matmul(a, mx::transpose(a)));
            double start = zi_mlx_now();
            mx::eval(products);
            double rate = 2.0 * n * n * n * count / (zi_mlx_now() - start);
            best = i > 0 ? std::max(best, rate) : best;
        }
    });
    return status == ZIMAGE_OK ? best : 0;
}

size_t mlx_peak_bytes(const zi_ops *ops)
{
    return zi_mlx_state(ops).peak;
}

size_t mlx_device_bytes(zi_ops *)
{
    return mx::get_active_memory() + mx::get_cache_memory();
}

/* A quarter of a GiB of pixels in float32: then a level of the VAE takes a few times that. */
zimage_status mlx_exchange_seconds(zi_run *, size_t, double *seconds)
{
    *seconds = 0;
    return ZIMAGE_OK;
}

size_t mlx_whole_image_bytes(const zi_ops *)
{
    return static_cast<size_t>(1) << 28;
}

zi_batch mlx_suits_batch(const zi_ops *, int64_t, int64_t)
{
    return ZI_BATCH_ALWAYS;
}

zi_graph_info mlx_graph_info(zi_ops *ops)
{
    zi_mlx &mlx = zi_mlx_state(ops);
    zi_graph_info info = mlx.graph;
    info.peak_bytes = mx::get_peak_memory();
    mx::reset_peak_memory();
    mlx.counts_nodes = mlx.graph.nodes == 0;
    mlx.graph = {};
    return info;
}

void mlx_free(zi_ops *ops)
{
    if (ops == nullptr)
        return;
    try {
        mx::synchronize(zi_mlx_state(ops).stream);
    } catch (...) { /* an error of what was queued: nobody waits for it any more */
    }
    zi_choices_close(&zi_mlx_state(ops).choices);
    delete &zi_mlx_state(ops);
    mx::clear_cache();
}

const zi_ops_table mlx_table = {
    .name = "mlx",
    .memory = ZI_MEMORY_UNIFIED,
    .alloc = mlx_alloc,
    .alloc_f32 = mlx_alloc_f32,
    .alloc_operand = mlx_alloc_operand,
    .alloc_operand_parts = mlx_alloc_operand,
    .mark = mlx_mark,
    .release = mlx_release,
    .upload = mlx_upload,
    .download = mlx_download,
    .download_rgb8 = mlx_download_rgb8,
    .copy = mlx_copy,
    .embed_rows = mlx_embed_rows,
    .linear = zi_mlx_linear,
    .linears = zi_mlx_linears,
    .linear_glu = zi_mlx_linear_glu,
    .silu = zi_mlx_silu,
    .norm = zi_mlx_norm,
    .residual = zi_mlx_residual,
    .rope_table = zi_mlx_rope_table,
    .qk_norm_rope = zi_mlx_qk_norm_rope,
    .attention = zi_mlx_attention,
    .modulation = zi_mlx_modulation,
    .patchify = zi_mlx_patchify,
    .unpatchify = zi_mlx_unpatchify,
    .conv2d = zi_mlx_conv2d,
    .group_norm_sums = zi_mlx_group_norm_sums,
    .group_norm_fold = zi_mlx_group_norm_fold,
    .channel_affine = zi_mlx_channel_affine,
    .check_finite = mlx_check_finite,
    .name_check = mlx_name_check,
    .finish = mlx_finish,
    .repeat = mlx_repeat,
    .rehearse_begin = mlx_rehearse_begin,
    .rehearse_stage = mlx_rehearse_stage,
    .rehearse_end = mlx_rehearse_end,
    .arrange = mlx_arrange,
    .forget_weights = mlx_forget_weights,
    .describe = mlx_describe,
    .peak_rate = mlx_peak_rate,
    .exchange_seconds = mlx_exchange_seconds,
    .peak_bytes = mlx_peak_bytes,
    .device_bytes = mlx_device_bytes,
    .whole_image_bytes = mlx_whole_image_bytes,
    .suits_batch = mlx_suits_batch,
    .graph_info = mlx_graph_info,
    .free = mlx_free,
};

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* MLX promises nothing about the binary form of its classes: only the version of the build can be used. */
zimage_status check_version(zimage_error *error)
{
    char built[32];
    snprintf(built, sizeof built, "%d.%d.%d", MLX_VERSION_MAJOR, MLX_VERSION_MINOR, MLX_VERSION_PATCH);
    if (strcmp(mx::version(), built) == 0)
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                   "no MLX device: MLX %s was loaded, but libzimage-mlx was built with MLX %s: build zimage again",
                   mx::version(), built);
}

mx::Device best_device()
{
    mx::Device gpu(mx::Device::gpu);
    return mx::is_available(gpu) ? gpu : mx::Device(mx::Device::cpu);
}

void open_choices(zi_mlx &mlx, const char *folder)
{
    char header[256];
    snprintf(header, sizeof header, "zimage-mlx %d, MLX %s, %.80s", ZI_MLX_ABI, mx::version(),
             mlx.on_gpu() ? device_name(mlx.stream.device).c_str() : "CPU");
    zi_choices_open(&mlx.choices, folder, "mlx", header);
}

} // namespace

/*
 * MLX frees an array some time after everything that reads it has been computed. On an H200 the arrays of up to three
 * and a half hand-overs were there at once; a rehearsal counts four beside the stack.
 */
void zi_mlx_scratch(zi_mlx &mlx, double bytes)
{
    mlx.queued += bytes;
    if (!mlx.ops.rehearsing)
        return;
    mlx.peak =
        std::max(mlx.peak, mlx.top + static_cast<size_t>(mlx.queued + mlx.handed[0] + mlx.handed[1] + mlx.handed[2]));
    if (mlx.queued > mlx.most_queued)
        zi_mlx_hand_over(mlx);
}

/*
 * The host is at most two hand-overs ahead. So a job can be cancelled within two blocks, progress is true, and what is
 * queued does not pile up in memory.
 */
void zi_mlx_hand_over(zi_mlx &mlx)
{
    mlx.handed[2] = mlx.handed[1];
    mlx.handed[1] = mlx.handed[0];
    mlx.handed[0] = mlx.queued;
    mlx.queued = 0;
    mlx.block_ended = false;
    if (mlx.ops.rehearsing)
        return;
    std::vector<mx::array> values;
    add_cells(mlx, values);
    add_checks(mlx, values);
    auto is_new = [](const mx::array &a) { return a.status() == mx::array::Status::unscheduled; };
    auto newest = std::find_if(values.rbegin(), values.rend(), is_new);
    if (newest == values.rend())
        return;
    mx::array marker = *newest;
    note_evaluation(mlx, values);
    mx::async_eval(values);
    double start = zi_mlx_now();
    if (mlx.last)
        mlx.last->wait();
    mlx.graph.building -= zi_mlx_now() - start;
    mlx.last = marker;
}

/*
 * Attention calls this, not a block's end: then the products before it, and the unpacking of their weights, are in one
 * graph with the last products of the block before, and the GPU computes both side by side. What has ended begins to be
 * computed while the host queues the next block.
 */
zimage_status zi_mlx_hand_over_block(zi_run *run)
{
    zi_mlx &state = zi_mlx_state(run->ops);
    if (!state.block_ended)
        return ZIMAGE_OK;
    if (state.ops.rehearsing)
        zi_mlx_hand_over(state);
    return zi_mlx_queue(run, [](zi_mlx &mlx) { zi_mlx_hand_over(mlx); });
}

void zi_mlx_note_check(zi_mlx &mlx, const mx::array &x, int *finite)
{
    *finite = 1; /* as far as is known now */
    mlx.checks.push_back({mx::all(mx::isfinite(x)), ""});
}

/*
 * MLX multiplies float32 numbers as TF32, with 10 bits of precision, where the GPU has that, unless this variable says
 * otherwise when it first multiplies. "f32" promises float32, and some products of a bf16 run are float32 on purpose.
 * So the variable is set when this library is loaded. It concerns MLX only; a user's own setting stays.
 */
__attribute__((constructor)) static void leave_tf32()
{
    setenv("MLX_ENABLE_TF32", "0", 0);
}

int zi_mlx_abi(size_t *layout)
{
    *layout = ZI_MLX_LAYOUT;
    return ZI_MLX_ABI;
}

zimage_status zi_mlx_find(zi_mlx_device *device, zimage_error *error)
{
    *device = {};
    ZI_TRY(check_version(error));
    try {
        mx::Device found = best_device();
        device->is_gpu = found == mx::Device::gpu;
        snprintf(device->name, sizeof device->name, "%s", device->is_gpu ? device_name(found).c_str() : "CPU");
        snprintf(device->version, sizeof device->version, "%s", mx::version());
        device->memory = device->is_gpu ? memory_of(found) : 0;
        return ZIMAGE_OK;
    } catch (const std::exception &e) {
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED, "no MLX device: %s", e.what());
    }
}

zimage_status zi_ops_mlx_new(const zi_mlx_options *options, zi_ops **ops, zimage_error *error)
{
    *ops = nullptr;
    if (options->compute > ZIMAGE_COMPUTE_BF16)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "compute: %d, expected f32 or bf16 with MLX", options->compute);
    ZI_TRY(check_version(error));
    try {
        zi_dtype type = options->compute == ZIMAGE_COMPUTE_F32 ? ZI_F32 : ZI_BF16;
        auto mlx = std::make_unique<zi_mlx>(mx::new_thread_unsafe_stream(best_device()), type);
        mlx->ops.table = &mlx_table;
        zi_mlx_enter(*mlx);
        mlx->memory = mlx->on_gpu() ? memory_of(mlx->stream.device) : 0;
        mlx->cuda = mlx->on_gpu() && mx::device_info(mlx->stream.device).count("compute_capability_major") > 0;
        mlx->own_kernels = mlx->on_gpu() && type == ZI_BF16 && zi_mlx_kernels_agree();
        open_choices(*mlx, options->cache);
        *ops = &mlx.release()->ops;
        return ZIMAGE_OK;
    } catch (const std::exception &e) {
        return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED, "no MLX device: %s", e.what());
    }
}
