/* zimage pull: downloads a model. */
#include <string.h>

#include "cli.h"
#include "hub/hub.h"
#include "hub/suggest.h"
#include "progress.h"
#include "shared/json_text.h"
#include "signals.h"

#define COMMAND        "pull"
#define SIGNAL_CODE    128 /* and the number of the signal: the exit code, as shells have it */
#define SUGGESTED_SIDE 512
#define LEAST_LIMIT    (16 << 10)
#define LEAST_PART     (64 << 10)

typedef struct work {
    const cli_options *options;
    progress_bar bar;
    double begin;
} work;

/* ---- JSON ----
 *
 * {"event": "plan", "commit", "source", "licence", "gated", "files", "bytes", "missing_bytes", "free_bytes", "folder"}
 * {"event": "progress", "bytes", "total", "files", "files_total", "seconds", "path", "path_bytes", "path_total"}
 * {"event": "file", "path", "bytes", "hash"}  {"event": "notice", "message"}
 * {"event": "done", "path"}  {"event": "error", "code", "message"} */

static json_t *text_or_null(const char *text)
{
    return text && *text ? json_of_text(text) : json_null();
}

static json_t *plan_json(const hub_report *r)
{
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:o}", "event", "plan", "commit", r->commit,
                     "source", r->source, "licence", text_or_null(r->licence), "gated", text_or_null(r->gated), "files",
                     (json_int_t)r->files_total, "bytes", (json_int_t)r->total, "missing_bytes",
                     (json_int_t)(r->total - r->bytes), "free_bytes", (json_int_t)r->free_bytes, "folder",
                     json_of_text(r->folder));
}

static json_t *report_json(const work *w, const hub_report *r)
{
    switch (r->kind) {
    case HUB_REPORT_PLAN:
        return plan_json(r);
    case HUB_REPORT_FILE:
        return json_pack("{s:s, s:s, s:I, s:s}", "event", "file", "path", r->path, "bytes", (json_int_t)r->path_total,
                         "hash", r->etag);
    case HUB_REPORT_NOTICE:
        return json_pack("{s:s, s:o}", "event", "notice", "message", json_of_text(r->sentence));
    default:
        return json_pack("{s:s, s:I, s:I, s:I, s:I, s:f, s:o, s:I, s:I}", "event", "progress", "bytes",
                         (json_int_t)r->bytes, "total", (json_int_t)r->total, "files", (json_int_t)r->files,
                         "files_total", (json_int_t)r->files_total, "seconds", cli_seconds_now() - w->begin, "path",
                         text_or_null(r->path), "path_bytes", (json_int_t)r->path_bytes, "path_total",
                         (json_int_t)r->path_total);
    }
}

/* ---- text ---- */

static void print_plan(const hub_report *r)
{
    char total[HUB_SIZE_TEXT], missing[HUB_SIZE_TEXT], room[HUB_SIZE_TEXT];
    hub_write_size(r->total, total);
    hub_write_size(r->total - r->bytes, missing);
    hub_write_size(r->free_bytes, room);
    cli_line(stderr, "%s, commit %.8s: %zu files, %s; licence: %s; gated: %s", r->source, r->commit, r->files_total,
             total, *r->licence ? r->licence : "not stated",
             *r->gated ? "yes, its licence has to be accepted on the hub" : "no");
    cli_line(stderr, "%s: %s are missing, %s may be written", r->folder, missing, room);
}

static void print_report(work *w, const hub_report *r)
{
    char size[HUB_SIZE_TEXT];
    if (w->options->quiet && r->kind != HUB_REPORT_NOTICE)
        return;
    switch (r->kind) {
    case HUB_REPORT_PLAN:
        print_plan(r);
        break;
    case HUB_REPORT_FILE:
        hub_write_size(r->path_total, size);
        cli_line(stderr, "%s  %s, verified", r->path, size);
        break;
    case HUB_REPORT_NOTICE:
        cli_line(stderr, "zimage: %s", r->sentence);
        break;
    case HUB_REPORT_PROGRESS:
        progress_show_bytes(&w->bar, &(progress_bytes){r->bytes, r->total, (int)r->files, (int)r->files_total,
                                                       cli_seconds_now() - w->begin});
    }
}

static void on_report(const hub_report *report, void *user)
{
    work *w = user;
    if (w->options->json)
        (void)cli_print_json(COMMAND, report_json(w, report), CLI_MEASURED);
    else
        print_report(w, report);
}

