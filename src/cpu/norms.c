/* Norms, residuals, rotary positions and other passes over rows. Memory limits them, so each passes over its data
 * once. */
#include <assert.h>
#include <string.h>

#include "cpu/table.h"

#define TASK_FLOATS ((int64_t)32 << 10)

/* A norm with its factors as float32 vectors. */
typedef struct row_norm {
    zi_norm_kind kind;
    float eps;
    const float *gain;  /* [features] */
    const float *shift; /* [features], or NULL */
} row_norm;

/* What a task does with its rows. */
typedef struct rows_job {
    const zi_cpu *cpu;
    const zi_cpu_kernels *kernels;
    void (*row)(const struct rows_job *job, int64_t row, int worker);
    int64_t rows, features, rows_a_task;
    const float *x;     /* what is normed or added */
    float *y;           /* what is added to, or rotated */
    const zi_tensor *h; /* what the norm writes, or NULL */
    row_norm norm;
    const float *gate; /* of what is added: the gate, with the weight of the norm before it */
    float post_eps;
    int *finite; /* one flag a row */
    const float *cos, *sin;
    int64_t heads, head_dim, ld; /* of rotated rows; ld: floats between them */
    zi_rope_layout layout;
    zi_worker_buffers buffers;
} rows_job;

static void rows_task(void *arg, int64_t task, int worker)
{
    const rows_job *job = arg;
    int64_t first = task * job->rows_a_task, last = zi_min_int64(first + job->rows_a_task, job->rows);
    for (int64_t row = first; row < last; row++)
        job->row(job, row, worker);
}

static void run_rows(zi_run *run, rows_job *job)
{
    job->rows_a_task = zi_max_int64(1, TASK_FLOATS / job->features);
    zi_cpu_run_tasks(run, rows_task, job, zi_ceil_div(job->rows, job->rows_a_task));
}

static rows_job rows_of(zi_run *run, const zi_tensor *x)
{
    return (rows_job){
        .cpu = zi_cpu_of(run),
        .kernels = zi_cpu_of(run)->kernels,
        .rows = zi_row_count(x),
        .features = zi_features(x),
        .x = zi_f32(x),
    };
}

/* weight * a * b in the arena; each of them may be NULL, which is 1. */
static zimage_status combined_gain(zi_run *run, int64_t n, const zi_weight *weight, const zi_tensor *a,
                                   const zi_tensor *b, const float **gain)
{
    assert((weight == NULL || zi_weight_count(weight) == n) && (a == NULL || zi_tensor_count(a) == n));
    assert(b == NULL || zi_tensor_count(b) == n);
    float *data;
    ZI_TRY(zi_host_floats(run, n, "a norm", &data));
    *gain = data;
    if (zi_host_rehearses(run))
        return ZIMAGE_OK;
    if (weight != NULL)
        zi_cpu_unpack(zi_cpu_of(run)->kernels, weight, 0, n, data);
    for (int64_t i = 0; i < n; i++)
        data[i] = (weight != NULL ? data[i] : 1) * (a != NULL ? zi_f32(a)[i] : 1) * (b != NULL ? zi_f32(b)[i] : 1);
    return ZIMAGE_OK;
}

/* ---- RMS and layer norm ------------------------------------------------------------------------------------------ */

static zimage_status prepare_norm(zi_run *run, int64_t n, const zi_norm *norm, row_norm *result)
{
    assert(norm->shift == NULL || zi_tensor_count(norm->shift) == n);
    *result = (row_norm){.kind = norm->kind, .eps = norm->eps};
    result->shift = norm->shift != NULL ? zi_f32(norm->shift) : NULL;
    return combined_gain(run, n, norm->weight, norm->scale, NULL, &result->gain);
}

/* Where row `row` of h is computed: in h itself, or in the worker's buffer if packed activations are made of it. NULL:
 * there is no h. */
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

static zimage_status row_buffers(zi_run *run, rows_job *job)
{
    if (job->h == NULL || job->h->dtype != ZI_OPERAND)
        return ZIMAGE_OK;
    return zi_cpu_worker_buffers(run, job->features, "a norm", &job->buffers);
}

static void apply_norm(const rows_job *job, float *y, const float *x)
{
    const row_norm *norm = &job->norm;
    int64_t n = job->features;
    if (norm->kind == ZI_NORM_RMS)
        job->kernels->rms_norm(y, x, norm->gain, n, norm->eps);
    else
        job->kernels->layer_norm(y, x, norm->gain, n, norm->eps);
    if (norm->shift != NULL)
        job->kernels->add(y, norm->shift, n);
}

static void norm_row(const rows_job *job, int64_t row, int worker)
{
    float *normed = normed_row(job, row, worker);
    apply_norm(job, normed, job->x + row * job->features);
    write_normed(job, row, normed);
}

zimage_status zi_cpu_norm(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_norm *norm)
{
    assert(zi_tensor_count(y) == zi_tensor_count(x));
    rows_job job = rows_of(run, x);
    job.h = y;
    job.row = norm_row;
    zi_arena_mark mark = zi_host_mark(run);
    zimage_status status = prepare_norm(run, job.features, norm, &job.norm);
    if (status == ZIMAGE_OK)
        status = row_buffers(run, &job);
    if (status == ZIMAGE_OK)
        run_rows(run, &job);
    zi_host_release(run, mark);
    return status;
}

