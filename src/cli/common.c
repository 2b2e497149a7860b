#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
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

/* PREFIX/bin/zimage -> PREFIX/share/zimage/models/emoji, for an installation that was moved. */
static int beside_program(char *folder, size_t size)
{
    char program[PATH_MAX];
    if (!cli_program_path(program, sizeof program))
        return 0;
    for (int level = 0; level < 2; level++) {
        char *slash = strrchr(program, '/');
        if (!slash)
            return 0;
        *slash = 0;
    }
    return snprintf(folder, size, "%s/share/zimage/models/emoji", program) < (int)size && folder_with_index(folder);
}

const char *cli_default_model(void)
{
    static char moved[PATH_MAX];
    const char *chosen = getenv("ZIMAGE_MODEL");
    if (chosen && *chosen)
        return chosen;
    if (beside_program(moved, sizeof moved))
        return moved;
    if (folder_with_index(ZIMAGE_SOURCE_MODELS "/emoji"))
        return ZIMAGE_SOURCE_MODELS "/emoji";
    return ZIMAGE_INSTALL_MODELS "/emoji";
}

int cli_parse_int(const char *command, const char *option, const char *text, int64_t low, int64_t high, int64_t *value)
{
    char *end;
    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    if (end == text || *end || errno || parsed < low || parsed > high) {
        cli_usage_error(command, "%s: \"%s\", expected a whole number from %lld to %lld", option, text, (long long)low,
                        (long long)high);
        return 0;
    }
    *value = parsed;
    return 1;
}

int cli_parse_uint64(const char *command, const char *option, const char *text, uint64_t *value)
{
    char *end;
    errno = 0;
    unsigned long long parsed = strtoull(text, &end, 10);
    if (end == text || *end || errno || strchr(text, '-')) {
        cli_usage_error(command, "%s: \"%s\", expected a whole number from 0 to 18446744073709551615", option, text);
        return 0;
    }
    *value = parsed;
    return 1;
}

int cli_parse_float(const char *command, const char *option, const char *text, double low, double high, double *value)
{
    char *end;
    errno = 0;
    double parsed = strtod(text, &end);
    if (end == text || *end || errno || !(parsed >= low && parsed <= high)) {
        cli_usage_error(command, "%s: \"%s\", expected a number from %g to %g", option, text, low, high);
        return 0;
    }
    *value = parsed;
    return 1;
}

int cli_parse_size(const char *command, const char *option, const char *text, uint64_t *bytes)
{
    static const char units[] = "KMGT";
    char *end;
    errno = 0;
    double size = strtod(text, &end);
    int shift = 0;
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    if (unit) {
        shift = 10 * (int)(unit - units + 1);
        end++;
    }
    size = ldexp(size, shift);
    if (end == text || *end || errno || !isdigit((unsigned char)*text) || !(size >= 1 && size < 0x1p62)) {
        cli_usage_error(command, "%s: \"%s\", expected a size such as 6G, 512M or a number of bytes", option, text);
        return 0;
    }
    *bytes = (uint64_t)size;
    return 1;
}

int cli_check_vram(const char *command, uint64_t bytes, const char *device, int reference)
{
    if (!bytes || !(reference || (device && !strcmp(device, "cpu"))))
        return 1;
    cli_usage_error(command, "--vram: limits the memory of a card; not together with %s",
                    reference ? "--reference" : "--device cpu; --mem limits that of the processor");
    return 0;
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
    if (user && level != ZIMAGE_LOG_WARNING)
        return;
    fprintf(stderr, "zimage: %s%s\n", level == ZIMAGE_LOG_WARNING ? "warning: " : "", message);
}

int cli_parse_compute(const char *command, const char *text, zimage_compute *compute)
{
    static const char *const names[] = {
        [ZIMAGE_COMPUTE_AUTO] = "auto", [ZIMAGE_COMPUTE_F32] = "f32", [ZIMAGE_COMPUTE_BF16] = "bf16",
        [ZIMAGE_COMPUTE_INT8] = "int8", [ZIMAGE_COMPUTE_FP8] = "fp8",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(text, names[i])) {
            *compute = (zimage_compute)i;
            return 1;
        }
    cli_usage_error(command, "--compute: \"%s\", expected auto, f32, bf16, int8 or fp8", text);
    return 0;
}
