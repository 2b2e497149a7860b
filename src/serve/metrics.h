/* What the server counts, for Prometheus. Everything with the server's lock held. */
#ifndef ZI_SERVE_METRICS_H
#define ZI_SERVE_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "job.h"

#define METRIC_BUCKETS 12
#define METRIC_CODES   40 /* different statuses of one route */
#define METRIC_ROUTES  64

typedef struct histogram {
    uint64_t counts[METRIC_BUCKETS + 1]; /* each bucket's own; the last: above all bounds */
    uint64_t count;
    double sum;
} histogram;

typedef struct metrics {
    uint64_t requests[METRIC_ROUTES][METRIC_CODES]; /* by the route's number and the status's place */
    int codes[METRIC_CODES];                        /* which status has which place; 0: none yet */
    uint64_t jobs[JOB_CANCELLED + 1], refused, cancelled[CANCEL_REASONS];
    uint64_t steps, pixels;
    histogram wait_seconds, job_seconds, stage_seconds[ZIMAGE_STAGE_COUNT];
    int64_t connections, streams;
    uint64_t upload_bytes; /* of bodies that are being read or handled */
    double started_at;     /* seconds since 1970 */
} metrics;

void metrics_observe(histogram *h, double value);
void metrics_count_request(metrics *m, int route, int status);

/* 0: not known. */
double metrics_resident_bytes(void);

struct server;
/* The text format 0.0.4 of Prometheus; released with free. NULL: no memory. */
char *metrics_text(const struct server *s, const char *(*route_name)(int route));

#endif
