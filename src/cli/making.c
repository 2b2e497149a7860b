/* Makes images: each maker takes the next job, makes its image and writes its files. */
#include "making.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "metadata.h"
#include "places.h"
#include "progress.h"
#include "signals.h"

#define COMMAND "generate"

/* ---- sentences ---- */

/* A sentence of the library about a job (NULL: about all) in the user's words, with the job's line of the batch. */
static void sentence_of(const maker *m, const char *message, char text[MAKING_TEXT_MAX])
{
    const cli_options *options = m->all->options;
    char sentence[CLI_SENTENCE_MAX];
    cli_translate(CLI_GENERATE, m->job ? m->job->options : options, message, sentence);
    if (m->job && m->job->line)
        snprintf(text, MAKING_TEXT_MAX, "%s: line %lld: %s", options->batch, (long long)m->job->line, sentence);
    else
        snprintf(text, MAKING_TEXT_MAX, "%s", sentence);
}

/* The check of a batch says what the making of its images would say again. */
void maker_log(zimage_log_level level, const char *message, void *user)
{
    const maker *m = user;
    char text[MAKING_TEXT_MAX];
    if (level == ZIMAGE_LOG_WARNING ? m->warned : m->all->options->quiet)
        return;
    sentence_of(m, message, text);
    cli_log(level, text, NULL);
}

int maker_failure(maker *m, const zimage_error *error)
{
    sentence_of(m, error->message, m->error);
    (void)cli_usage_error(COMMAND, "%s", m->error);
    m->status = error->status;
    return CLI_FAILURE;
}

/* ---- files ---- */

static zimage_status save_latents(const cli_job *job, const zimage_image *image, zimage_error *error)
{
    int64_t shape[4] = {1};
    const float *latents = zimage_image_latents(image, shape + 1);
    if (job->folder)
        return zimage_tensor_write_beneath(job->folder, cli_name_in_folder(job, job->latents), "latents", latents,
                                           shape, 4, error);
    return zimage_tensor_write(job->latents, "latents", latents, shape, 4, error);
}

static zimage_status cant_write(const cli_job *job, int code, zimage_error *error)
{
    snprintf(error->message, sizeof error->message, "%s: can't be written: %s", job->path, strerror(code));
    return error->status = ZIMAGE_ERROR_FILE;
}

/* A file that exists stays: of another process that has made the image meanwhile, or of a run that was interrupted
 * before it wrote the latents. */
static zimage_status write_once(const making *all, const cli_job *job, const zimage_request *request,
                                const zimage_image *image, zimage_error *error)
{
    int removed, code = cli_parents_make(job->folder, job->path);
    if (code)
        return cant_write(job, code, error);
    zimage_status status = cli_write_image(job, request, image, all->model, error);
    if (status == ZIMAGE_OK)
        return status;
    if (cli_is_taken(job->path, &removed)) {
        if (!all->options->quiet)
            cli_line(stderr, "zimage: %s exists by now: it stays as it is", job->path);
        return ZIMAGE_OK;
    }
    return removed ? cli_write_image(job, request, image, all->model, error) : status;
}

/* The next free name; NULL: errno says why there is none. */
static char *free_name(making *all, const cli_job *job, int *number)
{
    pthread_mutex_lock(&all->lock);
    if (job->options->output) /* its name with a number is noted for this job */
        json_object_del(all->jobs.places, job->path);
    char *path = cli_free_name(job->path, number, all->jobs.places);
    pthread_mutex_unlock(&all->lock);
    return path;
}

static zimage_status write_image(making *all, cli_job *job, const zimage_request *request, const zimage_image *image,
                                 zimage_error *error)
{
    if (job->kept)
        return write_once(all, job, request, image, error);
    if (job->named)
        return cli_write_image(job, request, image, all->model, error);
    zimage_status status = ZIMAGE_ERROR_FILE;
    for (int number = 0; status != ZIMAGE_OK;) {
        char *path = free_name(all, job, &number);
        if (!path)
            return cant_write(job, errno, error);
        cli_job named = *job;
        named.path = path;
        status = cli_write_image(&named, request, image, all->model, error);
        if (status == ZIMAGE_OK) {
            free(job->path);
            job->path = path;
        } else {
            int exists = cli_exists(path); /* another device or process has made it meanwhile */
            free(path);
            if (!exists)
                return status;
        }
    }
    return status;
}

/* ---- failures ---- */

