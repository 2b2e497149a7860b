#include "hub/connection.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "hub/headers.h"

#define BUFFER_BYTES   (512L << 10) /* of a connection, */
#define LIMITED_BUFFER (16L << 10)  /* and with a limit, so that bytes arrive steadily */
#define SLOW_BYTES     1024L        /* fewer a second, */
#define SLOW_SECONDS   60L          /* for so long: the connection is made anew */
#define WORTH_MORE     (64 << 10)   /* bytes since a failure after which the next request need not wait */
#define SWALLOWED_MAX  (64 << 10)   /* bytes of an answer that is no content */
#define NOTICE_SECONDS 1.0          /* shorter pauses are not worth a line */

static const hub_http *http_of(const hub_connection *c)
{
    return c->transfer->params.http;
}

static void forget_url(hub_item *item)
{
    free(item->url);
    item->url = NULL;
    item->url_worked = 0;
}

/* ---- failures ---- */

/* After a failure that may pass: when the file's connections may go on. Several that fail at once are one failure. */
static void pause_item(hub_connection *c, const hub_fault *fault)
{
    hub_item *item = c->item;
    double now = zi_now(), wait = 0;
    if (now < item->not_before)
        return;
    int gained = item->gained > 0, is_quick = item->gained >= WORTH_MORE && fault->wait <= 0;
    item->failures = gained ? !is_quick : item->failures + 1;
    item->gained = 0;
    if (item->failures >= http_of(c)->retries && !gained) {
        hub_transfer_fail(c->transfer, fault->result, "%s; failed %d times", fault->sentence, item->failures);
        return;
    }
    if (!is_quick)
        wait = fault->wait > 0 ? fault->wait : hub_http_pause(item->failures);
    item->not_before = now + wait;
    if (wait >= NOTICE_SECONDS)
        hub_transfer_notice(c->transfer, "%s; next request in %.0f s", fault->sentence, wait);
}

static void fail_passing(hub_connection *c, hub_result result, const char *sentence)
{
    hub_fault fault = {.result = result, .is_passing = 1};
    snprintf(fault.sentence, sizeof fault.sentence, "%s: %s", c->item->file->path, sentence);
    pause_item(c, &fault);
}

/* ---- the head of an answer ---- */

static void check_range(hub_connection *c)
{
    uint64_t first, last, total, size = c->item->file->size;
    const char *range = hub_http_header(c->easy, "Content-Range");
    if (!hub_header_range(range, &first, &last, &total) || first != c->offset || last >= c->end ||
        (total != UINT64_MAX && total != size))
        hub_transfer_fail(c->transfer, HUB_NETWORK,
                          "%s: the server sends the range \"%s\", expected bytes %llu-%llu/%llu", c->item->file->path,
                          range, (unsigned long long)c->offset, (unsigned long long)c->end - 1,
                          (unsigned long long)size);
    else
        c->takes = c->item->has_ranges = 1;
}

/* The whole file instead of a part of it: one connection takes it from its beginning. */
static void take_whole(hub_connection *c)
{
    hub_item *item = c->item;
    int is_first = c->segment == 0 && c->asked == 0 && !item->is_whole;
    c->takes = c->asked == 0 && c->end == item->file->size;
    c->is_dropped = !c->takes && !is_first;
    item->is_whole = 1;
    if (c->takes || c->is_dropped)
        return;
    hub_segments_give_back(&item->segments, 0);
    c->transfer->done -= item->counted; /* it begins anew */
    item->counted = 0;
    c->end = item->file->size;
    c->takes = 1;
}

