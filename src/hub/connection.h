/* One request of a download, and the file that it belongs to. Only for transfer.c and connection.c. */
#ifndef ZI_HUB_CONNECTION_H
#define ZI_HUB_CONNECTION_H

#include "hub/hash.h"
#include "hub/segments.h"
#include "hub/transfer.h"

typedef enum hub_item_state {
    HUB_ITEM_NEW,     /* not begun; another program may have its lock */
    HUB_ITEM_FETCHED, /* under way, to its hash */
    HUB_ITEM_DONE,
} hub_item_state;

/* A file of the download. */
typedef struct hub_item {
    const hub_file *file;
    hub_item_state state;
    int lock; /* descriptor; -1: none */
    hub_segments segments;
    hub_hash *hash;
    char *url;        /* where it lies; NULL: not asked yet */
    int url_worked;   /* it has brought something */
    int url_is_hub;   /* 1: the token may go there */
    int is_asked;     /* a request for its url is under way */
    int has_ranges;   /* the server has sent one: further connections are worth it */
    int is_whole;     /* the server takes no ranges: one connection, from the beginning */
    uint64_t best;    /* then: the furthest byte that arrived */
    uint64_t counted; /* its bytes in hub_transfer.done */
    uint64_t gained;  /* bytes that arrived since the last failure */
    int failures;     /* one after the other without any byte */
    double not_before;
    int mismatches, is_told; /* is_told: that another program has its lock */
} hub_item;

/* A place for one request. It keeps its segment after a failure, and goes on in it. */
typedef struct hub_connection {
    struct hub_transfer *transfer;
    CURL *easy;
    struct curl_slist *headers;
    hub_item *item; /* NULL: free */
    int locates;    /* asks where the file lies */
    int runs;
    size_t segment;
    uint64_t offset, end; /* the next byte, and where the segment ends */
    uint64_t asked;       /* the first byte of this request */
    int is_checked;       /* the head of the answer was looked at */
    int takes;            /* the body is content */
    int is_dropped;       /* another connection brings the whole file */
    int is_paused;        /* the limit is reached */
    size_t swallowed;     /* bytes of a body that is no content */
    int redirects;
    double heard; /* when something arrived */
    char address[HUB_URL_MAX];
} hub_connection;

typedef struct hub_transfer {
    hub_transfer_params params;
    CURLM *multi;
    hub_hasher hasher;
    hub_item *items;
    hub_connection *connections; /* [connection_count + 1]: the last is only for asking where a file lies */
    int connection_count;
    uint64_t done, total;
    size_t files_done;
    double allowance, refilled; /* with a limit: bytes that may arrive now, and when they were counted */
    double reported;
    hub_result result; /* the first failure that ends the download */
    zimage_error *error;
} hub_transfer;

/* Begins the request of a connection that has an item. */
void hub_connection_start(hub_connection *c);
/* What is to be done when a request has ended. */
void hub_connection_end(hub_connection *c, CURLcode code);
/* Takes a request that brings nothing from the network, as if it had failed. */
void hub_connection_time_out(hub_connection *c);
void hub_connection_stop(hub_connection *c);
/* A free connection for another item. */
void hub_connection_release(hub_connection *c);

/* Ends the download with this failure, if it is the first. */
void hub_transfer_fail(hub_transfer *t, hub_result result, const char *format, ...) ZI_PRINTF(3, 4);
void hub_transfer_notice(hub_transfer *t, const char *format, ...) ZI_PRINTF(2, 3);

#endif
