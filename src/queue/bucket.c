/*
 * Objects of an S3-compatible store, addressed as ENDPOINT/BUCKET/PREFIX/NAME. Requests are signed by libcurl (AWS
 * Signature Version 4). "If-None-Match: *" makes the store refuse an object whose name is taken, in one step: what
 * link() is for files.
 */
#include "queue/bucket.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "queue/pause.h"
#include "shared/hash.h"

#define URL_TEXT        4096
#define HEADER_TEXT     4096               /* session tokens are long */
#define ANSWER_MAX      ((size_t)16 << 10) /* bytes of an answer that says what is wrong */
#define CONNECT_SECONDS 10L
#define SLOW_BYTES      1024L /* fewer a second, */
#define SLOW_SECONDS    30L   /* for so long: the request has failed */
#define PAUSE_FIRST     0.2   /* seconds before the second attempt; each next one doubles them, */
#define PAUSE_MAX       10.0  /* up to these */
#define PUT_SECONDS     60.0  /* in which an attempt may begin: a worker can wait, */
#define SOON_SECONDS    5.0   /* a server's clients can't, nor who begins a program */
#define PROBE           ".zimage"

struct ledger_bucket {
    CURL *easy;
    char *place;
    char url[URL_TEXT];               /* of the bucket and the prefix, with a '/' at its end */
    char signing[128];                /* provider, region and service, as libcurl takes them */
    const char *key, *secret, *token; /* of the environment */
    double put_seconds;
};

typedef struct request {
    const char *method, *name;
    int is_new; /* the object must not be there */
    const void *sent;
    size_t sent_size;
    uint64_t offset, bytes; /* bytes 0: the whole object */
    double patience;
    /* the answer */
    long code; /* 0: there is none */
    char *got; /* a zero lies behind it */
    size_t got_size, got_room;
    char fault[CURL_ERROR_SIZE];
    CURL *easy;
} request;

/* ---- one request ---- */

static int is_good(long code)
{
    return code >= 200 && code < 300;
}

/* libcurl's CURLOPT_WRITEFUNCTION of request. */
static size_t take(char *data, size_t one, size_t size, void *user)
{
    request *r = user;
    long code = 0;
    (void)one; /* it is 1 */
    curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &code);
    size_t limit = !is_good(code) ? ANSWER_MAX : r->bytes ? (size_t)r->bytes : STORE_OBJECT_MAX;
    if (size > limit - r->got_size)
        return 0;
    if (r->got_size + size + 1 > r->got_room) {
        size_t room = 2 * (r->got_size + size) + 1;
        char *longer = realloc(r->got, room);
        if (!longer)
            return 0;
        r->got = longer;
        r->got_room = room;
    }
    memcpy(r->got + r->got_size, data, size);
    r->got_size += size;
    r->got[r->got_size] = 0;
    return size;
}

/* Each part of a name, escaped, behind the bucket's address. 0: it is no name of an object, or too long. */
static int object_url(const ledger_bucket *b, const char *name, char url[URL_TEXT])
{
    size_t used = (size_t)snprintf(url, URL_TEXT, "%s", b->url);
    for (const char *part = name;; part++) {
        int length = (int)strcspn(part, "/");
        if (length == 0 || (length == 1 && *part == '.') || (length == 2 && part[0] == '.' && part[1] == '.'))
            return 0;
        char *escaped = curl_easy_escape(b->easy, part, length);
        int fits = escaped != NULL;
        if (fits)
            used += (size_t)snprintf(url + used, URL_TEXT - used, "%s%s", escaped, part[length] ? "/" : "");
        curl_free(escaped);
        if (!fits || used >= URL_TEXT)
            return 0;
        part += length;
        if (!*part)
            return 1;
    }
}

static int add_header(struct curl_slist **headers, const char *name, const char *value)
{
    char line[HEADER_TEXT];
    if (snprintf(line, sizeof line, "%s: %s", name, value) >= (int)sizeof line)
        return 0;
    struct curl_slist *longer = curl_slist_append(*headers, line);
    *headers = longer ? longer : *headers;
    return longer != NULL;
}

