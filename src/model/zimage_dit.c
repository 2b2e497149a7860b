/*
 * The Z-Image transformer (S3-DiT). Formulas: docs/spec/zimage.md 3; reference: diffusers,
 * models/transformers/transformer_z_image.py.
 * N image tokens padded to Np, m caption tokens padded to mp (multiples of 32), T = Np + mp, D = dim, F = ffn_dim,
 * A = adaln_dim, d = head_dim, p = patch, C = latent channels.
 *
 * Memory of one forward pass, in float32 numbers: the residual stream [T, D] and, inside a block, the larger of
 *   attention     h, q, k, v = 4 T D   (the heads overwrite q, to_out overwrites h)
 *   feed forward  h, u = T D + T F
 * so 5 T D at its peak where F < 3 D: 1024 x 1024 with the 6B (T = 4128 .. 4608, D = 3840) needs 303 .. 338 MiB.
 */
#include "model/zimage_dit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ADALN_EMBED_DIM 256 /* constants of the reference that no config field carries */
#define T_HIDDEN        1024
#define T_FREQUENCIES   256
#define T_MAX_PERIOD    10000.0
#define QK_NORM_EPS     1e-5f
#define FINAL_NORM_EPS  1e-6f
#define PATCH           2 /* the default arguments of forward, which the pipeline does not change */
#define F_PATCH         1
#define MAX_PATCH_SIZES 8

/* ---- configuration ----------------------------------------------------------------------------------------------- */

const char *const zi_zimage_dit_fields[] = {"all_patch_size",
                                            "all_f_patch_size",
                                            "in_channels",
                                            "dim",
                                            "n_layers",
                                            "n_refiner_layers",
                                            "n_heads",
                                            "n_kv_heads", /* the reference does not use it */
                                            "norm_eps",
                                            "qk_norm",
                                            "cap_feat_dim",
                                            "siglip_feat_dim",
                                            "rope_theta",
                                            "t_scale",
                                            "axes_dims",
                                            "axes_lens",
                                            "nheads", /* of MLX conversions */
                                            NULL};

static zimage_status refuse_variants(const zi_json_reader *json)
{
    ZI_TRY(zi_require_string(json, "_class_name", "ZImageTransformer2DModel"));
    ZI_TRY(zi_require_bool(json, "qk_norm", 1));
    const json_t *siglip = json_object_get(json->object, "siglip_feat_dim");
    if (siglip && !json_is_null(siglip))
        return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED,
                       "%s: siglip_feat_dim is set (the Omni variant), only null is supported", json->path);
    return zi_refuse_quantization(json);
}

static zimage_status load_sizes(const zi_json_reader *json, const char *field, int64_t fallback, int64_t *sizes,
                                size_t *count)
{
    sizes[0] = fallback;
    *count = 1;
    return zi_field_is_default(json, field) ? ZIMAGE_OK
                                            : zi_json_int_array(json, field, 1, 64, sizes, MAX_PATCH_SIZES, count);
}

/*
 * The pairs of all_patch_size and all_f_patch_size have embedders and final layers of their own. The reference's
 * pipeline always calls those of the pair (2, 1).
 */
static zimage_status load_patch(const zi_json_reader *json, zi_zimage_dit_config *config)
{
    int64_t patches[MAX_PATCH_SIZES], f_patches[MAX_PATCH_SIZES];
    size_t patch_count, f_patch_count;
    ZI_TRY(load_sizes(json, "all_patch_size", PATCH, patches, &patch_count));
    ZI_TRY(load_sizes(json, "all_f_patch_size", F_PATCH, f_patches, &f_patch_count));
    if (patch_count != f_patch_count)
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL,
                       "%s: all_f_patch_size has %zu entries, expected %zu as in all_patch_size", json->path,
                       f_patch_count, patch_count);
    config->patch = PATCH;
    config->f_patch = F_PATCH;
    config->patch_pairs = (int64_t)patch_count;
    for (size_t i = 0; i < patch_count; i++)
        if (patches[i] == PATCH && f_patches[i] == F_PATCH)
            return ZIMAGE_OK;
    return zi_fail(json->error, ZIMAGE_ERROR_UNSUPPORTED,
                   "%s: all_patch_size and all_f_patch_size: no pair (%d, %d) at one place, expected the pair that the "
                   "pipeline calls",
                   json->path, PATCH, F_PATCH);
}

static zimage_status load_axes(const zi_json_reader *json, zi_zimage_dit_config *config)
{
    static const int64_t dims[3] = {32, 48, 48}, lens[3] = {1024, 512, 512};
    int64_t sum = 0;
    ZI_TRY(zi_field_int_array(json, "axes_dims", 2, 4096, dims, config->axes_dims, 3));
    ZI_TRY(zi_field_int_array(json, "axes_lens", 1, 1 << 20, lens, config->axes_lens, 3));
    for (int axis = 0; axis < 3; axis++) {
        if (config->axes_dims[axis] % 2 != 0)
            return zi_fail(json->error, ZIMAGE_ERROR_MODEL, "%s: axes_dims[%d] is %lld, expected an even number",
                           json->path, axis, (long long)config->axes_dims[axis]);
        sum += config->axes_dims[axis];
    }
    if (sum != config->head_dim)
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL,
                       "%s: axes_dims add up to %lld, expected the head dimension (dim / n_heads) %lld", json->path,
                       (long long)sum, (long long)config->head_dim);
    return ZIMAGE_OK;
}

