#include "recipe.h"

#include <float.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXTS_MAX   36
#define VALUE_BYTES 128 /* of a number or a word */

struct recipe {
    zimage_text texts[TEXTS_MAX];
    char *copies[TEXTS_MAX];
    size_t count;
    int is_broken; /* a text could not be copied */
};

recipe *recipe_new(void)
{
    return calloc(1, sizeof(recipe));
}

void recipe_free(recipe *r)
{
    for (size_t i = 0; r && i < r->count; i++)
        free(r->copies[i]);
    free(r);
}

void recipe_add(recipe *r, const char *key, const char *value)
{
    if (!value || r->count == TEXTS_MAX)
        return;
    char *copy = strdup(value);
    r->is_broken |= copy == NULL;
    r->copies[r->count] = copy;
    r->texts[r->count++] = (zimage_text){key, copy};
}

void recipe_add_value(recipe *r, const char *key, const char *format, ...)
{
    char text[VALUE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    recipe_add(r, key, text);
}

void recipe_add_number(recipe *r, const char *key, double value)
{
    char text[VALUE_BYTES];
    for (int digits = FLT_DIG; digits <= DBL_DECIMAL_DIG; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    recipe_add(r, key, text);
}

void recipe_noise(recipe *r, uint64_t seed, zimage_rng rng)
{
    recipe_add_value(r, "seed", "%llu", (unsigned long long)seed);
    recipe_add(r, "rng", zimage_rng_name(rng));
}

void recipe_size(recipe *r, int32_t width, int32_t height, int32_t steps)
{
    recipe_add_value(r, "size", "%dx%d", width, height);
    recipe_add_value(r, "steps", "%d", steps);
}

void recipe_guidance(recipe *r, double guidance, double truncation, double normalization)
{
    recipe_add_number(r, "guidance", guidance);
    if (guidance > 0) {
        recipe_add_number(r, "cfg_truncation", truncation);
        recipe_add_number(r, "cfg_normalization", normalization);
    }
}

void recipe_result(recipe *r, const zimage_image_info *info, int quality)
{
    recipe_add(r, "compute", zimage_compute_name(info->compute));
    recipe_add(r, "kernels", info->kernels);
    if (quality)
        recipe_add_value(r, "quality", "%d", quality);
    recipe_add_value(r, "Software", "zimage %s", zimage_version());
}

const zimage_text *recipe_texts(const recipe *r, size_t *count)
{
    *count = r->is_broken ? 0 : r->count;
    return r->is_broken ? NULL : r->texts;
}
