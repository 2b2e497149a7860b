/* zimage pull: what a model consists of, the space that it takes, its download, and the marks that it is complete. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hub/hash.h"
#include "hub/hub.h"
#include "hub/listing.h"
#include "hub/segments.h"
#include "hub/transfer.h"
#include "shared/hash.h"

#define PAGES_MAX   200 /* of a listing */
#define FOLDERS_MAX 64  /* of ModelScope's listing */

/* A pull under way. */
typedef struct pull {
    const hub_pull_params *params;
    hub_settings settings;
    hub_http http;
    hub_revision revision;
    hub_listing listing;
    hub_cache cache;
    zimage_error *error;
} pull;

static void on_notice(const char *sentence, void *user)
{
    const pull *p = user;
    if (p->params->report)
        p->params->report(&(hub_report){.kind = HUB_REPORT_NOTICE, .sentence = sentence}, p->params->user);
}

/* ---- the listing ---- */

/* Formats an address; each text is escaped. more may be NULL. */
static hub_result make_url(const pull *p, char url[HUB_URL_MAX], const char *format, const char *text, const char *more)
{
    char part[HUB_URL_MAX];
    char *escaped = hub_http_escape(text), *escaped_more = more ? hub_http_escape(more) : NULL;
    snprintf(part, sizeof part, "%s%s", escaped_more ? "&Root=" : "", escaped_more ? escaped_more : "");
    int length = snprintf(url, HUB_URL_MAX, format, p->settings.endpoint, p->params->id, escaped ? escaped : "", part);
    int ok = escaped && (!more || escaped_more) && length < HUB_URL_MAX;
    curl_free(escaped);
    curl_free(escaped_more);
    return ok ? HUB_OK : hub_fail(p->error, HUB_USAGE, "endpoint: %s: the address is too long", p->settings.endpoint);
}

static hub_result list_hugging_face(pull *p)
{
    char url[HUB_URL_MAX];
    hub_answer answer;
    HUB_TRY(make_url(p, url, "%s/api/models/%s/revision/%s%s", p->http.revision, NULL));
    HUB_TRY(hub_http_get(&p->http, url, &answer, p->error));
    hub_result result = hub_parse_revision(url, answer.text ? answer.text : "", answer.length, &p->revision, p->error);
    free(answer.text);
    HUB_TRY(result);
    HUB_TRY(make_url(p, url, "%s/api/models/%s/tree/%s?recursive=true&expand=false%s", p->revision.commit, NULL));
    for (int page = 0; *url; page++) {
        if (page == PAGES_MAX)
            return hub_fail(p->error, HUB_NETWORK, "%s: the listing has more than %d pages", p->params->id, PAGES_MAX);
        HUB_TRY(hub_http_get(&p->http, url, &answer, p->error));
        result = hub_parse_tree(url, answer.text ? answer.text : "", answer.length, &p->listing, p->error);
        free(answer.text);
        HUB_TRY(result);
        snprintf(url, sizeof url, "%s", answer.next);
    }
    return HUB_OK;
}

static hub_result list_folder(pull *p, const char *folder, hub_listing *folders)
{
    char url[HUB_URL_MAX];
    hub_answer answer;
    HUB_TRY(make_url(p, url,
                     folder ? "%s/api/v1/models/%s/repo/files?Revision=%s&Recursive=True%s"
                            : "%s/api/v1/models/%s/repo/files?Revision=%s&Recursive=False%s",
                     p->http.revision, folder));
    HUB_TRY(hub_http_get(&p->http, url, &answer, p->error));
    hub_result result =
        hub_parse_modelscope(url, answer.text ? answer.text : "", answer.length, &p->listing, folders, p->error);
    free(answer.text);
    return result;
}

/* ModelScope has no commits: the name of the snapshot is a hash of what is listed. */
static hub_result name_listing(pull *p)
{
    char hash[HASH_TEXT];
    char *text = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);
    for (size_t i = 0; file && i < p->listing.count; i++)
        fprintf(file, "%s %s\n", p->listing.files[i].etag, p->listing.files[i].path);
    int ok = file && fclose(file) == 0 && hash_sha256(&(hash_piece){text, length}, 1, hash);
    free(text);
    if (ok)
        snprintf(p->revision.commit, HUB_COMMIT_MAX, "%.*s", HUB_COMMIT_MAX - 1, hash);
    return ok ? HUB_OK : hub_fail(p->error, HUB_FAILED, "out of memory: no room for a listing");
}

/* Folder by folder: ModelScope cuts long listings without a word. */
static hub_result list_modelscope(pull *p)
{
    hub_listing folders = {0};
    hub_result result = list_folder(p, NULL, &folders);
    if (result == HUB_OK && folders.count > FOLDERS_MAX)
        result = hub_fail(p->error, HUB_NETWORK, "%s: %zu folders, expected at most %d", p->params->id, folders.count,
                          FOLDERS_MAX);
    for (size_t i = 0; i < folders.count && result == HUB_OK; i++)
        result = list_folder(p, folders.files[i].path, NULL);
    hub_listing_free(&folders);
    return result;
}

