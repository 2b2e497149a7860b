/* zimage work: makes the images of a ledger's jobs. */
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "device_list.h"
#include "places.h"
#include "queue/ledger.h"
#include "queue/store.h"
#include "queued.h"
#include "shared/recipe.h"
#include "signals.h"
#include "words.h"

#define COMMAND       "work"
#define INPUT_SECONDS 5   /* in which an input image can be read */
#define INPUT_PAUSE   250 /* milliseconds between two looks */

typedef struct maker {
    const cli_options *given;
    cli_options options; /* with generate's defaults: what a request does not say */
    zimage_model *model;
    vocabulary *vocabulary; /* what it knows; NULL: it does not say. All makers share both */
    zimage_session *session;
    char fingerprint[RECIPE_FINGERPRINT];
    ledger_inputs *inputs; /* of jobs */
    cli_queued queued;     /* the job under way */
    int is_service;        /* it is a server's: its key names its file */
    json_t *warnings;      /* of it, for its client */
    uint8_t *data;         /* of its image's file */
    size_t size;
    char suffix[8];                 /* of its name */
    char warning[CLI_SENTENCE_MAX]; /* the last one: it would be the same for each image */
    ledger_totals totals;
    int code; /* how its work ended */
    pthread_t thread;
} maker;

/* ---- one image ---- */

typedef struct stopping {
    int (*stop)(const void *user);
    const void *user;
    ledger_news *news; /* NULL: nobody can watch */
} stopping;

/* zimage_progress_fn of stopping. */
static int on_progress(const zimage_progress *progress, void *user)
{
    const stopping *s = user;
    if (s->news)
        ledger_tell(s->news, progress);
    return s->stop(s->user);
}

/* zimage_preview_fn of the same. */
static int wants_preview(int32_t step, int32_t steps, void *user)
{
    const stopping *s = user;
    return ledger_wants_preview(s->news, step, steps);
}

/* What the ledger keeps of an image; a seed beyond 63 bits is a text, as in recipes. */
static json_t *facts_of(const maker *m, const zimage_image *image)
{
    char text[32];
    uint64_t seed = m->queued.job.seed;
    zimage_image_info info = {.struct_size = sizeof info};
    zimage_image_get_info(image, &info, NULL); /* this can't fail */
    snprintf(text, sizeof text, "%llu", (unsigned long long)seed);
    return json_pack("{s:o, s:i, s:i, s:f, s:i, s:s, s:s, s:s, s:O*}", "seed",
                     seed > INT64_MAX ? json_string(text) : json_integer((json_int_t)seed), "width",
                     zimage_image_width(image), "height", zimage_image_height(image), "seconds", info.seconds,
                     "prompt_tokens", info.prompt_tokens, "compute", zimage_compute_name(info.compute), "kernels",
                     info.kernels, "version", zimage_version(), "warnings",
                     json_array_size(m->warnings) ? m->warnings : NULL);
}

/* The recipe of an image's file without what machines may differ in. NULL: there is none. */
static json_t *recipe_of(zimage_texts *texts)
{
    static const char *const others[] = {"compute", "kernels", "version", "model"};
    recipe_source source;
    json_t *object = texts ? recipe_read(texts, &source) : NULL;
    for (size_t i = 0; object && i < sizeof others / sizeof *others; i++)
        json_object_del(object, others[i]);
    zimage_texts_free(texts);
    return object;
}

/* Of a file that has the job's output as its name: whether its recipe is the job's. */
static int is_same(const void *file, size_t size, const ledger_picture *picture)
{
    zimage_texts *theirs = NULL, *ours = NULL;
    zimage_texts_decode(file, size, &theirs, NULL);
    zimage_texts_decode(picture->data, picture->size, &ours, NULL);
    json_t *found = recipe_of(theirs), *made = recipe_of(ours);
    int same = found && made && json_equal(found, made);
    json_decref(found);
    json_decref(made);
    return same;
}

/* Faults of the request, and of the numbers that follow from it, are the same everywhere. */
static ledger_verdict verdict_of(zimage_status status)
{
    switch (status) {
    case ZIMAGE_OK:
        return LEDGER_MADE;
    case ZIMAGE_ERROR_ARGUMENT:
    case ZIMAGE_ERROR_NOT_FINITE:
        return LEDGER_BAD_JOB;
    case ZIMAGE_ERROR_CANCELLED:
        return LEDGER_INTERRUPTED;
    default:
        return LEDGER_BAD_MACHINE;
    }
}

