/*
 * Headers from a stranger, a line each: Host, Origin, Sec-Fetch-Site, Authorization; an empty line is an absent header.
 * Who is let in has a name, an origin, a key of those that were allowed, by another reading than the server's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "fuzz.h"
#include "serve/policy.h"
#include "shared/base64.h"

#define PORT    8421
#define FRIEND  "https://friend.example"
#define KEY     "the-key"
#define HEADERS 4

static const serve_params params = {
    .host = "127.0.0.1", .port = PORT, .allowed_hosts = "images.example,other.example", .allowed_origins = FRIEND};
static policy rules = {.params = &params, .port = PORT, .keys = {{.name = "ann", .text = KEY}}, .key_count = 1};

/* Whether the text is one of the names, with or without one of the ends. */
static int is_one_of(const char *text, const char *const *names, const char *const *ends)
{
    for (; *names; names++)
        for (const char *const *end = ends; *end; end++)
            if (!strncasecmp(text, *names, strlen(*names)) && !strcmp(text + strlen(*names), *end))
                return 1;
    return 0;
}

/* An address 127.x.y.z with the port, which has many forms, is taken apart. */
static int is_loopback_four(const char *host)
{
    int parts = 0, at = 0;
    unsigned part[4];
    if (sscanf(host, "%3u.%3u.%3u.%3u:8421%n", &part[0], &part[1], &part[2], &part[3], &at) < 4)
        return 0;
    for (int i = 0; i < 4; i++)
        parts += part[i] <= 255;
    return part[0] == 127 && parts == 4 && at > 0 && !host[at] && strspn(host, "0123456789.:") == strlen(host);
}

static int is_own_host(const char *host)
{
    static const char *const own[] = {"localhost", NULL}, *const own_port[] = {":8421", NULL};
    static const char *const others[] = {"images.example", "other.example", NULL};
    const char *colon = strchr(host, ':');
    const size_t digits = colon ? strspn(colon + 1, "0123456789") : 0;
    if (is_one_of(host, own, own_port) || is_loopback_four(host))
        return 1;
    if (host[0] == '[') { /* any spelling of ::1 */
        const char *end = strchr(host, ']');
        return end && !strcmp(end + 1, ":8421") && strspn(host + 1, "0:1.") == (size_t)(end - host - 1);
    }
    for (const char *const *name = others; *name; name++)
        if (!strncasecmp(host, *name, strlen(*name)) &&
            (!host[strlen(*name)] || (colon == host + strlen(*name) && digits > 0 && !colon[1 + digits])))
            return 1;
    return 0;
}

static void check_host(const char *host)
{
    fault f = {0};
    int ok = policy_host(&rules, host, &f);
    if (ok && !(host && is_own_host(host)))
        zi_fuzz_fail("Host: %s was let in", host ? host : "(none)");
    if (!ok && (f.code != FAULT_HOST_NOT_ALLOWED || !f.message[0]))
        zi_fuzz_fail("Host: %s has no fault", host ? host : "(none)");
    if (!ok && host && !strcasecmp(host, "localhost:8421"))
        zi_fuzz_fail("Host: %s was not let in", host);
}

static void check_origin(const char *host, const char *origin, const char *site)
{
    fault f = {0};
    int ok = policy_origin(&rules, host, origin, site, 0, &f), is_own = 0;
    const char *rest = origin ? strstr(origin, "://") : NULL;
    is_own = rest && !strcasecmp(rest + 3, host);
    if (ok && origin && !is_own && strcasecmp(origin, FRIEND) != 0)
        zi_fuzz_fail("Origin: %s was let in", origin);
    if (ok && !origin && site && (!strcmp(site, "cross-site") || !strcmp(site, "same-site")))
        zi_fuzz_fail("Sec-Fetch-Site: %s was let in", site);
    if (!ok && f.code != FAULT_ORIGIN_NOT_ALLOWED)
        zi_fuzz_fail("Origin: %s has no fault", origin ? origin : "(none)");
}

static int holds_key(const char *authorization)
{
    uint8_t *data = NULL;
    size_t size = 0;
    if (!strncasecmp(authorization, "Bearer ", 7))
        return !strcmp(authorization + 7, KEY);
    if (strncasecmp(authorization, "Basic ", 6) != 0 ||
        !base64_read(authorization + 6, strlen(authorization + 6), &data, &size))
        return 0;
    int holds = size > strlen(KEY) && memmem(data, size, ":" KEY, strlen(":" KEY)) != NULL;
    free(data);
    return holds;
}

static void check_key(const char *authorization)
{
    fault f = {0};
    uint64_t owner = 0;
    int ok = policy_authorize(&rules, authorization, &owner, &f);
    if (ok != (owner == 1) || (ok && !(authorization && holds_key(authorization))))
        zi_fuzz_fail("Authorization: %s was let in", authorization ? authorization : "(none)");
    if (!ok && f.code != FAULT_INVALID_API_KEY)
        zi_fuzz_fail("Authorization: %s has no fault", authorization ? authorization : "(none)");
}

static int run(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *rest = text, *headers[HEADERS] = {0};
    if (!text)
        zi_fuzz_fail("out of memory");
    memcpy(text, data, size);
    text[size] = 0;
    for (int i = 0; i < HEADERS && rest; i++) {
        headers[i] = strsep(&rest, "\n");
        if (!*headers[i])
            headers[i] = NULL;
    }
    check_host(headers[0]);
    if (headers[0])
        check_origin(headers[0], headers[1], headers[2]);
    check_key(headers[3]);
    free(text);
    return ZI_FUZZ_KEEP;
}

const zi_fuzz_target zi_fuzz_policy = {.name = "policy", .run = run};
