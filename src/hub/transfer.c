#include "hub/transfer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "hub/connection.h"

#define FILES_AT_ONCE  4
#define POLL_MS        100 /* between two looks at what is to be done */
#define LOCK_SECONDS   0.5 /* between two attempts to take a lock */
#define REPORT_SECONDS 0.1
#define BURST_SECONDS  0.1 /* with a limit: so much of it may arrive at once */
#define LIMITED_MS     10

/* ---- reports ---- */

void hub_transfer_fail(hub_transfer *t, hub_result result, const char *format, ...)
{
    char text[sizeof t->error->message];
    va_list arguments;
    if (t->result != HUB_OK)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    t->result = hub_fail(t->error, result, "%s", text);
}

static void report(hub_transfer *t, hub_report *r)
{
    r->bytes = t->done;
    r->total = t->total;
    r->files = t->files_done;
    r->files_total = t->params.listing->count;
    if (t->params.report)
        t->params.report(r, t->params.user);
}

void hub_transfer_notice(hub_transfer *t, const char *format, ...)
{
    char text[700];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    report(t, &(hub_report){.kind = HUB_REPORT_NOTICE, .sentence = text});
}

static void report_progress(hub_transfer *t)
{
    hub_report r = {.kind = HUB_REPORT_PROGRESS};
    double now = zi_now();
    if (now < t->reported + REPORT_SECONDS)
        return;
    t->reported = now;
    for (size_t i = 0; i < t->params.listing->count && !r.path; i++)
        if (t->items[i].state == HUB_ITEM_FETCHED) {
            r.path = t->items[i].file->path;
            r.path_total = t->items[i].file->size;
            r.path_bytes = hub_segments_prefix(&t->items[i].segments);
        }
    report(t, &r);
}

/* ---- addresses ---- */

/* Escapes each part of a path. */
static int append_path(char *url, const char *path)
{
    char part[HUB_FILE_MAX];
    for (size_t used = strlen(url); *path; used = strlen(url)) {
        size_t length = strcspn(path, "/");
        snprintf(part, sizeof part, "%.*s", (int)length, path);
        char *escaped = hub_http_escape(part);
        int fits = escaped && snprintf(url + used, HUB_URL_MAX - used, "/%s", escaped) < (int)(HUB_URL_MAX - used);
        curl_free(escaped);
        if (!fits)
            return 0;
        path += length + (path[length] == '/');
    }
    return 1;
}

static int modelscope_url(const hub_http *http, const char *path, char url[HUB_URL_MAX])
{
    char *revision = hub_http_escape(http->revision), *file = hub_http_escape(path);
    int length = snprintf(url, HUB_URL_MAX, "%s/api/v1/models/%s/repo?Revision=%s&FilePath=%s",
                          http->settings->endpoint, http->id, revision ? revision : "", file ? file : "");
    int ok = revision && file && length < HUB_URL_MAX;
    curl_free(revision);
    curl_free(file);
    return ok;
}

int hub_file_url(const hub_http *http, const char *commit, const char *path, char url[HUB_URL_MAX])
{
    if (http->settings->protocol == HUB_MODELSCOPE)
        return modelscope_url(http, path, url);
    return snprintf(url, HUB_URL_MAX, "%s/%s/resolve/%s", http->settings->endpoint, http->id, commit) < HUB_URL_MAX &&
           append_path(url, path);
}

/* ---- files ---- */

static void close_item(hub_transfer *t, hub_item *item)
{
    hub_hash_free(&t->hasher, item->hash);
    item->hash = NULL;
    hub_segments_close(&item->segments);
    free(item->url);
    item->url = NULL;
    if (item->lock >= 0)
        close(item->lock);
    item->lock = -1;
}

