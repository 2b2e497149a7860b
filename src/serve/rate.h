/* Token buckets: how many requests a key or an address may send. One thread uses a table. */
#ifndef ZI_SERVE_RATE_H
#define ZI_SERVE_RATE_H

#include <stdint.h>

#define RATE_SETS 512
#define RATE_WAYS 8

typedef struct rate_bucket {
    uint64_t id;
    double tokens, at; /* at: when they were counted; 0: a free place */
} rate_bucket;

/* Of fixed size. A new id takes the place of the one of its set that was counted longest ago, whose bucket is then full
 * again. */
typedef struct rate_table {
    uint64_t secret; /* makes the places of ids unknown outside */
    rate_bucket sets[RATE_SETS][RATE_WAYS];
} rate_table;

typedef struct rate_limit {
    double rate, burst; /* tokens a second, and at most; rate 0: there is no limit */
} rate_limit;

/* Takes tokens (0: only looks) of the id's bucket. Returns 0 if there was less than one; *wait: seconds until there is.
 */
int rate_take(rate_table *t, uint64_t id, const rate_limit *limit, int tokens, double now, double *wait);

#endif
