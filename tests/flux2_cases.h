/* The cases of tests/golden/flux2.safetensors, with the weights and inputs that tools/golden/make_flux2.py makes. */
#ifndef ZI_TESTS_FLUX2_CASES_H
#define ZI_TESTS_FLUX2_CASES_H

#include "flux2_weights.h"
#include "networks.h"

#define FLUX2_CHANNELS       8
#define FLUX2_JOINT          24
#define FLUX2_REFERENCES_MAX 2
#define FLUX2_PASSES_MAX     2

/* Uniform numbers base +- scale that depend on the name and the place: splitmix64 of both. */
static inline void made(const char *name, float *out, int64_t count, double scale, double base)
{
    uint64_t start = crc32_of(name) * UINT64_C(0xD1B54A32D192ED03);
    for (int64_t k = 1; k <= count; k++) {
        uint64_t z = start + (uint64_t)k * UINT64_C(0x9E3779B97F4A7C15);
        z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
        z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
        z ^= z >> 31;
        out[k - 1] = (float)(base + scale * (2 * ((double)(z >> 11) * 0x1p-53) - 1));
    }
}

static inline void made_weight(const char *name, int dims, const int64_t *shape, float *out)
{
    double gain = strstr(name, "modulation") || strstr(name, "norm_out") ? 2 : 1;
    if (dims == 1)
        made(name, out, shape[0], 0.4, 1);
    else
        made(name, out, shape[0] * shape[1], gain * sqrt(3.0 / (double)shape[1]), 0);
}

