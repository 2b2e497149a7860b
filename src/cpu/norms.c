/* Norms, rotary positions and other passes over rows: bound by memory, so each touches its data once. */
#include <assert.h>
#include <string.h>

#include "cpu/table.h"

#define TASK_FLOATS ((int64_t)32 << 10)

/* What a task does with its rows; fields mean what the operation's arguments mean. */
typedef struct rows_job {
    const zi_cpu *cpu;
    const zi_cpu_kernels *kernels;
    void (*row)(const struct rows_job *job, int64_t row, int worker);
    int64_t rows, features, rows_a_task;
    float *y;
    const float *x;
    const zi_tensor *h; /* what a norm writes, or NULL */
    const float *gain, *gain_next;
    float eps;
    const float *cos, *sin;
    int64_t heads;
    zi_rope_layout layout;
    int *finite; /* one flag a row */
    zi_worker_buffers buffers;
} rows_job;

static void rows_task(void *arg, int64_t task, int worker)
{
    const rows_job *job = arg;
    int64_t first = task * job->rows_a_task, last = zi_min(first + job->rows_a_task, job->rows);
    for (int64_t row = first; row < last; row++)
        job->row(job, row, worker);
}

static void run_rows(zi_ops *ops, rows_job *job)
{
    job->rows_a_task = zi_max(1, TASK_FLOATS / job->features);
    zi_pool_run(zi_cpu_of(ops)->pool, rows_task, job, zi_ceil_div(job->rows, job->rows_a_task));
}

static rows_job rows_of(zi_ops *ops, const zi_tensor *x, float eps)
{
    return (rows_job){
        .cpu = zi_cpu_of(ops),
        .kernels = zi_cpu_of(ops)->kernels,
        .rows = zi_row_count(x),
        .features = zi_features(x),
        .x = zi_f32(x),
        .eps = eps,
    };
}

/* weight * factor, each of which may be NULL (1), in the arena. */
static zimage_status combined_gain(zi_ops *ops, int64_t n, const zi_weight *weight, const zi_tensor *factor,
                                   const float **gain)
{
    assert((weight == NULL || zi_weight_count(weight) == n) && (factor == NULL || zi_tensor_count(factor) == n));
    float *data;
    ZI_TRY(zi_host_floats(ops, n, "a norm", &data));
    if (weight != NULL)
        zi_cpu_unpack(zi_cpu_of(ops)->kernels, weight, 0, n, data);
    for (int64_t i = 0; i < n; i++)
        data[i] = (weight != NULL ? data[i] : 1) * (factor != NULL ? zi_f32(factor)[i] : 1);
    *gain = data;
    return ZIMAGE_OK;
}

/* ---- RMS and layer norm ------------------------------------------------------------------------------------------ */

/* Where row `row` of h is computed: in place, or where an operand's is packed from. NULL: there is no h. */
static float *normed_row(const rows_job *job, int64_t row, int worker)
{
    if (job->h == NULL)
        return NULL;
    return job->h->dtype == ZI_OPERAND ? zi_worker_buffer(&job->buffers, worker) : zi_f32(job->h) + row * job->features;
}

static void write_normed(const rows_job *job, int64_t row, const float *normed)
{
    if (job->h != NULL && job->h->dtype == ZI_OPERAND)
        zi_cpu_pack_numbers(job->cpu, job->h, row, 0, normed, job->features);
}

static zimage_status row_buffers(zi_ops *ops, rows_job *job)
{
    if (job->h == NULL || job->h->dtype != ZI_OPERAND)
        return ZIMAGE_OK;
    return zi_cpu_worker_buffers(ops, job->features, "a norm", &job->buffers);
}

static void rms_row(const rows_job *job, int64_t row, int worker)
{
    int64_t n = job->features;
    float *normed = normed_row(job, row, worker);
    job->kernels->rms_norm(normed, job->x + row * n, job->gain, n, job->eps);
    write_normed(job, row, normed);
}

static void layer_row(const rows_job *job, int64_t row, int worker)
{
    int64_t n = job->features;
    float *normed = normed_row(job, row, worker);
    job->kernels->layer_norm(normed, job->x + row * n, job->gain, n, job->eps);
    write_normed(job, row, normed);
}

static zimage_status norm(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w, const zi_tensor *scale,
                          float eps, void (*row)(const rows_job *job, int64_t row, int worker))
{
    assert(zi_tensor_count(y) == zi_tensor_count(x));
    rows_job job = rows_of(ops, x, eps);
    job.h = y;
    job.row = row;
    zi_arena_mark mark = zi_host_mark(ops);
    zimage_status status = combined_gain(ops, job.features, w, scale, &job.gain);
    if (status == ZIMAGE_OK)
        status = row_buffers(ops, &job);
    if (status == ZIMAGE_OK)
        run_rows(ops, &job);
    zi_host_release(ops, mark);
    return status;
}

zimage_status zi_cpu_rms_norm(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_weight *w, const zi_tensor *scale,
                              float eps)
{
    return norm(ops, y, x, w, scale, eps, rms_row);
}