/* The content is in the cache: the last step of a file. */
static void finish_item(hub_transfer *t, hub_item *item)
{
    const hub_file *file = item->file;
    close_item(t, item);
    hub_result result = hub_cache_link(t->params.cache, file, t->error);
    t->result = t->result == HUB_OK ? result : t->result;
    item->state = HUB_ITEM_DONE;
    t->files_done++;
    if (result == HUB_OK)
        report(t, &(hub_report){.kind = HUB_REPORT_FILE,
                                .path = file->path,
                                .path_bytes = file->size,
                                .path_total = file->size,
                                .etag = file->etag});
}

static void open_content(hub_transfer *t, hub_item *item)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    hub_result result =
        hub_segments_open(t->params.cache->blobs, item->file, t->params.segment_bytes, &item->segments, &error);
    if (result != HUB_OK) {
        hub_transfer_fail(t, result, "%s", error.message);
        return;
    }
    item->state = HUB_ITEM_FETCHED;
    item->hash = hub_hash_new(&t->hasher, item->segments.content, item->file);
    if (!item->hash)
        hub_transfer_fail(t, HUB_FAILED, "out of memory: no room for the hash of %s", item->file->path);
    else
        hub_hash_advance(&t->hasher, item->hash, hub_segments_prefix(&item->segments));
}

/* Whether another file of this download has the same content, and is under way. */
static int has_twin(const hub_transfer *t, const hub_item *item)
{
    for (size_t i = 0; i < t->params.listing->count; i++)
        if (t->items[i].state == HUB_ITEM_FETCHED && !strcmp(t->items[i].file->etag, item->file->etag))
            return 1;
    return 0;
}

/* Begins a file, unless somebody is at work on its content: then later. It may be there by then. */
static void begin_item(hub_transfer *t, hub_item *item)
{
    if (has_twin(t, item))
        return;
    hub_result result = hub_cache_lock(t->params.cache, item->file->etag, &item->lock, t->error);
    t->result = t->result == HUB_OK ? result : t->result;
    if (item->lock < 0) {
        item->not_before = zi_now() + LOCK_SECONDS;
        if (result == HUB_OK && !item->is_told)
            hub_transfer_notice(t, "%s: another program is downloading it: waiting", item->file->path);
        item->is_told = 1;
        return;
    }
    item->not_before = 0;
    if (hub_cache_has(t->params.cache, item->file)) {
        t->done += item->file->size - item->counted;
        finish_item(t, item);
    } else {
        open_content(t, item);
    }
}

/* A file whose hash is another one is fetched once more: a disk or a network may err. */
static void end_mismatch(hub_transfer *t, hub_item *item)
{
    char digest[HUB_ETAG_MAX];
    snprintf(digest, sizeof digest, "%s", item->hash->digest);
    hub_hash_free(&t->hasher, item->hash);
    item->hash = NULL;
    hub_segments_remove(&item->segments);
    t->done -= item->counted;
    item->counted = item->best = 0;
    if (item->mismatches++) {
        hub_transfer_fail(t, HUB_CHECKSUM, "%s: the hash of what arrived is %s, expected %s", item->file->path, digest,
                          item->file->etag);
        return;
    }
    hub_transfer_notice(t, "%s: the hash of what arrived is %s, expected %s: it is fetched again", item->file->path,
                        digest, item->file->etag);
    open_content(t, item);
}

static void end_item(hub_transfer *t, hub_item *item)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    errno = item->hash->code;
    if (errno) {
        hub_fail_errno(&error, HUB_DISK, "%s: the content can't be read back", item->file->path);
        hub_transfer_fail(t, HUB_DISK, "%s", error.message);
    } else if (strcmp(item->hash->digest, item->file->etag) != 0) {
        end_mismatch(t, item);
    } else {
        hub_hash_free(&t->hasher, item->hash);
        item->hash = NULL;
        if (hub_segments_finish(&item->segments, &error) == HUB_OK)
            finish_item(t, item);
        else
            hub_transfer_fail(t, HUB_DISK, "%s", error.message);
    }
}

/* ---- connections ---- */

/* With `asks` also the one that is only for asking where a file lies: the others may all wait for an answer. */
static hub_connection *free_connection(hub_transfer *t, int asks)
{
    for (int i = 0; i < t->connection_count + asks; i++)
        if (!t->connections[i].item)
            return &t->connections[i];
    return NULL;
}

