/* Models that -m names as on a hub, ORGANISATION/NAME[@REVISION]: they are looked up in the caches. */
#ifndef ZI_CLI_MODELS_H
#define ZI_CLI_MODELS_H

#include <limits.h>

#include "options.h"

/* The folder that a text means: itself if there is such a folder, else that of the model in a cache. A text that is
 * neither stays as it is. 0, or an exit code after a sentence that begins with origin ("--model"). */
int cli_find_model(cli_command_id command, const char *origin, const char *text, char path[PATH_MAX]);
/* The same for the model of a command that has one; replaces options->model. */
int cli_find_models(cli_command_id command, cli_options *options);

#endif
