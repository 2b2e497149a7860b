/* The weights of a FLUX.2 transformer, made by a function of their names. */
#ifndef ZI_TESTS_FLUX2_WEIGHTS_H
#define ZI_TESTS_FLUX2_WEIGHTS_H

#include "model/flux2_dit.h"
#include "weights_file.h"

static inline void add_flux2_double(weights_file *file, const zi_flux2_dit_config *config, const char *prefix)
{
    static const char *const squares[] = {"attn.to_q.weight",       "attn.to_k.weight",       "attn.to_v.weight",
                                          "attn.to_out.0.weight",   "attn.add_q_proj.weight", "attn.add_k_proj.weight",
                                          "attn.add_v_proj.weight", "attn.to_add_out.weight"};
    static const char *const norms[] = {"attn.norm_q.weight", "attn.norm_k.weight", "attn.norm_added_q.weight",
                                        "attn.norm_added_k.weight"};
    int64_t dim = config->dim, mlp = config->mlp_dim;
    for (int i = 0; i < 8; i++)
        add2(file, prefix, squares[i], dim, dim);
    for (int i = 0; i < 4; i++)
        add1(file, prefix, norms[i], config->head_dim);
    add2(file, prefix, "ff.linear_in.weight", 2 * mlp, dim);
    add2(file, prefix, "ff.linear_out.weight", dim, mlp);
    add2(file, prefix, "ff_context.linear_in.weight", 2 * mlp, dim);
    add2(file, prefix, "ff_context.linear_out.weight", dim, mlp);
}

static inline void add_flux2(weights_file *file, const zi_flux2_dit_config *config)
{
    char prefix[64];
    int64_t dim = config->dim, mlp = config->mlp_dim;
    add2(file, "", "x_embedder.weight", dim, config->in_channels);
    add2(file, "", "context_embedder.weight", dim, config->joint_dim);
    add2(file, "time_guidance_embed.timestep_embedder.", "linear_1.weight", dim, config->time_channels);
    add2(file, "time_guidance_embed.timestep_embedder.", "linear_2.weight", dim, dim);
    add2(file, "", "double_stream_modulation_img.linear.weight", 6 * dim, dim);
    add2(file, "", "double_stream_modulation_txt.linear.weight", 6 * dim, dim);
    add2(file, "", "single_stream_modulation.linear.weight", 3 * dim, dim);
    add2(file, "", "norm_out.linear.weight", 2 * dim, dim);
    add2(file, "", "proj_out.weight", config->in_channels, dim);
    for (int i = 0; i < (int)config->num_layers; i++) {
        snprintf(prefix, sizeof prefix, "transformer_blocks.%d.", i);
        add_flux2_double(file, config, prefix);
    }
    for (int i = 0; i < (int)config->num_single_layers; i++) {
        snprintf(prefix, sizeof prefix, "single_transformer_blocks.%d.", i);
        add2(file, prefix, "attn.to_qkv_mlp_proj.weight", 3 * dim + 2 * mlp, dim);
        add2(file, prefix, "attn.to_out.weight", dim, dim + mlp);
        add1(file, prefix, "attn.norm_q.weight", config->head_dim);
        add1(file, prefix, "attn.norm_k.weight", config->head_dim);
    }
}

#endif
