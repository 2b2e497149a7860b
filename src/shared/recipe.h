/*
 * Recipes: what an image's file says of how the image was made, so that it can be made again. The program and the
 * server write and read the same. A file that they make has three texts:
 *
 *   zimage      the recipe, a JSON object: {"recipe":1,"prompt":"a red apple","seed":7,...}
 *   parameters  the same for other programs, as AUTOMATIC1111's writes it; it holds less
 *   Software    "zimage 0.2.0"
 *
 * There is no text "prompt": in ComfyUI's files that one is JSON, and programs that read them expect it. No text names
 * a folder of this machine. Recipes that are read come from strangers: no value in them becomes a path that is opened.
 */
#ifndef ZI_SHARED_RECIPE_H
#define ZI_SHARED_RECIPE_H

#include <jansson.h>

#include "hash.h"
#include "zimage.h"

/* ---- writing ----------------------------------------------------------------------------------------------------- */

typedef struct recipe recipe;

/* NULL: no memory. Released with recipe_free. */
recipe *recipe_new(void);
/* The same for a key (job_key.h): inputs have no names, and a SHA-256 in place of the checksum. */
recipe *recipe_new_for_key(void);
void recipe_free(recipe *r);

/* Adds a value; a text of NULL is left out. Bytes that are no UTF-8 are written as zimage_printable writes them. */
void recipe_add(recipe *r, const char *key, const char *text);
void recipe_add_number(recipe *r, const char *key, double value);

/* What a person calls an input: of "images" the one with the index, of "mask", "latents", "prompt_embeds". NULL: the
 * input has no name. */
typedef const char *recipe_name_fn(void *user, const char *key, size_t index);

/* Groups of values of a request whose defaults are filled in (zimage_request_complete), each in its place. naming may
 * be NULL. An input, which the file does not hold, has its own name, its size, and a checksum with which another file
 * under that name is noticed. */
void recipe_prompts(recipe *r, const zimage_request *request, recipe_name_fn *naming, void *user);
void recipe_images(recipe *r, const zimage_request *request, recipe_name_fn *naming, void *user);
void recipe_noise(recipe *r, const zimage_request *request, recipe_name_fn *naming, void *user);
void recipe_size(recipe *r, const zimage_request *request);
/* truncation and normalization are left out without guidance. */
void recipe_guidance(recipe *r, double guidance, double truncation, double normalization);
/* name: of the folder, without those that it lies in. */
void recipe_model(recipe *r, const char *name, const zimage_model *model);
/* What made the image. quality: of a lossy file; 0: none. */
void recipe_result(recipe *r, const zimage_image_info *info, int quality);

/* The three texts; they live as long as the recipe. NULL: no memory. */
const zimage_text *recipe_texts(recipe *r, size_t *count);

/* The object's text: compact, in UTF-8, with sorted keys. Released with free. NULL: no memory. */
char *recipe_canonical(const recipe *r);

/* What tells a model from others, as recipes have it; "": not known. */
#define RECIPE_FINGERPRINT 128
void recipe_fingerprint(const zimage_model *model, char text[RECIPE_FINGERPRINT]);

/* The checksum of an input, as recipes have it: eight hexadecimal digits of CRC-32. */
#define RECIPE_CHECKSUM 9
void recipe_image_checksum(const zimage_image *image, char text[RECIPE_CHECKSUM]);
/* SHA-256 of an image's pixels and its alpha, as keys have it. 0: no memory. */
int recipe_image_hash(const zimage_image *image, char text[HASH_TEXT]);
void recipe_numbers_checksum(const float *numbers, size_t count, char text[RECIPE_CHECKSUM]);

/* ---- reading (recipe_read.c) ------------------------------------------------------------------------------------ */

/* Who wrote the recipe. */
typedef enum recipe_source {
    RECIPE_NONE,      /* there is no recipe */
    RECIPE_MALFORMED, /* the text "zimage" is no recipe of this version */
    RECIPE_ZIMAGE,
    RECIPE_A1111,   /* the text "parameters" of AUTOMATIC1111's program, or of one that writes the same */
    RECIPE_COMFYUI, /* the text "prompt" of ComfyUI */
} recipe_source;

/* "zimage", "AUTOMATIC1111", "ComfyUI"; NULL of the others. */
const char *recipe_source_name(recipe_source source);

/* A recipe in the texts of an image file: an object with the keys of our own recipes, of other programs only what is
 * understood. Its values may be of any type. NULL: *source says why, or there is no memory. Released with json_decref.
 */
json_t *recipe_read(const zimage_texts *texts, recipe_source *source);

#endif
