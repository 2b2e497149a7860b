/* zimage serve: the options of the server. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "device_list.h"
#include "front.h"
#include "models.h"
#include "names.h"
#include "places.h"
#include "serve/serve.h"
#include "signals.h"

#define COMMAND      "serve"
#define LOG_LINE_MAX (PIPE_BUF - 128) /* bytes: a pipe that is ready takes a line at once */

/* A line is lost where nobody reads the log: the server's threads do not wait for a pipe or a terminal that is full. */
static void log_line(const char *line)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static unsigned long lost;
    struct pollfd log = {.fd = STDERR_FILENO, .events = POLLOUT};
    pthread_mutex_lock(&lock);
    if (poll(&log, 1, 0) == 0) {
        lost++;
    } else {
        if (lost > 0)
            cli_line(stderr, "zimage: %lu lines of the log are lost, because nobody read it", lost);
        lost = 0;
        cli_line(stderr, "zimage: %.*s", LOG_LINE_MAX, line);
    }
    pthread_mutex_unlock(&lock);
}

static void log_json(const char *line)
{
    cli_line(stderr, "%s", line);
}

static void on_ready(const char *url)
{
    cli_line(stdout, "listening on %s", url);
    cli_flush_output();
}

/* What was copied for the models, released with free: ids and folders of -m, folders of --models-dir. */
typedef struct model_copies {
    char *ids[CLI_FILES_MAX], *named[CLI_FILES_MAX], *folders[SERVE_MODELS_MAX];
} model_copies;

/* "ID=DIR" or "DIR", whose name may hold "=" behind its first "/". A model of a cache is called by its own name,
 * because its folder is called by a commit. */
static int take_model(serve_params *params, const char *text, char **id, char **copy)
{
    char folder[PATH_MAX];
    const char *mark = strchr(text, '='), *slash = strchr(text, '/');
    int has_id = mark && mark > text && (!slash || mark < slash);
    const char *named = has_id ? mark + 1 : text;
    int code = cli_find_model(CLI_SERVE, "--model", named, folder);
    if (code)
        return code;
    if (has_id)
        *id = strndup(text, (size_t)(mark - text));
    else if (strcmp(folder, named) != 0)
        *id = strndup(slash + 1, strcspn(slash + 1, "@"));
    *copy = strdup(folder);
    params->models[params->model_count++] = (serve_model){*id, *copy};
    if (*copy && faccessat(AT_FDCWD, *copy, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    return cli_usage_error(COMMAND, "--model: there is no model folder %s (nothing is downloaded)", named);
}

/* What ZIMAGE_MODEL names, or the bundled model. */
static int take_default(const cli_options *o, serve_params *params, char **copy)
{
    char folder[PATH_MAX];
    int code = cli_find_model(CLI_SERVE, cli_model_origin(o), cli_model(o), folder);
    *copy = code ? NULL : strdup(folder);
    params->models[params->model_count++] = (serve_model){NULL, *copy};
    return code;
}

/* Whether a folder looks like a model's: diffusers' layout, or a conversion for MLX. */
static int is_model(int parent, const char *name)
{
    static const char *const files[] = {"model_index.json", "transformer/config.json"};
    int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), found = 0;
    for (size_t i = 0; folder >= 0 && !found && i < sizeof files / sizeof *files; i++)
        found = faccessat(folder, files[i], R_OK, 0) == 0;
    if (folder >= 0)
        close(folder);
    return found;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *joined(const char *folder, const char *name)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

/* Each folder inside that is a model, in the order of their names. */
static int take_folder(const char *path, serve_params *params, char *copies[SERVE_MODELS_MAX])
{
    DIR *folder = opendir(path);
    int count = 0, room = SERVE_MODELS_MAX - params->model_count;
    if (!folder)
        return cli_usage_error(COMMAND, "--models-dir: %s: %s; expected a folder of model folders", path,
                               strerror(errno));
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.' || !is_model(dirfd(folder), entry->d_name))
            continue;
        if (count < room && !(copies[count] = joined(path, entry->d_name)))
            break;
        count++;
    }
    closedir(folder);
    if (count == 0 || count > room)
        return cli_usage_error(COMMAND, "--models-dir: %s has %d model folders, expected 1 to %d", path, count, room);
    qsort(copies, (size_t)count, sizeof *copies, by_name);
    for (int i = 0; i < count; i++)
        params->models[params->model_count++] = (serve_model){NULL, copies[i]};
    return 0;
}

static int take_models(const cli_options *o, serve_params *params, model_copies *copies)
{
    int code = 0;
    for (int i = 0; i < o->models.count && !code; i++)
        code = take_model(params, o->models.paths[i], &copies->ids[i], &copies->named[i]);
    if (!code && o->models_dir)
        code = take_folder(o->models_dir, params, copies->folders);
    if (!code && o->models.count == 0 && !o->models_dir)
        code = take_default(o, params, &copies->named[0]);
    return code;
}

_Static_assert(CLI_DEVICES_MAX <= SERVE_DEVICES_MAX, "the server takes each of the devices");

static int take_ledger(const cli_options *o, serve_params *params, cli_front **front)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (cli_front_open(o, front, &error) != ZIMAGE_OK)
        return cli_option_failure(CLI_SERVE, o, &error);
    params->ledger = cli_front_ledger(*front);
    return 0;
}

