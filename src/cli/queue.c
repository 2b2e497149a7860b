/* zimage queue: a ledger of jobs in PostgreSQL. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "names.h"
#include "naming.h"
#include "queue/ledger.h"
#include "queued.h"
#include "shared/json_text.h"
#include "shared/recipe.h"
#include "signals.h"

#define COMMAND      "queue"
#define ADD_PATIENCE 300   /* seconds in which a lost database may come back while jobs are added */
#define KEPT_SECONDS 86400 /* in which a line's job is added behind its input images */
#define KEPT_MAX     16
#define ROW_MAX      512

static int fail(const cli_options *o, const zimage_error *error)
{
    return cli_option_failure(CLI_QUEUE, o, error);
}

/* ---- add ---- */

/* An input image that is where workers find it. */
typedef struct kept_input {
    char image[HASH_TEXT]; /* of its pixels */
    uint8_t background[3]; /* that they were blended over */
    char file[HASH_TEXT];
} kept_input;

typedef struct adding {
    const cli_options *given;
    cli_options options; /* with generate's defaults */
    cli_lines lines;
    zimage_model *model;
    zimage_session *session; /* checks what the model can make */
    json_t *outputs;         /* name -> line */
    json_t *checked;         /* sizes, steps, ... that the model can make */
    ledger_spool *spool;
    ledger *l;
    ledger_inputs *inputs;
    kept_input kept[KEPT_MAX]; /* the last ones: the next lines may have them, too */
    size_t kept_count;
    uint64_t jobs;
} adding;

/* Two lines with one output: the second image would find the first one's file. */
static int take_output(adding *a, const char *output)
{
    const json_t *other = json_object_get(a->outputs, output);
    if (other)
        return cli_line_error(&a->lines, "output: \"%s\", but line %lld has the same", output,
                              (long long)json_integer_value(other));
    return json_object_set_new(a->outputs, output, json_integer((json_int_t)a->lines.number)) == 0
               ? 0
               : cli_line_error(&a->lines, "no memory for it");
}

static int refuse(adding *a, const cli_queued *q, const zimage_error *error)
{
    char sentence[CLI_SENTENCE_MAX];
    cli_translate(CLI_GENERATE, &q->options, error->message, sentence);
    return cli_line_error(&a->lines, "%s", sentence);
}

/* Whether the model can make such an image. The answer is the same for all prompts without input images. This machine's
 * memory does not matter: a worker makes the image. */
static int check_request(adding *a, const cli_queued *q)
{
    char shape[ROW_MAX];
    zimage_error error = ZIMAGE_ERROR_INIT;
    const zimage_request *r = &q->request;
    snprintf(shape, sizeof shape, "%d %d %d %g %g %g", r->width, r->height, r->steps, (double)r->guidance_scale,
             (double)r->cfg_normalization, r->cfg_truncation);
    if (r->image_count == 0 && json_object_get(a->checked, shape))
        return 0;
    zimage_status status = zimage_request_check(a->session, r, &error);
    if (status != ZIMAGE_OK && status != ZIMAGE_ERROR_MEMORY)
        return refuse(a, q, &error);
    if (r->image_count == 0)
        json_object_set_new(a->checked, shape, json_true());
    return 0;
}

/* Writes an image as the file that a worker reads. */
static int keep_image(adding *a, const cli_queued *q, const zimage_image *image, char hash[HASH_TEXT])
{
    const zimage_save_params params = {.struct_size = sizeof params, .alpha_over = q->options.background};
    zimage_error error = ZIMAGE_ERROR_INIT;
    ledger_input input = {.seconds = KEPT_SECONDS, .patience = ADD_PATIENCE};
    uint8_t *data;
    zimage_status status = zimage_image_encode_with(image, ZIMAGE_FORMAT_PNG, &params, &data, &input.size, &error);
    if (status != ZIMAGE_OK)
        return refuse(a, q, &error);
    input.data = data;
    ledger_result answer = ledger_inputs_keep(a->inputs, a->l, &input, hash, &error);
    zimage_free(data);
    return answer == LEDGER_OK ? 0 : fail(a->given, &error);
}

