#include "recipe.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "hash.h"
#include "json_text.h"

#define VERSION 1
#define TEXTS   3

struct recipe {
    json_t *object;
    zimage_text texts[TEXTS];
    char *json, *parameters;
    char software[64];
    int is_broken; /* a value could not be added */
    int is_for_key;
};

recipe *recipe_new(void)
{
    recipe *r = calloc(1, sizeof *r);
    if (r && !(r->object = json_pack("{s:i}", "recipe", VERSION))) {
        free(r);
        return NULL;
    }
    return r;
}

recipe *recipe_new_for_key(void)
{
    recipe *r = recipe_new();
    if (r)
        r->is_for_key = 1;
    return r;
}

void recipe_free(recipe *r)
{
    if (!r)
        return;
    json_decref(r->object);
    free(r->json);
    free(r->parameters);
    free(r);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* value: is taken over; NULL: there was no memory for it. */
static void set(recipe *r, const char *key, json_t *value)
{
    r->is_broken |= json_object_set_new(r->object, key, value) != 0;
}

void recipe_add(recipe *r, const char *key, const char *text)
{
    if (text)
        set(r, key, json_of_text(text));
}

void recipe_add_number(recipe *r, const char *key, double value)
{
    int is_whole = value >= -1e9 && value <= 1e9 && value == (double)(json_int_t)value;
    set(r, key, is_whole ? json_integer((json_int_t)value) : json_real(value));
}

void recipe_size(recipe *r, const zimage_request *request)
{
    set(r, "size", json_sprintf("%dx%d", request->width, request->height));
    set(r, "steps", json_integer(request->steps));
}

void recipe_guidance(recipe *r, double guidance, double truncation, double normalization)
{
    recipe_add_number(r, "guidance", guidance);
    if (guidance > 0) {
        recipe_add_number(r, "cfg_truncation", truncation);
        recipe_add_number(r, "cfg_normalization", normalization);
    }
}

void recipe_fingerprint(const zimage_model *model, char text[RECIPE_FINGERPRINT])
{
    zimage_model_info info = {.struct_size = sizeof info};
    *text = 0;
    if (zimage_model_get_info(model, &info, NULL) == ZIMAGE_OK)
        snprintf(text, RECIPE_FINGERPRINT, "%s", info.fingerprint);
}

void recipe_model(recipe *r, const char *name, const zimage_model *model)
{
    char fingerprint[RECIPE_FINGERPRINT];
    recipe_fingerprint(model, fingerprint);
    recipe_add(r, "model", name);
    recipe_add(r, "model_fingerprint", *fingerprint ? fingerprint : NULL);
}

void recipe_result(recipe *r, const zimage_image_info *info, int quality)
{
    recipe_add(r, "compute", zimage_compute_name(info->compute));
    recipe_add(r, "kernels", info->kernels);
    if (quality)
        set(r, "quality", json_integer(quality));
    recipe_add(r, "version", zimage_version());
}

/* ---- inputs ------------------------------------------------------------------------------------------------------ */

static void checksum(const void *data, size_t size, char text[RECIPE_CHECKSUM])
{
    uLong sum = crc32_z(crc32_z(0, NULL, 0), data, size);
    snprintf(text, RECIPE_CHECKSUM, "%08lx", sum & 0xffffffff);
}

void recipe_image_checksum(const zimage_image *image, char text[RECIPE_CHECKSUM])
{
    size_t pixels = (size_t)zimage_image_width(image) * (size_t)zimage_image_height(image);
    checksum(zimage_image_pixels(image), 3 * pixels, text);
}

void recipe_numbers_checksum(const float *numbers, size_t count, char text[RECIPE_CHECKSUM])
{
    checksum(numbers, count * sizeof *numbers, text);
}

/* {"name", "size", "crc32"} or, for a key, {"size", "sha256"}; size NULL: without it. Takes over size. */
static json_t *input_json(const char *name, json_t *size, const char *kind, const char *sum)
{
    return json_pack("{s:o*, s:o*, s:s}", "name", name ? json_of_text(name) : NULL, "size", size, kind, sum);
}

/* The alpha is one that a mask may be read from. */
int recipe_image_hash(const zimage_image *image, char text[HASH_TEXT])
{
    size_t pixels = (size_t)zimage_image_width(image) * (size_t)zimage_image_height(image);
    const hash_piece pieces[] = {{zimage_image_pixels(image), 3 * pixels},
                                 {zimage_image_alpha(image), zimage_image_alpha(image) ? pixels : 0}};
    return hash_sha256(pieces, 2, text);
}

static json_t *image_json(recipe *r, const char *name, const zimage_image *image)
{
    char sum[HASH_TEXT];
    json_t *size = json_sprintf("%dx%d", zimage_image_width(image), zimage_image_height(image));
    if (r->is_for_key)
        r->is_broken |= !recipe_image_hash(image, sum);
    else
        recipe_image_checksum(image, sum);
    return input_json(name, size, r->is_for_key ? "sha256" : "crc32", sum);
}

static void add_numbers(recipe *r, const char *key, const char *name, const float *numbers, size_t count)
{
    char sum[HASH_TEXT];
    if (r->is_for_key)
        r->is_broken |= !hash_sha256(&(hash_piece){numbers, count * sizeof *numbers}, 1, sum);
    else
        recipe_numbers_checksum(numbers, count, sum);
    set(r, key, input_json(name, NULL, r->is_for_key ? "sha256" : "crc32", sum));
}

static const char *name_of(recipe_name_fn *naming, void *user, const char *key, size_t index)
{
    return naming ? naming(user, key, index) : NULL;
}

void recipe_prompts(recipe *r, const zimage_request *request, recipe_name_fn *naming, void *user)
{
    static const char key[] = "prompt_embeds";
    if (request->prompt_embeds)
        add_numbers(r, key, name_of(naming, user, key, 0), request->prompt_embeds,
                    (size_t)request->prompt_tokens * (size_t)request->prompt_embeds_dim);
    else
        recipe_add(r, "prompt", request->prompt);
    if (request->guidance_scale > 0 && request->negative_prompt_embeds)
        add_numbers(r, "negative_prompt_embeds", NULL, request->negative_prompt_embeds,
                    (size_t)request->negative_prompt_tokens * (size_t)request->prompt_embeds_dim);
    else if (request->guidance_scale > 0)
        recipe_add(r, "negative_prompt", request->negative_prompt);
}

void recipe_images(recipe *r, const zimage_request *request, recipe_name_fn *naming, void *user)
{
    if (request->image_count > 0)
        set(r, "images", json_array());
    for (size_t i = 0; i < request->image_count; i++)
        r->is_broken |= json_array_append_new(json_object_get(r->object, "images"),
                                              image_json(r, name_of(naming, user, "images", i), request->images[i]));
    if (request->mask)
        set(r, "mask", image_json(r, name_of(naming, user, "mask", 0), request->mask));
    if (request->composite)
        set(r, "composite", json_true());
    if (request->strength > 0)
        recipe_add_number(r, "strength", request->strength);
}

/* jansson's whole numbers end at 2^63 - 1, seeds at 2^64 - 1: the others are texts. */
void recipe_noise(recipe *r, const zimage_request *request, recipe_name_fn *naming, void *user)
{
    uint64_t seed = request->seed;
    if (request->latents) {
        add_numbers(r, "latents", name_of(naming, user, "latents", 0), request->latents, request->latents_count);
        return;
    }
    set(r, "seed", seed <= INT64_MAX ? json_integer((json_int_t)seed) : json_sprintf("%llu", (unsigned long long)seed));
    recipe_add(r, "rng", zimage_rng_name(request->rng));
}

/* ---- texts ------------------------------------------------------------------------------------------------------- */

/* The object with as few digits as give every number back. NULL: no memory. */
static char *dump(const json_t *object, size_t flags)
{
    char *text = NULL;
    for (size_t digits = FLT_DIG; digits <= DBL_DECIMAL_DIG; digits++) {
        free(text);
        text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(digits) | flags);
        json_t *again = text ? json_loads(text, 0, NULL) : NULL;
        int is_same = !text || (again && json_equal(object, again));
        json_decref(again);
        if (is_same)
            break;
    }
    return text;
}