/* The defaults are those of ZImageTransformer2DModel. */
static zimage_status read_config(const zi_json_reader *json, void *out)
{
    zi_zimage_dit_config *config = out;
    ZI_TRY(refuse_variants(json));
    ZI_TRY(load_patch(json, config));
    ZI_TRY(zi_field_int(json, "in_channels", 1, 4096, 16, &config->in_channels));
    ZI_TRY(zi_field_int(json, "dim", 1, 65536, 3840, &config->dim));
    ZI_TRY(zi_field_int(json, "n_layers", 1, 1024, 30, &config->n_layers));
    ZI_TRY(zi_field_int(json, "n_refiner_layers", 0, 1024, 2, &config->n_refiner_layers));
    /* MLX conversions write nheads. */
    const char *heads =
        json_object_get(json->object, "nheads") && !json_object_get(json->object, "n_heads") ? "nheads" : "n_heads";
    ZI_TRY(zi_field_int(json, heads, 1, 4096, 30, &config->n_heads));
    if (config->dim % config->n_heads != 0)
        return zi_fail(json->error, ZIMAGE_ERROR_MODEL, "%s: %s %lld does not divide dim %lld", json->path, heads,
                       (long long)config->n_heads, (long long)config->dim);
    ZI_TRY(zi_field_int(json, "cap_feat_dim", 1, 65536, 2560, &config->cap_feat_dim));
    ZI_TRY(zi_field_number(json, "norm_eps", 0.0, 1.0, 1e-5, &config->norm_eps));
    ZI_TRY(zi_field_number(json, "rope_theta", 1.0, 1e12, 256.0, &config->rope_theta));
    ZI_TRY(zi_field_number(json, "t_scale", 1e-6, 1e6, 1000.0, &config->t_scale));
    zi_zimage_dit_config_derive(config);
    return load_axes(json, config);
}

void zi_zimage_dit_config_derive(zi_zimage_dit_config *config)
{
    config->head_dim = config->dim / config->n_heads;
    config->ffn_dim = (int64_t)((double)config->dim / 3 * 8); /* int(dim / 3 * 8) in Python's doubles */
    config->adaln_dim = config->dim < ADALN_EMBED_DIM ? config->dim : ADALN_EMBED_DIM;
    config->t_hidden = T_HIDDEN;
}

