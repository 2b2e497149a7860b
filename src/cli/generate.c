/* zimage generate: prompts to PNG files. */
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "jobs.h"
#include "progress.h"
#include "report.h"
#include "request.h"

#define COMMAND "generate"

typedef struct session {
    const cli_options *options; /* of the command line */
    zimage_context *context;
    cli_inputs inputs;
    cli_jobs jobs;
    cli_report report;
    double load_seconds;
} session;

static volatile sig_atomic_t interrupted;

static void on_signal(int signal_number)
{
    interrupted = signal_number;
}

/* The first SIGINT or SIGTERM asks the library to stop; then the signal has its default action again, so that a second
 * one ends the process at once. A signal that was ignored when the program was started stays ignored. */
static void catch_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction before, action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
    }
}

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int on_progress(const zimage_progress *p, void *user)
{
    progress_show(user, p);
    return interrupted != 0;
}

static zimage_status save_latents(const char *path, const zimage_image *image, zimage_error *error)
{
    int64_t shape[4] = {1};
    const float *latents = zimage_image_latents(image, shape + 1);
    return zimage_tensor_write(path, "latents", latents, shape, 4, error);
}

static int make_image(session *s, const cli_job *job)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request;
    progress_bar bar;
    int code = cli_request_fill(job->options, s->context, &s->inputs, &request);
    if (code)
        return code;
    progress_init(&bar, s->options->quiet);
    request.seed = job->seed;
    request.release_weights = s->jobs.count == 1; /* nothing comes after this image */
    request.progress = on_progress;
    request.progress_user = &bar;

    zimage_image *image = NULL;
    double start = seconds_now();
    zimage_status status = zimage_generate(s->context, &request, &image, &error);
    double total = seconds_now() - start;
    progress_end(&bar);
    if (status == ZIMAGE_OK && job->options->save_latents)
        status = save_latents(job->options->save_latents, image, &error);
    if (status == ZIMAGE_OK)
        status = cli_write_image(job, &request, image, &error);
    if (status == ZIMAGE_OK)
        cli_report_image(&s->report, job, image, total);
    zimage_image_free(image);
    return status == ZIMAGE_OK ? 0 : cli_failure(COMMAND, &error);
}

static int plan_image(session *s)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request;
    zimage_plan_result plan;
    int code = cli_request_fill(s->options, s->context, &s->inputs, &request);
    if (code)
        return code;
    request.release_weights = 1;
    if (zimage_plan(s->context, &request, &plan, &error) != ZIMAGE_OK)
        return cli_failure(COMMAND, &error);
    return cli_print_plan(&plan, s->options->json);
}

/* Sizes of a batch that the model can't make, before its first image is made. */
static int check_size(const session *s, const cli_job *job, const char *key, int32_t size, int32_t largest)
{
    zimage_model_info info;
    zimage_get_model_info(s->context, &info);
    if (size % info.size_multiple == 0 && size <= largest)
        return 0;
    return cli_usage_error(COMMAND, "%s: line %lld: %s: %d, expected a multiple of %d up to %d", s->options->batch,
                           (long long)job->line, key, size, info.size_multiple, largest);
}

static int check_jobs(const session *s)
{
    zimage_model_info info;
    zimage_get_model_info(s->context, &info);
    int code = 0;
    for (size_t i = 0; i < s->jobs.count && s->options->batch && !code; i++) {
        const cli_job *job = &s->jobs.items[i];
        zimage_request request;
        code = cli_request_fill(job->options, s->context, &s->inputs, &request);
        code = code ? code : check_size(s, job, "width", request.width, info.max_width);
        code = code ? code : check_size(s, job, "height", request.height, info.max_height);
    }
    return code;
}

static int make_images(session *s)
{
    int code = check_jobs(s);
    if (code)
        return code;
    if (!cli_report_begin(&s->report, s->options->json, s->load_seconds)) {
        fprintf(stderr, "zimage " COMMAND ": no memory for --json\n");
        return CLI_FAILURE;
    }
    for (size_t i = 0; i < s->jobs.count && !code; i++)
        code = make_image(s, &s->jobs.items[i]);
    int printed = cli_report_end(&s->report);
    return code ? code : printed;
}

static int run(session *s)
{
    const cli_options *o = s->options;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_open_params params;
    zimage_open_params_init(&params);
    params.threads = (int32_t)o->threads;
    params.log = o->quiet ? cli_log_warnings : cli_log;
    params.reference = o->reference;
    params.dequantize = (zimage_dequantize)o->dequantize;
    params.compute = (zimage_compute)o->compute;
    params.cpu_mask = o->cpu_mask;
    params.device = o->device;
    params.device_memory = o->vram;
    double start = seconds_now();
    if (zimage_open(cli_model(o), &params, &s->context, &error) != ZIMAGE_OK ||
        cli_inputs_read(o, s->context, &s->inputs, &error) != ZIMAGE_OK)
        return cli_failure(COMMAND, &error);
    s->load_seconds = seconds_now() - start;
    return o->plan ? plan_image(s) : make_images(s);
}

int cmd_generate(const cli_options *options)
{
    session s = {.options = options};
    if (access(cli_model(options), F_OK) != 0)
        return cli_usage_error(COMMAND, "--model: there is no model folder %s; name one with -m DIR",
                               cli_model(options));
    int code = options->plan ? 0 : cli_jobs_make(options, &s.jobs);
    if (!code) {
        catch_signals();
        code = run(&s);
    }
    cli_inputs_free(&s.inputs);
    cli_jobs_free(&s.jobs);
    zimage_close(s.context);
    return interrupted ? 128 + interrupted : code;
}