char *recipe_canonical(const recipe *r)
{
    return r->is_broken ? NULL : dump(r->object, JSON_SORT_KEYS);
}

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* A number, or the text of a large seed. */
static void print_seed(FILE *file, const json_t *seed)
{
    if (json_is_string(seed))
        fprintf(file, ", Seed: %s", json_string_value(seed));
    else if (seed)
        fprintf(file, ", Seed: %lld", (long long)json_integer_value(seed));
}

/*
 * As AUTOMATIC1111's program writes it (modules/infotext_utils.py reads it): the prompt, "Negative prompt: ...", and a
 * line of settings. Its scale of guidance counts the positive result as 1: ours counts from there.
 */
static void print_parameters(FILE *file, const json_t *object)
{
    const char *negative = text_of(object, "negative_prompt"), *model = text_of(object, "model");
    const json_t *strength = json_object_get(object, "strength");
    fprintf(file, "%s\n", text_of(object, "prompt"));
    if (negative)
        fprintf(file, "Negative prompt: %s\n", negative);
    fprintf(file, "Steps: %lld, Sampler: Euler, CFG scale: %g",
            (long long)json_integer_value(json_object_get(object, "steps")),
            1 + json_number_value(json_object_get(object, "guidance")));
    print_seed(file, json_object_get(object, "seed"));
    fprintf(file, ", Size: %s", text_of(object, "size"));
    if (model && !strpbrk(model, ",:\"\n"))
        fprintf(file, ", Model: %s", model);
    if (strength)
        fprintf(file, ", Denoising strength: %g", json_number_value(strength));
    fprintf(file, ", Version: zimage %s", zimage_version());
}

/* NULL: no memory. */
static char *make_parameters(const json_t *object)
{
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    if (!file)
        return NULL;
    print_parameters(file, object);
    if (fclose(file) == 0)
        return text;
    free(text);
    return NULL;
}

const zimage_text *recipe_texts(recipe *r, size_t *count)
{
    *count = 0;
    if (json_object_size(r->object) <= 1) /* nothing was added: a file without texts */
        return r->is_broken ? NULL : r->texts;
    int has_prompt = text_of(r->object, "prompt") != NULL;
    r->json = dump(r->object, 0);
    r->parameters = has_prompt ? make_parameters(r->object) : NULL;
    snprintf(r->software, sizeof r->software, "zimage %s", zimage_version());
    if (r->is_broken || !r->json || (has_prompt && !r->parameters))
        return NULL;
    r->texts[(*count)++] = (zimage_text){"zimage", r->json};
    if (has_prompt)
        r->texts[(*count)++] = (zimage_text){"parameters", r->parameters};
    r->texts[(*count)++] = (zimage_text){"Software", r->software};
    return r->texts;
}
