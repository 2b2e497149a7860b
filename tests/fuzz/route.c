/*
 * A request line from a stranger, "METHOD PATH": the endpoint that it finds is one of the table whose pattern the path
 * has, by other means than the server's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "serve/route.h"

/* Whether the path has the pattern: as many parts, and each is the same or has a parameter's place. */
static int has_pattern(const char *pattern, const char *path)
{
    char *patterns = strdup(pattern), *paths = strdup(path), *a = patterns, *b = paths;
    int same = patterns && paths;
    while (same && a && b) {
        char *p = strsep(&a, "/"), *q = strsep(&b, "/");
        same = *p == '{' ? *q != 0 : !strcmp(p, q);
    }
    same &= !a && !b;
    free(patterns);
    free(paths);
    return same;
}

/* A parameter encoded again, each byte as "%XX", is found as the same parameter. */
static void encode_again(const route_match *match)
{
    char path[64 + 3 * ROUTE_PARAMETER_SIZE], *at = path;
    route_match again;
    at += sprintf(at, "/v1/models/");
    for (const char *c = match->parameters[0]; *c; c++)
        at += sprintf(at, "%%%02x", (unsigned char)*c);
    if (!route_find("GET", path, &again) || !again.endpoint || strcmp(again.parameters[0], match->parameters[0]) != 0)
        zi_fuzz_fail("%s: another parameter", path);
}

static void check(const char *method, const char *path, const route_match *match, int is_good)
{
    size_t same = 0;
    for (size_t i = 0; i < route_table_size; i++)
        same += has_pattern(route_table[i].path, path);
    if (!is_good && (same == 0 || !strchr(path, '%')) && strlen(path) < ROUTE_PARAMETER_SIZE)
        zi_fuzz_fail("%s: called malformed", path);
    if (!is_good)
        return;
    if ((same > 0) != (match->allow[0] != 0))
        zi_fuzz_fail("%s: %zu patterns, allowed: \"%s\"", path, same, match->allow);
    if (!match->endpoint)
        return;
    if (!has_pattern(match->endpoint->path, path))
        zi_fuzz_fail("%s: found %s", path, match->endpoint->path);
    if (strcmp(match->endpoint->method, method) != 0 && strcmp(method, "HEAD") != 0)
        zi_fuzz_fail("%s %s: found %s", method, path, match->endpoint->method);
    if (match->parameters[0][0])
        encode_again(match);
}

static int run(const uint8_t *data, size_t size)
{
    route_match match;
    char *line = malloc(size + 1);
    if (!line)
        zi_fuzz_fail("out of memory");
    memcpy(line, data, size);
    line[size] = 0;
    char *path = strchr(line, ' ');
    if (!path) {
        free(line);
        return ZI_FUZZ_DISCARD;
    }
    *path++ = 0;
    int is_good = route_find(line, path, &match);
    zi_fuzz_note(!is_good ? "malformed" : match.endpoint ? match.endpoint->path : match.allow);
    check(line, path, &match, is_good);
    free(line);
    return ZI_FUZZ_KEEP;
}

const zi_fuzz_target zi_fuzz_route = {.name = "route", .run = run};