zimage_status zi_zimage_dit_config_read(const char *path, const char *text, zi_zimage_dit_config *config,
                                        zimage_error *error)
{
    return zi_config_read(path, text, read_config, config, sizeof *config, error);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

static void bind_block(zi_binder *binder, zi_zimage_dit_block *block, const zi_zimage_dit_config *config, int modulated,
                       const char *stack, int64_t index)
{
    char prefix[ZI_NAME_MAX];
    int64_t dim = config->dim, ffn = config->ffn_dim;
    snprintf(prefix, sizeof prefix, "%s.%lld.", stack, (long long)index);
    zi_bind_matrix(binder, &block->to_q, dim, dim, prefix, "attention.to_q.weight");
    zi_bind_matrix(binder, &block->to_k, dim, dim, prefix, "attention.to_k.weight");
    zi_bind_matrix(binder, &block->to_v, dim, dim, prefix, "attention.to_v.weight");
    zi_bind_matrix(binder, &block->to_out, dim, dim, prefix, "attention.to_out.0.weight");
    zi_bind_vector(binder, &block->norm_q, config->head_dim, prefix, "attention.norm_q.weight");
    zi_bind_vector(binder, &block->norm_k, config->head_dim, prefix, "attention.norm_k.weight");
    zi_bind_matrix(binder, &block->w1, ffn, dim, prefix, "feed_forward.w1.weight");
    zi_bind_matrix(binder, &block->w2, dim, ffn, prefix, "feed_forward.w2.weight");
    zi_bind_matrix(binder, &block->w3, ffn, dim, prefix, "feed_forward.w3.weight");
    zi_bind_vector(binder, &block->attention_norm1, dim, prefix, "attention_norm1.weight");
    zi_bind_vector(binder, &block->attention_norm2, dim, prefix, "attention_norm2.weight");
    zi_bind_vector(binder, &block->ffn_norm1, dim, prefix, "ffn_norm1.weight");
    zi_bind_vector(binder, &block->ffn_norm2, dim, prefix, "ffn_norm2.weight");
    if (modulated) {
        zi_bind_matrix(binder, &block->adaln, 4 * dim, config->adaln_dim, prefix, "adaLN_modulation.0.weight");
        zi_bind_vector(binder, &block->adaln_bias, 4 * dim, prefix, "adaLN_modulation.0.bias");
    }
}

static void bind_embedders(zi_binder *binder, zi_zimage_dit *model)
{
    const zi_zimage_dit_config *config = &model->config;
    int64_t dim = config->dim, patch_dim = config->f_patch * config->patch * config->patch * config->in_channels;
    char prefix[ZI_NAME_MAX];
    zi_bind_matrix(binder, &model->x_pad_token, 1, dim, "", "x_pad_token");
    zi_bind_matrix(binder, &model->cap_pad_token, 1, dim, "", "cap_pad_token");
    snprintf(prefix, sizeof prefix, "all_x_embedder.%lld-%lld.", (long long)config->patch, (long long)config->f_patch);
    zi_bind_matrix(binder, &model->x_embedder, dim, patch_dim, prefix, "weight");
    zi_bind_vector(binder, &model->x_embedder_bias, dim, prefix, "bias");
    zi_bind_vector(binder, &model->cap_norm, config->cap_feat_dim, "cap_embedder.", "0.weight");
    zi_bind_matrix(binder, &model->cap_embedder, dim, config->cap_feat_dim, "cap_embedder.", "1.weight");
    zi_bind_vector(binder, &model->cap_embedder_bias, dim, "cap_embedder.", "1.bias");
    zi_bind_matrix(binder, &model->t_mlp0, config->t_hidden, T_FREQUENCIES, "t_embedder.mlp.", "0.weight");
    zi_bind_vector(binder, &model->t_mlp0_bias, config->t_hidden, "t_embedder.mlp.", "0.bias");
    zi_bind_matrix(binder, &model->t_mlp2, config->adaln_dim, config->t_hidden, "t_embedder.mlp.", "2.weight");
    zi_bind_vector(binder, &model->t_mlp2_bias, config->adaln_dim, "t_embedder.mlp.", "2.bias");
    snprintf(prefix, sizeof prefix, "all_final_layer.%lld-%lld.", (long long)config->patch, (long long)config->f_patch);
    zi_bind_matrix(binder, &model->final_linear, patch_dim, dim, prefix, "linear.weight");
    zi_bind_vector(binder, &model->final_linear_bias, patch_dim, prefix, "linear.bias");
    zi_bind_matrix(binder, &model->final_adaln, dim, config->adaln_dim, prefix, "adaLN_modulation.1.weight");
    zi_bind_vector(binder, &model->final_adaln_bias, dim, prefix, "adaLN_modulation.1.bias");
}

/* What computation in 8 bits would spoil most (docs/errors.md): the first and last layers, which cost next to nothing;
 * in int8 also w2, whose inputs are gated products with rare large values. */
static void bind_precise(zi_binder *binder, const zi_zimage_dit *model)
{
    zi_bind_precise(binder, model->x_embedder, ZI_PRECISE);
    zi_bind_precise(binder, model->cap_embedder, ZI_PRECISE);
    zi_bind_precise(binder, model->final_linear, ZI_PRECISE);
    for (int64_t i = 0; i < 2 * model->config.n_refiner_layers + model->config.n_layers; i++)
        zi_bind_precise(binder, model->noise_refiner[i].w2, ZI_PRECISE_INT8); /* all blocks are one array */
}

static void bind_all(zi_binder *binder, zi_zimage_dit *model)
{
    const zi_zimage_dit_config *config = &model->config;
    bind_embedders(binder, model);
    for (int64_t i = 0; i < config->n_refiner_layers; i++) {
        bind_block(binder, &model->noise_refiner[i], config, 1, "noise_refiner", i);
        bind_block(binder, &model->context_refiner[i], config, 0, "context_refiner", i);
    }
    for (int64_t i = 0; i < config->n_layers; i++)
        bind_block(binder, &model->layers[i], config, 1, "layers", i);
    bind_precise(binder, model);
    if (config->patch_pairs > 1) { /* the other pairs' */
        zi_bind_ignore(binder, "all_x_embedder.");
        zi_bind_ignore(binder, "all_final_layer.");
    }
    zi_bind_ignore(binder, "norm_final."); /* a stray tensor of the ComfyUI file, section 2 */
}

zimage_status zi_zimage_dit_bind(zi_zimage_dit *model, const zi_zimage_dit_config *config, zi_store *store,
                                 const zi_log *log, zimage_error *error)
{
    zi_binder *binder;
    memset(model, 0, sizeof *model);
    ZI_TRY(zi_binder_new(store, &binder, error));
    model->config = *config;
    /* one array: noise refiner, context refiner, joint layers */
    size_t count = (size_t)(2 * config->n_refiner_layers + config->n_layers);
    zi_zimage_dit_block *blocks = calloc(count, sizeof *blocks);
    if (!blocks) {
        zi_binder_finish(binder, NULL, NULL);
        return zi_fail_memory(error, "the transformer's block table", count * sizeof *blocks);
    }
    model->noise_refiner = blocks;
    model->context_refiner = blocks + config->n_refiner_layers;
    model->layers = blocks + 2 * config->n_refiner_layers;
    bind_all(binder, model);
    zimage_status status = zi_binder_finish(binder, log, error);
    if (status != ZIMAGE_OK)
        zi_zimage_dit_free(model);
    return status;
}

void zi_zimage_dit_free(zi_zimage_dit *model)
{
    free(model->noise_refiner); /* the start of all blocks */
    memset(model, 0, sizeof *model);
}

/* ---- positions --------------------------------------------------------------------------------------------------- */

int64_t zi_zimage_dit_padded(int64_t tokens)
{
    return (tokens + ZI_ZIMAGE_DIT_SEQUENCE_MULTIPLE - 1) / ZI_ZIMAGE_DIT_SEQUENCE_MULTIPLE *
           ZI_ZIMAGE_DIT_SEQUENCE_MULTIPLE;
}

zimage_status zi_zimage_dit_check_positions(const zi_zimage_dit *model, int64_t caption_tokens, int64_t grid_rows,
                                            int64_t grid_columns, zimage_error *error)
{
    const int64_t *lens = model->config.axes_lens;
    int64_t frame = zi_zimage_dit_padded(caption_tokens) + 1; /* position of the image, the largest on axis 0 */
    if (grid_rows > lens[1] || grid_columns > lens[2])
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "the image has %lld x %lld tokens (columns x rows) but the transformer's axes_lens allow at "
                       "most %lld x %lld",
                       (long long)grid_columns, (long long)grid_rows, (long long)lens[2], (long long)lens[1]);
    if (frame >= lens[0]) {
        int64_t most =
            (lens[0] >= 2 ? lens[0] - 2 : 0) / ZI_ZIMAGE_DIT_SEQUENCE_MULTIPLE * ZI_ZIMAGE_DIT_SEQUENCE_MULTIPLE;
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "the prompt has %lld tokens but the transformer's axes_lens allow at most %lld",
                       (long long)caption_tokens, (long long)most);
    }
    return ZIMAGE_OK;
}

