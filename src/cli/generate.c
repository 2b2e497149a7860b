/* zimage generate: prompts to image files. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "jobs.h"
#include "metadata.h"
#include "places.h"
#include "progress.h"
#include "report.h"
#include "request.h"
#include "selection.h"
#include "signals.h"
#include "words.h"

#define COMMAND "generate"

#define TEXT_MAX (PATH_MAX + CLI_SENTENCE_MAX) /* bytes of a sentence with its line of a batch */

typedef struct work {
    const cli_options *options; /* of the command line */
    zimage_model *model;
    zimage_session *session;
    cli_inputs inputs;
    cli_jobs jobs;
    cli_report report;
    show show;
    vocabulary *vocabulary;  /* what the model knows; NULL: it does not say */
    const char *looked_at;   /* the last prompt that was compared with it */
    const cli_job *job;      /* that is checked or made now; NULL: none yet */
    int warned;              /* the job's warnings are printed already */
    cli_selection selection; /* with --shard */
    cli_failures failures;   /* likewise */
    zimage_status status;    /* of the last job that failed, */
    int is_writing;          /* and whether its image was made */
} work;

static zimage_status save_latents(const cli_job *job, const zimage_image *image, zimage_error *error)
{
    int64_t shape[4] = {1};
    const float *latents = zimage_image_latents(image, shape + 1);
    if (job->folder)
        return zimage_tensor_write_beneath(job->folder, cli_name_in_folder(job, job->latents), "latents", latents,
                                           shape, 4, error);
    return zimage_tensor_write(job->latents, "latents", latents, shape, 4, error);
}

/* A sentence of the library about a job (NULL: about all) in the user's words, with the job's line of the batch. */
static void sentence_of(const work *w, const cli_job *job, const char *message, char text[TEXT_MAX])
{
    char sentence[CLI_SENTENCE_MAX];
    cli_translate(CLI_GENERATE, job ? job->options : w->options, message, sentence);
    if (job && job->line)
        snprintf(text, TEXT_MAX, "%s: line %lld: %s", w->options->batch, (long long)job->line, sentence);
    else
        snprintf(text, TEXT_MAX, "%s", sentence);
}

/* zimage_log_fn of work. The check of a batch says what the making of its images would say again. */
static void log_message(zimage_log_level level, const char *message, void *user)
{
    const work *w = user;
    char text[TEXT_MAX];
    if (level == ZIMAGE_LOG_WARNING ? w->warned : w->options->quiet)
        return;
    sentence_of(w, w->job, message, text);
    cli_log(level, text, NULL);
}

/* Prints an error of the job under way. */
static int failure(work *w, const zimage_error *error)
{
    sentence_of(w, w->job, error->message, w->report.error);
    (void)cli_usage_error(COMMAND, "%s", w->report.error);
    w->status = error->status;
    return CLI_FAILURE;
}

/* A file that exists stays: of another process that has made the image meanwhile, or of a run that was interrupted
 * before it wrote the latents. */
static zimage_status write_once(work *w, const cli_job *job, const zimage_request *request, const zimage_image *image,
                                zimage_error *error)
{
    int removed, code = cli_parents_make(job->folder, job->path);
    if (code) {
        snprintf(error->message, sizeof error->message, "%s: can't be written: %s", job->path, strerror(code));
        return error->status = ZIMAGE_ERROR_FILE;
    }
    zimage_status status = cli_write_image(job, request, image, w->model, error);
    if (status == ZIMAGE_OK)
        return status;
    if (cli_is_taken(job->path, &removed)) {
        if (!w->options->quiet)
            cli_line(stderr, "zimage: %s exists by now: it stays as it is", job->path);
        return ZIMAGE_OK;
    }
    return removed ? cli_write_image(job, request, image, w->model, error) : status;
}

static zimage_status write_image(work *w, cli_job *job, const zimage_request *request, const zimage_image *image,
                                 zimage_error *error)
{
    if (job->kept)
        return write_once(w, job, request, image, error);
    if (job->named)
        return cli_write_image(job, request, image, w->model, error);
    if (job->options->output) /* its name with a number is noted for this job */
        json_object_del(w->jobs.places, job->path);
    zimage_status status = ZIMAGE_ERROR_FILE;
    for (int number = 0; status != ZIMAGE_OK;) {
        char *path = cli_free_name(job->path, &number, w->jobs.places);
        if (!path) {
            snprintf(error->message, sizeof error->message, "%s: can't be written: %s", job->path, strerror(errno));
            return error->status = ZIMAGE_ERROR_FILE;
        }
        cli_job named = *job;
        named.path = path;
        status = cli_write_image(&named, request, image, w->model, error);
        if (status == ZIMAGE_OK) {
            free(job->path);
            job->path = path;
        } else {
            int exists = cli_exists(path); /* another process has made it meanwhile */
            free(path);
            if (!exists)
                return status;
        }
    }
    return status;
}

