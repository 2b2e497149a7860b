#include "front.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "queue/service.h"
#include "queued.h"
#include "shared/recipe.h"

#define TIDY_PAUSE   30   /* seconds between two looks for old jobs */
#define NOTIFY_PAUSE 0.05 /* seconds: NOTIFY takes a lock of the whole database server */

struct cli_front {
    cli_options given, defaults; /* defaults: with generate's, for what a request does not say */
    ledger *l;
    ledger_store *store;   /* of finished images */
    ledger_inputs *inputs; /* of input images */
    int wake[2];           /* a pipe: a byte in it ends the waiting */
    double notified, tidied;
    int owes_notice; /* jobs were added since the workers were woken */
    service_ledger table;
};

static service_answer answer_of(ledger_result result)
{
    return result == LEDGER_OK ? SERVICE_OK : result == LEDGER_LOST ? SERVICE_LOST : SERVICE_FAILED;
}

static zimage_status no_memory(zimage_error *error)
{
    snprintf(error->message, sizeof error->message, "no memory for a job of the ledger");
    return error->status = ZIMAGE_ERROR_MEMORY;
}

/* ---- input images ---- */

#define TIDY_MOST 0.1 /* seconds, in which nobody gets news */

typedef char hash_text[HASH_TEXT];

/* Puts the job's input images where workers find them. hashes: [job->input_count]. */
static service_answer keep_inputs(const cli_front *f, const service_job *job, hash_text *hashes, zimage_error *error)
{
    ledger_result result = job->input_count <= CLI_QUEUED_INPUTS ? LEDGER_OK : LEDGER_FAILED;
    for (size_t i = 0; i < job->input_count && result == LEDGER_OK; i++) {
        const ledger_input input = {
            .data = job->inputs[i].data, .size = job->inputs[i].size, .seconds = LEDGER_INPUT_SECONDS};
        result = ledger_inputs_keep(f->inputs, f->l, &input, hashes[i], error);
    }
    return answer_of(result);
}

/* Of a line: input images are called by their hashes. */
static void name_inputs(json_t *line, const service_job *job, hash_text *hashes)
{
    json_t *images = json_array();
    for (size_t i = 0; i < job->request->image_count; i++)
        json_array_append_new(images, json_sprintf("%s.png", hashes[i]));
    json_object_set_new(line, "image", images);
    if (job->request->mask)
        json_object_set_new(line, "mask", json_sprintf("%s.png", hashes[job->request->image_count]));
    if (job->request->strength > 0)
        json_object_set_new(line, "strength", json_real(job->request->strength));
    if (job->request->composite)
        json_object_set_new(line, "composite", json_true());
}

/* ---- an image as a row: a line that zimage queue could have added ---- */

/* jansson's whole numbers end at 2^63 - 1, seeds at 2^64 - 1: the seed is written as a text of its own. */
static char *with_seed(json_t *object, uint64_t seed)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL, *whole = NULL;
    if (text && asprintf(&whole, "{\"seed\":%llu,%s", (unsigned long long)seed, text + 1) < 0)
        whole = NULL;
    json_decref(object);
    free(text);
    return whole;
}

static char *line_of(const service_job *job, int index, hash_text *hashes)
{
    const zimage_request *r = job->request;
    json_t *line =
        json_pack("{s:s, s:i, s:i, s:i, s:f, s:s, s:o?}", "prompt", r->prompt, "width", r->width, "height", r->height,
                  "steps", r->steps, "guidance", (double)r->guidance_scale, "rng", zimage_rng_name(r->rng), "output",
                  json_sprintf("%s-%d.%s", job->id, index, zimage_format_name(job->format)));
    if (line && r->negative_prompt)
        json_object_set_new(line, "negative", json_string(r->negative_prompt));
    if (line && job->format != ZIMAGE_FORMAT_PNG && job->quality)
        json_object_set_new(line, "quality", json_integer(job->quality));
    if (line && !job->has_recipe)
        json_object_set_new(line, "no_metadata", json_true());
    if (line && job->input_count > 0)
        name_inputs(line, job, hashes);
    return with_seed(line, r->seed + (uint64_t)index);
}

static zimage_status take_images(cli_queued *queued, const zimage_request *r, zimage_error *error)
{
    zimage_image *images[CLI_QUEUED_INPUTS];
    size_t count = 0;
    for (; count < r->image_count && count < CLI_FILES_MAX; count++)
        images[count] = (zimage_image *)(uintptr_t)r->images[count]; /* lent: nobody changes them */
    if (r->mask)
        images[count++] = (zimage_image *)(uintptr_t)r->mask;
    return cli_queued_take_images(queued, images, count, 1, error);
}

