#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

int cli_usage_error(const char *command, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "zimage %s: ", command);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    return CLI_USAGE;
}

int cli_failure(const char *command, const zimage_error *error)
{
    fprintf(stderr, "zimage %s: %s\n", command, error->message);
    return CLI_FAILURE;
}

static int folder_with_index(const char *folder)
{
    char path[PATH_MAX];
    return snprintf(path, sizeof path, "%s/model_index.json", folder) < (int)sizeof path && access(path, R_OK) == 0;
}

/* The folder `below` the program's own folder, if it holds a model. */
static int beside_program(const char *below, char *folder, size_t size)
{
    char program[PATH_MAX];
    if (!cli_program_path(program, sizeof program))
        return 0;
    char *slash = strrchr(program, '/');
    if (!slash)
        return 0;
    *slash = 0;
    return snprintf(folder, size, "%s/%s", program, below) < (int)size && folder_with_index(folder);
}

const char *cli_model(const cli_options *options)
{
    static char found[PATH_MAX];
    const char *chosen = getenv("ZIMAGE_MODEL");
    if (options->model)
        return options->model;
    if (chosen && *chosen)
        return chosen;
    if (beside_program("../share/zimage/models/emoji", found, sizeof found) || /* installed, or moved after that */
        beside_program("models/emoji", found, sizeof found))                   /* in a build folder */
        return found;
    return ZIMAGE_INSTALL_MODELS "/emoji";
}

int cli_print_json(const char *command, json_t *value)
{
    int failed = !value || json_dumpf(value, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6)) != 0 || puts("") < 0;
    json_decref(value);
    if (failed)
        fprintf(stderr, "zimage %s: --json: the object can't be made or written\n", command);
    return failed ? CLI_FAILURE : 0;
}

json_t *cli_device_json(const zimage_device_plan *plan)
{
    if (plan->limit_bytes == 0)
        return NULL;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "limit_bytes", (json_int_t)plan->limit_bytes,
                     "total_bytes", (json_int_t)plan->total_bytes, "value_bytes", (json_int_t)plan->value_bytes,
                     "workspace_bytes", (json_int_t)plan->workspace_bytes, "resident_bytes",
                     (json_int_t)plan->resident_bytes, "ring_bytes", (json_int_t)plan->ring_bytes, "step_bytes",
                     (json_int_t)plan->step_bytes, "least_bytes", (json_int_t)plan->least_bytes);
}

unsigned long long cli_mib(uint64_t bytes)
{
    return (bytes >> 20) + ((bytes & 0xfffff) != 0);
}

void cli_log(zimage_log_level level, const char *message, void *user)
{
    (void)user;
    fprintf(stderr, "zimage: %s%s\n", level == ZIMAGE_LOG_WARNING ? "warning: " : "", message);
}

void cli_log_warnings(zimage_log_level level, const char *message, void *user)
{
    if (level == ZIMAGE_LOG_WARNING)
        cli_log(level, message, user);
}
