/*
 * Workers with a stand-in for a model: a job takes some milliseconds and its picture is made of its key, so that the
 * tests of the ledger can do thousands. The ledger's own code is the program's.
 *
 *   stand_in init URL
 *   stand_in add URL BATCH COUNT [FIRST [CALLER [PRIORITY]]]   jobs FIRST, FIRST + 1, ...
 *   stand_in work URL FOLDER MILLISECONDS [OPTION...]          lease=S claim=N packed until-empty tier=TEXT
 *   stand_in claims URL COUNT                                  claims and finishes jobs, prints how long each took
 *
 * A request is {"n": 7}; {"n": 7, "do": "crash"} kills its worker, "bad" fails, "machine" is a fault of the machine,
 * "slow" takes ten seconds. COUNT jobs are plain ones, unless BATCH begins with one of these words and a dash.
 */
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "queue/jobs.h"

#define MODEL        "stand-in"
#define PICTURE_MIN  2000 /* bytes */
#define PICTURE_STEP 100
#define SLICE        5 /* milliseconds of work between two looks at stop */
#define SLOW         10000

static volatile sig_atomic_t caught;

static void on_signal(int number)
{
    caught = number;
}

static int stopping(void)
{
    return caught;
}

static int fail(const zimage_error *error)
{
    fprintf(stderr, "stand_in: %s\n", error->message);
    return 1;
}

/* ---- the engine ---- */

typedef struct stand_in {
    int milliseconds;
    const char *tier;
} stand_in;

static int work_for(int milliseconds, int (*stop)(const void *user), const void *user)
{
    for (int done = 0; done < milliseconds; done += SLICE) {
        if (stop(user))
            return 0;
        usleep(1000u * (unsigned)(milliseconds - done < SLICE ? milliseconds - done : SLICE));
    }
    return 1;
}

/* Bytes that follow from the key, and from the kind of machine. */
static int draw(const stand_in *s, const ledger_job *job, ledger_picture *picture)
{
    picture->size = PICTURE_MIN + PICTURE_STEP * (size_t)job->key[0];
    picture->data = malloc(picture->size);
    picture->release = free;
    picture->suffix = ".png";
    picture->facts = json_pack("{s:s}", "kernels", s->tier);
    for (size_t i = 0; picture->data && i < picture->size; i++)
        picture->data[i] = (uint8_t)(job->key[i % (JOB_KEY - 1)] + i + (size_t)s->tier[0]);
    return picture->data && picture->facts;
}

static ledger_verdict make(void *user, const ledger_job *job, int (*stop)(const void *stop_user), const void *stop_user,
                           ledger_picture *picture, zimage_error *error)
{
    const stand_in *s = user;
    json_t *request = json_loads(job->request, 0, NULL);
    const char *what = json_string_value(json_object_get(request, "do"));
    char action[16] = "";
    snprintf(action, sizeof action, "%s", what ? what : "");
    json_decref(request);
    if (!strcmp(action, "crash"))
        kill(getpid(), SIGKILL);
    if (!work_for(strcmp(action, "slow") ? s->milliseconds : SLOW, stop, stop_user))
        return LEDGER_INTERRUPTED;
    if (!strcmp(action, "bad"))
        return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "height: 17, expected a multiple of 16"), LEDGER_BAD_JOB;
    if (!strcmp(action, "machine"))
        return zi_fail(error, ZIMAGE_ERROR_MEMORY, "out of memory: a stand-in for a GPU"), LEDGER_BAD_MACHINE;
    return draw(s, job, picture) ? LEDGER_MADE : LEDGER_BAD_MACHINE;
}

static void print(const char *sentence, void *user)
{
    (void)user;
    fprintf(stderr, "stand_in: %s\n", sentence);
}

static int work(char **argv)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    ledger_totals totals;
    stand_in s = {.milliseconds = atoi(argv[4]), .tier = "A"};
    ledger_engine engine = {.model = MODEL, .make = make, .user = &s};
    ledger_work_params params = {
        .target = argv[2], .place = argv[3], .claim = 2, .lease_seconds = 3, .stopping = stopping, .say = print};
    for (char **option = argv + 5; *option; option++) {
        if (!strncmp(*option, "lease=", 6))
            params.lease_seconds = atof(*option + 6);
        else if (!strncmp(*option, "claim=", 6))
            params.claim = atoi(*option + 6);
        else if (!strncmp(*option, "tier=", 5))
            s.tier = *option + 5;
        else if (!strcmp(*option, "packed"))
            params.is_packed = 1;
        else if (!strcmp(*option, "until-empty"))
            params.until_empty = 1;
        else
            return 2;
    }
    double begin = zi_now();
    ledger_result answer = ledger_work(&params, &engine, &totals, &error);
    printf("{\"made\": %llu, \"failed\": %llu, \"lost\": %llu, \"seconds\": %.3f, \"busy\": %.3f}\n",
           (unsigned long long)totals.made, (unsigned long long)totals.failed, (unsigned long long)totals.lost,
           zi_now() - begin, totals.busy_seconds);
    return answer == LEDGER_OK ? 0 : fail(&error);
}

/* ---- adding ---- */