/* The key that a worker computes of the same line. */
static zimage_status key_of(const cli_front *f, const service_job *job, const char *text, char **key,
                            zimage_error *error)
{
    char sentence[CLI_SENTENCE_MAX] = "", made[JOB_KEY];
    cli_lines lines = {.command = "serve", .options = &f->defaults, .sentence = sentence};
    cli_queued queued;
    zimage_status status = ZIMAGE_ERROR_ARGUMENT;
    *key = NULL;
    if (cli_queued_read(&lines, text, strlen(text), &queued) == 0)
        status = take_images(&queued, job->request, error);
    else
        snprintf(error->message, sizeof error->message, "%.1500s", sentence);
    if (status == ZIMAGE_OK)
        status = cli_queued_complete(&queued, job->model, error);
    if (status == ZIMAGE_OK && !(cli_queued_service_key(&queued, made) && (*key = strdup(made))))
        status = no_memory(error);
    cli_queued_free(&queued);
    return error->status = status;
}

static service_answer add_rows(cli_front *f, const service_job *job, char **keys, char **requests,
                               char known[SERVICE_ID_TEXT], zimage_error *error)
{
    char fingerprint[RECIPE_FINGERPRINT];
    hash_text hashes[CLI_QUEUED_INPUTS];
    const char *inputs[CLI_QUEUED_INPUTS];
    service_answer kept = keep_inputs(f, job, hashes, error);
    if (kept != SERVICE_OK)
        return kept;
    for (size_t i = 0; i < job->input_count; i++)
        inputs[i] = hashes[i];
    for (int i = 0; i < job->count; i++) {
        requests[i] = line_of(job, i, hashes);
        zimage_status status = requests[i] ? key_of(f, job, requests[i], &keys[i], error) : no_memory(error);
        if (status != ZIMAGE_OK)
            return SERVICE_FAILED;
    }
    recipe_fingerprint(job->model, fingerprint);
    const ledger_service_rows rows = {fingerprint, keys, requests, inputs};
    service_answer answer = answer_of(ledger_service_add(f->l, job, &rows, known, error));
    f->owes_notice |= answer == SERVICE_OK && !*known;
    return answer;
}

static service_answer add(void *user, const service_job *job, char known[SERVICE_ID_TEXT], zimage_error *error)
{
    cli_front *f = user;
    char **keys = calloc((size_t)job->count, sizeof *keys), **requests = calloc((size_t)job->count, sizeof *requests);
    service_answer answer = SERVICE_FAILED;
    *known = 0;
    if (keys && requests)
        answer = add_rows(f, job, keys, requests, known, error);
    else
        no_memory(error);
    for (int i = 0; keys && requests && i < job->count; i++) {
        free(keys[i]);
        free(requests[i]);
    }
    free(keys);
    free(requests);
    return answer;
}

/* ---- the other functions of the table ---- */

static service_answer cancel(void *user, const char *id, zimage_error *error)
{
    const cli_front *f = user;
    return answer_of(ledger_service_cancel(f->l, id, error));
}

static service_answer look(void *user, const char *const *ids, size_t count, int places, service_take_part *take,
                           void *taker, zimage_error *error)
{
    const cli_front *f = user;
    return answer_of(ledger_service_look(f->l, ids, count, places, take, taker, error));
}

static service_answer find(void *user, const service_question *question, service_take_found *take, void *taker,
                           zimage_error *error)
{
    const cli_front *f = user;
    return answer_of(ledger_service_find(f->l, question, take, taker, error));
}

static service_answer load(void *user, service_take_crew *take_crew, service_take_line *take_line, void *taker,
                           zimage_error *error)
{
    const cli_front *f = user;
    return answer_of(ledger_service_load(f->l, take_crew, take_line, taker, error));
}

static service_answer watch(void *user, const service_watch *watches, size_t count, zimage_error *error)
{
    const cli_front *f = user;
    return answer_of(ledger_service_watch(f->l, watches, count, error));
}

static service_answer read_news(void *user, const service_watched *watched, size_t count, service_take_news *take,
                                void *taker, zimage_error *error)
{
    const cli_front *f = user;
    return answer_of(ledger_service_news(f->l, watched, count, take, taker, error));
}

static void remove_file(void *user, const char *file, const char *key)
{
    const cli_front *f = user;
    ledger_place_remove(f->store, file, key);
}