static void check_whole(hub_connection *c)
{
    curl_off_t length = -1;
    const char *type = hub_http_header(c->easy, "Content-Type");
    int is_page = !strncmp(type, "text/html", 9);
    curl_easy_getinfo(c->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (length >= 0 && (uint64_t)length != c->item->file->size)
        hub_transfer_fail(c->transfer, HUB_NETWORK, "%s: the server sends %lld bytes%s, expected %llu",
                          c->item->file->path, (long long)length,
                          is_page ? " of HTML, perhaps the page of a login" : "",
                          (unsigned long long)c->item->file->size);
    else
        take_whole(c);
}

static void check_head(hub_connection *c)
{
    long status = 0;
    c->is_checked = 1;
    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    if (c->locates)
        return;
    if (status == 206)
        check_range(c);
    else if (status == 200)
        check_whole(c);
    if (c->takes)
        c->redirects = 0;
}

/* ---- the body ---- */

/* Segments that the stream of a whole file has passed are complete. */
static hub_result pass_segments(hub_connection *c, uint64_t from, zimage_error *error)
{
    hub_segments *s = &c->item->segments;
    uint64_t offset, end;
    for (size_t i = (size_t)(from / s->segment_bytes); i < s->count; i++) {
        hub_segments_bounds(s, i, &offset, &end);
        if (end > c->offset)
            break;
        HUB_TRY(hub_segments_complete(s, i, error));
    }
    return HUB_OK;
}

/* Only bytes that are new count: a file that begins again must not look like progress. */
static void count_bytes(hub_connection *c, size_t bytes)
{
    hub_item *item = c->item;
    uint64_t gained = bytes;
    if (item->is_whole) {
        gained = c->offset > item->best ? c->offset - item->best : 0;
        item->best += gained;
    }
    item->gained += gained;
    item->counted += gained;
    c->transfer->done += gained;
}

static int take_bytes(hub_connection *c, const void *data, size_t bytes)
{
    hub_item *item = c->item;
    uint64_t from = c->offset;
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (bytes > c->end - c->offset) {
        hub_transfer_fail(c->transfer, HUB_NETWORK, "%s: the server sends more than the %llu bytes that were expected",
                          item->file->path, (unsigned long long)(c->end - c->asked));
        return 0;
    }
    hub_result result = hub_segments_write(&item->segments, c->offset, data, bytes, &error);
    c->offset += bytes;
    if (result == HUB_OK && item->is_whole)
        result = pass_segments(c, from, &error);
    if (result != HUB_OK) {
        hub_transfer_fail(c->transfer, result, "%s: %s", item->file->path, error.message);
        return 0;
    }
    count_bytes(c, bytes);
    item->url_worked = 1;
    if (item->is_whole)
        hub_hash_advance(&c->transfer->hasher, item->hash, hub_segments_prefix(&item->segments));
    return 1;
}

static size_t on_data(char *data, size_t size, size_t count, void *user)
{
    hub_connection *c = user;
    size_t bytes = size * count;
    c->heard = zi_now();
    if (c->transfer->params.limit && c->transfer->allowance <= 0) {
        c->is_paused = 1;
        return CURL_WRITEFUNC_PAUSE;
    }
    c->transfer->allowance -= (double)bytes;
    if (!c->is_checked)
        check_head(c);
    if (c->transfer->result != HUB_OK || c->is_dropped)
        return 0;
    if (c->takes)
        return take_bytes(c, data, bytes) ? bytes : 0;
    c->swallowed += bytes;
    return c->swallowed > SWALLOWED_MAX ? 0 : bytes;
}

/* ---- requests ---- */

static void set_range(hub_connection *c)
{
    char range[64];
    if (c->item->is_whole || (c->offset == 0 && c->end == c->item->file->size))
        return;
    snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)c->offset, (unsigned long long)c->end - 1);
    curl_easy_setopt(c->easy, CURLOPT_RANGE, range);
}

static void set_fetch(hub_connection *c)
{
    int is_limited = c->transfer->params.limit > 0;
    curl_easy_setopt(c->easy, CURLOPT_BUFFERSIZE, is_limited ? LIMITED_BUFFER : BUFFER_BYTES);
    if (!is_limited) {
        curl_easy_setopt(c->easy, CURLOPT_LOW_SPEED_LIMIT, SLOW_BYTES);
        curl_easy_setopt(c->easy, CURLOPT_LOW_SPEED_TIME, SLOW_SECONDS);
    }
    set_range(c);
}

