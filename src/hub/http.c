#include "hub/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "hub/headers.h"
#include "hub/listing.h"

#define PAUSE_MAX    60.0  /* seconds between two requests, */
#define WAIT_MAX     900.0 /* and the longest that a hub may ask for */
#define WHOLE_FACTOR 30    /* an answer in JSON may take so many times as long as its beginning */
#define SLEEP_STEP   0.05

/* ---- addresses ---- */

/* Parts of an address; NULL where it lacks one. */
typedef struct url_parts {
    char *scheme, *host, *port, *user, *password;
} url_parts;

static void free_parts(url_parts *parts)
{
    curl_free(parts->scheme);
    curl_free(parts->host);
    curl_free(parts->port);
    curl_free(parts->user);
    curl_free(parts->password);
}

static int split_url(const char *url, url_parts *parts)
{
    CURLU *handle = curl_url();
    *parts = (url_parts){0};
    int ok = handle && curl_url_set(handle, CURLUPART_URL, url, 0) == CURLUE_OK &&
             curl_url_get(handle, CURLUPART_SCHEME, &parts->scheme, 0) == CURLUE_OK &&
             curl_url_get(handle, CURLUPART_HOST, &parts->host, 0) == CURLUE_OK &&
             curl_url_get(handle, CURLUPART_PORT, &parts->port, CURLU_DEFAULT_PORT) == CURLUE_OK;
    if (ok) {
        curl_url_get(handle, CURLUPART_USER, &parts->user, 0);
        curl_url_get(handle, CURLUPART_PASSWORD, &parts->password, 0);
    }
    curl_url_cleanup(handle);
    return ok;
}

static int is_loopback(const char *host)
{
    return !strcasecmp(host, "localhost") || !strcmp(host, "[::1]") ||
           (!strncmp(host, "127.", 4) && host[strspn(host, "0123456789.")] == 0);
}

static hub_result check_parts(const hub_http *http, const char *url, const url_parts *parts, zimage_error *error)
{
    int is_http = !strcmp(parts->scheme, "http");
    if (!is_http && strcmp(parts->scheme, "https") != 0)
        return hub_fail(error, HUB_NETWORK, "%s: expected an address that begins with https://", url);
    if (parts->user || parts->password)
        return hub_fail(error, HUB_NETWORK, "%s://%s: the address holds a name or a password, expected none",
                        parts->scheme, parts->host);
    if (is_http && !is_loopback(parts->host) && !http->settings->insecure_http)
        return hub_fail(error, HUB_NETWORK,
                        "%s://%s: expected https, because anybody on the way can read and change "
                        "what http transports; --insecure-http allows it",
                        parts->scheme, parts->host);
    return HUB_OK;
}

hub_result hub_http_origin(const hub_http *http, const char *url, char origin[HUB_URL_MAX], zimage_error *error)
{
    url_parts parts;
    hub_result result = HUB_OK;
    if (strlen(url) >= HUB_URL_MAX || !split_url(url, &parts))
        return hub_fail(error, HUB_NETWORK,
                        "\"%.200s\": this is no address, expected one such as https://huggingface.co", url);
    result = check_parts(http, url, &parts, error);
    snprintf(origin, HUB_URL_MAX, "%s://%s:%s", parts.scheme, parts.host, parts.port);
    for (char *c = origin; *c; c++)
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
    free_parts(&parts);
    return result;
}

char *hub_http_escape(const char *text)
{
    return curl_easy_escape(NULL, text, 0);
}

/* ---- requests ---- */

static int on_progress(void *user, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up)
{
    const hub_http *http = user;
    return http->stopping && http->stopping();
}

static int add_header(struct curl_slist **list, const char *format, const char *value)
{
    char line[HUB_TOKEN_MAX + 64];
    snprintf(line, sizeof line, format, value);
    struct curl_slist *longer = curl_slist_append(*list, line);
    if (!longer)
        return 0;
    *list = longer;
    return 1;
}

