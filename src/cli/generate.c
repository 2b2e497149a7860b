/* zimage generate: prompts to image files. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "making.h"
#include "metadata.h"
#include "places.h"
#include "selection.h"
#include "signals.h"

#define COMMAND "generate"

typedef struct work {
    making all;
    maker makers[CLI_DEVICES_MAX];
    cli_device_list devices;
    cli_selection selection; /* with --shard */
    cli_failures failures;   /* likewise */
} work;

/* Prints an error of the first device, and keeps it for the report. */
static int failure(work *w, const zimage_error *error)
{
    int code = maker_failure(&w->makers[0], error);
    snprintf(w->all.report.error, sizeof w->all.report.error, "%s", w->makers[0].error);
    return code;
}

static int plan_image(work *w)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request;
    zimage_plan *plan = NULL;
    if (cli_request_fill(w->all.options, w->all.model, &w->makers[0].inputs, &request, &error) != ZIMAGE_OK)
        return failure(w, &error);
    request.release_weights = 1;
    if (zimage_plan_make(w->makers[0].session, &request, &plan, &error) != ZIMAGE_OK)
        return failure(w, &error);
    int code = cli_print_plan(plan, w->all.options);
    zimage_plan_free(plan);
    return code;
}

/* Options of the command line without effect, because the model has no guidance by default, and no line asks for it. */
static int check_used(const work *w, int guided)
{
    const char *name = guided ? NULL : cli_needs_guidance(&w->all.options->given);
    return name ? cli_usage_error(COMMAND, "--%s: no line of %s uses it", name, w->all.options->batch) : 0;
}

/* Whether the model can make all images of a batch, before the first is made. */
static int check_batch(work *w)
{
    const cli_options *checked = NULL;
    int guided = 0;
    for (size_t i = 0; i < w->all.jobs.count && w->all.options->batch; i++) {
        const cli_job *job = &w->all.jobs.items[i];
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_request request;
        if (job->options == checked || job->done) /* only the seed differs */
            continue;
        w->makers[0].job = job;
        checked = job->options;
        zimage_status status = cli_request_fill(job->options, w->all.model, &w->makers[0].inputs, &request, &error);
        if (status == ZIMAGE_OK)
            status = zimage_request_check(w->makers[0].session, &request, &error);
        if (status == ZIMAGE_OK)
            status = cli_check_image(job, &request, w->all.model, &error);
        if (status != ZIMAGE_OK) {
            failure(w, &error);
            return CLI_USAGE;
        }
        guided |= request.guidance_scale > 0;
        if (cli_signal_caught())
            return CLI_FAILURE;
    }
    return w->all.options->batch ? check_used(w, guided) : 0;
}

/* Reads the batch once the model is open: keys know the model. */
static int run_shard(work *w)
{
    const cli_shard *shard = &w->selection.shard;
    if (!cli_failures_begin(&w->failures)) {
        (void)cli_usage_error(COMMAND, "no memory for --shard");
        return CLI_FAILURE;
    }
    w->selection.model = w->all.model;
    w->selection.failures = w->all.failures = &w->failures;
    int code = cli_jobs_make(w->all.options, &w->selection, &w->all.jobs), written = 0;
    if (!code) {
        w->all.report.skipped = cli_jobs_done(&w->all.jobs);
        if (!w->all.options->quiet)
            fprintf(stderr, "shard %llu of %llu: %zu of %zu images are its own, %zu of them exist already\n",
                    (unsigned long long)shard->index, (unsigned long long)shard->count, w->all.jobs.count,
                    w->selection.seen, w->all.report.skipped);
        code = making_run(&w->all, w->makers, w->devices.count);
        w->all.report.failed = w->failures.count;
    }
    if (code == CLI_USAGE)
        cli_failures_drop(&w->failures);
    else
        written = cli_failures_end(&w->failures, w->all.options->out_dir, shard->index);
    return code ? code : written ? written : w->all.report.failed ? CLI_FAILURE : 0;
}

static int open_and_make(work *w)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    double start = cli_seconds_now();
    if (maker_open(&w->makers[0], &error) != ZIMAGE_OK)
        return failure(w, &error);
    w->all.report.load_seconds = cli_seconds_now() - start;
    w->all.vocabulary = cli_words_read(w->all.options, cli_log, NULL);
    if (w->all.options->shard)
        return run_shard(w);
    if (w->all.options->plan)
        return plan_image(w);
    int code = check_batch(w);
    return code ? code : making_run(&w->all, w->makers, w->devices.count);
}

/* With --json the object is printed in every case: it says what was made until the work failed or was interrupted. */
static int run(work *w)
{
    if (w->all.options->plan)
        return open_and_make(w);
    if (!cli_report_begin(&w->all.report, w->all.options->json)) {
        (void)cli_usage_error(COMMAND, "no memory for --json");
        return CLI_FAILURE;
    }
    w->all.report.resumed = w->all.options->resume;
    w->all.report.shard = w->all.options->shard ? &w->selection.shard : NULL;
    w->all.report.skipped = cli_jobs_done(&w->all.jobs);
    if (w->all.options->resume && !w->all.options->shard && !w->all.options->quiet)
        fprintf(stderr, "%zu of %zu images exist already\n", w->all.report.skipped, w->all.jobs.count);
    int has_work = w->all.options->shard || w->all.report.skipped < w->all.jobs.count;
    int code = has_work ? open_and_make(w) : 0, printed = cli_report_end(&w->all.report);
    return code ? code : printed;
}

/* One device for one image; for several images each of the devices. A plan is that of one image. */
static int begin_makers(work *w)
{
    const cli_options *o = w->all.options;
    int code = 0;
    if (o->batch || o->count > 1)
        code = cli_device_list_read(CLI_GENERATE, o, &w->devices);
    for (int i = 0; i < w->devices.count; i++)
        maker_begin(&w->makers[i], &w->all, w->devices.names[i]);
    if (w->devices.count == 0) {
        maker_begin(&w->makers[0], &w->all, NULL);
        w->devices.count = 1;
    }
    return code;
}

static int begin_jobs(work *w)
{
    const cli_options *o = w->all.options;
    w->selection.inputs.log = maker_log;
    w->selection.inputs.log_user = &w->makers[0];
    if (o->shard)
        return cli_shard_read(COMMAND, o->shard, &w->selection.shard);
    return o->plan ? 0 : cli_jobs_make(o, NULL, &w->all.jobs);
}

int cmd_generate(const cli_options *options)
{
    if (!cli_has_model(COMMAND, options))
        return CLI_USAGE;
    work *w = calloc(1, sizeof *w);
    if (!w) {
        (void)cli_usage_error(COMMAND, "no memory");
        return CLI_FAILURE;
    }
    w->all.options = options;
    pthread_mutex_init(&w->all.lock, NULL);
    cli_signals_catch();
    int code = begin_makers(w);
    if (!code)
        code = begin_jobs(w);
    if (!code && options->cache_dir && !cli_can_make_folder(COMMAND, "--cache-dir", options->cache_dir))
        code = CLI_USAGE;
    show_begin(&w->all.show, COMMAND, options);
    if (!code)
        code = run(w);
    for (int i = 0; i < w->devices.count; i++)
        maker_end(&w->makers[i]);
    cli_selection_end(&w->selection);
    vocabulary_free(w->all.vocabulary);
    cli_jobs_free(&w->all.jobs);
    cli_device_list_free(&w->devices);
    zimage_model_close(w->all.model);
    pthread_mutex_destroy(&w->all.lock);
    free(w);
    return cli_signal_code(code);
}
