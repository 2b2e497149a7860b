#include "job_key.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recipe.h"

static char *text_of(const zimage_model *model, const zimage_request *request, const job_output *output)
{
    char fingerprint[RECIPE_FINGERPRINT], *text = NULL;
    recipe *r = recipe_new_for_key();
    if (!r)
        return NULL;
    recipe_prompts(r, request, NULL, NULL);
    recipe_images(r, request, NULL, NULL);
    recipe_noise(r, request, NULL, NULL);
    recipe_size(r, request);
    recipe_guidance(r, request->guidance_scale, request->cfg_truncation, request->cfg_normalization);
    recipe_fingerprint(model, fingerprint);
    recipe_add(r, "model_fingerprint", fingerprint);
    recipe_add(r, "compute", output->compute == ZIMAGE_COMPUTE_AUTO ? NULL : zimage_compute_name(output->compute));
    recipe_add(r, "dequantize", output->dequantize ? zimage_dequantize_name(output->dequantize) : NULL);
    recipe_add(r, "format", zimage_format_name(output->format));
    if (output->quality)
        recipe_add_number(r, "quality", output->quality);
    if (!output->has_recipe)
        recipe_add_number(r, "metadata", 0);
    text = recipe_canonical(r);
    recipe_free(r);
    return text;
}

char *job_key_text(const zimage_model *model, const zimage_request *request, const job_output *output,
                   zimage_error *error)
{
    zimage_request whole = {.struct_size = sizeof whole};
    zimage_model_info info = {.struct_size = sizeof info};
    if (zimage_request_complete(model, request, &whole, error) != ZIMAGE_OK ||
        zimage_model_get_info(model, &info, error) != ZIMAGE_OK)
        return NULL;
    if (!*info.fingerprint) {
        snprintf(error->message, sizeof error->message, "the model has no fingerprint, expected the model of a folder");
        error->status = ZIMAGE_ERROR_MODEL;
        return NULL;
    }
    if (!whole.negative_prompt)
        whole.negative_prompt = "";
    char *text = text_of(model, &whole, output);
    if (!text) {
        snprintf(error->message, sizeof error->message, "no memory for the key of a job");
        error->status = ZIMAGE_ERROR_MEMORY;
    }
    return text;
}

zimage_status job_key(const zimage_model *model, const zimage_request *request, const job_output *output,
                      char key[JOB_KEY], zimage_error *error)
{
    char *text = job_key_text(model, request, output, error);
    *key = 0;
    if (!text)
        return error->status;
    int ok = hash_sha256(&(hash_piece){text, strlen(text)}, 1, key);
    free(text);
    if (ok)
        return ZIMAGE_OK;
    *key = 0;
    snprintf(error->message, sizeof error->message, "no memory for the key of a job");
    return error->status = ZIMAGE_ERROR_MEMORY;
}

uint64_t job_key_shard(const char key[JOB_KEY], uint64_t count)
{
    uint64_t rest = 0;
    for (const char *digit = key; *digit; digit++)
        rest = (rest * 16 + (uint64_t)(*digit <= '9' ? *digit - '0' : *digit - 'a' + 10)) % count;
    return rest;
}

void job_key_file(const char key[JOB_KEY], zimage_format format, char name[JOB_KEY_FILE])
{
    snprintf(name, JOB_KEY_FILE, "%.2s/%.2s/%s.%s", key, key + 2, key, zimage_format_name(format));
}