zimage_status zi_cpu_layer_norm(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_tensor *scale, float eps)
{
    return norm(ops, y, x, NULL, scale, eps, layer_row);
}

static void residual_row(const rows_job *job, int64_t row, int worker)
{
    int64_t n = job->features;
    float *normed = normed_row(job, row, worker);
    job->finite[row] =
        job->kernels->residual(job->y + row * n, job->x + row * n, job->gain, normed, job->gain_next, n, job->eps);
    write_normed(job, row, normed);
}

static zimage_status residual(zi_ops *ops, rows_job *job, const zi_weight *w, const zi_tensor *gate,
                              const zi_weight *w_next, const zi_tensor *scale_next)
{
    float *flags;
    _Static_assert(sizeof(int) == sizeof(float), "flags are allocated as floats");
    ZI_TRY(zi_host_floats(ops, job->rows, "a norm", &flags));
    job->finite = (int *)(void *)flags;
    ZI_TRY(combined_gain(ops, job->features, w, gate, &job->gain));
    if (job->h != NULL)
        ZI_TRY(combined_gain(ops, job->features, w_next, scale_next, &job->gain_next));
    ZI_TRY(row_buffers(ops, job));
    run_rows(ops, job);
    return ZIMAGE_OK;
}

zimage_status zi_cpu_residual_gate_norm(zi_ops *ops, zi_tensor *x, const zi_tensor *y, const zi_weight *w,
                                        const zi_tensor *gate, zi_tensor *h, const zi_weight *w_next,
                                        const zi_tensor *scale_next, float eps, int *finite)
{
    assert(zi_tensor_count(y) == zi_tensor_count(x) && (h == NULL || zi_tensor_count(h) == zi_tensor_count(x)));
    rows_job job = rows_of(ops, y, eps);
    job.y = zi_f32(x);
    job.h = h;
    job.row = residual_row;
    zi_arena_mark mark = zi_host_mark(ops);
    zimage_status status = residual(ops, &job, w, gate, w_next, scale_next);
    if (status == ZIMAGE_OK && finite != NULL) {
        *finite = 1;
        for (int64_t row = 0; row < job.rows; row++)
            *finite &= job.finite[row];
    }
    zi_host_release(ops, mark);
    return status;
}

/* ---- query and key: norm of each head, rotation ------------------------------------------------------------------ */

/* cos and sin of one token spread over a head, signs included: out = x * cos + partner * sin. */
static void spread_rotation(const rows_job *job, int64_t row, int64_t half, float *cos, float *sin)
{
    const float *c = job->cos + row * half, *s = job->sin + row * half;
    int64_t step = job->layout == ZI_ROPE_ADJACENT ? 2 : 1, partner = job->layout == ZI_ROPE_ADJACENT ? 1 : half;
    for (int64_t j = 0; j < half; j++) {
        cos[j * step] = cos[j * step + partner] = c[j];
        sin[j * step] = -s[j];
        sin[j * step + partner] = s[j];
    }
}

static void rope_row(const rows_job *job, int64_t row, int worker)
{
    int64_t dim = job->features / job->heads;
    float *scratch = zi_worker_buffer(&job->buffers, worker), *cos = scratch + dim, *sin = cos + dim;
    spread_rotation(job, row, dim / 2, cos, sin);
    for (int64_t head = 0; head < job->heads; head++)
        job->kernels->qk_norm_rope(job->y + row * job->features + head * dim, scratch, job->gain, cos, sin, dim,
                                   job->layout, job->eps);
}

static zimage_status rope(zi_ops *ops, rows_job *job, const zi_weight *w)
{
    int64_t dim = job->features / job->heads;
    ZI_TRY(combined_gain(ops, dim, w, NULL, &job->gain));
    ZI_TRY(zi_cpu_worker_buffers(ops, 3 * dim, "rotary positions", &job->buffers));
    run_rows(ops, job);
    return ZIMAGE_OK;
}

zimage_status zi_cpu_qk_norm_rope(zi_ops *ops, zi_tensor *x, const zi_weight *w, const zi_tensor *cos,
                                  const zi_tensor *sin, int64_t heads, zi_rope_layout layout, float eps)
{
    int64_t dim = zi_features(x) / heads;
    assert(dim * heads == zi_features(x) && dim % 2 == 0);
    assert(zi_tensor_count(cos) == zi_row_count(x) * (dim / 2) && zi_tensor_count(sin) == zi_tensor_count(cos));
    rows_job job = rows_of(ops, x, eps);
    job.y = zi_f32(x);
    job.cos = zi_f32(cos);
    job.sin = zi_f32(sin);
    job.heads = heads;
    job.layout = layout;
    job.row = rope_row;
    (void)dim;
    zi_arena_mark mark = zi_host_mark(ops);
    zimage_status status = rope(ops, &job, w);
    zi_host_release(ops, mark);
    return status;
}

/* ---- elements ---------------------------------------------------------------------------------------------------- */

/* Any tensor as rows of TASK_FLOATS. */
typedef struct flat_job {
    const zi_cpu_kernels *kernels;
    int64_t count;
    float *y;
    const float *x;
    int *finite; /* one flag a task */
} flat_job;