/* Whether a failure is the job's own. Another one, a full disk for example, would meet all that follow. */
static int fails_alone(zimage_status status, int is_writing)
{
    switch (status) {
    case ZIMAGE_ERROR_MEMORY:
    case ZIMAGE_ERROR_CANCELLED:
    case ZIMAGE_ERROR_INTERNAL:
        return 0;
    default:
        return !is_writing;
    }
}

/* Of m->job. is_writing: its image was made. */
static void note_failure(maker *m, int code, int is_writing)
{
    making *all = m->all;
    pthread_mutex_lock(&all->lock);
    if (all->failures && m->status != ZIMAGE_ERROR_CANCELLED)
        cli_failures_add(all->failures, m->job, m->job->text, m->error);
    if (!all->code && !(all->failures && fails_alone(m->status, is_writing))) {
        all->code = code;
        snprintf(all->report.error, sizeof all->report.error, "%s", m->error);
    }
    pthread_mutex_unlock(&all->lock);
}

/* The exit code with which the work ends; 0: it goes on. */
static int ends_with(making *all)
{
    pthread_mutex_lock(&all->lock);
    int code = all->code;
    pthread_mutex_unlock(&all->lock);
    return code;
}

/* ---- writing ---- */

/* The image first: it stays where the latents can't be written. */
static void *write_files(void *writing_)
{
    writing *w = writing_;
    w->status = write_image(w->all, w->job, &w->request, w->image, &w->error);
    w->is_written = w->status == ZIMAGE_OK;
    if (w->is_written && w->job->latents)
        w->status = save_latents(w->job, w->image, &w->error);
    atomic_store(&w->is_done, 1);
    return NULL;
}

/* Waits until the files of the last image are written, and reports it. */
static void end_writing(maker *m)
{
    making *all = m->all;
    writing *w = &m->last;
    const cli_job *now = m->job;
    if (!w->job)
        return;
    if (w->has_thread)
        pthread_join(w->thread, NULL);
    m->job = w->job;
    if (w->is_written) {
        pthread_mutex_lock(&all->lock);
        show_image(&all->show, w->image);
        cli_report_image(&all->report, w->job, w->image, all->is_shared ? m->device : NULL);
        pthread_mutex_unlock(&all->lock);
    }
    if (w->status != ZIMAGE_OK)
        note_failure(m, maker_failure(m, &w->error), 1);
    m->job = now;
    zimage_image_free(w->image);
    w->job = NULL;
}

/* Takes the image. To encode a large PNG takes as long as two steps of a GPU, so it is done beside the next image. */
static void begin_writing(maker *m, cli_job *job, const zimage_request *request, zimage_image *image)
{
    writing *w = &m->last;
    end_writing(m);
    if (ends_with(m->all)) {
        zimage_image_free(image);
        return;
    }
    *w = (writing){.all = m->all, .job = job, .request = *request, .image = image, .error = ZIMAGE_ERROR_INIT};
    w->has_thread = m->all->jobs.count > 1 && pthread_create(&w->thread, NULL, write_files, w) == 0;
    if (w->has_thread)
        return;
    write_files(w);
    end_writing(m);
}

/* ---- images ---- */

/* zimage_log_fn of a maker. Unlike other warnings, those of words were not printed by the check of a batch. */
static void log_words(zimage_log_level level, const char *message, void *user)
{
    char text[MAKING_TEXT_MAX];
    sentence_of(user, message, text);
    cli_log(level, text, NULL);
}

/* Once for each prompt of a batch. */
static void warn_of_words(maker *m, const char *prompt)
{
    making *all = m->all;
    const char *name = cli_is_bundled(all->options) ? "the bundled model" : "the model";
    pthread_mutex_lock(&all->lock);
    if (prompt && (!all->looked_at || strcmp(all->looked_at, prompt) != 0))
        cli_words_warn(all->vocabulary, name, prompt, log_words, m);
    all->looked_at = prompt;
    pthread_mutex_unlock(&all->lock);
}

typedef struct watching {
    maker *m;
    progress_bar bar;
} watching;

/* zimage_progress_fn of watching. The last image is reported as soon as its files are written, and by this thread, so
 * that nothing is printed into a line of progress. */
static int on_progress(const zimage_progress *progress, void *user)
{
    watching *watch = user;
    maker *m = watch->m;
    if (m->last.job && atomic_load(&m->last.is_done))
        end_writing(m);
    return cli_on_progress(progress, &watch->bar) || ends_with(m->all);
}