/*
 * Angles of one token, section 3.5: for axis a, pair j: float32(position_a * theta^(-2j / axes_dims[a])), computed in
 * float64; the axes side by side.
 */
static void token_angles(const zi_zimage_dit_config *config, const double *frequencies, int64_t frame, int64_t row,
                         int64_t column, float *angles)
{
    const int64_t position[3] = {frame, row, column};
    int64_t i = 0;
    for (int axis = 0; axis < 3; axis++)
        for (int64_t j = 0; j < config->axes_dims[axis] / 2; j++, i++)
            angles[i] = (float)((double)position[axis] * frequencies[i]);
}

static void axis_frequencies(const zi_zimage_dit_config *config, double *frequencies)
{
    for (int axis = 0; axis < 3; axis++)
        for (int64_t j = 0; j < config->axes_dims[axis] / 2; j++)
            *frequencies++ = 1.0 / pow(config->rope_theta, (double)(2 * j) / (double)config->axes_dims[axis]);
}

/*
 * The tables of a sequence of image tokens (none if rows is 0), then caption tokens, section 3.4: the image is at
 * frame mp + 1, its pads at the origin, the caption with its pads at frames 1 .. mp.
 */
static zimage_status rope_tables(const zi_zimage_dit *model, zi_run *run, int64_t rows, int64_t columns,
                                 int64_t caption_padded, zi_rope *rope)
{
    const zi_zimage_dit_config *config = &model->config;
    int64_t half = config->head_dim / 2, image_padded = zi_zimage_dit_padded(rows * columns);
    int64_t tokens = image_padded + caption_padded;
    if (run->ops->rehearsing)
        return zi_rope_from_angles(run, rope, NULL, tokens, half);
    size_t bytes = (size_t)(tokens * half) * sizeof(float);
    double *frequencies = malloc((size_t)half * sizeof *frequencies); /* [d/2] */
    float *angles = malloc(bytes), *next = angles;                    /* [T, d/2] */
    if (!frequencies || !angles) {
        free(frequencies);
        free(angles);
        return zi_fail_memory(run->error, "the rotary position table", bytes);
    }
    axis_frequencies(config, frequencies);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t column = 0; column < columns; column++, next += half)
            token_angles(config, frequencies, caption_padded + 1, row, column, next);
    for (int64_t i = rows * columns; i < image_padded; i++, next += half)
        token_angles(config, frequencies, 0, 0, 0, next);
    for (int64_t i = 0; i < caption_padded; i++, next += half)
        token_angles(config, frequencies, 1 + i, 0, 0, next);

    zimage_status status = zi_rope_from_angles(run, rope, angles, tokens, half);
    free(frequencies);
    free(angles);
    return status;
}

/* ---- forward ----------------------------------------------------------------------------------------------------- */

/* The sinusoid [cos, sin] of t * t_scale, section 3.1, in float32 as TimestepEmbedder.timestep_embedding. */
static void timestep_frequencies(float t, double t_scale, float embedding[T_FREQUENCIES])
{
    const int half = T_FREQUENCIES / 2;
    const float log_period = (float)-log(T_MAX_PERIOD);
    float scaled = t * (float)t_scale;
    for (int k = 0; k < half; k++) {
        float angle = scaled * expf(log_period * (float)k / (float)half);
        embedding[k] = cosf(angle);
        embedding[half + k] = sinf(angle);
    }
}

/* a [1, A] = mlp.2(SiLU(mlp.0(sinusoid))) */
static zimage_status embed_timestep(const zi_zimage_dit *model, zi_run *run, const zi_tensor *sinusoid, zi_tensor *a)
{
    const zi_ops_table *table = zi_table(run);
    zi_arena_mark mark = table->mark(run);
    zi_tensor hidden; /* [1, 1024] */
    ZI_TRY(zi_alloc2_f32(run, &hidden, 1, model->config.t_hidden));
    ZI_TRY(zi_linear(run, &hidden, sinusoid, model->t_mlp0, model->t_mlp0_bias));
    ZI_TRY(table->silu(run, &hidden, &hidden));
    ZI_TRY(zi_linear(run, a, &hidden, model->t_mlp2, model->t_mlp2_bias));
    table->release(run, mark);
    return zi_end_block(run, a, "transformer t_embedder");
}

/* The rows behind the first `used` become the pad token [1, D]. */
static zimage_status fill_pads(zi_run *run, zi_tensor *x, int64_t used, const zi_weight *pad_token)
{
    static const int32_t zeros[ZI_ZIMAGE_DIT_SEQUENCE_MULTIPLE] = {0};
    if (used == x->shape[0])
        return ZIMAGE_OK;
    zi_tensor pads = zi_tensor_rows(x, used, x->shape[0] - used);
    return zi_table(run)->embed_rows(run, &pads, pad_token, zeros);
}

/* Sequences whose rows lie one below the other in x: as many as the pass has, each with the rows of its table. */
typedef struct sequences {
    int count;
    zi_rope rope[ZI_PASSES_MAX];
} sequences;

static int64_t tokens_of(const sequences *all, int index)
{
    return all->rope[index].cos.shape[0];
}

