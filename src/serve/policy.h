/*
 * Whom the server believes: a browser on this machine runs pages of strangers, which can send requests here.
 *
 * Host must be a name that the server goes by, which ends DNS rebinding. An Origin must be the server's own or one that
 * the user has named; "null" is neither. A key, where there are keys, is needed for all that is not public.
 */
#ifndef ZI_SERVE_POLICY_H
#define ZI_SERVE_POLICY_H

#include <stddef.h>
#include <stdint.h>

#include "fault.h"
#include "ids.h"
#include "serve.h"

#define POLICY_KEYS_MAX 64
#define POLICY_KEY_MAX  256

typedef struct policy_key {
    char name[64];              /* for the log */
    double rate;                /* requests a second; 0: as all others */
    char hash[OWNER_HASH_TEXT]; /* of the text: the owner of jobs in a ledger */
    char text[POLICY_KEY_MAX];  /* zeros behind it, so that comparing takes the same time for all keys */
} policy_key;

typedef struct policy {
    const serve_params *params;
    int port; /* that is listened on */
    policy_key keys[POLICY_KEYS_MAX];
    int key_count;
    char public_url[512], public_host[256]; /* empty: there is none */
} policy;

/* Reads the file of keys; refuses to listen beyond loopback without one. */
int policy_init(policy *p, const serve_params *params, zimage_error *error);
/* Whether an address is one of this machine's alone. */
int policy_is_loopback(const char *address);

/* 0: a fault. Headers that are absent are NULL. fetch_site: Sec-Fetch-Site. */
int policy_host(const policy *p, const char *host, fault *f);
int policy_origin(const policy *p, const char *host, const char *origin, const char *fetch_site, int is_navigation,
                  fault *f);
/* Whether a page of that origin may read answers: the server then says so by CORS. */
int policy_is_foreign_allowed(const policy *p, const char *origin);
/* The key of a number from policy_authorize; NULL: there are no keys. */
const policy_key *policy_key_of(const policy *p, uint64_t owner);
/* Sets the number of the key that Authorization holds, from 1; 0 without keys. */
int policy_authorize(const policy *p, const char *authorization, uint64_t *owner, fault *f);

/* A number for a text: FNV-1a of 64 bits, begun with `start`. */
uint64_t policy_hash(uint64_t start, const char *text);

#endif