static inline zi_flux2_dit_config flux2_config(void)
{
    char path[4096];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_flux2_dit_config config;
    golden_path(path, sizeof path, "flux2/config.json");
    if (zi_flux2_dit_config_read(path, NULL, &config, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return config;
}

static inline void open_flux2(zi_store **store, zi_flux2_dit *model)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    const zi_flux2_dit_config config = flux2_config();
    weights_file *file = weights_new(made_weight);
    add_flux2(file, &config);
    *store = weights_open(file);
    if (zi_flux2_dit_bind(model, &config, *store, NULL, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
}

typedef struct flux2_case {
    const char *name;
    int64_t rows, columns, text;
    int once; /* its references pass once: the KV variant */
    int passes;
    const char *outputs[FLUX2_PASSES_MAX], *latents[FLUX2_PASSES_MAX];
    float sigmas[FLUX2_PASSES_MAX];
    int reference_count;
    int64_t references[FLUX2_REFERENCES_MAX][2]; /* rows and columns */
} flux2_case;

static const flux2_case flux2_cases[] = {
    {"none", 3, 5, 7, 0, 1, {"output"}, {"latents"}, {0.3f}, 0, {{0}}},
    {"one", 4, 5, 9, 0, 1, {"output"}, {"latents"}, {0.9673840403556824f}, 1, {{3, 2}}},
    {"two", 11, 9, 120, 0, 1, {"output"}, {"latents"}, {1}, 2, {{5, 2}, {3, 6}}},
    {"long", 5, 3, 512, 0, 1, {"output"}, {"latents"}, {0.7671999335289001f}, 1, {{2, 2}}},
    {"kv_one", 5, 7, 9, 1, 2, {"extract", "cached"}, {"latents.0", "latents.1"}, {0.95f, 0.6f}, 1, {{4, 3}}},
    {"kv_two", 10, 11, 40, 1, 2, {"extract", "cached"}, {"latents.0", "latents.1"}, {1, 0.75f}, 2, {{3, 5}, {6, 2}}},
};

#define FLUX2_CASES (int)(sizeof flux2_cases / sizeof *flux2_cases)

static inline const flux2_case *flux2_case_of(const char *name)
{
    for (int i = 0; i < FLUX2_CASES; i++)
        if (strcmp(flux2_cases[i].name, name) == 0)
            return &flux2_cases[i];
    fail_msg("no case %s", name);
    return NULL;
}

/* A case on a backend, up to its first forward pass. */
typedef struct flux2_job {
    const flux2_case *c;
    const zi_flux2_dit *model;
    zi_run *run;
    float *floats[FLUX2_REFERENCES_MAX];
    zi_reference images[FLUX2_REFERENCES_MAX];
    zi_flux2_references references;
    zi_flux2_dit_inputs inputs;
    zi_tensor features, context, latents, out;
    int64_t count; /* of latents */
    int rounded;   /* timesteps are as in bf16 */
} flux2_job;

static inline float *made_floats(const flux2_case *c, const char *what, int64_t count, double scale)
{
    char name[64];
    float *values = malloc((size_t)count * sizeof *values);
    assert_non_null(values);
    assert_true((size_t)snprintf(name, sizeof name, "%s.%s", c->name, what) < sizeof name);
    made(name, values, count, scale, 0);
    return values;
}

static inline zimage_status flux2_upload(flux2_job *job, zi_tensor *tensor, float *values)
{
    zimage_status status = zi_table(job->run)->upload(job->run, tensor, values);
    free(values);
    return status;
}

/* Makes the tensors of a case, but computes nothing yet. */
static inline zimage_status flux2_begin(flux2_job *job, const zi_flux2_dit *model, zi_run *run, const flux2_case *c)
{
    const zi_ops_table *table = zi_table(run);
    *job = (flux2_job){.c = c, .model = model, .run = run, .count = FLUX2_CHANNELS * c->rows * c->columns};
    for (int i = 0; i < c->reference_count; i++) {
        char what[32];
        int64_t rows = c->references[i][0], columns = c->references[i][1];
        snprintf(what, sizeof what, "reference.%d", i);
        job->floats[i] = made_floats(c, what, FLUX2_CHANNELS * rows * columns, 1.5);
        job->images[i] = (zi_reference){rows, columns, job->floats[i]};
    }
    job->references = (zi_flux2_references){job->images, c->reference_count, c->once};
    ZI_TRY(table->alloc(run, &job->features, ZI_SHAPE(c->text, FLUX2_JOINT)));
    ZI_TRY(table->alloc(run, &job->context, ZI_SHAPE(c->text, model->config.dim)));
    ZI_TRY(table->alloc_f32(run, &job->latents, ZI_SHAPE(FLUX2_CHANNELS, c->rows, c->columns)));
    ZI_TRY(table->alloc_f32(run, &job->out, ZI_SHAPE(FLUX2_CHANNELS, c->rows, c->columns)));
    return flux2_upload(job, &job->features, made_floats(c, "text", c->text * FLUX2_JOINT, 2));
}

static inline zimage_status flux2_prepare(flux2_job *job)
{
    ZI_TRY(zi_flux2_dit_context(job->model, job->run, &job->features, &job->context));
    return zi_flux2_dit_prepare(job->model, job->run, &job->context, job->c->rows, job->c->columns, &job->references,
                                &job->inputs);
}

/* out may be NULL */
static inline zimage_status flux2_pass(flux2_job *job, int pass, float *out)
{
    float timestep = zi_flux2_timestep(job->c->sigmas[pass], job->rounded);
    const zi_flux2_dit_inputs *const inputs[] = {&job->inputs};
    ZI_TRY(flux2_upload(job, &job->latents, made_floats(job->c, job->c->latents[pass], job->count, 1.5)));
    ZI_TRY(zi_flux2_dit_forward_passes(inputs, 1, job->run, &job->latents, timestep, &job->out));
    return out ? zi_table(job->run)->download(job->run, out, &job->out) : ZIMAGE_OK;
}

static inline void flux2_end(flux2_job *job)
{
    for (int i = 0; i < job->c->reference_count; i++)
        free(job->floats[i]);
}

/* The outputs of all passes [passes][count], which the caller frees. Each is computed `times` times. rounded: at
 * timesteps as in bf16. */
static inline float *flux2_outputs(const zi_flux2_dit *model, zi_run *run, const flux2_case *c, int times, int rounded)
{
    flux2_job job;
    zi_arena_mark mark = zi_table(run)->mark(run);
    zimage_status status = flux2_begin(&job, model, run, c);
    job.rounded = rounded;
    float *out = malloc((size_t)(job.count * c->passes) * sizeof *out);
    assert_non_null(out);
    if (status == ZIMAGE_OK)
        status = flux2_prepare(&job);
    for (int i = 0; i < times * c->passes && status == ZIMAGE_OK; i++)
        status = flux2_pass(&job, i % c->passes, out + i % c->passes * job.count);
    zi_table(run)->release(run, mark);
    flux2_end(&job);
    if (status != ZIMAGE_OK)
        fail_msg("%s", run->error->message);
    return out;
}

/* Compares the outputs of a case with the golden ones. backend: for the table of parity. */
static inline void flux2_compare(const zi_flux2_dit *model, zi_run *run, const zi_store *golden, const char *backend,
                                 const flux2_case *c, int times, double tolerance)
{
    float *out = flux2_outputs(model, run, c, times, 0);
    for (int pass = 0; pass < c->passes; pass++) {
        char name[64], line[128];
        size_t count;
        snprintf(name, sizeof name, "%s.%s", c->name, c->outputs[pass]);
        float *want = fixture_floats(golden, name, &count);
        assert_true((size_t)snprintf(line, sizeof line, "%s: FLUX.2 transformer%s: %s", backend, c->once ? ", KV" : "",
                                     name) < sizeof line);
        parity(line, out + (size_t)pass * count, want, count, tolerance);
        free(want);
    }
    free(out);
}

/* The largest error and where it is, and the root of the mean square of all. */
typedef struct flux2_errors {
    double largest, root;
    size_t where;
} flux2_errors;

static inline flux2_errors flux2_errors_of(const float *values, const float *want, size_t count)
{
    flux2_errors errors = {0, 0, 0};
    for (size_t i = 0; i < count; i++) {
        double error = fabs((double)values[i] - (double)want[i]);
        if (error > errors.largest)
            errors = (flux2_errors){error, errors.root, i};
        errors.root += error * error;
    }
    errors.root = sqrt(errors.root / (double)count);
    return errors;
}

/* The errors of cases in bf16 and those of diffusers in bf16. Errors are differences from diffusers in float32, at
 * timesteps as in bf16. */
typedef struct flux2_comparison {
    const char *backend;
    double ours, theirs; /* the largest errors of all cases */
    char where[96];      /* ours is */
} flux2_comparison;

/* The root of the mean square error of each output is at most diffusers' own. A single largest error of some hundred
 * numbers is chance; those of all cases are compared by flux2_end_errors. */
static inline void flux2_compare_errors(const zi_flux2_dit *model, zi_run *run, const zi_store *golden,
                                        const flux2_case *c, int times, flux2_comparison *all)
{
    float *out = flux2_outputs(model, run, c, times, 1);
    for (int pass = 0; pass < c->passes; pass++) {
        const char *output = c->outputs[pass];
        char name[64], line[128];
        size_t count;
        snprintf(name, sizeof name, "%s.%s.rounded", c->name, output);
        float *want = fixture_floats(golden, name, &count);
        snprintf(name, sizeof name, "%s.%s.bf16", c->name, output);
        float *half = fixture_floats(golden, name, NULL);
        flux2_errors ours = flux2_errors_of(out + (size_t)pass * count, want, count);
        flux2_errors theirs = flux2_errors_of(half, want, count);
        snprintf(line, sizeof line, "%s: FLUX.2, rms error: %s.%s", all->backend, c->name, output);
        parity_line(line, ours.root / theirs.root, 1, ", of diffusers' own");
        if (ours.largest > all->ours) {
            all->ours = ours.largest;
            snprintf(all->where, sizeof all->where, ", of diffusers' own; %s.%s, number %zu", c->name, output,
                     ours.where);
        }
        all->theirs = theirs.largest > all->theirs ? theirs.largest : all->theirs;
        free(want);
        free(half);
    }
    free(out);
}

static inline void flux2_end_errors(const flux2_comparison *all)
{
    char line[128];
    snprintf(line, sizeof line, "%s: FLUX.2, largest error of all cases", all->backend);
    parity_line(line, all->ours / all->theirs, 1, all->where);
}

#endif