static zimage_status encode(maker *m, const zimage_image *image, ledger_picture *picture, zimage_error *error)
{
    zimage_format format = ZIMAGE_FORMAT_PNG;
    zimage_status status =
        cli_encode_image(&m->queued.job, &m->queued.request, image, m->model, &m->data, &m->size, error);
    if (status != ZIMAGE_OK)
        return status;
    zimage_format_of_path(m->queued.job.path, &format);
    snprintf(m->suffix, sizeof m->suffix, ".%s", zimage_format_name(format));
    *picture = (ledger_picture){
        .data = m->data,
        .size = m->size,
        .release = zimage_free,
        .suffix = m->suffix,
        .output = m->is_service ? NULL : m->queued.options.output,
        .facts = facts_of(m, image),
        .is_same = is_same,
    };
    if (picture->facts)
        return ZIMAGE_OK;
    zimage_free(m->data);
    snprintf(error->message, sizeof error->message, "no memory for what the ledger keeps of an image");
    return error->status = ZIMAGE_ERROR_MEMORY;
}

static zimage_status generate(maker *m, stopping *stop, ledger_picture *picture, zimage_error *error)
{
    zimage_image *image = NULL;
    m->queued.request.progress = on_progress;
    m->queued.request.progress_user = stop;
    m->queued.request.preview = stop->news ? 2 : 0;
    m->queued.request.wants_preview = stop->news ? wants_preview : NULL;
    zimage_status status = zimage_generate(m->session, &m->queued.request, &image, error);
    if (status == ZIMAGE_OK)
        status = encode(m, image, picture, error);
    zimage_image_free(image);
    return status;
}

/* ---- input images ---- */

static int is_over(const stopping *s, double end)
{
    return s->stop(s->user) || cli_seconds_now() >= end;
}

/* A network's file system may show a new file a moment later than the ledger. */
static ledger_verdict read_input(const maker *m, const char *hash, const stopping *s, zimage_image **image,
                                 zimage_error *error)
{
    const cli_options *o = &m->queued.options;
    const zimage_decode_params params = {.struct_size = sizeof params, .background = o->background};
    double end = cli_seconds_now() + INPUT_SECONDS;
    uint8_t *data;
    size_t size;
    ledger_verdict verdict;
    while ((verdict = ledger_inputs_read(m->inputs, hash, &data, &size, error)) == LEDGER_BAD_JOB && !is_over(s, end))
        poll(NULL, 0, INPUT_PAUSE);
    if (verdict != LEDGER_MADE)
        return verdict;
    zimage_status status = zimage_image_decode_with(data, size, &params, image, error);
    free(data);
    return status == ZIMAGE_OK ? LEDGER_MADE : status == ZIMAGE_ERROR_MEMORY ? LEDGER_BAD_MACHINE : LEDGER_BAD_JOB;
}

/* The images that the ledger has of a job; the names in its request are nothing that is opened. */
static ledger_verdict take_inputs(maker *m, const ledger_job *job, const stopping *s, zimage_error *error)
{
    zimage_image *images[CLI_QUEUED_INPUTS] = {NULL};
    size_t count = 0;
    ledger_verdict verdict = LEDGER_MADE;
    for (; job->input_count <= CLI_QUEUED_INPUTS && count < job->input_count && verdict == LEDGER_MADE; count++)
        verdict = read_input(m, job->inputs[count], s, &images[count], error);
    if (verdict == LEDGER_MADE)
        verdict = verdict_of(cli_queued_take_images(&m->queued, images, job->input_count, 0, error));
    for (size_t i = 0; i < count && verdict != LEDGER_MADE; i++)
        zimage_image_free(images[i]);
    return s->stop(s->user) && verdict != LEDGER_MADE ? LEDGER_INTERRUPTED : verdict;
}

/* ---- the request ---- */

static int is_service_job(const maker *m, const ledger_job *job)
{
    char key[JOB_KEY];
    return m->queued.options.output && cli_queued_service_key(&m->queued, key) && !strcmp(key, job->key);
}

