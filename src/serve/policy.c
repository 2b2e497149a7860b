#include "policy.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "shared/base64.h"
#include "shared/hash.h"
#include "shared/words.h"

#define LINE_MAX_BYTES 512
#define HOST_MAX       256
#define RATE_MAX       1e6

#define FNV_PRIME UINT64_C(1099511628211)

uint64_t policy_hash(uint64_t start, const char *text)
{
    uint64_t hash = start * UINT64_C(0x9E3779B97F4A7C15) ^ UINT64_C(14695981039346656037);
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * FNV_PRIME;
    return hash;
}

/* Splits "name:port" or "[::1]:port"; port 0: there is none. 0: it is malformed. */
static int split_host(const char *host, char name[HOST_MAX], long *port)
{
    int is_six = *host == '[';
    const char *start = host + is_six, *end = is_six ? strchr(host, ']') : host + strcspn(host, ":");
    const char *rest = end ? end + is_six : "";
    size_t length = end ? (size_t)(end - start) : 0, digits = *rest == ':' ? strspn(rest + 1, "0123456789") : 0;
    *port = digits ? strtol(rest + 1, NULL, 10) : 0;
    int is_good = !*rest || (digits > 0 && rest[1] != '0' && !rest[1 + digits] && *port <= 65535);
    if (!is_good || length == 0 || length >= HOST_MAX)
        return 0;
    memcpy(name, start, length);
    name[length] = 0;
    return 1;
}

/* ---- keys ---- */

/* Requests a second. 0: it is no such number. */
static int read_rate(const char *text, double *rate)
{
    char *end;
    *rate = strtod(text, &end);
    return isdigit((unsigned char)*text) && !*end && *rate > 0 && *rate <= RATE_MAX;
}

/* "KEY", "NAME:KEY" or "NAME:KEY:RATE"; 0: it is none of them, too long, or there is no room. */
static int add_key(policy *p, const char *line)
{
    const char *colon = strchr(line, ':'), *text = colon ? colon + 1 : line;
    size_t length = strcspn(text, ":");
    policy_key *key = &p->keys[p->key_count];
    if (p->key_count == POLICY_KEYS_MAX || length >= POLICY_KEY_MAX || length == 0)
        return 0;
    if (text[length] && !read_rate(text + length + 1, &key->rate))
        return 0;
    snprintf(key->name, sizeof key->name, "%.*s", colon ? (int)(colon - line) : 0, line);
    memcpy(key->text, text, length); /* the rest is zeros */
    p->key_count++;
    return 1;
}

static int same_key_twice(const policy *p)
{
    for (int i = 1; i < p->key_count; i++)
        for (int k = 0; k < i; k++)
            if (!strcmp(p->keys[i].text, p->keys[k].text))
                return 1;
    return 0;
}

static int read_keys(policy *p, const char *path, zimage_error *error)
{
    char line[LINE_MAX_BYTES];
    int number = 0, ok = 1;
    FILE *file = fopen(path, "re");
    if (!file) {
        error->status = ZIMAGE_ERROR_FILE;
        snprintf(error->message, sizeof error->message, "key_file: %s: can't be read: %s", path, strerror(errno));
        return 0;
    }
    for (; ok && fgets(line, sizeof line, file); number++) {
        line[strcspn(line, "\r\n")] = 0;
        if (*line && *line != '#')
            ok = add_key(p, line);
    }
    fclose(file);
    if (!ok)
        snprintf(error->message, sizeof error->message,
                 "key_file: %s: line %d, expected KEY, NAME:KEY or NAME:KEY:RATE, a key of at most %d characters "
                 "without a colon, and at most %d keys",
                 path, number, POLICY_KEY_MAX - 1, POLICY_KEYS_MAX);
    else if (p->key_count == 0)
        snprintf(error->message, sizeof error->message, "key_file: %s: expected a key on one of its lines", path);
    else if (!(ok = !same_key_twice(p)))
        snprintf(error->message, sizeof error->message, "key_file: %s: the same key is there twice, expected each once",
                 path);
    if (ok && p->key_count > 0)
        return 1;
    error->status = ZIMAGE_ERROR_FORMAT;
    return 0;
}