/* The image first: it stays where the latents can't be written. */
static zimage_status write_files(work *w, cli_job *job, const zimage_request *request, const zimage_image *image,
                                 zimage_error *error)
{
    zimage_status status = write_image(w, job, request, image, error);
    if (status != ZIMAGE_OK)
        return status;
    show_image(&w->show, image);
    cli_report_image(&w->report, job, image);
    return job->latents ? save_latents(job, image, error) : ZIMAGE_OK;
}

/* What a model's list says is only advice: one that can't be read is a warning, too. */
static void read_words(work *w)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (!w->options->text_encoder && vocabulary_read(cli_model(w->options), &w->vocabulary, &error) != ZIMAGE_OK)
        cli_log(ZIMAGE_LOG_WARNING, error.message, NULL);
}

/* Once for each prompt of a batch. */
static void warn_of_words(work *w, const cli_options *options)
{
    const char *prompt = options->prompt;
    if (prompt && (!w->looked_at || strcmp(w->looked_at, prompt) != 0))
        cli_words_warn(w->vocabulary, w->options->model || getenv("ZIMAGE_MODEL") ? "the model" : "the bundled model",
                       prompt);
    w->looked_at = prompt;
}

static int make_image(work *w, cli_job *job)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request;
    progress_bar bar;
    w->is_writing = 0;
    if (cli_request_fill(job->options, w->model, &w->inputs, &request, &error) != ZIMAGE_OK ||
        cli_check_image(job, &request, w->model, &error) != ZIMAGE_OK)
        return failure(w, &error);
    warn_of_words(w, job->options);
    progress_init(&bar, w->options->quiet, (int32_t)(job - w->jobs.items) + 1, (int32_t)w->jobs.count, &w->show);
    request.preview = w->show.has_previews && !w->options->quiet;
    request.seed = job->seed;
    request.release_weights = w->jobs.count == 1; /* nothing comes after this image */
    request.progress = cli_on_progress;
    request.progress_user = &bar;

    zimage_image *image = NULL;
    zimage_status status = zimage_generate(w->session, &request, &image, &error);
    progress_end(&bar);
    w->is_writing = status == ZIMAGE_OK;
    if (w->is_writing)
        status = write_files(w, job, &request, image, &error);
    zimage_image_free(image);
    return status == ZIMAGE_OK ? 0 : failure(w, &error);
}

static int plan_image(work *w)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request;
    zimage_plan *plan = NULL;
    if (cli_request_fill(w->options, w->model, &w->inputs, &request, &error) != ZIMAGE_OK)
        return failure(w, &error);
    request.release_weights = 1;
    if (zimage_plan_make(w->session, &request, &plan, &error) != ZIMAGE_OK)
        return failure(w, &error);
    int code = cli_print_plan(plan, w->options->json);
    zimage_plan_free(plan);
    return code;
}

/* Options of the command line without effect, because the model has no guidance by default, and no line asks for it. */
static int check_used(const work *w, int guided)
{
    const char *name = guided ? NULL : cli_needs_guidance(&w->options->given);
    return name ? cli_usage_error(COMMAND, "--%s: no line of %s uses it", name, w->options->batch) : 0;
}

/* Whether the model can make all images of a batch, before the first is made. */
static int check_batch(work *w)
{
    const cli_options *checked = NULL;
    int guided = 0;
    for (size_t i = 0; i < w->jobs.count && w->options->batch; i++) {
        const cli_job *job = &w->jobs.items[i];
        zimage_error error = ZIMAGE_ERROR_INIT;
        zimage_request request;
        if (job->options == checked || job->done) /* only the seed differs */
            continue;
        w->job = job;
        checked = job->options;
        zimage_status status = cli_request_fill(job->options, w->model, &w->inputs, &request, &error);
        if (status == ZIMAGE_OK)
            status = zimage_request_check(w->session, &request, &error);
        if (status == ZIMAGE_OK)
            status = cli_check_image(job, &request, w->model, &error);
        if (status != ZIMAGE_OK) {
            failure(w, &error);
            return CLI_USAGE;
        }
        guided |= request.guidance_scale > 0;
        if (cli_signal_caught())
            return CLI_FAILURE;
    }
    return w->options->batch ? check_used(w, guided) : 0;
}

/* Whether a failure is the job's own. Another one, a full disk for example, would meet all that follow. */
static int fails_alone(const work *w)
{
    switch (w->status) {
    case ZIMAGE_ERROR_MEMORY:
    case ZIMAGE_ERROR_CANCELLED:
    case ZIMAGE_ERROR_INTERNAL:
        return 0;
    default:
        return !w->is_writing;
    }
}