/* A request that can't be read, or has another key than its job, is none that zimage queue added. */
static ledger_verdict prepare(maker *m, const ledger_job *job, const stopping *s, zimage_error *error)
{
    char sentence[CLI_SENTENCE_MAX] = "";
    cli_lines lines = {.command = COMMAND, .options = &m->options, .sentence = sentence};
    if (cli_queued_read(&lines, job->request, strlen(job->request), &m->queued) != 0) {
        snprintf(error->message, sizeof error->message, "%.1400s", sentence);
        error->status = ZIMAGE_ERROR_ARGUMENT;
        return LEDGER_BAD_JOB;
    }
    ledger_verdict verdict = take_inputs(m, job, s, error);
    if (verdict == LEDGER_MADE)
        verdict = verdict_of(cli_queued_complete(&m->queued, m->model, error));
    if (verdict != LEDGER_MADE)
        return verdict;
    m->is_service = m->queued.job.is_nameless = is_service_job(m, job);
    if (m->is_service || !strcmp(m->queued.job.key, job->key))
        return LEDGER_MADE;
    snprintf(error->message, sizeof error->message,
             "its key is %.8s..., but that of its request is %.8s...: the request was changed, or added by another "
             "version",
             job->key, m->queued.job.key);
    error->status = ZIMAGE_ERROR_ARGUMENT;
    return LEDGER_BAD_JOB;
}

static void say_made(const maker *m, const ledger_job *job, const ledger_picture *picture)
{
    if (!m->given->quiet && !m->given->json)
        cli_line(stderr, "job %lld, attempt %d: %.1f s", (long long)job->id, job->attempt,
                 json_number_value(json_object_get(picture->facts, "seconds")));
}

/* zimage_log_fn of maker. */
static void log_message(zimage_log_level level, const char *message, void *user)
{
    maker *m = user;
    if (level == ZIMAGE_LOG_WARNING && m->warnings)
        json_array_append_new(m->warnings, json_string(message));
    if (!strcmp(m->warning, message) || (level != ZIMAGE_LOG_WARNING && m->given->quiet))
        return;
    snprintf(m->warning, sizeof m->warning, "%s", message);
    cli_log(level, message, NULL);
}

/* ledger_engine.make of maker. */
static ledger_verdict make(void *user, const ledger_job *job, int (*stop)(const void *stop_user), const void *stop_user,
                           ledger_picture *picture, zimage_error *error)
{
    maker *m = user;
    stopping stopper = {stop, stop_user, job->news};
    cli_queued_free(&m->queued);
    json_decref(m->warnings);
    m->warnings = json_array();
    ledger_verdict verdict = prepare(m, job, &stopper, error);
    if (verdict == LEDGER_MADE) {
        cli_words_warn(m->vocabulary, "the model", m->queued.request.prompt, log_message, m);
        verdict = verdict_of(generate(m, &stopper, picture, error));
    }
    if (verdict == LEDGER_MADE)
        say_made(m, job, picture);
    if (verdict == LEDGER_BAD_JOB) {
        char sentence[CLI_SENTENCE_MAX];
        cli_translate(CLI_GENERATE, &m->queued.options, error->message, sentence);
        snprintf(error->message, sizeof error->message, "%.1500s", sentence);
    }
    return verdict;
}

/* ---- the command ---- */

static void say(const char *sentence, void *user)
{
    (void)user;
    cli_line(stderr, "zimage work: %s", sentence);
}

static int report(const cli_options *o, const ledger_totals *totals, double seconds)
{
    if (o->json)
        return cli_print_json(COMMAND,
                              json_pack("{s:I, s:I, s:I, s:f, s:f}", "made", (json_int_t)totals->made, "failed",
                                        (json_int_t)totals->failed, "lost", (json_int_t)totals->lost, "seconds",
                                        seconds, "busy_seconds", totals->busy_seconds),
                              CLI_MEASURED);
    if (!o->quiet)
        cli_line(stderr, "%llu images in %.1f s, %llu failed, %llu were another worker's or cancelled",
                 (unsigned long long)totals->made, seconds, (unsigned long long)totals->failed,
                 (unsigned long long)totals->lost);
    return 0;
}

/* One device, as a worker of its own. */
static void *work(void *maker_)
{
    maker *m = maker_;
    const cli_options *o = m->given;
    zimage_error error = ZIMAGE_ERROR_INIT;
    ledger_engine engine = {.model = m->fingerprint, .make = make, .user = m};
    const ledger_work_params params = {
        .target = o->queue,
        .place = o->pack ? o->pack : o->results,
        .is_packed = o->pack != NULL,
        .claim = (int)o->claim,
        .until_empty = o->until_empty,
        .inputs = m->inputs,
        .lease_seconds = o->lease,
        .stopping = cli_signal_caught,
        .say = say,
    };
    ledger_result answer = ledger_work(&params, &engine, &m->totals, &error);
    cli_queued_free(&m->queued);
    m->code = answer == LEDGER_OK ? 0 : cli_option_failure(CLI_WORK, o, &error);
    return NULL;
}

