/*
 * Requests to a hub, with libcurl. Redirects are followed here and not by libcurl: the token may go to the hub only,
 * and a redirect to another host is where a file lies.
 */
#ifndef ZI_HUB_HTTP_H
#define ZI_HUB_HTTP_H

#include <curl/curl.h>

#include "hub/settings.h"

#define HUB_REDIRECTS 10

typedef struct hub_http {
    const hub_settings *settings;
    const char *id, *revision;                        /* of the model, for messages */
    int retries;                                      /* requests that may fail one after the other */
    int (*stopping)(void);                            /* may be NULL; anything but 0 stops */
    void (*notice)(const char *sentence, void *user); /* may be NULL; why it waits */
    void *user;
} hub_http;

/* An answer that is held in memory. */
typedef struct hub_answer {
    char *text; /* zero-terminated; released with free */
    size_t length;
    char next[HUB_URL_MAX]; /* the next page; "": there is none */
} hub_answer;

/* GET, with redirects and repetitions. The address is that of the hub. */
hub_result hub_http_get(const hub_http *http, const char *url, hub_answer *answer, zimage_error *error);

/* ---- for transfer.c ---- */

/* Sets what all requests have in common. with_token: the address is the hub's own. The list is released with
 * curl_slist_free_all after the request. */
hub_result hub_http_prepare(const hub_http *http, CURL *easy, const char *url, int with_token,
                            struct curl_slist **headers, zimage_error *error);

/* Where the redirect that a request got leads. *stays: to the hub itself, so that the token may go there. */
hub_result hub_http_redirect(const hub_http *http, CURL *easy, const char *from, char target[HUB_URL_MAX], int *stays,
                             zimage_error *error);

/* What an answer with an error means. */
typedef struct hub_fault {
    hub_result result;
    int is_passing; /* 1: the request may be repeated, */
    double wait;    /* after so many seconds; 0: the hub does not say */
    char sentence[512];
} hub_fault;

/* code: of curl_easy_perform; what: what was asked for. */
void hub_http_fault(const hub_http *http, CURL *easy, CURLcode code, const char *what, hub_fault *fault);

/* Seconds to wait before repetition number `failures` (1, 2, ...): 1, 2, 4, ... 60, and a random part. */
double hub_http_pause(int failures);
/* Whether an address is that of the hub, which may get the token. */
int hub_http_is_hub(const hub_http *http, const char *url);
/* A header of the last answer; "": there is none. It stays valid until the next request. */
const char *hub_http_header(CURL *easy, const char *name);
/* "scheme://host:port" of an address that may be asked; an error says why it may not. */
hub_result hub_http_origin(const hub_http *http, const char *url, char origin[HUB_URL_MAX], zimage_error *error);
/* Text as a part of a path or of a query. NULL: no memory. Released with curl_free. */
char *hub_http_escape(const char *text);

#endif