/* Queries and keys of all sequences; norms: of both. */
static zimage_status norm_and_rotate(zi_run *run, const zi_zimage_dit_config *config, const zi_weight *const norms[2],
                                     const sequences *all, const zi_tensor qk[2])
{
    int64_t first = 0;
    for (int i = 0; i < all->count; i++) {
        zi_tensor rows[] = {zi_tensor_rows(&qk[0], first, tokens_of(all, i)),
                            zi_tensor_rows(&qk[1], first, tokens_of(all, i))};
        ZI_TRY(zi_norm_and_rotate(run, rows, norms, &all->rope[i], config->n_heads, ZI_ROPE_ADJACENT, QK_NORM_EPS));
        first += tokens_of(all, i);
    }
    return ZIMAGE_OK;
}

/* y = to_out(softmax(q k^T / sqrt(d)) v) of h, every token with every token of its sequence; h is an operand that is
 * written over */
static zimage_status attention(const zi_zimage_dit *model, const zi_zimage_dit_block *block, zi_run *run,
                               const sequences *all, zi_tensor *h, zi_tensor *y)
{
    const zi_zimage_dit_config *config = &model->config;
    zi_attention shape = {
        .heads = config->n_heads, .kv_heads = config->n_heads, .head_dim = config->head_dim, .sequences = all->count};
    const zi_weight *const weights[] = {block->to_q, block->to_k, block->to_v};
    const zi_weight *const norms[] = {block->norm_q, block->norm_k};
    zi_tensor qkv[3], *q = &qkv[0], *k = &qkv[1], *v = &qkv[2]; /* [T, D] each */

    for (int i = 0; i < all->count; i++)
        shape.queries[i] = shape.keys[i] = tokens_of(all, i);
    for (int i = 0; i < 3; i++)
        ZI_TRY(zi_alloc2(run, &qkv[i], h->shape[0], config->dim));
    ZI_TRY(zi_linears(run, 3, qkv, h, weights));
    ZI_TRY(norm_and_rotate(run, config, norms, all, qkv));
    ZI_TRY(zi_table(run)->attention(run, h, q, k, v, &shape));
    return zi_linear(run, y, h, block->to_out, NULL);
}

/* y = w2(SiLU(w1 h) * (w3 h)) */
static zimage_status feed_forward(const zi_zimage_dit *model, const zi_zimage_dit_block *block, zi_run *run,
                                  const zi_tensor *h, zi_tensor *y)
{
    zi_tensor u; /* [T, F] */
    ZI_TRY(zi_table(run)->alloc_operand(run, &u, h->shape[0], model->config.ffn_dim, block->w2));
    ZI_TRY(zi_linear_glu(run, &u, h, block->w1, block->w3));
    return zi_linear(run, y, &u, block->w2, NULL);
}

/* The four vectors [D] of a block's adaLN; all NULL without modulation (= 1). */
typedef struct modulation {
    zi_tensor m; /* [1, 4 D] */
    zi_tensor vectors[4];
    const zi_tensor *scale_msa, *gate_msa, *scale_mlp, *gate_mlp;
} modulation;

static const zi_modulation adaln_parts[4] = {ZI_MODULATION_ONE_PLUS, ZI_MODULATION_TANH, ZI_MODULATION_ONE_PLUS,
                                             ZI_MODULATION_TANH};

/* s1, g1, s2, g2 = 1 + scale_msa, tanh(gate_msa), 1 + scale_mlp, tanh(gate_mlp) of adaLN_modulation.0(a) */
static zimage_status modulate(const zi_zimage_dit *model, const zi_zimage_dit_block *block, zi_run *run,
                              const zi_tensor *a, modulation *mod)
{
    mod->scale_msa = mod->gate_msa = mod->scale_mlp = mod->gate_mlp = NULL;
    if (!block->adaln)
        return ZIMAGE_OK;
    int64_t dim = model->config.dim;
    ZI_TRY(zi_linear(run, &mod->m, a, block->adaln, block->adaln_bias));
    zi_tensor m = zi_tensor_shaped(&mod->m, ZI_SHAPE(4 * dim));
    ZI_TRY(zi_table(run)->modulation(run, &m, 4, adaln_parts));
    m = zi_tensor_shaped(&m, ZI_SHAPE(4, dim));
    for (int i = 0; i < 4; i++)
        mod->vectors[i] = zi_row_vector(&m, i);
    mod->scale_msa = &mod->vectors[0];
    mod->gate_msa = &mod->vectors[1];
    mod->scale_mlp = &mod->vectors[2];
    mod->gate_mlp = &mod->vectors[3];
    return ZIMAGE_OK;
}

/* A stack of blocks on x [T, D] in place. */
typedef struct stack {
    const zi_zimage_dit *model;
    zi_run *run;
    const sequences *sequences;
    const zi_tensor *a;
    zi_tensor *x, h, y; /* h: what the next block's attention reads, an operand; y: what half a block adds */
    modulation mods[2]; /* of even and of odd blocks */
} stack;

/*
 * Section 3.6, on x [T, D] in place, with h = RMS(attention_norm1, x) * s1 done already:
 *   x += g1 * RMS(attention_norm2, Attention(h))
 *   x += g2 * RMS(ffn_norm2, FFN(RMS(ffn_norm1, x) * s2))
 * and the next block's h, while x is at hand.
 */
