#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "progress.h"

void cli_vline(FILE *file, const char *format, va_list arguments)
{
    char *text = NULL, *line = NULL;
    int length = vasprintf(&text, format, arguments);
    size_t size = length < 0 ? 0 : zimage_printable(text, NULL, 0) + 1;
    if (size > 0 && (line = malloc(size)))
        zimage_printable(text, line, size);
    if (file == stderr)
        progress_interrupt();
    fprintf(file, "%s\n", line ? line : "no memory to print a line");
    free(line);
    if (length >= 0)
        free(text);
}

void cli_line(FILE *file, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    cli_vline(file, format, arguments);
    va_end(arguments);
}

void cli_message(const char *begin, const char *format, va_list arguments)
{
    char *text = NULL;
    int length = vasprintf(&text, format, arguments);
    cli_line(stderr, "zimage %s: %s", begin, length < 0 ? "no memory for a message" : text);
    if (length >= 0)
        free(text);
}

int cli_usage_error(const char *command, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    cli_message(command, format, arguments);
    va_end(arguments);
    return CLI_USAGE;
}

int cli_failure(const char *command, const zimage_error *error)
{
    (void)cli_usage_error(command, "%s", error->message);
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

int cli_is_bundled(const cli_options *options)
{
    const char *chosen = getenv("ZIMAGE_MODEL");
    return !options->model && !(chosen && *chosen);
}

const char *cli_model_origin(const cli_options *options)
{
    return options->model ? "--model" : cli_is_bundled(options) ? "the bundled model" : "ZIMAGE_MODEL";
}

int cli_has_model(const char *command, const cli_options *options)
{
    /* A link that leads nowhere is not followed: the library says where it leads. */
    if (faccessat(AT_FDCWD, cli_model(options), F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return 1;
    (void)cli_usage_error(command, "%s: there is no model folder %s; name one with -m DIR (nothing is downloaded)",
                          cli_model_origin(options), cli_model(options));
    return 0;
}

zimage_status cli_open(const cli_options *o, zimage_log_fn log, void *user, zimage_model **model,
                       zimage_session **session, zimage_error *error)
{
    zimage_session_params params;
    cli_session_params(o, &params);
    params.log = log;
    params.log_user = user;
    const zimage_model_params model_params = {
        .struct_size = sizeof model_params,
        .dequantize = (zimage_dequantize)o->dequantize,
        .log = log,
        .log_user = user,
        .transformer = o->transformer,
        .text_encoder = o->text_encoder,
        .vae = o->vae,
        .tokenizer = o->tokenizer,
        .scheduler = o->scheduler,
    };
    zimage_status status = *model ? ZIMAGE_OK : zimage_model_open(cli_model(o), &model_params, model, error);
    return status == ZIMAGE_OK ? zimage_session_open(*model, &params, session, error) : status;
}

static int output_error;

void cli_flush_output(void)
{
    errno = 0;
    if (fflush(stdout) != 0 && output_error == 0)
        output_error = errno;
}

int cli_output_error(void)
{
    return output_error;
}

/* jansson escapes every control character but DEL, which JSON lets stand. */
static int write_json(const char *text, size_t size, void *file)
{
    for (size_t at = 0, length; at < size; at += length + 1) {
        const char *del = memchr(text + at, 0x7F, size - at);
        length = del ? (size_t)(del - text) - at : size - at;
        fwrite(text + at, 1, length, file);
        if (del)
            fputs("\\u007f", file);
    }
    return 0;
}

int cli_print_json(const char *command, json_t *value, int digits)
{
    size_t flags = JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION((size_t)digits);
    int failed = !value || json_dump_callback(value, write_json, stdout, flags) != 0;
    json_decref(value);
    if (failed) {
        (void)cli_usage_error(command, "--json: the object can't be made");
        return CLI_FAILURE;
    }
    puts("");
    cli_flush_output();
    return 0;
}

json_t *cli_names_json(const char *names)
{
    json_t *list = json_array();
    for (size_t length; *names; names += length + strspn(names + length, ", ")) {
        length = strcspn(names, ",");
        json_array_append_new(list, json_stringn(names, length));
    }
    return list;
}

json_t *cli_memory_json(const zimage_memory_info *m)
{
    if (m->limit_bytes == 0)
        return NULL;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "limit_bytes", (json_int_t)m->limit_bytes,
                     "total_bytes", (json_int_t)m->total_bytes, "activation_bytes", (json_int_t)m->activation_bytes,
                     "workspace_bytes", (json_int_t)m->workspace_bytes, "resident_bytes", (json_int_t)m->resident_bytes,
                     "ring_bytes", (json_int_t)m->ring_bytes, "step_bytes", (json_int_t)m->step_bytes, "least_bytes",
                     (json_int_t)m->least_bytes, "exchange_bytes", (json_int_t)m->exchange_bytes);
}

void cli_session_params(const cli_options *o, zimage_session_params *params)
{
    *params = (zimage_session_params){
        .struct_size = sizeof *params,
        .threads = (int32_t)o->threads,
        .device = o->device,
        .compute = (zimage_compute)o->compute,
        .cpu_mask = o->cpu_mask,
        .device_memory = o->vram,
        .reference = o->reference,
        .log = o->quiet ? cli_log_warnings : cli_log,
        .cache_folder = cli_cache_folder(o),
    };
}

unsigned long long cli_mib(uint64_t bytes)
{
    return (bytes >> 20) + ((bytes & 0xfffff) != 0);
}

void cli_log(zimage_log_level level, const char *message, void *user)
{
    (void)user;
    cli_line(stderr, "zimage: %s%s", level == ZIMAGE_LOG_WARNING ? "warning: " : "", message);
}

void cli_log_warnings(zimage_log_level level, const char *message, void *user)
{
    if (level == ZIMAGE_LOG_WARNING)
        cli_log(level, message, user);
}