/* ---- --suggest ---- */

static json_t *suggestion_json(const hub_suggestion *s)
{
    return json_pack("{s:s, s:s, s:b, s:I, s:I, s:f, s:i}", "model", s->id, "licence", s->licence, "gated", s->is_gated,
                     "bytes", (json_int_t)s->download_bytes, "peak_bytes", (json_int_t)s->peak_bytes, "seconds",
                     s->seconds, "steps", s->steps);
}

static void print_suggestion(const hub_suggestion *s)
{
    char size[HUB_SIZE_TEXT];
    hub_write_size(s->download_bytes, size);
    cli_line(stdout, "%-36s %9s  %6llu MiB  %6.0f s, %d steps  %s%s", s->id, size, cli_mib(s->peak_bytes), s->seconds,
             s->steps, s->licence, s->is_gated ? ", has to be accepted on the hub" : "");
}

static int suggest(const cli_options *o)
{
    zimage_session_params params;
    json_t *list = json_array();
    cli_session_params(o, &params);
    params.device = "cpu";
    params.log = NULL;
    if (!o->json)
        cli_line(stdout, "%-36s %9s  %10s  %s", "model", "download", "memory", "an image of 512 x 512, predicted");
    for (size_t i = 0; i < hub_suggestion_count(); i++) {
        zimage_error error = ZIMAGE_ERROR_INIT;
        hub_suggestion s;
        if (hub_suggest(i, SUGGESTED_SIDE, &params, &s, &error) != ZIMAGE_OK) {
            json_decref(list);
            return cli_failure(COMMAND, &error);
        }
        if (o->json)
            json_array_append_new(list, suggestion_json(&s));
        else
            print_suggestion(&s);
    }
    if (o->json)
        return cli_print_json(COMMAND, json_pack("{s:o}", "models", list), CLI_MEASURED);
    json_decref(list);
    return 0;
}

/* ---- all of it ---- */

static int check(const cli_options *o)
{
    if (o->limit && o->limit < LEAST_LIMIT)
        return cli_usage_error(COMMAND, "--limit: %llu bytes a second, expected at least 16K",
                               (unsigned long long)o->limit);
    if (o->segment < LEAST_PART)
        return cli_usage_error(COMMAND, "--segment: %llu bytes, expected at least 64K", (unsigned long long)o->segment);
    return 0;
}

/* Its name for -m. */
static void print_next(const cli_options *o)
{
    if (!o->quiet)
        cli_line(stderr, "%s is complete: zimage generate \"a red apple\" -m %s%s%s", o->repository, o->repository,
                 o->revision ? "@" : "", o->revision ? o->revision : "");
}

static int finish(const cli_options *o, const char *path)
{
    if (o->plan)
        return 0;
    if (o->json)
        return cli_print_json(COMMAND, json_pack("{s:s, s:o}", "event", "done", "path", json_of_text(path)),
                              CLI_MEASURED);
    print_next(o);
    cli_line(stdout, "%s", path);
    return 0;
}

static int fail(const cli_options *o, hub_result result, const zimage_error *error)
{
    int code = result == HUB_CANCELLED ? SIGNAL_CODE + cli_signal_caught() : (int)result;
    (void)cli_option_failure(CLI_PULL, o, error);
    if (o->json)
        (void)cli_print_json(
            COMMAND,
            json_pack("{s:s, s:i, s:o}", "event", "error", "code", code, "message", json_of_text(error->message)),
            CLI_MEASURED);
    return code;
}

int cmd_pull(const cli_options *o)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    char path[PATH_MAX];
    work w = {.options = o, .begin = cli_seconds_now()};
    const hub_pull_params params = {
        .id = o->repository,
        .revision = o->revision,
        .source = o->source,
        .patterns = o->patterns.paths,
        .pattern_count = o->patterns.count,
        .limit = o->limit,
        .segment_bytes = o->segment,
        .connections = (int)o->connections,
        .retries = (int)o->retries,
        .insecure_http = o->insecure_http,
        .plan = o->plan,
        .stopping = cli_signal_caught,
        .report = on_report,
        .user = &w,
    };
    int code = check(o);
    if (code || o->suggest)
        return code ? code : suggest(o);
    progress_init(&w.bar, o->quiet || o->json, 1, 1, NULL);
    cli_signals_catch();
    hub_result result = hub_pull(&params, path, &error);
    progress_end(&w.bar);
    return result == HUB_OK ? finish(o, path) : fail(o, result, &error);
}