static int keep_input(adding *a, const cli_queued *q, const zimage_image *image, char hash[HASH_TEXT])
{
    kept_input new = {.image = ""};
    memcpy(new.background, q->options.background, sizeof new.background);
    if (!recipe_image_hash(image, new.image))
        return cli_line_error(&a->lines, "no memory for its input images");
    for (size_t i = 0; i < KEPT_MAX && i < a->kept_count; i++)
        if (!strcmp(a->kept[i].image, new.image) &&
            !memcmp(a->kept[i].background, new.background, sizeof new.background)) {
            memcpy(hash, a->kept[i].file, HASH_TEXT);
            return 0;
        }
    int code = keep_image(a, q, image, hash);
    memcpy(new.file, hash, HASH_TEXT);
    if (!code)
        a->kept[a->kept_count++ % KEPT_MAX] = new;
    return code;
}

/* Puts a line's images and its mask where workers find them. */
static int keep_inputs(adding *a, const cli_queued *q, char hashes[CLI_QUEUED_INPUTS][HASH_TEXT], size_t *count)
{
    int code = 0;
    *count = 0;
    for (size_t i = 0; i < q->request.image_count && !code; i++)
        code = keep_input(a, q, q->request.images[i], hashes[(*count)++]);
    if (q->request.mask && !code)
        code = keep_input(a, q, q->request.mask, hashes[(*count)++]);
    return code;
}

static int spool_line(adding *a, const cli_queued *q, const char *text)
{
    char hashes[CLI_QUEUED_INPUTS][HASH_TEXT];
    size_t count;
    int code = keep_inputs(a, q, hashes, &count);
    if (code)
        return code;
    const ledger_line line = {q->job.key, text, q->options.output, (const char(*)[HASH_TEXT])hashes, count};
    errno = ledger_spool_take(a->spool, &line);
    if (errno == 0)
        return 0;
    (void)cli_usage_error(COMMAND, "a temporary file of jobs can't be written: %s", strerror(errno));
    return CLI_FAILURE;
}

/* cli_take_line of adding. */
static int take_line(void *user, const char *text, size_t length)
{
    adding *a = user;
    cli_queued q;
    zimage_error error = ZIMAGE_ERROR_INIT;
    int code = cli_queued_read(&a->lines, text, length, &q);
    if (!code && q.options.output)
        code = take_output(a, q.options.output);
    if (!code && q.options.images.count > 0 && !a->given->results)
        code = cli_line_error(&a->lines, "image: expected --results DIR, the folder of the workers' results, in which "
                                         "they find input images");
    q.inputs.log = cli_log_warnings;
    if (!code && cli_queued_complete(&q, a->model, &error) != ZIMAGE_OK)
        code = refuse(a, &q, &error);
    if (!code && q.options.output && /* else a PNG file, which holds any image and any text */
        cli_check_image(&q.job, &q.request, a->model, &error) != ZIMAGE_OK)
        code = refuse(a, &q, &error);
    if (!code)
        code = check_request(a, &q);
    if (!code)
        code = spool_line(a, &q, text);
    cli_queued_free(&q);
    a->jobs += !code;
    return code ? code : cli_signal_caught() ? CLI_FAILURE : 0;
}

/* The name of the file without folder and extension. */
static void name_batch(const cli_options *o, char name[LEDGER_NAME_MAX + 1])
{
    const char *slash = strrchr(o->lines, '/'), *own = slash ? slash + 1 : o->lines;
    if (o->queue_batch)
        snprintf(name, LEDGER_NAME_MAX + 1, "%s", o->queue_batch);
    else
        snprintf(name, LEDGER_NAME_MAX + 1, "%.*s", (int)strcspn(own, "."), own);
}

static int show_stored(const ledger_added *added, void *user)
{
    const adding *a = user;
    if (!a->given->quiet && !a->given->json)
        cli_line(stderr, "%llu of %llu stored", (unsigned long long)added->lines, (unsigned long long)a->jobs);
    return cli_signal_caught();
}