static zimage_status run_block(stack *s, const zi_zimage_dit_block *block, const modulation *mod,
                               const zi_zimage_dit_block *next, modulation *next_mod, int *finite)
{
    zi_run *run = s->run;
    const zi_ops_table *table = zi_table(run);
    float eps = (float)s->model->config.norm_eps;
    zi_arena_mark mark = table->mark(run);
    const zi_norm attention_norm2 = {.kind = ZI_NORM_RMS, .eps = eps, .weight = block->attention_norm2};
    const zi_norm ffn_norm1 = {.kind = ZI_NORM_RMS, .eps = eps, .weight = block->ffn_norm1, .scale = mod->scale_mlp};
    const zi_norm ffn_norm2 = {.kind = ZI_NORM_RMS, .eps = eps, .weight = block->ffn_norm2};
    zi_tensor h; /* [T, D] */

    ZI_TRY(attention(s->model, block, run, s->sequences, &s->h, &s->y));
    table->release(run, mark);

    ZI_TRY(table->alloc_operand(run, &h, s->x->shape[0], s->model->config.dim, block->w1));
    ZI_TRY(table->residual(run, s->x, &s->y, &h,
                           &(zi_residual){.post = &attention_norm2, .gate = mod->gate_msa, .next = &ffn_norm1}));
    ZI_TRY(feed_forward(s->model, block, run, &h, &s->y));
    table->release(run, mark);

    if (next)
        ZI_TRY(modulate(s->model, next, run, s->a, next_mod));
    zi_norm next_norm = {.kind = ZI_NORM_RMS, .eps = eps};
    if (next) {
        next_norm.weight = next->attention_norm1;
        next_norm.scale = next_mod->scale_msa;
    }
    return table->residual(
        run, s->x, &s->y, next ? &s->h : NULL,
        &(zi_residual){.post = &ffn_norm2, .gate = mod->gate_mlp, .next = next ? &next_norm : NULL, .finite = finite});
}

static zimage_status start_stack(stack *s, const zi_zimage_dit_block *first)
{
    int64_t tokens = s->x->shape[0], dim = s->model->config.dim;
    ZI_TRY(zi_alloc2_f32(s->run, &s->mods[0].m, 1, 4 * dim));
    ZI_TRY(zi_alloc2_f32(s->run, &s->mods[1].m, 1, 4 * dim));
    ZI_TRY(zi_alloc2(s->run, &s->y, tokens, dim));
    ZI_TRY(zi_table(s->run)->alloc_operand(s->run, &s->h, tokens, dim, first->to_q));
    ZI_TRY(modulate(s->model, first, s->run, s->a, &s->mods[0]));
    return zi_rms_norm(s->run, &s->h, s->x, first->attention_norm1, s->mods[0].scale_msa,
                       (float)s->model->config.norm_eps);
}

/* Blocks that run one after the other, and their name in messages. */
typedef struct block_list {
    const zi_zimage_dit_block *blocks;
    int64_t count;
    const char *name;
} block_list;

/* x [T, D] <- the blocks of x; a: the timestep's embedding, NULL without modulation */
static zimage_status run_blocks(const zi_zimage_dit *model, const block_list *list, zi_run *run, const sequences *all,
                                const zi_tensor *a, zi_tensor *x)
{
    stack s = {.model = model, .run = run, .sequences = all, .a = a, .x = x};
    const zi_zimage_dit_block *blocks = list->blocks;
    zi_arena_mark mark = zi_table(run)->mark(run);
    if (list->count > 0)
        ZI_TRY(start_stack(&s, &blocks[0]));
    for (int64_t i = 0; i < list->count; i++) {
        const zi_zimage_dit_block *next = i + 1 < list->count ? &blocks[i + 1] : NULL;
        int finite = 1;
        ZI_TRY(run_block(&s, &blocks[i], &s.mods[i % 2], next, &s.mods[(i + 1) % 2], &finite));
        ZI_TRY(zi_end_block_known(run, finite, "transformer %s.%d", list->name, (int)i));
    }
    zi_table(run)->release(run, mark);
    return ZIMAGE_OK;
}

/* out [mp, D] = context_refiner(pad(cap_embedder(features))), section 3.3 and 3.7 */
static zimage_status caption(const zi_zimage_dit *model, zi_run *run, const zi_tensor *features, zi_tensor *out)
{
    const zi_ops_table *table = zi_table(run);
    int64_t tokens = features->shape[0];
    zi_tensor normed, embedded = zi_tensor_rows(out, 0, tokens); /* [m, cap_feat_dim], [m, D] */
    sequences all = {.count = 1};

    zi_arena_mark mark = table->mark(run);
    ZI_TRY(zi_alloc2(run, &normed, tokens, model->config.cap_feat_dim));
    ZI_TRY(zi_rms_norm(run, &normed, features, model->cap_norm, NULL, (float)model->config.norm_eps));
    ZI_TRY(zi_linear(run, &embedded, &normed, model->cap_embedder, model->cap_embedder_bias));
    table->release(run, mark);
    ZI_TRY(fill_pads(run, out, tokens, model->cap_pad_token));
    ZI_TRY(zi_end_block(run, out, "transformer cap_embedder"));

    ZI_TRY(rope_tables(model, run, 0, 0, out->shape[0], &all.rope[0]));
    const block_list refiner = {model->context_refiner, model->config.n_refiner_layers, "context_refiner"};
    return run_blocks(model, &refiner, run, &all, NULL, out);
}

zimage_status zi_zimage_dit_caption(const zi_zimage_dit *model, zi_run *run, const zi_tensor *features, zi_tensor *out)
{
    ZI_TRY(zi_zimage_dit_check_positions(model, features->shape[0], 1, 1, run->error));
    zi_arena_mark mark = zi_table(run)->mark(run);
    zimage_status status = caption(model, run, features, out);
    zi_table(run)->release(run, mark);
    return status;
}