int policy_is_loopback(const char *address)
{
    struct in_addr four;
    struct in6_addr six;
    if (inet_pton(AF_INET, address, &four) == 1)
        return ntohl(four.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, address, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

static int is_address(const char *text)
{
    struct in6_addr either;
    return inet_pton(AF_INET, text, &either) == 1 || inet_pton(AF_INET6, text, &either) == 1;
}

/* The key that an option or the environment gives. */
static int take_key(policy *p, const char *text, zimage_error *error)
{
    size_t length = strlen(text);
    if (length < POLICY_KEY_MAX && length > 0) {
        memcpy(p->keys[p->key_count++].text, text, length);
        return 1;
    }
    snprintf(error->message, sizeof error->message, "api_key: expected 1 to %d characters", POLICY_KEY_MAX - 1);
    error->status = ZIMAGE_ERROR_ARGUMENT;
    return 0;
}

/* "https://images.example:8443", perhaps with a path behind it. */
static int take_public_url(policy *p, const char *url, zimage_error *error)
{
    const char *host = url ? strstr(url, "://") : NULL;
    int is_http = url && (!strncmp(url, "http://", strlen("http://")) || !strncmp(url, "https://", strlen("https://")));
    long port;
    if (!url)
        return 1;
    char authority[HOST_MAX];
    snprintf(authority, sizeof authority, "%.*s", host ? (int)strcspn(host + 3, "/") : 0, host ? host + 3 : "");
    if (is_http && strlen(url) < sizeof p->public_url && split_host(authority, p->public_host, &port)) {
        size_t length = strlen(url);
        while (url[length - 1] == '/')
            length--;
        snprintf(p->public_url, sizeof p->public_url, "%.*s", (int)length, url);
        return 1;
    }
    snprintf(error->message, sizeof error->message,
             "public_url: \"%.200s\", expected an address such as https://images.example", url);
    error->status = ZIMAGE_ERROR_ARGUMENT;
    return 0;
}

/* Of a request's header Host, which is compared without its port: a name, or an address of IPv6. */
static int is_host_name(const char *text)
{
    char name[HOST_MAX];
    struct in6_addr six;
    long port;
    for (const char *c = text; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("-._:", *c))
            return 0;
    return inet_pton(AF_INET6, text, &six) == 1 || (split_host(text, name, &port) && !strchr(text, ':'));
}

/* What browsers send as Origin: "https://images.example:8443", without a path. */
static int is_origin(const char *text)
{
    char name[HOST_MAX];
    long port;
    const char *mark = strstr(text, "://");
    return mark && mark > text && !strchr(mark + 3, '/') && split_host(mark + 3, name, &port);
}

/* Words that no request could have would have no effect. */
static int check_words(const char *list, int (*is_good)(const char *), const char *option, const char *expected,
                       zimage_error *error)
{
    char text[HOST_MAX];
    size_t length;
    for (const char *word = list; (word = words_next(word, ',', &length)); word += length) {
        snprintf(text, sizeof text, "%.*s", (int)length, word);
        if (length < sizeof text && is_good(text))
            continue;
        snprintf(error->message, sizeof error->message, "%s: \"%s\", expected %s", option, text, expected);
        error->status = ZIMAGE_ERROR_ARGUMENT;
        return 0;
    }
    return 1;
}

static int hash_keys(policy *p, zimage_error *error)
{
    static const char mark[] = "zimage owner ";
    char hash[HASH_TEXT];
    for (policy_key *key = p->keys; key < p->keys + p->key_count; key++) {
        const hash_piece pieces[] = {{mark, strlen(mark)}, {key->text, strlen(key->text)}};
        if (!hash_sha256(pieces, 2, hash)) {
            snprintf(error->message, sizeof error->message, "there is no memory for the API keys");
            error->status = ZIMAGE_ERROR_MEMORY;
            return 0;
        }
        snprintf(key->hash, sizeof key->hash, "%.32s", hash);
    }
    return 1;
}

int policy_init(policy *p, const serve_params *params, zimage_error *error)
{
    *p = (policy){.params = params};
    if (params->key_file && !read_keys(p, params->key_file, error))
        return 0;
    if (params->key && !take_key(p, params->key, error))
        return 0;
    if (!take_public_url(p, params->public_url, error) || !hash_keys(p, error) ||
        !check_words(params->allowed_hosts, is_host_name, "allow_host", "a name such as images.example, without a port",
                     error) ||
        !check_words(params->allowed_origins, is_origin, "cors_origins", "an origin such as https://images.example",
                     error))
        return 0;
    if (params->unix_path || policy_is_loopback(params->host) || p->key_count > 0 || params->insecure)
        return 1;
    if (!is_address(params->host)) /* listen_on refuses it */
        return 1;
    snprintf(error->message, sizeof error->message,
             "host: \"%s\", expected an address of this machine alone, such as 127.0.0.1; another one needs key_file",
             params->host);
    error->status = ZIMAGE_ERROR_ARGUMENT;
    return 0;
}

/* Takes the same time whether or not the keys are alike. */
static int is_same_key(const char a[POLICY_KEY_MAX], const char b[POLICY_KEY_MAX])
{
    unsigned char differs = 0;
    for (size_t i = 0; i < POLICY_KEY_MAX; i++)
        differs |= (unsigned char)(a[i] ^ b[i]);
    return differs == 0;
}

/* The key in "Bearer KEY", or the password of "Basic BASE64"; 0: there is none. */
static int key_of(const char *authorization, char key[POLICY_KEY_MAX])
{
    memset(key, 0, POLICY_KEY_MAX);
    if (!strncasecmp(authorization, "Bearer ", strlen("Bearer ")))
        return snprintf(key, POLICY_KEY_MAX, "%s", authorization + strlen("Bearer ")) < POLICY_KEY_MAX;
    uint8_t *data;
    size_t size;
    const char *text = authorization + strlen("Basic ");
    if (strncasecmp(authorization, "Basic ", strlen("Basic ")) != 0 || !base64_read(text, strlen(text), &data, &size))
        return 0;
    const uint8_t *colon = memchr(data, ':', size);
    size_t length = colon ? size - (size_t)(colon + 1 - data) : 0;
    int ok = colon && length < POLICY_KEY_MAX;
    if (ok)
        memcpy(key, colon + 1, length);
    free(data);
    return ok;
}

const policy_key *policy_key_of(const policy *p, uint64_t owner)
{
    return owner ? &p->keys[owner - 1] : NULL;
}

int policy_authorize(const policy *p, const char *authorization, uint64_t *owner, fault *f)
{
    char key[POLICY_KEY_MAX];
    *owner = 0;
    if (p->key_count == 0)
        return 1;
    if (authorization && key_of(authorization, key))
        for (int i = 0; i < p->key_count; i++)
            if (is_same_key(p->keys[i].text, key))
                *owner = (uint64_t)i + 1;
    return *owner || fault_set(f, FAULT_INVALID_API_KEY, NULL, "a valid API key is missing: Authorization: Bearer KEY");
}

/* ---- hosts and origins ---- */

int policy_host(const policy *p, const char *host, fault *f)
{
    char name[HOST_MAX];
    long port;
    if (!host || !split_host(host, name, &port))
        return fault_set(f, FAULT_HOST_NOT_ALLOWED, NULL, "the header Host is missing or malformed");
    if (words_have(p->params->allowed_hosts, ',', name, strncasecmp))
        return 1;
    if (p->public_host[0] && !strcasecmp(name, p->public_host))
        return 1;
    if (p->params->unix_path && (!strcasecmp(name, "localhost") || policy_is_loopback(name)))
        return 1;
    int is_own_port = port == p->port || (port == 0 && p->port == (p->params->tls_cert ? 443 : 80));
    if (is_own_port && (!strcasecmp(name, "localhost") || policy_is_loopback(name) || !strcmp(name, p->params->host)))
        return 1;
    return fault_set(f, FAULT_HOST_NOT_ALLOWED, NULL,
                     "Host: \"%.100s\" is no name of this server; --allow-host adds one", host);
}

int policy_is_foreign_allowed(const policy *p, const char *origin)
{
    return origin && strcmp(origin, "null") != 0 && words_have(p->params->allowed_origins, ',', origin, strncasecmp);
}

/* Whether it is the server's own as clients reach it through a proxy, which may send another Host. */
static int is_public_origin(const policy *p, const char *origin)
{
    size_t length = origin ? strlen(origin) : 0;
    return length > strlen("http://") && !strncasecmp(p->public_url, origin, length) &&
           (!p->public_url[length] || p->public_url[length] == '/');
}

int policy_origin(const policy *p, const char *host, const char *origin, const char *fetch_site, int is_navigation,
                  fault *f)
{
    const char *own = origin ? strstr(origin, "://") : NULL;
    int is_foreign = fetch_site && (!strcmp(fetch_site, "cross-site") || !strcmp(fetch_site, "same-site"));
    if (policy_is_foreign_allowed(p, origin) || is_public_origin(p, origin))
        return 1;
    if (origin && !(own && !strcasecmp(own + strlen("://"), host)))
        return fault_set(f, FAULT_ORIGIN_NOT_ALLOWED, NULL,
                         "Origin: \"%.100s\" may not use this server; --cors-origins adds one", origin);
    if (!origin && is_foreign && !is_navigation)
        return fault_set(f, FAULT_ORIGIN_NOT_ALLOWED, NULL, "pages of other sites may not use this server");
    return 1;
}