static service_answer tidy(void *user, zimage_error *error)
{
    cli_front *f = user;
    double pause = f->given.keep_results / 4 < TIDY_PAUSE ? f->given.keep_results / 4 : TIDY_PAUSE;
    if (cli_seconds_now() - f->tidied < pause)
        return SERVICE_OK;
    f->tidied = cli_seconds_now();
    ledger_result result = ledger_service_tidy(f->l, f->given.keep_results, remove_file, f, error);
    return answer_of(result == LEDGER_OK ? ledger_inputs_tidy(f->inputs, f->l, TIDY_MOST, error) : result);
}

static zimage_status read_file(void *user, const service_file *file, uint8_t **data, size_t *size, zimage_error *error)
{
    const cli_front *f = user;
    return ledger_place_read(f->store, file, data, size, error);
}

static service_answer reopen(void *user, zimage_error *error)
{
    cli_front *f = user;
    f->owes_notice = 1; /* the notice of the last job may have been lost with the connection */
    return answer_of(ledger_service_reopen(f->l, error));
}

/* ---- waiting ---- */

/* Wakes the workers, now and then. Returns how long to wait for the next time. */
static double notify(cli_front *f, double seconds)
{
    double left = f->notified + NOTIFY_PAUSE - cli_seconds_now();
    if (!f->owes_notice)
        return seconds;
    if (left > 0)
        return left < seconds ? left : seconds;
    f->owes_notice = 0;
    f->notified = cli_seconds_now();
    ledger_service_notify(f->l, NULL); /* workers look by themselves as well */
    return seconds;
}

static void wait_for_news(void *user, double seconds)
{
    cli_front *f = user;
    char bytes[64];
    seconds = notify(f, seconds);
    struct pollfd fds[] = {{.fd = f->wake[0], .events = POLLIN}, {.fd = ledger_socket(f->l), .events = POLLIN}};
    poll(fds, 2, (int)(1000 * seconds) + 1);
    while (read(f->wake[0], bytes, sizeof bytes) == (ssize_t)sizeof bytes) {
    }
    ledger_drain(f->l);
    notify(f, 0);
}

static void wake(void *user)
{
    const cli_front *f = user;
    while (write(f->wake[1], "", 1) < 0 && errno == EINTR) {
    }
}

/* ---- opening ---- */

static zimage_status open_pipe(cli_front *f, zimage_error *error)
{
    if (pipe(f->wake) != 0) {
        f->wake[0] = f->wake[1] = -1;
        snprintf(error->message, sizeof error->message, "no pipe can be made: %s", strerror(errno));
        return error->status = ZIMAGE_ERROR_INTERNAL;
    }
    for (int i = 0; i < 2; i++) {
        fcntl(f->wake[i], F_SETFL, O_NONBLOCK);
        fcntl(f->wake[i], F_SETFD, FD_CLOEXEC);
    }
    return ZIMAGE_OK;
}

zimage_status cli_front_open(const cli_options *options, cli_front **front, zimage_error *error)
{
    cli_front *f = *front = calloc(1, sizeof *f);
    if (!f)
        return no_memory(error);
    *f = (cli_front){.given = *options, .wake = {-1, -1}};
    f->table = (service_ledger){.user = f,
                                .add = add,
                                .cancel = cancel,
                                .look = look,
                                .find = find,
                                .load = load,
                                .watch = watch,
                                .news = read_news,
                                .tidy = tidy,
                                .read = read_file,
                                .reopen = reopen,
                                .wait = wait_for_news,
                                .wake = wake};
    f->inputs = ledger_inputs_new(f->given.results);
    cli_queued_defaults(CLI_SERVE, options, &f->defaults);
    f->defaults.given = (row_set){{0}}; /* the server's options are no line's */
    if (open_pipe(f, error) != ZIMAGE_OK || ledger_store_open(options->results, &f->store, error) != ZIMAGE_OK)
        return error->status;
    if (ledger_open(options->queue, "zimage serve", 1, &f->l, error) != LEDGER_OK ||
        ledger_service_listen(f->l, error) != LEDGER_OK)
        return error->status;
    return f->inputs ? ZIMAGE_OK : no_memory(error);
}

void cli_front_close(cli_front *front)
{
    if (!front)
        return;
    ledger_close(front->l);
    ledger_store_close(front->store);
    ledger_inputs_free(front->inputs);
    for (int i = 0; i < 2; i++)
        if (front->wake[i] >= 0)
            close(front->wake[i]);
    free(front);
}

const service_ledger *cli_front_ledger(const cli_front *front)
{
    return &front->table;
}