/* x [Np, D] = pad(x_embedder(patches of the latents)), section 3.2 */
static zimage_status embed_image(const zi_zimage_dit_inputs *inputs, zi_run *run, const zi_tensor *latents,
                                 zi_tensor *x)
{
    const zi_zimage_dit *model = inputs->model;
    const zi_zimage_dit_config *config = &model->config;
    int64_t tokens = inputs->grid_rows * inputs->grid_columns;
    zi_tensor patches, embedded = zi_tensor_rows(x, 0, tokens); /* [N, p p C], [N, D] */
    zi_arena_mark mark = zi_table(run)->mark(run);
    ZI_TRY(zi_alloc2(run, &patches, tokens, config->patch * config->patch * config->in_channels));
    ZI_TRY(zi_table(run)->patchify(run, &patches, latents, config->patch, ZI_PATCH_CHANNELS_LAST));
    ZI_TRY(zi_linear(run, &embedded, &patches, model->x_embedder, model->x_embedder_bias));
    zi_table(run)->release(run, mark);
    if (inputs->pads.data != NULL) {
        zi_tensor pads = zi_tensor_rows(x, tokens, x->shape[0] - tokens);
        ZI_TRY(zi_table(run)->copy(run, &pads, &inputs->pads));
    }
    return zi_end_block(run, x, "transformer x_embedder");
}

/* out[i] [C, H, W] = unpatchify(linear(LayerNorm(x) * (1 + adaLN_modulation.1(SiLU(a))))), section 3.7, of `count`
 * images; x [count N, D] */
static zimage_status final_layer(const zi_zimage_dit *model, zi_run *run, const zi_tensor *a, const zi_tensor *x,
                                 int count, zi_tensor *out)
{
    const zi_ops_table *table = zi_table(run);
    const zi_zimage_dit_config *config = &model->config;
    int64_t tokens = x->shape[0] / count;
    zi_tensor activated, scale, h, patches; /* [1, A], [1, D], [count N, D], [count N, p p C] */

    ZI_TRY(zi_alloc2_f32(run, &activated, 1, config->adaln_dim));
    ZI_TRY(zi_alloc2_f32(run, &scale, 1, config->dim));
    ZI_TRY(zi_alloc2(run, &h, x->shape[0], config->dim));
    ZI_TRY(zi_alloc2_f32(run, &patches, x->shape[0], config->patch * config->patch * config->in_channels));
    ZI_TRY(table->silu(run, &activated, a));
    ZI_TRY(zi_linear(run, &scale, &activated, model->final_adaln, model->final_adaln_bias));
    scale = zi_row_vector(&scale, 0);
    ZI_TRY(table->modulation(run, &scale, 1, &(zi_modulation){ZI_MODULATION_ONE_PLUS}));
    ZI_TRY(table->norm(run, &h, x, &(zi_norm){.kind = ZI_NORM_LAYER, .eps = FINAL_NORM_EPS, .scale = &scale}));
    ZI_TRY(zi_linear(run, &patches, &h, model->final_linear, model->final_linear_bias));
    for (int i = 0; i < count; i++) {
        const zi_tensor of_image = zi_tensor_rows(&patches, i * tokens, tokens);
        ZI_TRY(table->unpatchify(run, &out[i], &of_image, config->patch, ZI_PATCH_CHANNELS_LAST));
        ZI_TRY(zi_check_block(run, &out[i], "transformer final_layer"));
    }
    return zi_block_done(run);
}

/* A batch of forward passes after the sinusoid [1, 256] of t. The host reads and writes none of its tensors, so a
 * backend may record it. The bytes of this struct are the recording's key. */
typedef struct batch {
    zi_zimage_dit_inputs inputs[ZI_PASSES_MAX];
    zi_tensor latents, sinusoid, out[ZI_PASSES_MAX];
    int64_t count;
} batch;

/* images [count Np, D] <- the latents' tokens, the same for all passes */
static zimage_status embed_images(const batch *b, zi_run *run, const zi_tensor *images)
{
    int64_t padded = images->shape[0] / b->count;
    zi_tensor first = zi_tensor_rows(images, 0, padded);
    ZI_TRY(embed_image(&b->inputs[0], run, &b->latents, &first));
    for (int64_t i = 1; i < b->count; i++) {
        zi_tensor other = zi_tensor_rows(images, i * padded, padded);
        ZI_TRY(zi_table(run)->copy(run, &other, &first));
    }
    return ZIMAGE_OK;
}

/* x [T, D], which begins with the images of all passes <- for each pass its image, then its caption. The last one
 * moves first, so that no row is written over that is still needed. */
static zimage_status add_captions(const batch *b, zi_run *run, int64_t padded, const int64_t *place, zi_tensor *x)
{
    const zi_ops_table *table = zi_table(run);
    for (int64_t i = b->count - 1; i >= 0; i--) {
        const zi_tensor *caption = &b->inputs[i].caption;
        zi_tensor image = zi_tensor_rows(x, place[i], padded), copy;
        zi_tensor text = zi_tensor_rows(x, place[i] + padded, caption->shape[0]);
        const zi_tensor now = zi_tensor_rows(x, i * padded, padded);
        zi_arena_mark mark = table->mark(run);
        if (i > 0) { /* through a copy: the places may overlap */
            ZI_TRY(zi_alloc2(run, &copy, padded, x->shape[1]));
            ZI_TRY(table->copy(run, &copy, &now));
            ZI_TRY(table->copy(run, &image, &copy));
        }
        ZI_TRY(table->copy(run, &text, caption));
        table->release(run, mark);
    }
    return ZIMAGE_OK;
}

