/* Downloading files: several at once, large ones in segments over several connections, hashed while they arrive. */
#ifndef ZI_HUB_TRANSFER_H
#define ZI_HUB_TRANSFER_H

#include "hub/cache.h"
#include "hub/http.h"
#include "hub/hub.h"

typedef struct hub_transfer_params {
    const hub_http *http;
    const hub_cache *cache;
    const hub_listing *listing;
    uint64_t limit;         /* bytes a second; 0: none */
    uint64_t segment_bytes; /* of files that have no segments yet */
    int connections;
    hub_report_fn report; /* may be NULL */
    void *user;
} hub_transfer_params;

/* Brings every file of the listing into the cache and links it into the snapshot. What is there stays. */
hub_result hub_transfer_run(const hub_transfer_params *params, zimage_error *error);

/* The address of a file at the hub itself. 0: too long. */
int hub_file_url(const hub_http *http, const char *commit, const char *path, char url[HUB_URL_MAX]);

#endif