static const char *type_of(const char *name)
{
    static const char *const types[][2] = {
        {".png", "image/png"}, {".jpeg", "image/jpeg"}, {".jpg", "image/jpeg"}, {".webp", "image/webp"}};
    const char *suffix = strrchr(name, '.');
    for (size_t i = 0; suffix && i < sizeof types / sizeof *types; i++)
        if (!strcmp(suffix, types[i][0]))
            return types[i][1];
    return "application/octet-stream";
}

static int add_headers(const ledger_bucket *b, const request *r, struct curl_slist **headers)
{
    char hash[HASH_TEXT];
    return hash_sha256(&(hash_piece){r->sent, r->sent_size}, 1, hash) &&
           add_header(headers, "x-amz-content-sha256", hash) &&
           (!b->token || add_header(headers, "x-amz-security-token", b->token)) &&
           (!r->sent || add_header(headers, "Content-Type", type_of(r->name))) &&
           (!r->is_new || add_header(headers, "If-None-Match", "*"));
}

static void set_options(const ledger_bucket *b, request *r, const char *url, struct curl_slist *headers)
{
    CURL *easy = b->easy;
    char range[64];
    curl_easy_reset(easy);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https,http");
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, r->method);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_AWS_SIGV4, b->signing);
    curl_easy_setopt(easy, CURLOPT_USERNAME, b->key);
    curl_easy_setopt(easy, CURLOPT_PASSWORD, b->secret);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, SLOW_BYTES);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, SLOW_SECONDS);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, r->fault);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, r);
    if (getenv("AWS_CA_BUNDLE"))
        curl_easy_setopt(easy, CURLOPT_CAINFO, getenv("AWS_CA_BUNDLE"));
    if (r->sent) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, r->sent);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->sent_size);
    }
    if (r->bytes) {
        snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)r->offset,
                 (unsigned long long)(r->offset + r->bytes - 1));
        curl_easy_setopt(easy, CURLOPT_RANGE, range);
    }
}

static zimage_status send_once(ledger_bucket *b, request *r, const char *url, zimage_error *error)
{
    struct curl_slist *headers = NULL;
    r->easy = b->easy;
    r->code = 0;
    r->got_size = 0;
    *r->fault = 0;
    if (!add_headers(b, r, &headers)) {
        curl_slist_free_all(headers);
        return zi_fail_memory(error, "a request to the store", 0);
    }
    set_options(b, r, url, headers);
    CURLcode result = curl_easy_perform(b->easy);
    if (result == CURLE_OK)
        curl_easy_getinfo(b->easy, CURLINFO_RESPONSE_CODE, &r->code);
    else if (!*r->fault)
        snprintf(r->fault, sizeof r->fault, "%s", curl_easy_strerror(result));
    curl_slist_free_all(headers);
    return ZIMAGE_OK;
}

/* ---- with patience ---- */

/* What may work later: no answer, too many requests, a fault of the store, another request that writes the object. */
static int is_passing(long code)
{
    return code == 0 || code == 408 || code == 409 || code == 429 || (code >= 500 && code != 501);
}

/* Sends a request until it has an answer that stays, or for r->patience seconds. */
static zimage_status ask(ledger_bucket *b, request *r, zimage_error *error)
{
    char url[URL_TEXT];
    double end = zi_now() + r->patience, pause = PAUSE_FIRST;
    if (!object_url(b, r->name, url))
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s: no name of a result", r->name);
    for (;;) {
        curl_off_t asked = 0;
        ZI_TRY(send_once(b, r, url, error));
        if (!is_passing(r->code) || zi_now() + pause > end)
            return ZIMAGE_OK;
        curl_easy_getinfo(b->easy, CURLINFO_RETRY_AFTER, &asked);
        ledger_sleep((double)asked > pause && (double)asked < PAUSE_MAX ? (double)asked
                                                                        : pause * (0.5 + ledger_random() / 2));
        pause = 2 * pause < PAUSE_MAX ? 2 * pause : PAUSE_MAX;
    }
}