static int add_token(const hub_http *http, struct curl_slist **headers)
{
    const char *token = http->settings->token;
    return !*token ||
           (add_header(headers, "Authorization: Bearer %s", token) &&
            (http->settings->protocol != HUB_MODELSCOPE || add_header(headers, "Cookie: m_session_id=%s", token)));
}

hub_result hub_http_prepare(const hub_http *http, CURL *easy, const char *url, int with_token,
                            struct curl_slist **headers, zimage_error *error)
{
    char origin[HUB_URL_MAX], agent[64];
    *headers = NULL;
    snprintf(agent, sizeof agent, "zimage/%s", zimage_version());
    HUB_TRY(hub_http_origin(http, url, origin, error));
    if (with_token && !add_token(http, headers)) {
        curl_slist_free_all(*headers);
        *headers = NULL;
        return hub_fail(error, HUB_FAILED, "out of memory: no room for a request");
    }
    curl_easy_reset(easy);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, *headers);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, agent);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https,http");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(http->settings->answer_seconds * 1000));
    if (http->settings->ca_file)
        curl_easy_setopt(easy, CURLOPT_CAINFO, http->settings->ca_file);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, (void *)(uintptr_t)http);
    return HUB_OK;
}

const char *hub_http_header(CURL *easy, const char *name)
{
    struct curl_header *header = NULL;
    return curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &header) == CURLHE_OK ? header->value : "";
}

/* ---- redirects ---- */

/* The hub's known names, besides the one that the user gave. */
static int is_hub(const hub_http *http, const char *origin)
{
    char own[HUB_URL_MAX];
    if (hub_http_origin(http, http->settings->endpoint, own, NULL) == HUB_OK && !strcmp(own, origin))
        return 1;
    return http->settings->protocol == HUB_HUGGING_FACE &&
           (!strcmp(origin, "https://huggingface.co:443") || !strcmp(origin, "https://hf.co:443"));
}

int hub_http_is_hub(const hub_http *http, const char *url)
{
    char origin[HUB_URL_MAX];
    return hub_http_origin(http, url, origin, NULL) == HUB_OK && is_hub(http, origin);
}

hub_result hub_http_redirect(const hub_http *http, CURL *easy, const char *from, char target[HUB_URL_MAX], int *stays,
                             zimage_error *error)
{
    char before[HUB_URL_MAX], after[HUB_URL_MAX], *location = NULL;
    curl_easy_getinfo(easy, CURLINFO_REDIRECT_URL, &location);
    HUB_TRY(hub_http_origin(http, from, before, error));
    if (!location || strlen(location) >= HUB_URL_MAX)
        return hub_fail(error, HUB_NETWORK, "%s: a redirect without an address", before);
    HUB_TRY(hub_http_origin(http, location, after, error));
    if (!strncmp(before, "https:", 6) && !strncmp(after, "http:", 5) && !http->settings->insecure_http)
        return hub_fail(error, HUB_NETWORK, "%s: a redirect to %s, expected https", before, after);
    snprintf(target, HUB_URL_MAX, "%s", location);
    *stays = is_hub(http, after);
    return HUB_OK;
}

/* ---- errors ---- */

static double wait_of(CURL *easy)
{
    curl_off_t seconds = 0;
    double wait = hub_header_wait(hub_http_header(easy, "RateLimit"));
    curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds);
    wait = wait > (double)seconds ? wait : (double)seconds;
    return wait < WAIT_MAX ? wait : WAIT_MAX;
}

