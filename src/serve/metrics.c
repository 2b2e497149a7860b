#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "front.h"
#include "server.h"
#include "worker.h"

static const double bounds[METRIC_BUCKETS] = {0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800};

void metrics_observe(histogram *h, double value)
{
    int bucket = 0;
    while (bucket < METRIC_BUCKETS && value > bounds[bucket])
        bucket++;
    h->counts[bucket]++;
    h->count++;
    h->sum += value;
}

void metrics_count_request(metrics *m, int route, int status)
{
    int place = 0;
    while (place < METRIC_CODES - 1 && m->codes[place] && m->codes[place] != status)
        place++;
    m->codes[place] = status;
    m->requests[route][place]++;
}

/* ---- the text ---- */

static void begin(FILE *f, const char *name, const char *type, const char *help)
{
    fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one(FILE *f, const char *name, const char *type, const char *help, double value)
{
    begin(f, name, type, help);
    fprintf(f, "%s %.17g\n", name, value);
}

/* label: NULL, or one label with its value; commas are the caller's. */
static void buckets(FILE *f, const char *name, const char *label, const histogram *h)
{
    uint64_t sum = 0;
    for (int i = 0; i <= METRIC_BUCKETS; i++) {
        sum += h->counts[i];
        fprintf(f, "%s_bucket{%s%sle=\"", name, label ? label : "", label ? "," : "");
        if (i < METRIC_BUCKETS)
            fprintf(f, "%g", bounds[i]);
        else
            fprintf(f, "+Inf");
        fprintf(f, "\"} %llu\n", (unsigned long long)sum);
    }
    fprintf(f, "%s_sum%s%s%s %.17g\n", name, label ? "{" : "", label ? label : "", label ? "}" : "", h->sum);
    fprintf(f, "%s_count%s%s%s %llu\n", name, label ? "{" : "", label ? label : "", label ? "}" : "",
            (unsigned long long)h->count);
}

static void requests(FILE *f, const metrics *m, const char *(*route_name)(int route))
{
    begin(f, "zimage_requests_total", "counter", "Requests, by route and status; code 0: the client went away.");
    for (int route = 0; route < METRIC_ROUTES; route++)
        for (int i = 0; i < METRIC_CODES; i++)
            if (m->requests[route][i])
                fprintf(f, "zimage_requests_total{route=\"%s\",code=\"%d\"} %llu\n", route_name(route), m->codes[i],
                        (unsigned long long)m->requests[route][i]);
}

static size_t waiting(const server *s, queue_class class)
{
    return s->front ? front_waiting(s, class) : s->queue.count[class];
}

static void jobs(FILE *f, const server *s)
{
    const metrics *m = &s->metrics;
    begin(f, "zimage_jobs_total", "counter", "Jobs, by outcome.");
    for (job_state state = JOB_COMPLETED; state <= JOB_CANCELLED; state++)
        fprintf(f, "zimage_jobs_total{outcome=\"%s\"} %llu\n", job_state_name(state),
                (unsigned long long)m->jobs[state]);
    fprintf(f, "zimage_jobs_total{outcome=\"refused\"} %llu\n", (unsigned long long)m->refused);
    begin(f, "zimage_cancelled_total", "counter", "Cancelled jobs, by reason.");
    for (cancel_reason reason = CANCEL_NONE + 1; reason < CANCEL_REASONS; reason++)
        fprintf(f, "zimage_cancelled_total{reason=\"%s\"} %llu\n", cancel_reason_name(reason),
                (unsigned long long)m->cancelled[reason]);
    begin(f, "zimage_queue_length", "gauge", "Jobs that wait, by class.");
    fprintf(f, "zimage_queue_length{class=\"interactive\"} %zu\n", waiting(s, QUEUE_INTERACTIVE));
    fprintf(f, "zimage_queue_length{class=\"batch\"} %zu\n", waiting(s, QUEUE_BATCH));
    begin(f, "zimage_running", "gauge", "1: the device makes an image.");
    for (int i = 0; i < s->params->device_count; i++)
        fprintf(f, "zimage_running{device=\"%s\"} %d\n", s->params->devices[i],
                (worker_job(s, i) != NULL) + (worker_job(s, s->params->device_count + i) != NULL));
    one(f, "zimage_queue_predicted_seconds", "gauge", "Until a new job would begin.",
        s->params->device_count > 0
            ? queue_before_new(&s->queue, 0, QUEUE_BATCH).seconds / s->params->device_count
            : front_wait_of_new(s, &s->models.entries[s->models.standard], "", QUEUE_BATCH).seconds);
    one(f, "zimage_result_bytes", "gauge", "Of finished images that are kept.", (double)s->jobs.bytes);
}

static void durations(FILE *f, const metrics *m)
{
    begin(f, "zimage_queue_wait_seconds", "histogram", "From admission to the first image's beginning.");
    buckets(f, "zimage_queue_wait_seconds", NULL, &m->wait_seconds);
    begin(f, "zimage_image_seconds", "histogram", "To make an image, without its encoding.");
    buckets(f, "zimage_image_seconds", NULL, &m->job_seconds);
    begin(f, "zimage_stage_seconds", "histogram", "Of each stage of an image.");
    for (int stage = 0; stage < ZIMAGE_STAGE_COUNT; stage++) {
        char label[64];
        snprintf(label, sizeof label, "stage=\"%s\"", zimage_stage_name((zimage_stage)stage));
        buckets(f, "zimage_stage_seconds", label, &m->stage_seconds[stage]);
    }
}

/* From /proc, which other systems have not. */
double metrics_resident_bytes(void)
{
    unsigned long long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "re");
    int is_known = statm && fscanf(statm, "%*u %llu", &pages) == 1;
    if (statm)
        fclose(statm);
    return is_known ? (double)pages * (double)sysconf(_SC_PAGESIZE) : 0;
}

static void process(FILE *f, const metrics *m)
{
    double bytes = metrics_resident_bytes();
    if (bytes > 0)
        one(f, "process_resident_memory_bytes", "gauge", "Resident memory.", bytes);
    one(f, "process_start_time_seconds", "gauge", "When the server was started, since 1970.", m->started_at);
}

char *metrics_text(const server *s, const char *(*route_name)(int route))
{
    const metrics *m = &s->metrics;
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return NULL;
    begin(f, "zimage_build_info", "gauge", "The version.");
    fprintf(f, "zimage_build_info{version=\"%s\"} 1\n", zimage_version());
    requests(f, m, route_name);
    jobs(f, s);
    durations(f, m);
    one(f, "zimage_steps_total", "counter", "Denoising steps.", (double)m->steps);
    one(f, "zimage_pixels_total", "counter", "Pixels of finished images.", (double)m->pixels);
    one(f, "zimage_connections", "gauge", "Open connections.", (double)m->connections);
    one(f, "zimage_streams", "gauge", "Open streams of events.", (double)m->streams);
    one(f, "zimage_upload_bytes_in_flight", "gauge", "Of bodies that are being read or handled.",
        (double)m->upload_bytes);
    one(f, "zimage_input_bytes", "gauge", "Of input images.", (double)s->jobs.input_bytes);
    process(f, m);
    int failed = ferror(f);
    if (fclose(f) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
