/* Models that are known to work, and what each would take on this machine. */
#include "hub/suggest.h"

#include <string.h>

#include "measure/estimate.h"

#define BYTES_OF_BF16 2

/* Numbers in the files of a text encoder, of which an image needs not all layers: 36 layers, the embedding and, of the
 * larger one, another matrix of that size (docs/spec/text-encoder.md 1). */
#define QWEN3_4B 4022468096u
#define QWEN3_8B 8190735360u

/*
 * synthetic: the configuration by which zimage bench knows the model. transformer_bytes: of each number in the
 * transformer's files; all else is bf16 (README.md, "Models"). Licences and gating as the models' pages on the hub said
 * in November 2026; the hub says them again before each download.
 */
static const struct {
    const char *id, *synthetic, *licence;
    uint64_t text_encoder;
    int transformer_bytes, is_gated;
} known[] = {
    {"Tongyi-MAI/Z-Image-Turbo", "z-image-turbo", "Apache-2.0", QWEN3_4B, 4, 0},
    {"black-forest-labs/FLUX.2-klein-4B", "klein-4b", "Apache-2.0", QWEN3_4B, BYTES_OF_BF16, 0},
    {"black-forest-labs/FLUX.2-klein-9B", "klein-9b", "FLUX Non-Commercial", QWEN3_8B, BYTES_OF_BF16, 1},
};

size_t hub_suggestion_count(void)
{
    return sizeof known / sizeof *known;
}

zimage_status hub_suggest(size_t index, int64_t side, const zimage_session_params *session, hub_suggestion *suggestion,
                          zimage_error *error)
{
    zi_estimate e;
    *suggestion =
        (hub_suggestion){.id = known[index].id, .licence = known[index].licence, .is_gated = known[index].is_gated};
    ZI_TRY(zi_estimate_model(known[index].synthetic, side, session, &e, error));
    suggestion->download_bytes = e.parameters[ZI_TRANSFORMER] * (uint64_t)known[index].transformer_bytes +
                                 (e.parameters[ZI_VAE] + known[index].text_encoder) * BYTES_OF_BF16;
    suggestion->peak_bytes = e.peak_bytes;
    suggestion->seconds = e.seconds;
    suggestion->steps = e.steps;
    return ZIMAGE_OK;
}