static int report_added(const adding *a, const char *batch, const ledger_added *added)
{
    if (a->given->json)
        return cli_print_json(COMMAND,
                              json_pack("{s:o, s:I, s:I}", "batch", json_of_text(batch), "lines",
                                        (json_int_t)added->lines, "added", (json_int_t)added->added),
                              CLI_MEASURED);
    cli_line(stdout, "%s: %llu jobs added, %llu were there already", batch, (unsigned long long)added->added,
             (unsigned long long)(added->lines - added->added));
    return 0;
}

static int store(adding *a, ledger *l)
{
    char batch[LEDGER_NAME_MAX + 1], fingerprint[RECIPE_FINGERPRINT];
    zimage_error error = ZIMAGE_ERROR_INIT;
    ledger_added added;
    const cli_options *o = a->given;
    name_batch(o, batch);
    recipe_fingerprint(a->model, fingerprint);
    const ledger_adding params = {.batch = batch,
                                  .caller = o->caller ? o->caller : "",
                                  .model = fingerprint,
                                  .priority = (int)o->priority,
                                  .max_attempts = (int)o->max_attempts};
    ledger_result answer = ledger_add(l, &params, a->spool, ADD_PATIENCE, show_stored, a, &added, &error);
    if (answer == LEDGER_OK)
        return report_added(a, batch, &added);
    if (answer == LEDGER_STOPPED)
        (void)cli_usage_error(COMMAND, "interrupted after %llu of %llu lines; the same command adds the rest",
                              (unsigned long long)added.lines, (unsigned long long)a->jobs);
    return answer == LEDGER_STOPPED ? CLI_FAILURE : fail(o, &error);
}

static int open_model(adding *a)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    cli_options on_cpu = a->options;
    on_cpu.device = "cpu";
    on_cpu.threads = 1;
    if (!cli_has_model(COMMAND, a->given))
        return CLI_USAGE;
    return cli_open(&on_cpu, cli_log_warnings, NULL, &a->model, &a->session, &error) == ZIMAGE_OK
               ? 0
               : fail(a->given, &error);
}

static int check_names(const cli_options *o)
{
    if (o->queue_batch && (!*o->queue_batch || strlen(o->queue_batch) > LEDGER_NAME_MAX))
        return cli_usage_error(COMMAND, "--batch: expected a name of 1 to %d bytes", LEDGER_NAME_MAX);
    if (o->caller && strlen(o->caller) > LEDGER_NAME_MAX)
        return cli_usage_error(COMMAND, "--caller: expected a name of at most %d bytes", LEDGER_NAME_MAX);
    return 0;
}

#define DOES(action) (1U << CLI_QUEUE_##action)
#define CHOOSES      (DOES(STATUS) | DOES(RETRY) | DOES(CANCEL) | DOES(EXPORT))

/* The options that not every action uses. Those that the environment gives may be meant for others. */
static int check_uses(const cli_options *o)
{
    static const struct {
        const char *option;
        unsigned actions;
    } uses[] = {
        {"batch", DOES(ADD) | CHOOSES}, {"id", CHOOSES},        {"caller", DOES(ADD)},    {"priority", DOES(ADD)},
        {"max-attempts", DOES(ADD)},    {"results", DOES(ADD)}, {"model", DOES(ADD)},     {"transformer", DOES(ADD)},
        {"text-encoder", DOES(ADD)},    {"vae", DOES(ADD)},     {"tokenizer", DOES(ADD)}, {"scheduler", DOES(ADD)},
    };
    const row_set typed = row_set_minus(o->given, o->variables);
    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++)
        if (cli_has(&typed, cli_find(CLI_QUEUE, uses[i].option)) && !(uses[i].actions & 1U << o->action))
            return cli_usage_error(COMMAND, "--%s: %s does not use it", uses[i].option,
                                   cli_queue_action_name(o->action));
    if (o->lines && o->action != CLI_QUEUE_ADD)
        return cli_usage_error(COMMAND, "\"%s\": unexpected; only add takes a file", o->lines);
    if (!o->lines && o->action == CLI_QUEUE_ADD)
        return cli_usage_error(COMMAND, "FILE.jsonl: missing, expected a file of jobs, a JSON object a line");
    if ((o->action == CLI_QUEUE_RETRY || o->action == CLI_QUEUE_CANCEL) && !o->queue_batch && !o->id)
        return cli_usage_error(COMMAND, "%s: expected --batch or --id, so that no other job is meant",
                               cli_queue_action_name(o->action));
    return 0;
}