/* The text of an element of an answer, which is XML; "" where there is none. */
static void element_of(const request *r, const char *begin, const char *end, char text[300])
{
    const char *from = r->got_size ? strstr(r->got, begin) : NULL;
    const char *to = from ? strstr(from, end) : NULL;
    *text = 0;
    if (to)
        snprintf(text, 300, "%.*s", (int)(to - from - (long)strlen(begin)), from + strlen(begin));
}

/* What a store says that does not do as it is told. */
static zimage_status refused(const ledger_bucket *b, const request *r, zimage_error *error)
{
    char code[300], message[300];
    if (!r->code)
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s/%s: the store can't be reached: %s", b->place, r->name, r->fault);
    element_of(r, "<Code>", "</Code>", code);
    element_of(r, "<Message>", "</Message>", message);
    return zi_fail(error, ZIMAGE_ERROR_FILE, "%s/%s: the store answered %ld%s%s%s%s", b->place, r->name, r->code,
                   *code ? " " : "", code, *message ? ": " : "", message);
}

/* ---- what store.h says ---- */

zimage_status ledger_bucket_put(ledger_bucket *bucket, const char *name, const void *data, size_t size, int *was_there,
                                zimage_error *error)
{
    request r = {
        .method = "PUT", .name = name, .is_new = 1, .sent = data, .sent_size = size, .patience = bucket->put_seconds};
    *was_there = 0;
    zimage_status status = ask(bucket, &r, error);
    if (status == ZIMAGE_OK && r.code == 412)
        *was_there = 1;
    else if (status == ZIMAGE_OK && !is_good(r.code))
        status = refused(bucket, &r, error);
    free(r.got);
    return status;
}

zimage_status ledger_bucket_get(ledger_bucket *bucket, const char *name, uint64_t offset, uint64_t bytes, char **data,
                                size_t *size, zimage_error *error)
{
    request r = {.method = "GET", .name = name, .offset = offset, .bytes = bytes, .patience = SOON_SECONDS};
    *data = NULL;
    *size = 0;
    if (bytes > STORE_OBJECT_MAX)
        return zi_fail(error, ZIMAGE_ERROR_FILE, "%s/%s: a picture of more than 1 GiB", bucket->place, name);
    zimage_status status = ask(bucket, &r, error);
    if (status == ZIMAGE_OK && (!is_good(r.code) || (bytes && r.code != 206)))
        status = refused(bucket, &r, error);
    else if (status == ZIMAGE_OK && bytes && r.got_size != bytes)
        status = zi_fail(error, ZIMAGE_ERROR_FILE, "%s/%s: it ends before the picture that the ledger knows",
                         bucket->place, name);
    if (status == ZIMAGE_OK && !r.got && !(r.got = calloc(1, 1)))
        status = zi_fail_memory(error, "a picture", 1);
    if (status != ZIMAGE_OK) {
        free(r.got);
        return status;
    }
    *data = r.got;
    *size = r.got_size;
    return ZIMAGE_OK;
}

int ledger_bucket_lacks(ledger_bucket *bucket, const char *name)
{
    request r = {.method = "GET", .name = name, .bytes = 1, .patience = SOON_SECONDS};
    int is_answered = ask(bucket, &r, NULL) == ZIMAGE_OK;
    free(r.got);
    return is_answered && r.code == 404;
}

void ledger_bucket_remove(ledger_bucket *bucket, const char *name)
{
    request r = {.method = "DELETE", .name = name, .patience = SOON_SECONDS};
    (void)ask(bucket, &r, NULL); /* what stays is only garbage */
    free(r.got);
}

/* ---- opening ---- */

static const char *environment(const char *first, const char *second)
{
    const char *value = getenv(first);
    if ((!value || !*value) && second)
        value = getenv(second);
    return value && *value ? value : NULL;
}

/* Amazon's rules for names of buckets. */
static int is_bucket_name(const char *name, size_t length)
{
    return length >= 3 && length <= 63 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") >= length &&
           *name != '.' && *name != '-';
}