static int take_job(ledger_spool *spool, const char *action, long long number)
{
    char request[200], key[JOB_KEY];
    if (*action)
        snprintf(request, sizeof request, "{\"n\":%lld,\"do\":\"%s\",\"prompt\":\"a red \\\\apple\\t\"}", number,
                 action);
    else
        snprintf(request, sizeof request, "{\"n\":%lld,\"prompt\":\"a photograph of a red apple on a table, %lld\"}",
                 number, number);
    if (!hash_sha256(&(hash_piece){request, strlen(request)}, 1, key))
        return -1;
    return ledger_spool_take(spool, &(ledger_line){.key = key, .request = request});
}

static int add(int argc, char **argv)
{
    static const char *const actions[] = {"crash", "bad", "machine", "slow"};
    zimage_error error = ZIMAGE_ERROR_INIT;
    ledger *l = NULL;
    ledger_added added;
    long long count = atoll(argv[4]), first = argc > 5 ? atoll(argv[5]) : 0;
    const ledger_adding adding = {.batch = argv[3],
                                  .caller = argc > 6 ? argv[6] : "",
                                  .model = MODEL,
                                  .priority = argc > 7 ? atoi(argv[7]) : 0,
                                  .max_attempts = 5};
    const char *action = "";
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
        if (!strncmp(argv[3], actions[i], strlen(actions[i])) && argv[3][strlen(actions[i])] == '-')
            action = actions[i];
    ledger_spool *spool = ledger_spool_new();
    for (long long i = 0; spool && i < count; i++)
        if (take_job(spool, action, first + i) != 0)
            return 1;
    double begin = zi_now();
    if (!spool || ledger_open(argv[2], "stand_in add", 1, &l, &error) != LEDGER_OK ||
        ledger_add(l, &adding, spool, 60, NULL, NULL, &added, &error) != LEDGER_OK)
        return fail(&error);
    printf("{\"lines\": %llu, \"added\": %llu, \"seconds\": %.3f}\n", (unsigned long long)added.lines,
           (unsigned long long)added.added, zi_now() - begin);
    ledger_close(l);
    ledger_spool_free(spool);
    return 0;
}

/* ---- measuring claims ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *name, double *times, size_t count)
{
    qsort(times, count, sizeof *times, by_value);
    printf("\"%s\": {\"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f}, ", name, 1e3 * times[count / 2],
           1e3 * times[count * 99 / 100], 1e3 * times[count - 1]);
}

static int claims(char **argv)
{
    enum { CLAIM, BEGIN, FINISH, STEPS };
    static const char *const names[] = {"claim_ms", "begin_ms", "finish_ms"};
    zimage_error error = ZIMAGE_ERROR_INIT;
    ledger *l = NULL;
    size_t count = (size_t)atoll(argv[3]), done = 0;
    double *times[STEPS], begin = zi_now();
    const char *const results[] = {"{\"file\": \"none\"}"};
    ledger_claiming claiming = {.model = MODEL, .worker = "claims", .count = 1, .lease_seconds = 30};
    for (int i = 0; i < STEPS; i++)
        if (!(times[i] = malloc((count + 1) * sizeof **times)))
            return 1;
    ledger_result answer = ledger_open(argv[2], "stand_in claims", 1, &l, &error);
    for (; answer == LEDGER_OK && done < count && !caught; done++) {
        ledger_job job;
        int found, is_mine, is_uncounted;
        double t0 = zi_now();
        answer = ledger_claim(l, &claiming, &job, &found, &error);
        double t1 = zi_now();
        if (answer != LEDGER_OK || !found)
            break;
        answer = ledger_begin(l, &job, 30, NULL, &is_mine, &is_uncounted, &error);
        double t2 = zi_now();
        ledger_hold hold = {.id = job.id};
        memcpy(hold.lease, job.lease, sizeof hold.lease);
        if (answer == LEDGER_OK)
            answer = ledger_finish(l, &hold, results, 1, &is_mine, &error);
        times[CLAIM][done] = t1 - t0;
        times[BEGIN][done] = t2 - t1;
        times[FINISH][done] = zi_now() - t2;
        ledger_job_free(&job);
    }
    printf("{");
    for (int i = 0; i < STEPS && done; i++)
        print_times(names[i], times[i], done);
    printf("\"jobs\": %zu, \"per_second\": %.1f}\n", done, (double)done / (zi_now() - begin));
    ledger_close(l);
    return answer == LEDGER_OK ? 0 : fail(&error);
}

static int init(char **argv)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    ledger *l = NULL;
    int before, after;
    if (ledger_open(argv[2], "stand_in init", 0, &l, &error) != LEDGER_OK ||
        ledger_init(l, &before, &after, &error) != LEDGER_OK)
        return fail(&error);
    printf("{\"before\": %d, \"after\": %d}\n", before, after);
    ledger_close(l);
    return 0;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    if (argc >= 3 && !strcmp(argv[1], "init"))
        return init(argv);
    if (argc >= 5 && !strcmp(argv[1], "add"))
        return add(argc, argv);
    if (argc >= 5 && !strcmp(argv[1], "work"))
        return work(argv);
    if (argc >= 4 && !strcmp(argv[1], "claims"))
        return claims(argv);
    return 2;
}