static zimage_status run_batch(zi_run *run, const void *user)
{
    const batch *b = user;
    const zi_zimage_dit_inputs *inputs = b->inputs;
    const zi_zimage_dit *model = inputs->model;
    const zi_zimage_dit_config *config = &model->config;
    int64_t tokens = inputs->grid_rows * inputs->grid_columns, padded = zi_zimage_dit_padded(tokens), all = 0;
    const block_list refiner = {model->noise_refiner, config->n_refiner_layers, "noise_refiner"};
    const block_list layers = {model->layers, config->n_layers, "layers"};
    sequences images = {.count = (int)b->count}, passes = images;
    int64_t place[ZI_PASSES_MAX] = {0};         /* of each pass in x */
    zi_tensor a, x, result, out[ZI_PASSES_MAX]; /* [1, A], [T, D]: of each pass the image first, then the caption */

    for (int64_t i = 0; i < b->count; i++) {
        const zi_rope *rope = &passes.rope[i];
        passes.rope[i] = inputs[i].rope;
        images.rope[i] = (zi_rope){zi_tensor_rows(&rope->cos, 0, padded), zi_tensor_rows(&rope->sin, 0, padded)};
        place[i] = all;
        out[i] = b->out[i];
        all += padded + inputs[i].caption.shape[0];
    }
    ZI_TRY(zi_alloc2_f32(run, &a, 1, config->adaln_dim));
    ZI_TRY(embed_timestep(model, run, &b->sinusoid, &a));
    ZI_TRY(zi_alloc2(run, &x, all, config->dim));

    zi_tensor refined = zi_tensor_rows(&x, 0, b->count * padded);
    ZI_TRY(embed_images(b, run, &refined));
    ZI_TRY(run_blocks(model, &refiner, run, &images, &a, &refined));

    ZI_TRY(add_captions(b, run, padded, place, &x));
    ZI_TRY(run_blocks(model, &layers, run, &passes, &a, &x));

    ZI_TRY(zi_join_rows(run, &x, images.count, place, tokens, &result));
    return final_layer(model, run, &a, &result, images.count, out);
}

static zimage_status start_batch(zi_run *run, batch *b, float t)
{
    float frequencies[T_FREQUENCIES];
    timestep_frequencies(t, b->inputs[0].model->config.t_scale, frequencies);
    ZI_TRY(zi_alloc2_f32(run, &b->sinusoid, 1, T_FREQUENCIES));
    ZI_TRY(zi_table(run)->upload(run, &b->sinusoid, frequencies));
    return zi_table(run)->repeat(run, b, sizeof *b, run_batch, b);
}

zimage_status zi_zimage_dit_forward_passes(const zi_zimage_dit_inputs *const *inputs, int count, zi_run *run,
                                           const zi_tensor *latents, float t, zi_tensor *out)
{
    batch b;
    memset(&b, 0, sizeof b); /* also what lies between the fields: it is a part of the key */
    b.count = count;
    b.latents = *latents;
    for (int i = 0; i < count; i++) {
        b.inputs[i] = *inputs[i];
        b.out[i] = out[i];
    }
    zi_arena_mark mark = zi_table(run)->mark(run);
    zimage_status status = start_batch(run, &b, t);
    zi_table(run)->release(run, mark);
    return status;
}

/* ---- once for a size and a caption ------------------------------------------------------------------------------- */

zimage_status zi_zimage_dit_prepare(const zi_zimage_dit *model, zi_run *run, const zi_tensor *caption, int64_t rows,
                                    int64_t columns, zi_zimage_dit_inputs *inputs)
{
    int64_t patch = model->config.patch;
    *inputs = (zi_zimage_dit_inputs){model, rows / patch, columns / patch, .caption = *caption};
    ZI_TRY(zi_zimage_dit_check_positions(model, caption->shape[0], rows / patch, columns / patch, run->error));
    ZI_TRY(rope_tables(model, run, rows / patch, columns / patch, caption->shape[0], &inputs->rope));
    int64_t tokens = inputs->grid_rows * inputs->grid_columns, pads = zi_zimage_dit_padded(tokens) - tokens;
    if (pads == 0)
        return ZIMAGE_OK;
    ZI_TRY(zi_alloc2(run, &inputs->pads, pads, model->config.dim));
    return fill_pads(run, &inputs->pads, 0, model->x_pad_token);
}

zimage_status zi_zimage_dit_forward(const zi_zimage_dit *model, zi_run *run, const zi_tensor *latents, float t,
                                    const zi_tensor *caption, zi_tensor *out)
{
    const zi_zimage_dit_config *config = &model->config;
    int64_t rows = latents->shape[1], columns = latents->shape[2];
    zi_zimage_dit_inputs inputs;
    const zi_zimage_dit_inputs *const list[] = {&inputs};
    if (latents->shape[0] != config->in_channels || rows % config->patch != 0 || columns % config->patch != 0)
        return zi_fail(run->error, ZIMAGE_ERROR_ARGUMENT,
                       "latents of shape [%lld, %lld, %lld] do not fit a transformer of %lld channels and patch size "
                       "%lld",
                       (long long)latents->shape[0], (long long)rows, (long long)columns,
                       (long long)config->in_channels, (long long)config->patch);
    zi_arena_mark mark = zi_table(run)->mark(run);
    zimage_status status = zi_zimage_dit_prepare(model, run, caption, rows, columns, &inputs);
    if (status == ZIMAGE_OK)
        status = zi_zimage_dit_forward_passes(list, 1, run, latents, t, out);
    zi_table(run)->release(run, mark);
    return status;
}

int64_t zi_zimage_dit_caption_blocks(const zi_zimage_dit *model)
{
    return 1 + model->config.n_refiner_layers;
}

int64_t zi_zimage_dit_forward_blocks(const zi_zimage_dit *model)
{
    return 3 + model->config.n_refiner_layers + model->config.n_layers; /* t_embedder, x_embedder, ..., final_layer */
}
