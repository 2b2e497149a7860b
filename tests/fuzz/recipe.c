/*
 * Texts of an image's file from a stranger: our own recipe, AUTOMATIC1111's parameters, ComfyUI's graph. Each text is a
 * byte that chooses its key, and its characters up to a zero byte; the first byte of all chooses the file's format.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "shared/recipe.h"

#define TEXTS_MAX 4

static const char *const keys[] = {"zimage", "parameters", "prompt", "Software"};

/* Reads the texts; they point into the copy, which ends with a zero. */
static size_t split(char *copy, size_t size, zimage_text texts[TEXTS_MAX])
{
    size_t count = 0;
    for (char *at = copy; at + 1 < copy + size && count < TEXTS_MAX; at += 2 + strlen(at + 1))
        texts[count++] = (zimage_text){keys[(unsigned char)*at % 4], at + 1};
    return count;
}

/* What is in the recipe is in the text from which it was read. */
static void check(const json_t *found, recipe_source source, const zimage_texts *texts)
{
    const char *key = source == RECIPE_ZIMAGE ? keys[0] : source == RECIPE_A1111 ? keys[1] : keys[2], *text = NULL;
    const json_t *prompt = json_object_get(found, "prompt");
    for (size_t i = zimage_texts_count(texts); i-- > 0;)
        if (!strcmp(zimage_texts_get(texts, i)->key, key))
            text = zimage_texts_get(texts, i)->value;
    if (!json_is_object(found) || !recipe_source_name(source) || !text)
        zi_fuzz_fail("a recipe of nobody");
    if (source == RECIPE_A1111 && prompt && !strstr(text, json_string_value(prompt)))
        zi_fuzz_fail("a prompt that the text does not hold");
    if (source == RECIPE_ZIMAGE) {
        json_t *same = json_loads(text, 0, NULL);
        if (!json_equal(found, same))
            zi_fuzz_fail("another recipe");
        json_decref(same);
    }
}

static void read_file(const uint8_t *file, size_t bytes)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_texts *texts = NULL;
    recipe_source source;
    if (zimage_texts_decode(file, bytes, &texts, &error) != ZIMAGE_OK)
        zi_fuzz_fail("%s", error.message);
    json_t *found = recipe_read(texts, &source);
    if (found)
        check(found, source, texts);
    else if (source != RECIPE_NONE && source != RECIPE_MALFORMED)
        zi_fuzz_fail("no recipe, and no reason");
    zi_fuzz_note(found ? recipe_source_name(source) : "no recipe");
    json_decref(found);
    zimage_texts_free(texts);
}

static int run(const uint8_t *data, size_t size)
{
    static const uint8_t pixel[3] = {1, 2, 3};
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_image *image = NULL;
    zimage_text texts[TEXTS_MAX];
    uint8_t *file = NULL;
    size_t bytes = 0;
    if (size < 2)
        return ZI_FUZZ_DISCARD;
    char *copy = calloc(1, size);
    if (!copy || zimage_image_from_pixels(pixel, 1, 1, 3, 3, &image, &error) != ZIMAGE_OK)
        zi_fuzz_fail("out of memory");
    memcpy(copy, data + 1, size - 1);
    size_t count = split(copy, size - 1, texts);
    int is_file =
        zimage_image_encode(image, (zimage_format)(data[0] % 3), texts, count, &file, &bytes, &error) == ZIMAGE_OK;
    if (is_file)
        read_file(file, bytes);
    zimage_free(file);
    zimage_image_free(image);
    free(copy);
    return is_file ? ZI_FUZZ_KEEP : ZI_FUZZ_DISCARD;
}

/* Changes the JSON of the first text; now and then anything. */
static size_t mutate(uint8_t *data, size_t size, size_t capacity, unsigned seed)
{
#ifdef ZI_FUZZ_TARGET
    if (seed % 4 && size > 2 && data[1] % 4 != 1)
        return 2 + zi_fuzz_mutate_json(data + 2, size - 2, capacity - 2, seed);
    return LLVMFuzzerMutate(data, size, capacity);
#else
    (void)data, (void)capacity, (void)seed;
    return size;
#endif
}

const zi_fuzz_target zi_fuzz_recipe = {.name = "recipe", .run = run, .mutate = mutate};
