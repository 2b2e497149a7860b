/* From the recipe in an image's file back to options. Recipes come from strangers: every value is checked as one of the
 * command line is, and none becomes a path. */
#ifndef ZI_CLI_REREAD_H
#define ZI_CLI_REREAD_H

#include <jansson.h>

#include "options.h"
#include "request.h"
#include "shared/recipe.h"

/* The recipe of a file, released with json_decref. NULL: a sentence says why there is none. */
json_t *cli_read_recipe(const char *command, const char *path, recipe_source *source, zimage_format *format);

/*
 * Fills `made` with what makes the image again: the values of the recipe `object`, and all that `given` (the options of
 * rerun) says of model, inputs, device and so on. The object has to live as long as `made`. 0, or an exit code after a
 * sentence: a value is wrong, or the input files are not as many as the recipe says.
 */
int cli_options_of_recipe(const json_t *object, const cli_options *given, cli_options *made);

/* Whether the inputs that were read are those of the recipe `object`, by their checksums; prints which is not. */
int cli_are_inputs_of_recipe(const json_t *object, const cli_options *made, const zimage_request *request);

#endif