/* What was read from files. It stays until nothing is written any more that was made from it. */
static int has_inputs(const cli_inputs *i)
{
    return i->embeds || i->latents || i->images[0] || i->mask;
}

static int make_image(maker *m, cli_job *job)
{
    making *all = m->all;
    zimage_error error = ZIMAGE_ERROR_INIT;
    zimage_request request;
    watching watch = {.m = m};
    if (has_inputs(&m->inputs))
        end_writing(m);
    if (cli_request_fill(job->options, all->model, &m->inputs, &request, &error) != ZIMAGE_OK ||
        cli_check_image(job, &request, all->model, &error) != ZIMAGE_OK)
        return maker_failure(m, &error);
    warn_of_words(m, job->options->prompt);
    int quiet = all->options->quiet || all->is_shared; /* a line of progress shows one image */
    progress_init(&watch.bar, quiet, (int32_t)(job - all->jobs.items) + 1, (int32_t)all->jobs.count, &all->show);
    request.preview = all->show.has_previews && !quiet;
    request.seed = job->seed;
    request.release_weights = all->jobs.count == 1; /* nothing comes after this image */
    request.progress = on_progress;
    request.progress_user = &watch;

    zimage_image *image = NULL;
    zimage_status status = zimage_generate(m->session, &request, &image, &error);
    progress_end(&watch.bar);
    if (status == ZIMAGE_OK) {
        begin_writing(m, job, &request, image);
        return 0;
    }
    zimage_image_free(image);
    int code = status == ZIMAGE_ERROR_CANCELLED && !cli_signal_caught() ? ends_with(all) : 0;
    return code ? code : maker_failure(m, &error); /* why the work ends is printed already */
}

/* Whether a job of the shard with the same file was taken before: the file may not be there yet. */
static int is_begun(making *all, const cli_job *job)
{
    if (json_object_get(all->begun, job->path))
        return 1;
    json_object_set_new_nocheck(all->begun, job->path, json_true());
    return 0;
}

/* The next job whose image is to be made; NULL: there is none. */
static cli_job *next_job(making *all)
{
    cli_job *found = NULL;
    pthread_mutex_lock(&all->lock);
    while (!found && !all->code && all->next < all->jobs.count && !cli_signal_caught()) {
        cli_job *job = &all->jobs.items[all->next++];
        if (job->done)
            continue;
        if (all->failures && (is_begun(all, job) || cli_job_is_done(job)))
            all->report.skipped++;
        else
            found = job;
    }
    pthread_mutex_unlock(&all->lock);
    return found;
}

static void *make_images(void *maker_)
{
    maker *m = maker_;
    making *all = m->all;
    for (cli_job *job; (job = next_job(all));) {
        m->job = job;
        m->warned = !all->failures && (all->options->batch || job > all->jobs.items);
        int code = make_image(m, job);
        if (code)
            note_failure(m, code, 0);
    }
    end_writing(m);
    return NULL;
}

/* A device that can't be opened ends the work: the user asked for it. */
static int open_others(making *all, maker *makers, int count)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    for (int i = 1; i < count && !all->code; i++)
        if (maker_open(&makers[i], &error) != ZIMAGE_OK) {
            all->code = maker_failure(&makers[i], &error);
            snprintf(all->report.error, sizeof all->report.error, "%s", makers[i].error);
        }
    return all->code;
}

int making_run(making *all, maker *makers, int count)
{
    int started = 1;
    all->is_shared = count > 1;
    if (open_others(all, makers, count))
        return all->code;
    all->begun = json_object();
    while (started < count && pthread_create(&makers[started].thread, NULL, make_images, &makers[started]) == 0)
        started++; /* without a thread for it, the others make its images */
    make_images(&makers[0]);
    for (int i = 1; i < started; i++)
        pthread_join(makers[i].thread, NULL);
    json_decref(all->begun);
    return all->code;
}

void maker_begin(maker *m, making *all, const char *device)
{
    *m = (maker){.all = all, .device = device, .inputs = {.log = maker_log, .log_user = m}};
}

zimage_status maker_open(maker *m, zimage_error *error)
{
    making *all = m->all;
    cli_options options = *all->options;
    if (m->device)
        options.device = m->device;
    return cli_open(&options, maker_log, m, &all->model, &m->session, error);
}

void maker_end(maker *m)
{
    cli_inputs_free(&m->inputs);
    zimage_session_close(m->session);
}