static int add(const cli_options *o, ledger *l)
{
    adding a = {.given = o,
                .outputs = json_object(),
                .checked = json_object(),
                .spool = ledger_spool_new(),
                .l = l,
                .inputs = ledger_inputs_new(o->results)};
    cli_queued_defaults(CLI_QUEUE, o, &a.options);
    a.lines = (cli_lines){.command = COMMAND, .label = "FILE.jsonl", .path = o->lines, .options = &a.options};
    int code = 0;
    if (!a.spool || !a.inputs)
        code = cli_usage_error(COMMAND, "no temporary file can be made: %s", strerror(errno));
    if (!code)
        code = open_model(&a);
    if (!code)
        code = cli_lines_each(&a.lines, SIZE_MAX, take_line, &a);
    if (!code && a.jobs == 0)
        code = cli_usage_error(COMMAND, "%s has no line, expected a JSON object a line", o->lines);
    if (!code)
        code = store(&a, l);
    json_decref(a.outputs);
    json_decref(a.checked);
    ledger_spool_free(a.spool);
    ledger_inputs_free(a.inputs);
    zimage_session_close(a.session);
    zimage_model_close(a.model);
    return code;
}

/* ---- init ---- */

static int init(const cli_options *o, ledger *l)
{
    int before, after;
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (ledger_init(l, &before, &after, &error) != LEDGER_OK)
        return fail(o, &error);
    if (o->json)
        return cli_print_json(COMMAND, json_pack("{s:i, s:i}", "before", before, "version", after), CLI_MEASURED);
    cli_line(stdout, "%s: %s, version %d", ledger_place(l),
             before == 0      ? "tables made"
             : before < after ? "tables brought up to date"
                              : "the tables are there",
             after);
    return 0;
}

/* ---- status ---- */

static void print_duration(double seconds, char *text, size_t size)
{
    long long s = (long long)(seconds + 0.5);
    if (s >= 86400)
        snprintf(text, size, "%lld d %lld h", s / 86400, s % 86400 / 3600);
    else if (s >= 3600)
        snprintf(text, size, "%lld h %lld min", s / 3600, s % 3600 / 60);
    else if (s >= 60)
        snprintf(text, size, "%lld min %lld s", s / 60, s % 60);
    else
        snprintf(text, size, "%lld s", s);
}

static const char *const states[] = {"queued", "running", "done", "failed", "cancelled"};
#define STATES (sizeof states / sizeof *states)

static void print_counts(const char *name, const json_t *counts)
{
    char line[ROW_MAX] = "";
    for (size_t i = 0; i < STATES; i++)
        cli_append(line, sizeof line, "%11lld", (long long)json_integer_value(json_object_get(counts, states[i])));
    cli_line(stdout, "%-24s%s", name, line);
}

static void print_failures(const json_t *failures)
{
    for (size_t i = 0; i < json_array_size(failures); i++) {
        const json_t *failure = json_array_get(failures, i);
        cli_line(
            stdout, "failed: %lld, the first is job %lld: %s", json_integer_value(json_object_get(failure, "jobs")),
            json_integer_value(json_object_get(failure, "id")), json_string_value(json_object_get(failure, "error")));
    }
}

