/* zimage models: what is in the caches of downloads; and -m with the name of such a model. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "hub/hub.h"
#include "models.h"
#include "shared/json_text.h"
#include "signals.h"

#define COMMAND     "models"
#define SIGNAL_CODE 128

static const char *const states[] = {
    [HUB_WHOLE] = "complete", [HUB_PARTIAL] = "incomplete", [HUB_FOREIGN] = "not known"};

/* ---- listing ---- */

static json_t *model_json(const hub_model *m)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:s, s:o}", "model", m->id, "revision", m->revision, "commit",
                     m->commit, "source", m->source, "bytes", (json_int_t)m->bytes, "state", states[m->state], "path",
                     json_of_text(m->path));
}

static int list_models(const cli_options *o)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    hub_model *models = NULL;
    size_t count = 0;
    if (hub_list(&models, &count, &error) != HUB_OK)
        return cli_failure(COMMAND, &error);
    json_t *list = o->json ? json_array() : NULL;
    for (size_t i = 0; i < count; i++) {
        const hub_model *m = &models[i];
        char size[HUB_SIZE_TEXT];
        hub_write_size(m->bytes, size);
        if (list)
            json_array_append_new(list, model_json(m));
        else
            cli_line(stdout, "%-44s %9s  %-10s  %s  %s", m->id, size, states[m->state], m->revision, m->source);
    }
    free(models);
    if (!count && !list && !o->quiet)
        cli_line(stderr, "there are no models in the cache; zimage pull Tongyi-MAI/Z-Image-Turbo downloads one");
    return list ? cli_print_json(COMMAND, json_pack("{s:o}", "models", list), CLI_MEASURED) : 0;
}

/* ---- one model ---- */

static int find(const char *option, const char *text, hub_model *model)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    hub_result result = hub_find(text, model, &error);
    return result == HUB_OK ? 0 : (cli_usage_error(COMMAND, "--%s: %s", option, error.message), (int)result);
}

/* Says each file that was read: the right ones on standard output. */
static int on_verify(const hub_verify_report *r, void *user)
{
    const cli_options *o = user;
    if (r->is_done && !o->quiet && !o->json)
        cli_line(r->is_right ? stdout : stderr, "%s  %s", r->is_right ? "right" : "WRONG", r->path);
    return cli_signal_caught();
}

static int verify(const cli_options *o)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    hub_model model;
    size_t checked = 0;
    int code = find("verify", o->verified, &model);
    if (code)
        return code;
    cli_signals_catch();
    hub_result result = hub_verify(&model, on_verify, (void *)(uintptr_t)o, &checked, &error);
    if (result != HUB_OK)
        (void)cli_usage_error(COMMAND, "%s", error.message);
    else if (!o->json && !o->quiet)
        cli_line(stdout, "%s: %zu files are right", model.id, checked);
    code = result == HUB_CANCELLED ? SIGNAL_CODE + cli_signal_caught() : (int)result;
    if (!o->json)
        return code;
    int printed =
        cli_print_json(COMMAND,
                       json_pack("{s:o, s:I, s:o}", "model", model_json(&model), "checked", (json_int_t)checked,
                                 "error", result == HUB_OK ? json_null() : json_of_text(error.message)),
                       CLI_MEASURED);
    return code ? code : printed;
}

static int remove_model(const cli_options *o)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    hub_model model;
    int code = find("remove", o->removed, &model);
    if (code)
        return code;
    hub_result result = hub_remove(&model, &error);
    if (result != HUB_OK)
        return cli_usage_error(COMMAND, "%s", error.message), (int)result;
    if (o->json)
        return cli_print_json(COMMAND, json_pack("{s:o}", "removed", model_json(&model)), CLI_MEASURED);
    char size[HUB_SIZE_TEXT];
    hub_write_size(model.bytes, size);
    if (!o->quiet)
        cli_line(stdout, "%s: removed, %s", model.id, size);
    return 0;
}

int cmd_models(const cli_options *o)
{
    if (o->verified)
        return verify(o);
    return o->removed ? remove_model(o) : list_models(o);
}

/* ---- -m ORGANISATION/NAME ---- */

int cli_find_model(cli_command_id command, const char *origin, const char *text, char path[PATH_MAX])
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    hub_model model;
    if (strlen(text) >= PATH_MAX)
        return cli_usage_error(cli_commands[command].name, "%s: the path is too long", origin);
    snprintf(path, PATH_MAX, "%s", text);
    if (faccessat(AT_FDCWD, text, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    hub_result result = hub_find(text, &model, &error);
    if (result == HUB_OK)
        snprintf(path, PATH_MAX, "%s", model.path);
    if (result == HUB_OK || result == HUB_USAGE) /* no such name: whoever opens the folder says that there is none */
        return 0;
    return cli_usage_error(cli_commands[command].name, "%s: there is no such folder, and %s", origin, error.message);
}

/* Whether the command opens the one model that --model or ZIMAGE_MODEL names. */
static const cli_option *model_option(cli_command_id command)
{
    const cli_option *option = cli_find(command, "model");
    return option && option->kind != CLI_FILES ? option : NULL;
}

int cli_find_models(cli_command_id command, cli_options *options)
{
    static char path[PATH_MAX];
    int takes_variable = command != CLI_INSPECT && command != CLI_BENCH;
    if (!model_option(command) || cli_is_bundled(options) || (!options->model && !takes_variable))
        return 0;
    int code = cli_find_model(command, cli_model_origin(options), cli_model(options), path);
    if (!code && strcmp(path, cli_model(options)) != 0)
        options->model = path;
    return code;
}
