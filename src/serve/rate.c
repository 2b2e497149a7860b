#include "rate.h"

/* The last steps of SplitMix64, which mix all bits: each id has another result. (Steele, Lea, Flood: Fast splittable
 * pseudorandom number generators, 2014) */
static uint64_t mix(uint64_t id)
{
    id = (id ^ id >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    id = (id ^ id >> 27) * UINT64_C(0x94D049BB133111EB);
    return id ^ id >> 31;
}

static rate_bucket *bucket_of(rate_table *t, uint64_t id)
{
    rate_bucket *set = t->sets[mix(id ^ t->secret) % RATE_SETS], *oldest = set;
    for (int i = 0; i < RATE_WAYS; i++) {
        if (set[i].at > 0 && set[i].id == id)
            return &set[i];
        oldest = set[i].at < oldest->at ? &set[i] : oldest;
    }
    *oldest = (rate_bucket){.id = id};
    return oldest;
}

int rate_take(rate_table *t, uint64_t id, const rate_limit *limit, int tokens, double now, double *wait)
{
    *wait = 0;
    if (!(limit->rate > 0))
        return 1;
    rate_bucket *b = bucket_of(t, id);
    double most = limit->burst > 1 ? limit->burst : 1;
    b->tokens = b->at > 0 ? b->tokens + (now - b->at) * limit->rate : most;
    b->tokens = b->tokens < most ? b->tokens : most;
    b->at = now;
    if (b->tokens < 1) {
        *wait = (1 - b->tokens) / limit->rate;
        return 0;
    }
    b->tokens -= tokens;
    return 1;
}