static void say_refused(const hub_http *http, CURL *easy, long status, const char *what, hub_fault *fault)
{
    const char *code = hub_http_header(easy, "X-Error-Code"), *words = hub_http_header(easy, "X-Error-Message");
    const char *variable = http->settings->protocol == HUB_MODELSCOPE ? "MODELSCOPE_API_TOKEN" : "HF_TOKEN";
    fault->result = HUB_REFUSED;
    if (!strcmp(code, "GatedRepo"))
        snprintf(fault->sentence, sizeof fault->sentence,
                 "%s is gated: accept its licence at %.150s/%s, then set HF_TOKEN to a token of your account%s",
                 http->id, http->settings->endpoint, http->id,
                 *http->settings->token ? " (the present one was refused)" : "");
    else if (!strcmp(code, "DisabledRepo"))
        snprintf(fault->sentence, sizeof fault->sentence, "%s: the hub has disabled this model%s%.200s", http->id,
                 *words ? ": " : "", words);
    else
        snprintf(fault->sentence, sizeof fault->sentence, "%.200s: the hub refused it (HTTP %ld%s%.150s); %s%s", what,
                 status, *words ? ": " : "", words, variable,
                 *http->settings->token ? " may be of another account" : " names a token");
}

static void say_missing(const hub_http *http, CURL *easy, const char *what, hub_fault *fault)
{
    const char *code = hub_http_header(easy, "X-Error-Code");
    fault->result = HUB_NOT_FOUND;
    if (!strcmp(code, "RevisionNotFound"))
        snprintf(fault->sentence, sizeof fault->sentence,
                 "revision: \"%s\", expected a branch, a tag or a commit of %s", http->revision, http->id);
    else if (!strcmp(code, "EntryNotFound"))
        snprintf(fault->sentence, sizeof fault->sentence, "%.300s: the hub has no such file", what);
    else
        snprintf(fault->sentence, sizeof fault->sentence,
                 "%s: there is no such model at %.200s, or it is private and %s", http->id, http->settings->endpoint,
                 *http->settings->token ? "your token may not read it" : "needs a token");
}

/* No answer, or one that ended too early. */
static void say_unreachable(const hub_http *http, CURLcode code, const char *what, hub_fault *fault)
{
    int no_connection = code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_CONNECT ||
                        code == CURLE_COULDNT_RESOLVE_PROXY || code == CURLE_OPERATION_TIMEDOUT;
    fault->is_passing = code != CURLE_PEER_FAILED_VERIFICATION && code != CURLE_SSL_CACERT_BADFILE &&
                        code != CURLE_UNSUPPORTED_PROTOCOL && code != CURLE_URL_MALFORMAT;
    snprintf(fault->sentence, sizeof fault->sentence, "%.250s: %s%s", what, curl_easy_strerror(code),
             no_connection && http->settings->protocol == HUB_HUGGING_FACE
                 ? "; --source names another hub: https://hf-mirror.com or modelscope, for example"
                 : "");
}

void hub_http_fault(const hub_http *http, CURL *easy, CURLcode code, const char *what, hub_fault *fault)
{
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    *fault = (hub_fault){.result = HUB_NETWORK};
    int is_missing = status == 404 || !strcmp(hub_http_header(easy, "X-Error-Code"), "RepoNotFound");
    if (code != CURLE_OK) {
        say_unreachable(http, code, what, fault);
    } else if (is_missing) {
        say_missing(http, easy, what, fault);
    } else if (status == 401 || status == 403) {
        say_refused(http, easy, status, what, fault);
    } else {
        fault->is_passing = status == 429 || status == 408 || status >= 500;
        fault->wait = wait_of(easy);
        snprintf(fault->sentence, sizeof fault->sentence, "%.300s: the server answers with HTTP %ld%s", what, status,
                 status == 429 ? ": too many requests" : "");
    }
}

double hub_http_pause(int failures)
{
    double pause = 1;
    for (int i = 1; i < failures && pause < PAUSE_MAX; i++)
        pause *= 2;
    pause = pause < PAUSE_MAX ? pause : PAUSE_MAX;
    return pause * (1 + 0.25 * (double)rand() / RAND_MAX);
}

/* ---- small answers ---- */

static size_t take_text(char *data, size_t size, size_t count, void *user)
{
    hub_answer *answer = user;
    size_t bytes = size * count;
    if (bytes > HUB_ANSWER_MAX - answer->length)
        return 0;
    char *longer = realloc(answer->text, answer->length + bytes + 1);
    if (!longer)
        return 0;
    memcpy(longer + answer->length, data, bytes);
    answer->text = longer;
    answer->length += bytes;
    longer[answer->length] = 0;
    return bytes;
}