/* ---- residuals --------------------------------------------------------------------------------------------------- */

/* An RMS norm before and an RMS norm of the same eps after, or none: one kernel. */
static void residual_row(const rows_job *job, int64_t row, int worker)
{
    int64_t n = job->features;
    float *normed = normed_row(job, row, worker);
    job->finite[row] =
        job->kernels->residual(job->y + row * n, job->x + row * n, job->gate, normed, job->norm.gain, n, job->post_eps);
    write_normed(job, row, normed);
}

/* An RMS norm before, and any norm after. */
static void residual_any_row(const rows_job *job, int64_t row, int worker)
{
    int64_t n = job->features;
    float *normed = normed_row(job, row, worker), *y = job->y + row * n;
    job->finite[row] = job->kernels->residual(y, job->x + row * n, job->gate, NULL, NULL, n, job->post_eps);
    apply_norm(job, normed, y);
    write_normed(job, row, normed);
}

/* No norm before; any norm after, or none. */
static void residual_plain_row(const rows_job *job, int64_t row, int worker)
{
    int64_t n = job->features;
    float *normed = normed_row(job, row, worker), *y = job->y + row * n;
    job->finite[row] = job->kernels->add_scaled(y, job->x + row * n, job->gate, n);
    if (normed != NULL)
        apply_norm(job, normed, y);
    write_normed(job, row, normed);
}

static zimage_status residual_rows(zi_run *run, rows_job *job, const zi_residual *residual)
{
    const zi_norm *post = residual->post, *next = residual->next;
    float *flags;
    _Static_assert(sizeof(int) == sizeof(float), "flags are allocated as floats");
    ZI_TRY(zi_host_floats(run, job->rows, "a norm", &flags));
    job->finite = (int *)(void *)flags;
    ZI_TRY(combined_gain(run, job->features, post != NULL ? post->weight : NULL, post != NULL ? post->scale : NULL,
                         residual->gate, &job->gate));
    if (next != NULL)
        ZI_TRY(prepare_norm(run, job->features, next, &job->norm));
    ZI_TRY(row_buffers(run, job));
    run_rows(run, job);
    if (residual->finite != NULL) {
        *residual->finite = 1;
        for (int64_t row = 0; row < job->rows && !zi_host_rehearses(run); row++)
            *residual->finite &= job->finite[row];
    }
    return ZIMAGE_OK;
}

zimage_status zi_cpu_residual(zi_run *run, zi_tensor *x, const zi_tensor *y, zi_tensor *h, const zi_residual *residual)
{
    const zi_norm *post = residual->post, *next = residual->next;
    assert(zi_tensor_count(y) == zi_tensor_count(x) && (h == NULL || zi_tensor_count(h) == zi_tensor_count(x)));
    assert((h != NULL) == (next != NULL));
    assert(post == NULL || (post->kind == ZI_NORM_RMS && post->shift == NULL));
    rows_job job = rows_of(run, y);
    job.y = zi_f32(x);
    job.h = h;
    job.post_eps = post != NULL ? post->eps : 0;
    if (post == NULL)
        job.row = residual_plain_row;
    else if (next == NULL || (next->kind == ZI_NORM_RMS && next->shift == NULL && next->eps == post->eps))
        job.row = residual_row;
    else
        job.row = residual_any_row;
    zi_arena_mark mark = zi_host_mark(run);
    zimage_status status = residual_rows(run, &job, residual);
    zi_host_release(run, mark);
    return status;
}

/* ---- query and key: norm of each head, rotation ------------------------------------------------------------------ */

/* cos and sin of one token for each element of a head, with signs: out = x * cos + partner * sin. */
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
    int64_t dim = job->head_dim;
    float *scratch = zi_worker_buffer(&job->buffers, worker), *cos = scratch + dim, *sin = cos + dim;
    spread_rotation(job, row, dim / 2, cos, sin);
    for (int64_t head = 0; head < job->heads; head++)
        job->kernels->qk_norm_rope(job->y + row * job->ld + head * dim, scratch, job->norm.gain, cos, sin, dim,
                                   job->layout, job->norm.eps);
}

static zimage_status rotate_rows(zi_run *run, rows_job *job, const zi_weight *w)
{
    ZI_TRY(combined_gain(run, job->head_dim, w, NULL, NULL, &job->norm.gain));
    ZI_TRY(zi_cpu_worker_buffers(run, 3 * job->head_dim, "rotary positions", &job->buffers));
    run_rows(run, job);
    return ZIMAGE_OK;
}