static int connections_of(const hub_transfer *t, const hub_item *item)
{
    int count = 0;
    for (int i = 0; i < t->connection_count; i++)
        count += t->connections[i].item == item;
    return count;
}

/* ModelScope is not asked where a file lies: its answer to the first request says so. */
static void locate(hub_transfer *t, hub_item *item, hub_connection *c)
{
    if (!hub_file_url(t->params.http, t->params.cache->commit, item->file->path, c->address)) {
        hub_transfer_fail(t, HUB_NETWORK, "%s: its address is too long", item->file->path);
        return;
    }
    if (t->params.http->settings->protocol == HUB_MODELSCOPE) {
        item->url = strdup(c->address);
        item->url_is_hub = 1;
        return;
    }
    item->is_asked = 1;
    c->item = item;
    c->locates = 1;
}

/* others: connections that the file has. 1: the connection got something to do. */
static int give_segment(hub_item *item, hub_connection *c, int others)
{
    if (others > 0 && !item->has_ranges) /* not known yet, or there are none */
        return 0;
    if (item->is_whole && item->segments.prefix == item->segments.count)
        return 0;
    size_t segment = item->is_whole ? 0 : hub_segments_take(&item->segments);
    if (segment == item->segments.count)
        return 0;
    c->item = item;
    c->segment = segment;
    hub_segments_bounds(&item->segments, segment, &c->offset, &c->end);
    return 1;
}

/* Gives free connections to a file. */
static void serve_item(hub_transfer *t, hub_item *item)
{
    hub_connection *c;
    int is_lost = !item->url && !item->is_asked && item->segments.prefix < item->segments.count;
    if (is_lost && zi_now() >= item->not_before && (c = free_connection(t, 1)))
        locate(t, item, c);
    while (t->result == HUB_OK && item->url && (c = free_connection(t, 0)) &&
           give_segment(item, c, connections_of(t, item))) {
    }
}

/* With a limit: counts what may arrive since the last look, and lets the connections go on that wait for it. */
static void refill_allowance(hub_transfer *t)
{
    double now = zi_now(), limit = (double)t->params.limit;
    t->allowance += limit * (now - t->refilled);
    t->allowance = t->allowance < limit * BURST_SECONDS ? t->allowance : limit * BURST_SECONDS;
    t->refilled = now;
    for (int i = 0; i < t->connection_count && t->allowance > 0; i++)
        if (t->connections[i].runs && t->connections[i].is_paused) {
            t->connections[i].is_paused = 0;
            t->connections[i].heard = now;
            curl_easy_pause(t->connections[i].easy, CURLPAUSE_CONT);
        }
}

static void start_connections(hub_transfer *t)
{
    double now = zi_now();
    for (int i = 0; i <= t->connection_count && t->result == HUB_OK; i++) {
        hub_connection *c = &t->connections[i];
        if (c->item && !c->runs && now >= c->item->not_before && (c->locates || c->item->url))
            hub_connection_start(c);
    }
}

/* ---- the loop ---- */

static void serve_items(hub_transfer *t)
{
    int under_way = 0;
    for (size_t i = 0; i < t->params.listing->count && t->result == HUB_OK && under_way < FILES_AT_ONCE; i++) {
        hub_item *item = &t->items[i];
        if (item->state == HUB_ITEM_NEW && zi_now() >= item->not_before)
            begin_item(t, item);
        if (t->result != HUB_OK || item->state != HUB_ITEM_FETCHED)
            continue;
        /* A connection may be open still after the last byte, where no length was announced. */
        if (hub_hash_is_done(&t->hasher, item->hash) && connections_of(t, item) == 0)
            end_item(t, item);
        else
            serve_item(t, item);
        under_way += item->state == HUB_ITEM_FETCHED;
    }
}