static void set_small(const hub_http *http, CURL *easy, hub_answer *answer)
{
    curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_text);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)(http->settings->answer_seconds + 1));
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(http->settings->answer_seconds * 1000 * WHOLE_FACTOR));
}

static void clear(hub_answer *answer)
{
    free(answer->text);
    *answer = (hub_answer){0};
}

/* One request and its redirects. *fault says whether a failure may pass. */
static hub_result ask(const hub_http *http, CURL *easy, const char *url, hub_answer *answer, hub_fault *fault,
                      zimage_error *error)
{
    char address[HUB_URL_MAX];
    snprintf(address, sizeof address, "%s", url);
    *fault = (hub_fault){0};
    for (int i = 0; i <= HUB_REDIRECTS; i++) {
        struct curl_slist *headers;
        long status = 0;
        int stays = 1;
        clear(answer);
        if (!hub_http_is_hub(http, address))
            return hub_fail(error, HUB_NETWORK, "%s: a link or a redirect to %.300s, which is not the hub's", url,
                            address);
        HUB_TRY(hub_http_prepare(http, easy, address, 1, &headers, error));
        set_small(http, easy, answer);
        CURLcode code = curl_easy_perform(easy);
        curl_slist_free_all(headers);
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        if (code == CURLE_ABORTED_BY_CALLBACK)
            return hub_fail(error, HUB_CANCELLED, "interrupted");
        if (code == CURLE_WRITE_ERROR)
            return hub_fail(error, HUB_NETWORK, "%s: the answer is longer than %zu bytes", address, HUB_ANSWER_MAX);
        if (code != CURLE_OK || status < 200 || status >= 400) {
            hub_http_fault(http, easy, code, address, fault);
            return hub_fail(error, fault->result, "%s", fault->sentence);
        }
        if (status < 300) {
            hub_header_next(hub_http_header(easy, "Link"), answer->next, sizeof answer->next);
            return HUB_OK;
        }
        HUB_TRY(hub_http_redirect(http, easy, address, address, &stays, error));
    }
    return hub_fail(error, HUB_NETWORK, "%s: more than %d redirects", url, HUB_REDIRECTS);
}

/* 0: the caller asked to stop. */
static int sleep_for(const hub_http *http, double seconds)
{
    const struct timespec step = {0, (long)(SLEEP_STEP * 1e9)};
    double end = zi_now() + seconds;
    while (zi_now() < end) {
        if (http->stopping && http->stopping())
            return 0;
        nanosleep(&step, NULL);
    }
    return 1;
}

static void say_wait(const hub_http *http, const char *sentence, double seconds)
{
    char text[700];
    snprintf(text, sizeof text, "%s; next request in %.0f s", sentence, seconds);
    if (http->notice)
        http->notice(text, http->user);
}

hub_result hub_http_get(const hub_http *http, const char *url, hub_answer *answer, zimage_error *error)
{
    hub_result result = HUB_NETWORK;
    hub_fault fault;
    CURL *easy = curl_easy_init();
    *answer = (hub_answer){0};
    if (!easy)
        return hub_fail(error, HUB_FAILED, "out of memory: no room for a request");
    for (int failures = 1;; failures++) {
        result = ask(http, easy, url, answer, &fault, error);
        if (result == HUB_OK || !fault.is_passing || failures >= http->retries)
            break;
        double wait = fault.wait > 0 ? fault.wait : hub_http_pause(failures);
        say_wait(http, fault.sentence, wait);
        if (!sleep_for(http, wait)) {
            result = hub_fail(error, HUB_CANCELLED, "interrupted");
            break;
        }
    }
    curl_easy_cleanup(easy);
    if (result != HUB_OK)
        clear(answer);
    return result;
}
