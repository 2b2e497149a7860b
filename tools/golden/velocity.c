/*
 * Single forward passes of a transformer for errors.py: the numbers that the pipeline would get, without a whole model.
 *
 *   velocity FOLDER INPUTS OUTPUT f32|bf16|int8|fp8 THREADS [DEVICE]
 *
 * FOLDER holds the transformer and its config.json. INPUTS, safetensors: latents [N, C, H, W], sigma [N], and for each
 * of the N embeds.0 [tokens, dim], embeds.1, ... OUTPUT: velocity [N, C, H, W] = noise - clean. DEVICE: cpu, or cuda
 * for the first GPU.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/backends.h"
#include "pipeline/job.h"
#include "weights/write.h"

static zimage_error error = ZIMAGE_ERROR_INIT;

static void check(zimage_status status)
{
    if (status == ZIMAGE_OK)
        return;
    fprintf(stderr, "velocity: %s\n", error.message);
    exit(1);
}

static float *floats(const zi_store *store, const char *name, const zi_weight **weight)
{
    *weight = zi_store_find(store, name);
    if (!*weight)
        check(zi_fail(&error, ZIMAGE_ERROR_ARGUMENT, "%s: no tensor %s", zi_store_path(store), name));
    int64_t count = zi_weight_count(*weight);
    float *values = malloc((size_t)count * sizeof *values);
    if (!values)
        check(zi_fail_memory(&error, name, (size_t)count * sizeof *values));
    zi_weight_unpack(*weight, 0, count, values);
    return values;
}

/* The family whose transformers have the _class_name of that config.json. */
static const zi_family *family_of(const char *config)
{
    json_t *object = json_load_file(config, 0, NULL);
    const char *name = json_string_value(json_object_get(object, "_class_name"));
    const zi_family *family = name ? zi_family_of_transformer(name) : NULL;
    if (!family)
        check(zi_fail(&error, ZIMAGE_ERROR_MODEL, "%s: no _class_name of a known transformer", config));
    json_decref(object);
    return family;
}

/* A model that is only a transformer. */
static zi_model *open_transformer(const char *folder)
{
    char path[4096];
    zi_model *model;
    zi_store *store;
    snprintf(path, sizeof path, "%s/config.json", folder);
    const zi_family *family = family_of(path);
    const zi_component *component = &family->components[ZI_TRANSFORMER];
    check(zi_model_new(family, &model, &error));
    check(component->configure(model->networks, path, NULL, &error));
    check(zi_store_open(folder, component->base_name, &store, NULL, &error));
    check(zi_model_add(model, ZI_TRANSFORMER, store, NULL, &error));
    return model;
}

/* job: its latents, sigma and velocity are there. */
static void forward(zi_run *run, zi_job *job, const zi_store *inputs, int index)
{
    char name[32];
    const zi_weight *described;
    zi_job_run runs[ZI_JOB_RUNS_MAX];
    snprintf(name, sizeof name, "embeds.%d", index);
    float *embeds = floats(inputs, name, &described);
    job->prompt[0] = (zi_prompt){.tokens = described->shape[0], .features = embeds};
    int count = zi_job_list(job, runs);
    check(zi_job_open(run, job));
    for (int i = 0; i < count; i++)
        check(zi_job_stage(run, job, runs[i].stage, runs[i].index));
    zi_job_close(run, job);
    free(embeds);
}

static void forward_all(zi_run *run, zi_model *model, const zi_store *inputs, const char *output)
{
    const zi_weight *x, *embeds = zi_store_find(inputs, "embeds.0"), *ignored;
    float *latents = floats(inputs, "latents", &x), *sigmas = floats(inputs, "sigma", &ignored);
    int64_t total = zi_weight_count(x), each = total / x->shape[0];
    float *velocity = malloc((size_t)total * sizeof *velocity);
    if (!velocity || !embeds)
        check(zi_fail(&error, ZIMAGE_ERROR_ARGUMENT, "%s: too large, or no embeds.0", zi_store_path(inputs)));
    model->facts = (zi_facts){.latent_channels = x->shape[1], .features = embeds->shape[1]};
    for (int i = 0; i < (int)x->shape[0]; i++) {
        zi_job job = {.model = model,
                      .rows = x->shape[2],
                      .columns = x->shape[3],
                      .prompts = 1,
                      .steps = 1,
                      .single = 1,
                      .single_stage = ZIMAGE_STAGE_DENOISE,
                      .latents = latents + i * each,
                      .sigma = sigmas[i],
                      .velocity = {velocity + i * each}};
        forward(run, &job, inputs, i);
    }
    check(zi_safetensors_write(output, "velocity", velocity, x->shape, x->dims, &error));
    free(velocity);
    free(latents);
    free(sigmas);
}

int main(int argc, char **argv)
{
    zi_backend_choice choice = {.device = argc == 7 ? argv[6] : "cpu"};
    if ((argc != 6 && argc != 7) || !zimage_compute_parse(argv[4], &choice.compute)) {
        fprintf(stderr, "usage: velocity FOLDER INPUTS OUTPUT f32|bf16|int8|fp8 THREADS [DEVICE]\n");
        return 2;
    }
    char kernels[128];
    zi_pool *pool;
    zi_run run = {.error = &error};
    zi_store *inputs;
    check(zi_pool_new(atoi(argv[5]), &pool, &error));
    check(zi_backend_open(&choice, pool, &run.ops, &error));
    zi_model *model = open_transformer(argv[1]);
    check(zi_store_open_file(argv[2], &inputs, &error));
    forward_all(&run, model, inputs, argv[3]);
    zi_table(&run)->describe(run.ops, kernels, sizeof kernels);
    printf("%s\n", kernels);
    zi_store_free(inputs);
    zi_table(&run)->free(run.ops);
    zi_pool_free(pool);
    zi_model_close(model);
    return 0;
}