static int is_region(const char *region)
{
    return strlen(region) < 64 && region[strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-")] == 0;
}

/* ENDPOINT/BUCKET/, then the parts of the prefix, escaped. */
static zimage_status make_url(ledger_bucket *b, const char *region, zimage_error *error)
{
    const char *endpoint = environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL");
    const char *name = b->place + strlen(STORE_BUCKET);
    size_t length = strcspn(name, "/"), used = endpoint ? strlen(endpoint) : 0;
    char with_prefix[URL_TEXT];
    if (!is_bucket_name(name, length))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "%s: expected " STORE_BUCKET "BUCKET/PREFIX, the bucket of 3 to 63 of a-z, 0-9, '.' and '-'",
                       b->place);
    if (endpoint && strncmp(endpoint, "https://", 8) != 0 && strncmp(endpoint, "http://", 7) != 0)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "AWS_ENDPOINT_URL: \"%s\", expected an address that begins with https:// or http://", endpoint);
    while (used > 0 && endpoint[used - 1] == '/')
        used--;
    int written = endpoint ? snprintf(b->url, URL_TEXT, "%.*s/%.*s/", (int)used, endpoint, (int)length, name)
                           : snprintf(b->url, URL_TEXT, "https://s3.%s.amazonaws.com/%.*s/", region, (int)length, name);
    if (written < URL_TEXT && !name[length])
        return ZIMAGE_OK;
    if (written >= URL_TEXT || !object_url(b, name + length + 1, with_prefix) ||
        snprintf(b->url, URL_TEXT, "%s/", with_prefix) >= URL_TEXT)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "%s: expected a prefix of names with a '/' between them",
                       b->place);
    return ZIMAGE_OK;
}

static zimage_status read_settings(ledger_bucket *b, const char *place, zimage_error *error)
{
    const char *region = environment("AWS_REGION", "AWS_DEFAULT_REGION");
    region = region ? region : "us-east-1";
    b->key = environment("AWS_ACCESS_KEY_ID", NULL);
    b->secret = environment("AWS_SECRET_ACCESS_KEY", NULL);
    b->token = environment("AWS_SESSION_TOKEN", NULL);
    size_t length = strlen(place);
    while (length > strlen(STORE_BUCKET) && place[length - 1] == '/')
        length--;
    b->place = strndup(place, length);
    b->easy = curl_easy_init();
    if (!b->place || !b->easy)
        return zi_fail_memory(error, "the connection to a store", 0);
    if (!b->key || !b->secret)
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT,
                       "%s: the environment has no %s, expected the credentials of the store", b->place,
                       b->key ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
    if (!is_region(region))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "AWS_REGION: \"%s\", expected a name such as us-east-1", region);
    snprintf(b->signing, sizeof b->signing, "aws:amz:%s:s3", region);
    return make_url(b, region, error);
}

/* An object is written twice: the second time the store must refuse. */
static zimage_status probe(ledger_bucket *b, zimage_error *error)
{
    static const char text[] = "zimage keeps results here.\n";
    int was_there = 0;
    for (int i = 0; i < 2 && !was_there; i++)
        ZI_TRY(ledger_bucket_put(b, PROBE, text, sizeof text - 1, &was_there, error));
    if (was_there)
        return ZIMAGE_OK;
    return zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED,
                   "%s: the store writes over objects that are there, expected one that obeys \"If-None-Match: *\"",
                   b->place);
}

zimage_status ledger_bucket_open(const char *place, ledger_bucket **bucket, zimage_error *error)
{
    ledger_bucket *b = *bucket = calloc(1, sizeof *b);
    if (!b)
        return zi_fail_memory(error, "the connection to a store", sizeof *b);
    b->put_seconds = SOON_SECONDS;
    zimage_status status = read_settings(b, place, error);
    if (status == ZIMAGE_OK)
        status = probe(b, error);
    b->put_seconds = PUT_SECONDS;
    if (status != ZIMAGE_OK) {
        ledger_bucket_close(b);
        *bucket = NULL;
    }
    return status;
}

void ledger_bucket_close(ledger_bucket *bucket)
{
    if (!bucket)
        return;
    curl_easy_cleanup(bucket->easy);
    free(bucket->place);
    free(bucket);
}