void hub_connection_start(hub_connection *c)
{
    hub_item *item = c->item;
    zimage_error error = ZIMAGE_ERROR_INIT;
    int is_hub = c->locates || item->url_is_hub;
    if (!c->locates) {
        snprintf(c->address, sizeof c->address, "%s", item->url);
        if (item->is_whole) {
            c->segment = 0;
            c->offset = 0;
            c->end = item->file->size;
        }
    }
    c->asked = c->offset;
    c->is_checked = c->takes = c->is_dropped = c->is_paused = 0;
    c->swallowed = 0;
    c->heard = zi_now();
    hub_result result = hub_http_prepare(http_of(c), c->easy, c->address, is_hub, &c->headers, &error);
    if (result != HUB_OK) {
        hub_transfer_fail(c->transfer, result, "%s: %s", item->file->path, error.message);
        return;
    }
    curl_easy_setopt(c->easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1); /* a connection each: several are faster */
    curl_easy_setopt(c->easy, CURLOPT_ACCEPT_ENCODING, "identity");
    curl_easy_setopt(c->easy, CURLOPT_NOPROGRESS, 1L); /* the loop looks whether to stop */
    curl_easy_setopt(c->easy, CURLOPT_PRIVATE, c);
    curl_easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(c->easy, CURLOPT_WRITEDATA, c);
    if (c->locates)
        curl_easy_setopt(c->easy, CURLOPT_NOBODY, 1L);
    else
        set_fetch(c);
    c->runs = curl_multi_add_handle(c->transfer->multi, c->easy) == CURLM_OK;
    if (!c->runs)
        hub_transfer_fail(c->transfer, HUB_FAILED, "%s: no request can be made", item->file->path);
}

void hub_connection_stop(hub_connection *c)
{
    if (c->runs)
        curl_multi_remove_handle(c->transfer->multi, c->easy);
    c->runs = 0;
    curl_slist_free_all(c->headers);
    c->headers = NULL;
}

void hub_connection_release(hub_connection *c)
{
    if (c->item && c->locates)
        c->item->is_asked = 0;
    if (c->item && !c->locates && c->item->segments.states)
        hub_segments_give_back(&c->item->segments, c->segment);
    c->item = NULL;
    c->locates = 0;
    c->redirects = 0;
}

/* ---- where a file lies ---- */

/* What the hub says of a file beside its place has to agree with its listing. */
static int check_announced(hub_connection *c)
{
    const hub_file *file = c->item->file;
    const char *linked = hub_http_header(c->easy, "X-Linked-Etag"), *commit = hub_http_header(c->easy, "X-Repo-Commit");
    char etag[HUB_ETAG_MAX];
    uint64_t size;
    if (hub_header_etag(*linked ? linked : hub_http_header(c->easy, "ETag"), etag) &&
        strlen(etag) == strlen(file->etag) && strcmp(etag, file->etag) != 0)
        hub_transfer_fail(c->transfer, HUB_CHECKSUM, "%s: the hub announces the hash %s, expected %s, which it lists",
                          file->path, etag, file->etag);
    else if (hub_header_number(hub_http_header(c->easy, "X-Linked-Size"), &size) && size != file->size)
        hub_transfer_fail(c->transfer, HUB_NETWORK, "%s: the hub announces %llu bytes, expected %llu, which it lists",
                          file->path, (unsigned long long)size, (unsigned long long)file->size);
    else if (hub_is_commit(commit) && strcmp(commit, c->transfer->params.cache->commit) != 0)
        hub_transfer_fail(c->transfer, HUB_NETWORK, "%s: the hub answers for commit %s, expected %s", file->path,
                          commit, c->transfer->params.cache->commit);
    return c->transfer->result == HUB_OK;
}

