/* The checks before a body is read, in this order: names that the server goes by, pages of strangers, the path, the
 * key, the rate of requests, the body's kind and size. */
#include <math.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "handlers.h"

#define BY_ADDRESS        (UINT64_C(1) << 63) /* of an id: it is that of an address, not of a key */
#define MINUTE            60.0
#define KEY_BURST_SECONDS 5 /* whose requests a key with a rate of its own may send at once */

/* ---- bodies ---- */

/* Bodies of all requests together have a limit. 0: there is no room. */
int exchange_reserve(exchange *x, uint64_t bytes)
{
    pthread_mutex_lock(&x->server->lock);
    int ok = x->server->metrics.upload_bytes + bytes <= x->server->params->max_uploads;
    if (ok) {
        x->server->metrics.upload_bytes += bytes;
        x->reserved += bytes;
    }
    pthread_mutex_unlock(&x->server->lock);
    if (ok)
        return 1;
    fault_set(&x->fault, FAULT_INSUFFICIENT_MEMORY, NULL, "too many large requests are being read; try again later");
    x->fault.retry_after = 1;
    return 0;
}

static int media_of(const exchange *x, unsigned bodies, body_kind *kind)
{
    static const struct {
        const char *type;
        body_kind kind;
    } types[] = {{"application/json", BODY_JSON}, {"multipart/form-data", BODY_FORM}};
    const char *type = exchange_header(x, "Content-Type");
    *kind = BODY_NONE;
    if (bodies & 1u << BODY_NONE)
        return 1;
    *kind = BODY_BYTES;
    if (bodies & 1u << BODY_BYTES)
        return 1;
    for (size_t i = 0; type && i < sizeof types / sizeof *types; i++) {
        size_t length = strlen(types[i].type);
        *kind = types[i].kind;
        if ((bodies & 1u << *kind) && !strncasecmp(type, types[i].type, length) && strchr("; \t", type[length]))
            return 1;
    }
    return 0;
}

/* Bytes that the body may have. */
static size_t limit_of(const exchange *x)
{
    size_t limit = x->match.endpoint->limit;
    uint64_t most = x->server->params->max_body;
    return most < limit ? (size_t)most : limit;
}

static int begin_body(exchange *x)
{
    const endpoint *e = x->match.endpoint;
    size_t limit = limit_of(x);
    const char *length = exchange_header(x, "Content-Length");
    unsigned long long size = length ? strtoull(length, NULL, 10) : 0;
    body_kind kind;
    if (!media_of(x, e->bodies, &kind))
        return fault_set(&x->fault, FAULT_UNSUPPORTED_MEDIA_TYPE, NULL, "Content-Type: expected %s%s%s",
                         e->bodies & 1u << BODY_JSON ? "application/json" : "",
                         e->bodies == (1u << BODY_JSON | 1u << BODY_FORM) ? " or " : "",
                         e->bodies & 1u << BODY_FORM ? "multipart/form-data" : "");
    if (size > limit)
        return fault_set(&x->fault, FAULT_REQUEST_TOO_LARGE, NULL, "the body has %llu bytes, expected at most %zu",
                         size, limit);
    if (!exchange_reserve(x, size))
        return 0;
    x->body = body_new(kind, limit, x->connection);
    return x->body || fault_set(&x->fault, FAULT_INVALID_VALUE, NULL,
                                "Content-Type: the form has no boundary, expected multipart/form-data; boundary=...; "
                                "or there is no memory");
}

/* ---- rates ---- */

/* A number for the client's address, of IPv6 for its network of 64 bits; 0: it has none. */
static uint64_t address_of(const exchange *x)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *address = info ? info->client_addr : NULL;
    uint64_t number = 0;
    if (address && address->sa_family == AF_INET)
        number = ((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr;
    else if (address && address->sa_family == AF_INET6)
        memcpy(&number, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, sizeof number);
    else
        return 0;
    return BY_ADDRESS | number;
}

static int refuse_often(exchange *x, double wait, const char *reason)
{
    fault_set(&x->fault, FAULT_RATE_LIMIT, NULL, "%s; try again in %.0f seconds", reason, ceil(wait));
    x->fault.retry_after = ceil(wait);
    return 0;
}

/* A key with a rate of its own counts alone. */
static int is_rate_kept(exchange *x, uint64_t address)
{
    const serve_params *p = x->server->params;
    const policy_key *key = policy_key_of(&x->http->policy, x->owner);
    const double own = key ? key->rate : 0;
    const rate_limit all = {p->rate, p->burst}, one = {own, own * KEY_BURST_SECONDS};
    double wait;
    if (key && !rate_take(&x->http->requests, x->owner, own > 0 ? &one : &all, 1, x->started, &wait))
        return refuse_often(x, wait, "the key has sent too many requests");
    if (own > 0 || !address || rate_take(&x->http->requests, address, &all, 1, x->started, &wait))
        return 1;
    return refuse_often(x, wait, "the address has sent too many requests");
}

/* After too many wrong keys of an address no key of it is looked at for a while: nobody can try many. */
static int authorize(exchange *x)
{
    const policy *p = &x->http->policy;
    const char *authorization = exchange_header(x, "Authorization");
    const double failed = x->server->params->failed_keys;
    const rate_limit limit = {address_of(x) ? failed / MINUTE : 0, failed};
    const uint64_t address = address_of(x);
    double wait;
    if (authorization && p->key_count && !rate_take(&x->http->failures, address, &limit, 0, x->started, &wait))
        return refuse_often(x, wait, "the address has sent too many wrong keys");
    if (policy_authorize(p, authorization, &x->owner, &x->fault))
        return (x->match.endpoint->flags & ROUTE_UNCOUNTED) || is_rate_kept(x, address);
    if (authorization)
        rate_take(&x->http->failures, address, &limit, 1, x->started, &wait);
    return 0;
}

static int is_public(const exchange *x, const endpoint *e)
{
    return (e->flags & ROUTE_PUBLIC) || (x->server->params->is_metrics_public && e->handle == handle_metrics);
}

int exchange_check(exchange *x)
{
    const policy *p = &x->http->policy;
    const char *host = exchange_header(x, "Host"), *origin = exchange_header(x, "Origin");
    const char *mode = exchange_header(x, "Sec-Fetch-Mode");
    int is_known = route_find(x->method, x->url, &x->match);
    const endpoint *e = x->match.endpoint;
    int is_navigation = mode && !strcmp(mode, "navigate") && !strcmp(x->url, "/");
    if (!policy_host(p, host, &x->fault) ||
        !policy_origin(p, host, origin, exchange_header(x, "Sec-Fetch-Site"), is_navigation, &x->fault))
        return 0;
    x->origin = policy_is_foreign_allowed(p, origin) ? origin : NULL;
    if (!strcmp(x->method, "OPTIONS"))
        return 1;
    if (!is_known)
        return fault_set(&x->fault, FAULT_INVALID_VALUE, NULL, "the path is malformed");
    if (!e && x->match.allow[0])
        return fault_set(&x->fault, FAULT_METHOD_NOT_ALLOWED, NULL, "the method is not allowed here, expected %s",
                         x->match.allow);
    if (!e)
        return fault_set(&x->fault, FAULT_UNSUPPORTED_ENDPOINT, NULL,
                         "%.200s: there is no such endpoint; /openapi.json lists them", x->url);
    if (!is_public(x, e) && !authorize(x))
        return 0;
    return begin_body(x);
}