static hub_result list(pull *p)
{
    int is_modelscope = p->settings.protocol == HUB_MODELSCOPE;
    HUB_TRY(is_modelscope ? list_modelscope(p) : list_hugging_face(p));
    HUB_TRY(hub_choose(&p->listing, p->params->id, p->params->patterns, p->params->pattern_count, p->error));
    return is_modelscope ? name_listing(p) : HUB_OK;
}

/* ---- the plan ---- */

static void count_present(const pull *p, hub_report *r)
{
    for (size_t i = 0; i < p->listing.count; i++) {
        const hub_file *file = &p->listing.files[i];
        int has = hub_cache_has(&p->cache, file);
        r->bytes += has ? file->size : hub_segments_found(p->cache.blobs, file);
        r->files += (size_t)has;
        r->total += file->size;
    }
}

static hub_result make_plan(pull *p)
{
    hub_report r = {.kind = HUB_REPORT_PLAN, .files_total = p->listing.count};
    r.commit = p->revision.commit;
    r.source = p->settings.endpoint;
    r.gated = p->revision.gated;
    r.licence = p->revision.licence;
    r.folder = p->cache.model;
    count_present(p, &r);
    HUB_TRY(hub_cache_free_bytes(&p->cache, &r.free_bytes, p->error));
    if (p->params->report)
        p->params->report(&r, p->params->user);
    if (r.total - r.bytes <= r.free_bytes || p->params->plan)
        return HUB_OK;
    char missing[HUB_SIZE_TEXT], room[HUB_SIZE_TEXT];
    hub_write_size(r.total - r.bytes, missing);
    hub_write_size(r.free_bytes, room);
    return hub_fail(p->error, HUB_DISK, "%s: %s are missing, but only %s may be written to the cache %s", p->params->id,
                    missing, room, p->cache.model);
}

/* ---- all of it ---- */

static hub_result download(pull *p)
{
    const hub_pull_params *o = p->params;
    const hub_transfer_params transfer = {
        .http = &p->http,
        .cache = &p->cache,
        .listing = &p->listing,
        .limit = o->limit,
        .segment_bytes = o->segment_bytes,
        .connections = o->connections,
        .report = o->report,
        .user = o->user,
    };
    HUB_TRY(hub_transfer_run(&transfer, p->error));
    return hub_cache_finish(&p->cache, &p->listing, p->settings.endpoint, p->http.revision, p->error);
}

static hub_result pull_online(pull *p, char path[PATH_MAX])
{
    char folder[PATH_MAX], endpoint[HUB_URL_MAX];
    HUB_TRY(hub_http_origin(&p->http, p->settings.endpoint, endpoint, p->error));
    if (!hub_cache_folder(p->settings.protocol, folder))
        return hub_fail(p->error, HUB_USAGE, "HOME: not set, expected the folder of the cache; HF_HUB_CACHE names one");
    HUB_TRY(list(p));
    HUB_TRY(p->params->plan ? hub_cache_look(folder, p->params->id, p->revision.commit, &p->cache, p->error)
                            : hub_cache_open(folder, p->params->id, p->revision.commit, &p->cache, p->error));
    hub_result result = make_plan(p);
    if (result == HUB_OK && !p->params->plan)
        result = download(p);
    if (result == HUB_OK && !p->params->plan)
        snprintf(path, PATH_MAX, "%s", p->cache.snapshot);
    hub_cache_close(&p->cache);
    return result;
}

static hub_result begin(pull *p)
{
    const hub_pull_params *o = p->params;
    HUB_TRY(hub_settings_read(o->source, &p->settings, p->error));
    p->settings.insecure_http = o->insecure_http;
    p->http = (hub_http){.settings = &p->settings,
                         .id = o->id,
                         .revision = o->revision ? o->revision : hub_default_revision(p->settings.protocol),
                         .retries = o->retries,
                         .stopping = o->stopping,
                         .notice = on_notice,
                         .user = p};
    if (!hub_is_id(o->id))
        return hub_fail(p->error, HUB_USAGE, "model: \"%s\", expected ORGANISATION/NAME as on the hub", o->id);
    if (!hub_is_revision(p->http.revision))
        return hub_fail(p->error, HUB_USAGE, "revision: \"%s\", expected a branch, a tag or a commit",
                        p->http.revision);
    if (p->settings.offline)
        return hub_fail(p->error, HUB_NETWORK, "HF_HUB_OFFLINE: it is set, so that no request is made");
    return HUB_OK;
}

hub_result hub_pull(const hub_pull_params *params, char path[PATH_MAX], zimage_error *error)
{
    zimage_error own = ZIMAGE_ERROR_INIT;
    pull *p = calloc(1, sizeof *p);
    *path = 0;
    if (!p)
        return hub_fail(error, HUB_FAILED, "out of memory: no room for a download");
    p->params = params;
    p->error = error ? error : &own;
    hub_result result = begin(p);
    if (result == HUB_OK && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        result = hub_fail(p->error, HUB_FAILED, "libcurl can't be started");
    else if (result == HUB_OK) {
        result = pull_online(p, path);
        curl_global_cleanup();
    }
    hub_listing_free(&p->listing);
    free(p);
    return result;
}