static void fill(const cli_options *o, serve_params *params)
{
    *params = (serve_params){
        .host = o->host,
        .port = (int)o->port,
        .unix_path = o->unix_path,
        .tls_cert = o->tls_cert,
        .tls_key = o->tls_key,
        .public_url = o->public_url,
        .key_file = o->key_file,
        .key = o->key,
        .rate = o->rate,
        .burst = o->burst,
        .failed_keys = o->failed_keys,
        .allowed_hosts = o->allowed_hosts,
        .allowed_origins = o->allowed_origins,
        .insecure = o->insecure,
        .default_model = o->default_model,
        .aliases = o->aliases,
        .sdapi_max_steps = (int)o->sdapi_max_steps,
        .header_seconds = o->header_seconds,
        .body_seconds = o->body_seconds,
        .connection_seconds = o->connection_seconds,
        .is_metrics_public = o->metrics_public,
        .has_no_slots = o->no_slots,
        .has_no_page = o->no_web,
        .has_no_switch = o->no_model_switch,
        .page_folder = o->web_dir,
        .gallery = o->gallery,
        .is_json_log = o->log_format == CLI_LOG_JSON,
        .keep_models = (int)o->keep_models,
        .max_queue = (int)o->max_queue,
        .max_wait = o->max_wait,
        .max_images = (int)o->max_images,
        .max_steps = (int)o->max_steps,
        .max_pixels = o->max_pixels,
        .max_connections = (int)o->max_connections,
        .per_address = (int)o->per_address,
        .job_seconds = o->job_seconds,
        .idle_seconds = o->idle_seconds,
        .drain = o->drain,
        .max_body = o->max_body,
        .max_image = o->max_image,
        .max_uploads = o->max_uploads,
        .store_bytes = o->store_bytes,
        .store_seconds = o->store_seconds,
        .no_overlap = o->no_overlap,
        .quiet = o->quiet,
        .stopping = cli_signal_caught,
        .reloading = cli_reload_caught,
        .log = o->log_format == CLI_LOG_JSON ? log_json : log_line,
        .ready = on_ready,
    };
    cli_session_params(o, &params->session);
}

int cmd_serve(const cli_options *options)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    serve_params params;
    model_copies copies = {.ids = {NULL}};
    cli_device_list devices = {0};
    cli_front *front = NULL;
    fill(options, &params);
    if (CLI_IS_GIVEN(options, key) && !cli_has(&options->variables, cli_find(CLI_SERVE, "api-key")))
        params.log("--api-key: other users of this machine can see it; ZIMAGE_API_KEY or --api-key-file hide it");
    int code = take_models(options, &params, &copies);
    if (!code && options->queue)
        code = take_ledger(options, &params, &front);
    else if (!code)
        code = cli_device_list_read(CLI_SERVE, options, &devices);
    for (int i = 0; i < devices.count && i < SERVE_DEVICES_MAX; i++)
        params.devices[params.device_count++] = devices.names[i];
    if (!code && options->cache_dir && !cli_can_make_folder(COMMAND, "--cache-dir", options->cache_dir))
        code = CLI_USAGE;
    cli_signals_catch();
    if (params.tls_cert)
        cli_signals_catch_reload();
    if (!code && serve_run(&params, &error) != ZIMAGE_OK)
        code = cli_option_failure(CLI_SERVE, options, &error);
    for (int i = 0; i < CLI_FILES_MAX; i++) {
        free(copies.ids[i]);
        free(copies.named[i]);
    }
    for (int i = 0; i < SERVE_MODELS_MAX; i++)
        free(copies.folders[i]);
    cli_device_list_free(&devices);
    cli_front_close(front);
    return code;
}