static void print_status(const json_t *status)
{
    char head[ROW_MAX] = "", time[64];
    const json_t *batches = json_object_get(status, "batches");
    const json_t *left = json_object_get(status, "seconds_left");
    double rate = json_number_value(json_object_get(status, "rate"));
    for (size_t i = 0; i < STATES; i++)
        cli_append(head, sizeof head, "%11s", states[i]);
    cli_line(stdout, "%-24s%s", "batch", head);
    for (size_t i = 0; i < json_array_size(batches); i++) {
        const json_t *batch = json_array_get(batches, i);
        print_counts(json_string_value(json_object_get(batch, "batch")), batch);
    }
    if (json_array_size(batches) > 1)
        print_counts("all", json_object_get(status, "jobs"));
    print_duration(json_number_value(left), time, sizeof time);
    cli_line(stdout, "%lld workers, %.3g images a minute, time left: %s",
             json_integer_value(json_object_get(status, "workers")), 60 * rate,
             json_is_null(left) ? "not known yet" : time);
    print_failures(json_object_get(status, "failures"));
}

static int status(const cli_options *o, ledger *l, const ledger_choice *choice)
{
    json_t *object;
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (ledger_status(l, choice, &object, &error) != LEDGER_OK)
        return fail(o, &error);
    if (o->json)
        return cli_print_json(COMMAND, object, CLI_MEASURED);
    print_status(object);
    json_decref(object);
    return 0;
}

/* ---- export, retry, cancel ---- */

static int print_job(const char *line, void *user)
{
    (void)user;
    return puts(line) == EOF || cli_signal_caught();
}

static int export(const cli_options *o, ledger *l, const ledger_choice *choice)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    ledger_result answer = ledger_export(l, choice, print_job, NULL, &error);
    cli_flush_output();
    return answer == LEDGER_OK ? 0 : answer == LEDGER_STOPPED ? CLI_FAILURE : fail(o, &error);
}

typedef ledger_result change_fn(ledger *l, const ledger_choice *choice, uint64_t *jobs, zimage_error *error);

static int change(const cli_options *o, ledger *l, const ledger_choice *choice, change_fn *make, const char *what)
{
    uint64_t jobs;
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (make(l, choice, &jobs, &error) != LEDGER_OK)
        return fail(o, &error);
    if (o->json)
        return cli_print_json(COMMAND, json_pack("{s:I}", "jobs", (json_int_t)jobs), CLI_MEASURED);
    cli_line(stdout, "%llu jobs %s", (unsigned long long)jobs, what);
    return 0;
}

/* ---- all of it ---- */

static int act(const cli_options *o, ledger *l)
{
    const ledger_choice choice = {.batch = o->queue_batch, .id = o->id};
    zimage_error error = ZIMAGE_ERROR_INIT;
    if (CHOOSES & 1U << o->action && ledger_has_chosen(l, &choice, &error) != LEDGER_OK)
        return fail(o, &error);
    switch (o->action) {
    case CLI_QUEUE_INIT:
        return init(o, l);
    case CLI_QUEUE_ADD:
        return add(o, l);
    case CLI_QUEUE_RETRY:
        return change(o, l, &choice, ledger_retry, "queued again");
    case CLI_QUEUE_CANCEL:
        return change(o, l, &choice, ledger_cancel, "cancelled");
    case CLI_QUEUE_EXPORT:
        return export(o, l, &choice);
    default:
        return status(o, l, &choice);
    }
}

int cmd_queue(const cli_options *o)
{
    ledger *l = NULL;
    zimage_error error = ZIMAGE_ERROR_INIT;
    int code = check_names(o);
    if (!code && !o->queue)
        code = cli_usage_error(COMMAND, "--queue: missing, expected postgresql://USER@HOST/DATABASE");
    if (!code)
        code = check_uses(o);
    if (code)
        return code;
    cli_signals_catch();
    if (ledger_open(o->queue, "zimage queue", o->action != CLI_QUEUE_INIT, &l, &error) != LEDGER_OK)
        return fail(o, &error);
    code = act(o, l);
    ledger_close(l);
    return cli_signal_code(code);
}
