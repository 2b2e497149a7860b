#include "policy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base64.h"

#define LINE_MAX_BYTES 512
#define HOST_MAX       256

#define FNV_PRIME UINT64_C(1099511628211)

uint64_t policy_hash(uint64_t start, const char *text)
{
    uint64_t hash = start ^ UINT64_C(14695981039346656037);
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * FNV_PRIME;
    return hash;
}

/* ---- keys ---- */

/* "NAME:KEY" or "KEY"; 0: it is too long, or empty. */
static int add_key(policy *p, const char *line)
{
    const char *colon = strchr(line, ':'), *text = colon ? colon + 1 : line;
    policy_key *key = &p->keys[p->key_count];
    if (p->key_count == POLICY_KEYS_MAX || strlen(text) >= POLICY_KEY_MAX || !*text)
        return 0;
    snprintf(key->name, sizeof key->name, "%.*s", colon ? (int)(colon - line) : 0, line);
    memcpy(key->text, text, strlen(text)); /* the rest is zeros */
    p->key_count++;
    return 1;
}

static int read_keys(policy *p, const char *path, zimage_error *error)
{
    char line[LINE_MAX_BYTES];
    int number = 0, ok = 1;
    FILE *file = fopen(path, "re");
    if (!file) {
        error->status = ZIMAGE_ERROR_FILE;
        snprintf(error->message, sizeof error->message, "%s: can't be read: %s", path, strerror(errno));
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
                 "%s: line %d, expected KEY or NAME:KEY of at most %d characters", path, number, POLICY_KEY_MAX - 1);
    else if (p->key_count == 0)
        snprintf(error->message, sizeof error->message, "%s: expected a key on one of its lines", path);
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

int policy_init(policy *p, const serve_params *params, zimage_error *error)
{
    *p = (policy){.params = params};
    if (params->key_file && !read_keys(p, params->key_file, error))
        return 0;
    if (policy_is_loopback(params->host) || params->key_file || params->insecure)
        return 1;
    snprintf(error->message, sizeof error->message,
             "host: %s, expected an address of this machine alone, such as 127.0.0.1, or a key file, or insecure",
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

/* Splits "name:port" or "[::1]:port"; port 0: there is none. 0: it is malformed. */
static int split_host(const char *host, char name[HOST_MAX], long *port)
{
    const char *end = *host == '[' ? strchr(host, ']') : NULL, *start = end ? host + 1 : host;
    const char *colon = strrchr(end ? end : host, ':');
    size_t length = end ? (size_t)(end - start) : colon ? (size_t)(colon - host) : strlen(host);
    char *rest = "";
    *port = colon ? strtol(colon + 1, &rest, 10) : 0;
    if (length == 0 || length >= HOST_MAX || *rest || (colon && (*port < 1 || *port > 65535)))
        return 0;
    memcpy(name, start, length);
    name[length] = 0;
    return 1;
}

/* Whether a list separated by commas holds a name. */
static int is_listed(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *c = list; c && *c; c += strspn(c, ", ")) {
        size_t end = strcspn(c, ",");
        if (end == length && !strncasecmp(c, name, length))
            return 1;
        c += end;
    }
    return 0;
}

int policy_host(const policy *p, const char *host, fault *f)
{
    char name[HOST_MAX];
    long port;
    if (!host || !split_host(host, name, &port))
        return fault_set(f, FAULT_HOST_NOT_ALLOWED, NULL, "the header Host is missing or malformed");
    if (is_listed(p->params->allowed_hosts, name))
        return 1;
    int is_own_port = port == p->port || (port == 0 && p->port == 80);
    if (is_own_port && (!strcasecmp(name, "localhost") || policy_is_loopback(name) || !strcmp(name, p->params->host)))
        return 1;
    return fault_set(f, FAULT_HOST_NOT_ALLOWED, NULL,
                     "Host: \"%.100s\" is no name of this server; --allow-host adds one", host);
}

int policy_is_foreign_allowed(const policy *p, const char *origin)
{
    return origin && strcmp(origin, "null") != 0 && is_listed(p->params->allowed_origins, origin);
}

int policy_origin(const policy *p, const char *host, const char *origin, const char *fetch_site, int is_navigation,
                  fault *f)
{
    const char *own = origin ? strstr(origin, "://") : NULL;
    int is_foreign = fetch_site && (!strcmp(fetch_site, "cross-site") || !strcmp(fetch_site, "same-site"));
    if (policy_is_foreign_allowed(p, origin))
        return 1;
    if (origin && !(own && !strcasecmp(own + strlen("://"), host)))
        return fault_set(f, FAULT_ORIGIN_NOT_ALLOWED, NULL,
                         "Origin: \"%.100s\" may not use this server; --cors-origins adds one", origin);
    if (!origin && is_foreign && !is_navigation)
        return fault_set(f, FAULT_ORIGIN_NOT_ALLOWED, NULL, "pages of other sites may not use this server");
    return 1;
}