/* The images of a shard. Each is looked for again: another process of the same shard may have made it meanwhile. */
static int make_shard(work *w)
{
    int code = 0;
    for (size_t i = 0; i < w->jobs.count && !code && !cli_signal_caught(); i++) {
        cli_job *job = &w->jobs.items[i];
        if (job->done)
            continue;
        if (cli_job_is_done(job)) {
            w->report.skipped++;
            continue;
        }
        w->job = job;
        code = make_image(w, job);
        if (code && w->status != ZIMAGE_ERROR_CANCELLED)
            cli_failures_add(&w->failures, job, job->text, w->report.error);
        if (code && fails_alone(w)) {
            *w->report.error = 0; /* the work goes on */
            code = 0;
        }
    }
    return code;
}

/* Reads the batch once the model is open: keys know the model. */
static int run_shard(work *w)
{
    const cli_shard *shard = &w->selection.shard;
    if (!cli_failures_begin(&w->failures)) {
        (void)cli_usage_error(COMMAND, "no memory for --shard");
        return CLI_FAILURE;
    }
    w->selection.model = w->model;
    w->selection.failures = &w->failures;
    int code = cli_jobs_make(w->options, &w->selection, &w->jobs), written = 0;
    if (!code) {
        w->report.skipped = cli_jobs_done(&w->jobs);
        if (!w->options->quiet)
            fprintf(stderr, "shard %llu of %llu: %zu of %zu images are its own, %zu of them exist already\n",
                    (unsigned long long)shard->index, (unsigned long long)shard->count, w->jobs.count,
                    w->selection.seen, w->report.skipped);
        code = make_shard(w);
        w->report.failed = w->failures.count;
    }
    if (code == CLI_USAGE)
        cli_failures_drop(&w->failures);
    else
        written = cli_failures_end(&w->failures, w->options->out_dir, shard->index);
    return code ? code : written ? written : w->report.failed ? CLI_FAILURE : 0;
}

static int make_images(work *w)
{
    int code = check_batch(w);
    for (size_t i = 0; i < w->jobs.count && !code; i++) {
        if (w->jobs.items[i].done)
            continue;
        w->job = &w->jobs.items[i];
        w->warned = w->options->batch || i > 0;
        code = make_image(w, &w->jobs.items[i]);
    }
    return code;
}

static int open_and_make(work *w)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    double start = cli_seconds_now();
    if (cli_open(w->options, log_message, w, &w->model, &w->session, &error) != ZIMAGE_OK)
        return failure(w, &error);
    w->report.load_seconds = cli_seconds_now() - start;
    read_words(w);
    if (w->options->shard)
        return run_shard(w);
    return w->options->plan ? plan_image(w) : make_images(w);
}

/* With --json the object is printed in every case: it says what was made until the work failed or was interrupted. */
static int run(work *w)
{
    if (w->options->plan)
        return open_and_make(w);
    if (!cli_report_begin(&w->report, w->options->json)) {
        (void)cli_usage_error(COMMAND, "no memory for --json");
        return CLI_FAILURE;
    }
    w->report.resumed = w->options->resume;
    w->report.shard = w->options->shard ? &w->selection.shard : NULL;
    w->report.skipped = cli_jobs_done(&w->jobs);
    if (w->options->resume && !w->options->shard && !w->options->quiet)
        fprintf(stderr, "%zu of %zu images exist already\n", w->report.skipped, w->jobs.count);
    int has_work = w->options->shard || w->report.skipped < w->jobs.count;
    int code = has_work ? open_and_make(w) : 0, printed = cli_report_end(&w->report);
    return code ? code : printed;
}

int cmd_generate(const cli_options *options)
{
    work w = {.options = options, .inputs = {.log = log_message}, .selection = {.inputs = {.log = log_message}}};
    w.inputs.log_user = w.selection.inputs.log_user = &w;
    if (!cli_has_model(COMMAND, options))
        return CLI_USAGE;
    cli_signals_catch();
    int code = 0;
    if (options->shard)
        code = cli_shard_read(COMMAND, options->shard, &w.selection.shard);
    else if (!options->plan)
        code = cli_jobs_make(options, NULL, &w.jobs);
    if (!code && options->cache_dir && !cli_can_make_folder(COMMAND, "--cache-dir", options->cache_dir))
        code = CLI_USAGE;
    show_begin(&w.show, COMMAND, options);
    if (!code)
        code = run(&w);
    cli_inputs_free(&w.inputs);
    cli_selection_end(&w.selection);
    vocabulary_free(w.vocabulary);
    cli_jobs_free(&w.jobs);
    zimage_session_close(w.session);
    zimage_model_close(w.model);
    return cli_signal_code(code);
}