static zimage_status norm_and_rotate(zi_run *run, zi_tensor *x, const zi_weight *weight, const zi_qk_norm_rope *args)
{
    rows_job job = rows_of(run, x);
    job.y = zi_f32(x);
    job.ld = x->ld;
    job.head_dim = zi_weight_count(weight);
    job.heads = job.features / job.head_dim;
    job.cos = zi_f32(args->cos);
    job.sin = zi_f32(args->sin);
    job.layout = args->layout;
    job.norm.eps = args->eps;
    job.row = rope_row;
    assert(job.head_dim * job.heads == job.features && job.head_dim % 2 == 0);
    assert(zi_tensor_count(args->cos) == job.rows * (job.head_dim / 2));
    assert(zi_tensor_count(args->sin) == zi_tensor_count(args->cos));
    zi_arena_mark mark = zi_host_mark(run);
    zimage_status status = rotate_rows(run, &job, weight);
    zi_host_release(run, mark);
    return status;
}

zimage_status zi_cpu_qk_norm_rope(zi_run *run, zi_tensor *x, const zi_qk_norm_rope *args)
{
    assert(zi_weight_count(args->weight) * args->heads == zi_features(x));
    ZI_TRY(norm_and_rotate(run, x, args->weight, args));
    return args->k != NULL ? norm_and_rotate(run, args->k, args->k_weight, args) : ZIMAGE_OK;
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
    job->kernels->silu(job->y + first, job->x + first, zi_min_int64(TASK_FLOATS, job->count - first));
}

zimage_status zi_cpu_silu(zi_run *run, zi_tensor *y, const zi_tensor *x)
{
    assert(zi_tensor_count(y) == zi_tensor_count(x));
    flat_job job = {.kernels = zi_cpu_of(run)->kernels, .count = zi_tensor_count(x), .y = zi_f32(y), .x = zi_f32(x)};
    zi_cpu_run_tasks(run, silu_task, &job, zi_ceil_div(job.count, TASK_FLOATS));
    return ZIMAGE_OK;
}

static void finite_task(void *arg, int64_t task, int worker)
{
    const flat_job *job = arg;
    int64_t first = task * TASK_FLOATS;
    job->finite[task] = job->kernels->finite(job->x + first, zi_min_int64(TASK_FLOATS, job->count - first));
}

zimage_status zi_cpu_check_finite(zi_run *run, const zi_tensor *x, int *finite)
{
    flat_job job = {.kernels = zi_cpu_of(run)->kernels, .count = zi_tensor_count(x), .x = zi_f32(x)};
    int64_t tasks = zi_ceil_div(job.count, TASK_FLOATS);
    zi_arena_mark mark = zi_host_mark(run);
    float *flags;
    _Static_assert(sizeof(int) == sizeof(float), "flags are allocated as floats");
    ZI_TRY(zi_host_floats(run, tasks, "a check", &flags));
    job.finite = (int *)(void *)flags;
    zi_cpu_run_tasks(run, finite_task, &job, tasks);
    *finite = 1;
    for (int64_t i = 0; i < tasks && !zi_host_rehearses(run); i++)
        *finite &= job.finite[i];
    zi_host_release(run, mark);
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

static channels_job channels_of(zi_run *run, const zi_tensor *x)
{
    return (channels_job){
        .kernels = zi_cpu_of(run)->kernels,
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

zimage_status zi_cpu_channel_affine(zi_run *run, zi_tensor *y, const zi_tensor *x, const zi_channel_affine *affine)
{
    assert(zi_tensor_count(y) == zi_tensor_count(x) && zi_tensor_count(&affine->scale) == zi_features(x));
    channels_job job = channels_of(run, x);
    job.y = zi_f32(y);
    job.affine = affine;
    zi_cpu_run_tasks(run, affine_task, &job, x->shape[0]);
    return ZIMAGE_OK;
}

static void sums_task(void *arg, int64_t row, int worker)
{
    const channels_job *job = arg;
    double *sums = job->sums + row * 2 * job->channels;
    memset(sums, 0, (size_t)(2 * job->channels) * sizeof(*sums));
    job->kernels->channel_sums(sums, job->x + row * job->pixels * job->channels, job->pixels, job->channels);
}

/* Adds up each row of the image by itself, then the rows in order. So the result has the same bits for any number of
 * threads and any bands of whole rows. */
zimage_status zi_cpu_group_norm_sums(zi_run *run, zi_tensor *tensor, const zi_tensor *x, int accumulate)
{
    channels_job job = channels_of(run, x);
    int64_t rows = x->shape[0], channels = job.channels, size = channels / tensor->shape[0];
    double *sums = zi_host_sums(run, tensor, accumulate);
    assert(size * tensor->shape[0] == channels);
    zi_arena_mark mark = zi_host_mark(run);
    float *data;
    ZI_TRY(zi_host_floats(run, rows * channels * 4, "group norm", &data));
    job.sums = (double *)(void *)data;
    zi_cpu_run_tasks(run, sums_task, &job, rows);
    for (int64_t row = 0; row < rows && !zi_host_rehearses(run); row++)
        for (int64_t c = 0; c < channels; c++) {
            sums[c / size * 2] += job.sums[row * 2 * channels + c];
            sums[c / size * 2 + 1] += job.sums[(row * 2 + 1) * channels + c];
        }
    zi_host_release(run, mark);
    return ZIMAGE_OK;
}
