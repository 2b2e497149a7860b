#include "weights/layout.h"

#include <stdio.h>
#include <string.h>

/* Parts of names. A part begins at the start of the name or after a dot, and ends with a dot. */
typedef struct renamed {
    const char *reference, *stored;
} renamed;

struct zi_layout {
    const char *sign;    /* the name of a tensor that only this layout has */
    int channels_last;   /* convolutions are [out, kernel_h, kernel_w, in] */
    renamed renames[10]; /* the first whose reference part is in the name applies; ended by NULL */
};

static const zi_layout layouts[] = {
    /* the transformer of uqer1244/MLX-z-image; its text encoder and VAE have the names of diffusers */
    {.sign = "cap_embedder.layers.0.weight",
     .renames = {{"all_x_embedder.2-1.", "x_embedder."},
                 {"cap_embedder.", "cap_embedder.layers."},
                 {"t_embedder.mlp.0.", "t_embedder.linear1."},
                 {"t_embedder.mlp.2.", "t_embedder.linear2."},
                 {"all_final_layer.2-1.adaLN_modulation.1.", "final_layer.adaLN_modulation.layers.1."},
                 {"all_final_layer.2-1.", "final_layer."},
                 {"attention.to_out.0.", "attention.to_out."},
                 {"adaLN_modulation.0.", "adaLN_modulation."}}},
    /* the transformer of mflux; its text encoder lacks the prefix "model.", which qwen3.c handles */
    {.sign = "all_final_layer.2-1.adaLN_modulation.0.weight",
     .renames = {{"t_embedder.mlp.0.", "t_embedder.linear1."},
                 {"t_embedder.mlp.2.", "t_embedder.linear2."},
                 {"all_final_layer.2-1.adaLN_modulation.1.", "all_final_layer.2-1.adaLN_modulation.0."}}},
    /* the transformer of mflux for FLUX.2 */
    {.sign = "time_guidance_embed.linear_1.weight",
     .renames = {{"time_guidance_embed.timestep_embedder.", "time_guidance_embed."},
                 {"attn.to_out.0.", "attn.to_out."}}},
    /* the VAE of mflux for Z-Image */
    {.sign = "decoder.conv_in.conv.weight",
     .channels_last = 1,
     .renames = {{"decoder.conv_in.", "decoder.conv_in.conv."},
                 {"decoder.conv_out.", "decoder.conv_out.conv."},
                 {"encoder.conv_in.", "encoder.conv_in.conv2d."},
                 {"encoder.conv_out.", "encoder.conv_out.conv2d."},
                 {"conv_norm_out.", "conv_norm_out.norm."}}},
    /* the VAE of mflux for FLUX.2 */
    {.sign = "decoder.mid_block.attentions.0.to_out.weight",
     .channels_last = 1,
     .renames = {{"attentions.0.to_out.0.", "attentions.0.to_out."}}},
};
static const zi_layout diffusers = {.sign = NULL};

const zi_layout *zi_layout_detect(const zi_entry *entries, size_t count)
{
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (zi_entries_find(entries, count, layouts[i].sign))
            return &layouts[i];
    return &diffusers;
}

void zi_layout_name(const zi_layout *layout, const char *reference, char *name, size_t size)
{
    for (const renamed *r = layout->renames; r->reference; r++) {
        const char *part = strstr(reference, r->reference);
        if (part && (part == reference || part[-1] == '.')) {
            snprintf(name, size, "%.*s%s%s", (int)(part - reference), reference, r->stored,
                     part + strlen(r->reference));
            return;
        }
    }
    snprintf(name, size, "%s", reference);
}

int zi_layout_channels_last(const zi_layout *layout)
{
    return layout->channels_last;
}