static void silu_task(void *arg, int64_t task, int worker)
{
    const flat_job *job = arg;
    int64_t first = task * TASK_FLOATS;
    job->kernels->silu(job->y + first, job->x + first, zi_min(TASK_FLOATS, job->count - first));
}

zimage_status zi_cpu_silu(zi_ops *ops, zi_tensor *y, const zi_tensor *x)
{
    assert(zi_tensor_count(y) == zi_tensor_count(x));
    flat_job job = {.kernels = zi_cpu_of(ops)->kernels, .count = zi_tensor_count(x), .y = zi_f32(y), .x = zi_f32(x)};
    zi_pool_run(zi_cpu_of(ops)->pool, silu_task, &job, zi_ceil_div(job.count, TASK_FLOATS));
    return ZIMAGE_OK;
}

static void finite_task(void *arg, int64_t task, int worker)
{
    const flat_job *job = arg;
    int64_t first = task * TASK_FLOATS;
    job->finite[task] = job->kernels->finite(job->x + first, zi_min(TASK_FLOATS, job->count - first));
}

zimage_status zi_cpu_check_finite(zi_ops *ops, const zi_tensor *x, int *finite)
{
    flat_job job = {.kernels = zi_cpu_of(ops)->kernels, .count = zi_tensor_count(x), .x = zi_f32(x)};
    int64_t tasks = zi_ceil_div(job.count, TASK_FLOATS);
    zi_arena_mark mark = zi_host_mark(ops);
    float *flags;
    _Static_assert(sizeof(int) == sizeof(float), "flags are allocated as floats");
    ZI_TRY(zi_host_floats(ops, tasks, "a check", &flags));
    job.finite = (int *)(void *)flags;
    zi_pool_run(zi_cpu_of(ops)->pool, finite_task, &job, tasks);
    *finite = 1;
    for (int64_t i = 0; i < tasks; i++)
        *finite &= job.finite[i];
    zi_host_release(ops, mark);
    return ZIMAGE_OK;
}

/* ---- channels-last images ---------------------------------------------------------------------------------------- */

typedef struct channels_job {
    const zi_cpu_kernels *kernels;
    const float *x;
    float *y;
    int64_t pixels, channels; /* of one row of the image */
    const zi_channel_affine *affine;
    double *sums; /* [rows][2][channels] */
} channels_job;

static channels_job channels_of(zi_ops *ops, const zi_tensor *x)
{
    return (channels_job){
        .kernels = zi_cpu_of(ops)->kernels,
        .x = zi_f32(x),
        .pixels = zi_row_count(x) / x->shape[0],
        .channels = zi_features(x),
    };
}

static void affine_task(void *arg, int64_t row, int worker)
{
    const channels_job *job = arg;
    int64_t place = row * job->pixels * job->channels;
    job->kernels->affine(job->y + place, job->x + place, zi_f32(&job->affine->scale), zi_f32(&job->affine->shift),
                         job->pixels, job->channels, 0);
}

zimage_status zi_cpu_channel_affine(zi_ops *ops, zi_tensor *y, const zi_tensor *x, const zi_channel_affine *affine)
{
    assert(zi_tensor_count(y) == zi_tensor_count(x) && zi_tensor_count(&affine->scale) == zi_features(x));
    channels_job job = channels_of(ops, x);
    job.y = zi_f32(y);
    job.affine = affine;
    zi_pool_run(zi_cpu_of(ops)->pool, affine_task, &job, x->shape[0]);
    return ZIMAGE_OK;
}

static void sums_task(void *arg, int64_t row, int worker)
{
    const channels_job *job = arg;
    double *sums = job->sums + row * 2 * job->channels;
    memset(sums, 0, (size_t)(2 * job->channels) * sizeof(*sums));
    job->kernels->channel_sums(sums, job->x + row * job->pixels * job->channels, job->pixels, job->channels);
}

/* Each row of the image by itself, then the rows in order: the same bits for any threads and any bands of whole rows. */
zimage_status zi_cpu_group_norm_sums(zi_ops *ops, zi_tensor *tensor, const zi_tensor *x, int accumulate)
{
    channels_job job = channels_of(ops, x);
    int64_t rows = x->shape[0], channels = job.channels, size = channels / tensor->shape[0];
    double *sums = zi_host_sums(tensor, accumulate);
    assert(size * tensor->shape[0] == channels);
    zi_arena_mark mark = zi_host_mark(ops);
    float *data;
    ZI_TRY(zi_host_floats(ops, rows * channels * 4, "group norm", &data));
    job.sums = (double *)(void *)data;
    zi_pool_run(zi_cpu_of(ops)->pool, sums_task, &job, rows);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t c = 0; c < channels; c++) {
            sums[c / size * 2] += job.sums[row * 2 * channels + c];
            sums[c / size * 2 + 1] += job.sums[(row * 2 + 1) * channels + c];
        }
    zi_host_release(ops, mark);
    return ZIMAGE_OK;
}
