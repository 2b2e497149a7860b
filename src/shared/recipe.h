/*
 * The texts inside an image's file, which say how to make the image again. The program and the server write the same
 * keys in the same form. No text names a folder of this machine.
 */
#ifndef ZI_RECIPE_RECIPE_H
#define ZI_RECIPE_RECIPE_H

#include "zimage.h"

typedef struct recipe recipe;

/* NULL: no memory. Released with recipe_free. */
recipe *recipe_new(void);
void recipe_free(recipe *r);

/* Adds a text, which is copied; a value of NULL is left out. key lives as long as the recipe. */
void recipe_add(recipe *r, const char *key, const char *value);
void recipe_add_value(recipe *r, const char *key, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Adds the shortest decimal number that gives the value back. */
void recipe_add_number(recipe *r, const char *key, double value);

/* Groups of texts, each in its place: */
void recipe_noise(recipe *r, uint64_t seed, zimage_rng rng);
void recipe_size(recipe *r, int32_t width, int32_t height, int32_t steps);
/* truncation and normalization are left out without guidance. */
void recipe_guidance(recipe *r, double guidance, double truncation, double normalization);
/* What made the image. quality: of a lossy file; 0: none. */
void recipe_result(recipe *r, const zimage_image_info *info, int quality);

/* The texts; they live as long as the recipe. NULL: a text could not be copied, because there is no memory. */
const zimage_text *recipe_texts(const recipe *r, size_t *count);

#endif