/* All devices are opened before the first job is claimed. They share the model. */
static int open_all(maker *makers, const cli_device_list *devices)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    for (int i = 0; i < devices->count; i++) {
        maker *m = &makers[i];
        m->model = makers[0].model;
        m->vocabulary = makers[0].vocabulary;
        m->options.device = devices->names[i];
        m->inputs = ledger_inputs_new(m->given->pack ? m->given->pack : m->given->results);
        if (!m->inputs) {
            (void)cli_usage_error(COMMAND, "no memory");
            return CLI_FAILURE;
        }
        if (cli_open(&m->options, log_message, m, &m->model, &m->session, &error) != ZIMAGE_OK)
            return cli_option_failure(CLI_WORK, m->given, &error);
        if (i == 0)
            m->vocabulary = cli_words_read(&m->options, log_message, m);
        recipe_fingerprint(m->model, m->fingerprint);
    }
    return 0;
}

/* A device that fails leaves its jobs to the others. */
static int work_with_all(maker *makers, int count)
{
    ledger_totals sum = {0};
    double begin = cli_seconds_now();
    int started = 1, code = 0;
    while (started < count && pthread_create(&makers[started].thread, NULL, work, &makers[started]) == 0)
        started++;
    work(&makers[0]);
    for (int i = 0; i < started; i++) {
        maker *m = &makers[i];
        if (i > 0)
            pthread_join(m->thread, NULL);
        sum.made += m->totals.made;
        sum.failed += m->totals.failed;
        sum.lost += m->totals.lost;
        sum.busy_seconds += m->totals.busy_seconds;
        code = code ? code : m->code;
    }
    if (code && !makers[0].given->json && sum.made + sum.failed + sum.lost == 0)
        return code; /* the sentence that is printed says it all */
    int printed = report(makers[0].given, &sum, cli_seconds_now() - begin);
    return code ? code : printed;
}

static int open_and_work(const cli_options *o, const cli_device_list *devices)
{
    maker *makers = calloc((size_t)devices->count, sizeof *makers);
    if (!makers) {
        (void)cli_usage_error(COMMAND, "no memory");
        return CLI_FAILURE;
    }
    int i = 0;
    do { /* a list of devices is never empty */
        makers[i].given = o;
        cli_queued_defaults(CLI_WORK, o, &makers[i].options);
    } while (++i < devices->count);
    int code = open_all(makers, devices);
    if (!code)
        code = work_with_all(makers, devices->count);
    for (i = 0; i < devices->count; i++) {
        json_decref(makers[i].warnings);
        ledger_inputs_free(makers[i].inputs);
        zimage_session_close(makers[i].session);
    }
    vocabulary_free(makers[0].vocabulary);
    zimage_model_close(makers[0].model);
    free(makers);
    return code;
}

int cmd_work(const cli_options *o)
{
    cli_device_list devices;
    const char *place = o->pack ? o->pack : o->results;
    int is_bucket = ledger_store_is_bucket(place);
    size_t existing = strlen(place);
    if (!o->queue)
        return cli_usage_error(COMMAND, "--queue: missing, expected postgresql://USER@HOST/DATABASE");
    if (o->pack && (is_bucket || ledger_store_is_mistyped(place)))
        return cli_usage_error(COMMAND, "--pack: %s, expected a folder: a tar file grows, an object does not", place);
    if (ledger_store_is_mistyped(place))
        return cli_usage_error(COMMAND, "--out-dir: %s, " STORE_EXPECTED, place);
    if (!cli_has_model(COMMAND, o) ||
        (!is_bucket && !cli_folder_make(COMMAND, o->pack ? "--pack" : "--out-dir", place, &existing)))
        return CLI_USAGE;
    if (o->cache_dir && !cli_can_make_folder(COMMAND, "--cache-dir", o->cache_dir))
        return CLI_USAGE;
    cli_signals_catch();
    int code = cli_device_list_read(CLI_WORK, o, &devices);
    if (!code)
        code = open_and_work(o, &devices);
    cli_device_list_free(&devices);
    cli_folder_unmake(place, existing);
    return code;
}