/* Follows a redirect. An address that is not the hub's is where the file lies. */
static void follow(hub_connection *c)
{
    char target[HUB_URL_MAX];
    int stays = 0;
    zimage_error error = ZIMAGE_ERROR_INIT;
    hub_result result = hub_http_redirect(http_of(c), c->easy, c->address, target, &stays, &error);
    if (result != HUB_OK) {
        hub_transfer_fail(c->transfer, result, "%s: %s", c->item->file->path, error.message);
        return;
    }
    if (++c->redirects > HUB_REDIRECTS) {
        hub_transfer_fail(c->transfer, HUB_NETWORK, "%s: more than %d redirects", c->item->file->path, HUB_REDIRECTS);
        return;
    }
    if (c->locates && stays) {
        snprintf(c->address, sizeof c->address, "%s", target);
        return;
    }
    if (c->locates && !check_announced(c))
        return;
    forget_url(c->item);
    c->item->url = strdup(target);
    c->item->url_is_hub = stays && c->item->url_is_hub; /* what left the hub does not get the token again */
    if (c->locates)
        hub_connection_release(c);
}

static void located(hub_connection *c)
{
    if (!check_announced(c))
        return;
    forget_url(c->item);
    c->item->url = strdup(c->address);
    c->item->url_is_hub = 1;
    hub_connection_release(c);
}

/* ---- the end of a request ---- */

static void end_segment(hub_connection *c)
{
    hub_item *item = c->item;
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (!item->is_whole && hub_segments_complete(&item->segments, c->segment, &error) != HUB_OK)
        hub_transfer_fail(c->transfer, HUB_DISK, "%s: %s", item->file->path, error.message);
    hub_hash_advance(&c->transfer->hasher, item->hash, hub_segments_prefix(&item->segments));
    item->failures = 0;
    hub_connection_release(c);
}

static void end_short(hub_connection *c, CURLcode code)
{
    char sentence[200];
    snprintf(sentence, sizeof sentence, "%s after %llu of %llu bytes",
             code == CURLE_OK ? "the answer ended" : curl_easy_strerror(code), (unsigned long long)c->offset,
             (unsigned long long)c->item->file->size);
    fail_passing(c, HUB_NETWORK, sentence);
}

/* Signed addresses end after an hour: the hub is asked for a new one. */
static int may_be_expired(const hub_connection *c, long status)
{
    return !c->locates && !c->item->url_is_hub && (status == 401 || status == 403 || status == 404 || status == 410);
}

/* No failure if the address has worked before, or if another connection has noticed it already. */
static void end_expired(hub_connection *c, long status)
{
    hub_item *item = c->item;
    char sentence[64];
    if (!item->url || strcmp(item->url, c->address) != 0)
        return;
    snprintf(sentence, sizeof sentence, "its address is refused with HTTP %ld", status);
    if (!item->url_worked)
        fail_passing(c, HUB_NETWORK, sentence);
    forget_url(item);
}

static void end_with_status(hub_connection *c, CURLcode code)
{
    long status = 0;
    hub_fault fault;
    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    if (code == CURLE_OK && status >= 300 && status < 400) {
        follow(c);
    } else if (code == CURLE_OK && c->locates && status >= 200 && status < 300) {
        located(c);
    } else if (code == CURLE_OK && may_be_expired(c, status)) {
        end_expired(c, status);
    } else {
        hub_http_fault(http_of(c), c->easy, code, c->item->file->path, &fault);
        if (fault.is_passing)
            pause_item(c, &fault);
        else
            hub_transfer_fail(c->transfer, fault.result, "%s", fault.sentence);
    }
}

void hub_connection_end(hub_connection *c, CURLcode code)
{
    hub_transfer *t = c->transfer;
    if (t->result == HUB_OK && code == CURLE_OK && !c->is_checked)
        check_head(c);
    if (t->result == HUB_OK && !c->is_dropped) {
        if (c->takes && c->offset == c->end)
            end_segment(c);
        else if (c->takes)
            end_short(c, code);
        else
            end_with_status(c, c->is_checked && code == CURLE_WRITE_ERROR ? CURLE_OK : code);
    }
    hub_connection_stop(c);
    if (c->is_dropped)
        hub_connection_release(c);
}

void hub_connection_time_out(hub_connection *c)
{
    char sentence[64];
    snprintf(sentence, sizeof sentence, "nothing has arrived for %.1f s", zi_now() - c->heard);
    hub_connection_stop(c);
    if (c->takes && c->offset == c->end) /* all has arrived; the server only does not say so */
        end_segment(c);
    else
        fail_passing(c, HUB_NETWORK, sentence);
}