/* How many have ended. */
static int end_requests(hub_transfer *t)
{
    int left, ended = 0;
    for (CURLMsg *message; (message = curl_multi_info_read(t->multi, &left));) {
        char *user = NULL;
        if (message->msg != CURLMSG_DONE)
            continue;
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &user);
        hub_connection_end((hub_connection *)(void *)user, code);
        ended++;
    }
    const hub_settings *settings = t->params.http->settings;
    for (int i = 0; i <= t->connection_count && t->result == HUB_OK; i++) {
        hub_connection *c = &t->connections[i];
        double most = c->takes ? settings->silence_seconds : settings->answer_seconds + settings->silence_seconds;
        if (c->runs && !c->is_paused && zi_now() - c->heard > (c->locates ? settings->answer_seconds : most))
            hub_connection_time_out(c);
    }
    return ended;
}

static void run_loop(hub_transfer *t)
{
    int running;
    while (t->result == HUB_OK) {
        if (t->params.http->stopping && t->params.http->stopping()) {
            hub_transfer_fail(t, HUB_CANCELLED, "interrupted");
            break;
        }
        serve_items(t);
        start_connections(t);
        if (t->params.limit)
            refill_allowance(t);
        report_progress(t);
        if (t->files_done == t->params.listing->count || t->result != HUB_OK)
            break;
        curl_multi_perform(t->multi, &running);
        if (end_requests(t) == 0) /* else there may be something to begin at once */
            curl_multi_poll(t->multi, NULL, 0, t->params.limit ? LIMITED_MS : POLL_MS, NULL);
    }
}

/* Called by the thread that hashes. */
static void wake(void *user)
{
    hub_transfer *t = user;
    curl_multi_wakeup(t->multi);
}

/* ---- beginning and end ---- */

static void count_present(hub_transfer *t)
{
    for (size_t i = 0; i < t->params.listing->count; i++) {
        const hub_file *file = &t->params.listing->files[i];
        t->items[i] = (hub_item){.file = file, .lock = -1};
        t->items[i].segments = (hub_segments){.content = -1, .list = -1};
        t->total += file->size;
        t->items[i].counted =
            hub_cache_has(t->params.cache, file) ? file->size : hub_segments_found(t->params.cache->blobs, file);
        t->done += t->items[i].counted;
    }
}

static int make_connections(hub_transfer *t)
{
    t->connection_count = t->params.connections;
    t->refilled = zi_now();
    t->connections = calloc((size_t)t->connection_count + 1, sizeof *t->connections);
    for (int i = 0; t->connections && i <= t->connection_count; i++) {
        t->connections[i].transfer = t;
        t->connections[i].easy = curl_easy_init();
        if (!t->connections[i].easy)
            return 0;
    }
    return t->connections != NULL;
}

static void free_all(hub_transfer *t)
{
    for (int i = 0; t->connections && i <= t->connection_count; i++) {
        hub_connection_stop(&t->connections[i]);
        curl_easy_cleanup(t->connections[i].easy);
    }
    for (size_t i = 0; t->items && i < t->params.listing->count; i++)
        close_item(t, &t->items[i]);
    free(t->connections);
    free(t->items);
    curl_multi_cleanup(t->multi);
}

hub_result hub_transfer_run(const hub_transfer_params *params, zimage_error *error)
{
    zimage_error own = ZIMAGE_ERROR_INIT;
    hub_transfer t = {.params = *params, .error = error ? error : &own, .multi = curl_multi_init()};
    hub_result result = hub_hasher_begin(&t.hasher, wake, &t, error);
    if (result != HUB_OK) {
        curl_multi_cleanup(t.multi);
        return result;
    }
    t.items = calloc(params->listing->count + 1, sizeof *t.items);
    if (t.multi && t.items && make_connections(&t)) {
        count_present(&t);
        run_loop(&t);
    } else {
        hub_transfer_fail(&t, HUB_FAILED, "out of memory: no room for a download");
    }
    free_all(&t);
    hub_hasher_end(&t.hasher);
    return t.result;
}
