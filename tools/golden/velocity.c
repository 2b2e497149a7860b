/*
 * Single evaluations of a transformer for errors.py: the numbers that the pipeline would get, without one.
 *
 *   velocity FOLDER INPUTS OUTPUT f32|bf16|int8|fp8 THREADS [DEVICE]
 *
 * FOLDER holds the transformer and its config.json. INPUTS, safetensors: latents [N, C, H, W], t [N] (1 - sigma) and for
 * each of the N embeds.0 [tokens, dim], embeds.1, ... OUTPUT: velocity [N, C, H, W], the network's own sign.
 * DEVICE: cpu, or cuda for the first card.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/device.h"
#include "model/zimage_dit.h"
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
    if (*weight == NULL)
        check(zi_fail(&error, ZIMAGE_ERROR_ARGUMENT, "%s: no tensor %s", zi_store_path(store), name));
    int64_t count = zi_weight_count(*weight);
    float *values = malloc((size_t)count * sizeof *values);
    if (values == NULL)
        check(zi_fail_memory(&error, name, (size_t)count * sizeof *values));
    zi_weight_unpack(*weight, 0, count, values);
    return values;
}

static void evaluate(const zi_dit *model, zi_ops *ops, const zi_store *inputs, int index, const float *latents,
                     const int64_t *shape, float t, float *velocity)
{
    char name[32];
    const zi_weight *described;
    snprintf(name, sizeof name, "embeds.%d", index);
    float *embeds = floats(inputs, name, &described);
    const int64_t caption_shape[] = {zi_dit_padded(described->shape[0]), model->config.dim};
    zi_arena_mark mark = ops->table->mark(ops);
    zi_tensor features, caption, x, out;
    check(ops->table->alloc(ops, &features, 2, described->shape));
    check(ops->table->alloc(ops, &caption, 2, caption_shape));
    check(ops->table->alloc_f32(ops, &x, 3, shape));
    check(ops->table->alloc_f32(ops, &out, 3, shape));
    check(ops->table->upload(ops, &features, embeds));
    check(ops->table->upload(ops, &x, latents));
    check(zi_dit_caption(model, ops, &features, &caption));
    check(zi_dit_forward(model, ops, &x, t, &caption, &out));
    check(ops->table->download(ops, velocity, &out));
    ops->table->release(ops, mark);
    free(embeds);
}

static zimage_compute compute_named(const char *name)
{
    static const char *const names[] = {
        [ZIMAGE_COMPUTE_BF16] = "bf16", [ZIMAGE_COMPUTE_INT8] = "int8", [ZIMAGE_COMPUTE_FP8] = "fp8"};
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (names[i] != NULL && strcmp(name, names[i]) == 0)
            return (zimage_compute)i;
    return ZIMAGE_COMPUTE_F32;
}

int main(int argc, char **argv)
{
    if (argc != 6 && argc != 7) {
        fprintf(stderr, "usage: velocity FOLDER INPUTS OUTPUT f32|bf16|int8|fp8 THREADS [DEVICE]\n");
        return 2;
    }
    const zi_device_choice choice = {argc == 7 ? argv[6] : "cpu", compute_named(argv[4]), NULL};
    char path[4096], kernels[128];
    snprintf(path, sizeof path, "%s/config.json", argv[1]);
    zi_pool *pool;
    zi_ops *ops;
    zi_dit model;
    zi_dit_config config;
    zi_store *store, *inputs;
    check(zi_pool_new(atoi(argv[5]), &pool, &error));
    check(zi_device_ops(&choice, pool, &ops, &error));
    ops->error = &error;
    check(zi_dit_config_load(path, &config, &error));
    check(zi_store_open(argv[1], "diffusion_pytorch_model", &store, NULL, &error));
    check(zi_dit_bind(&model, &config, store, NULL, &error));
    check(zi_store_open_file(argv[2], &inputs, &error));

    const zi_weight *described, *ignored;
    float *latents = floats(inputs, "latents", &described), *t = floats(inputs, "t", &ignored);
    int64_t each = zi_weight_count(described) / described->shape[0];
    float *velocity = malloc((size_t)zi_weight_count(described) * sizeof *velocity);
    if (velocity == NULL)
        return 1;
    for (int i = 0; i < (int)described->shape[0]; i++)
        evaluate(&model, ops, inputs, i, latents + i * each, described->shape + 1, t[i], velocity + i * each);
    check(zi_safetensors_write(argv[3], "velocity", velocity, described->shape, described->dims, &error));
    ops->describe(ops, kernels, sizeof kernels);
    printf("%s\n", kernels);

    free(velocity);
    free(latents);
    free(t);
    zi_store_free(inputs);
    zi_dit_free(&model);
    zi_store_free(store);
    ops->table->free(ops);
    zi_pool_free(pool);
    return 0;
}
