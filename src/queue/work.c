/* A worker: claims jobs, has them made, and says so in the ledger. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "queue/heart.h"
#include "queue/pack.h"
#include "queue/pause.h"
#include "queue/placing.h"

#define CLAIM_MAX 64
#define POLL      1.0 /* seconds between two looks for work, if nobody notifies */
#define TIDY      600 /* seconds between two looks for input images that nobody needs */
#define TIDY_MOST 1.0 /* seconds for removing them */

typedef struct worker {
    const ledger_work_params *params;
    const ledger_engine *engine;
    ledger *l;
    ledger_heart heart;
    ledger_claiming claiming;
    ledger_pack pack;
    ledger_placing placing;
    ledger_totals *totals;
    ledger_job jobs[CLAIM_MAX]; /* claimed, from first on */
    int first, count;
    double looked; /* when expired leases were looked for last */
    double tidied; /* and input images that nobody needs */
    zimage_error *error;
} worker;

/* ---- the connection ---- */

static int is_stopping(void *user)
{
    const worker *w = user;
    return w->params->stopping && w->params->stopping();
}

static void say(const char *sentence, void *user)
{
    const worker *w = user;
    if (w->params->say)
        w->params->say(sentence, w->params->user);
}

static ledger_result listen(worker *w)
{
    return ledger_do(w->l, "listen " LEDGER_CHANNEL, 0, NULL, NULL, w->error);
}

/* Whether a statement has to be repeated, because the connection was lost and is there again. Else *answer is final. */
static int again(worker *w, ledger_result *answer)
{
    const ledger_patience patience = {.stopping = is_stopping, .say = say, .user = w};
    if (*answer != LEDGER_LOST)
        return 0;
    do {
        *answer = ledger_persist(w->l, &patience, w->error);
        if (*answer == LEDGER_OK)
            *answer = listen(w);
    } while (*answer == LEDGER_LOST);
    return *answer == LEDGER_OK;
}

/* ---- claiming ---- */

/* Jobs of workers that are gone: looked for a few times in a lease, and when there is nothing else to do. */
static ledger_result claim_expired(worker *w, int is_idle)
{
    double pause = is_idle ? POLL : w->params->lease_seconds / 3;
    if (zi_now() - w->looked < pause)
        return LEDGER_OK;
    w->looked = zi_now() - pause * 0.2 * ledger_random();
    return ledger_claim_expired(w->l, &w->claiming, w->jobs, &w->count, w->error);
}

static ledger_result claim(worker *w)
{
    ledger_result answer;
    w->first = w->count = 0;
    do {
        answer = claim_expired(w, 0);
        if (answer == LEDGER_OK && w->count == 0)
            answer = ledger_claim(w->l, &w->claiming, w->jobs, &w->count, w->error);
        if (answer == LEDGER_OK && w->count == 0)
            answer = claim_expired(w, 1);
    } while (again(w, &answer));
    for (int i = 0; i < w->count; i++)
        ledger_heart_take(&w->heart, &w->jobs[i]);
    return answer;
}

/* Servers do so more often; but a ledger may have none. */
static ledger_result tidy_inputs(worker *w)
{
    ledger_result answer = LEDGER_OK;
    if (!w->params->inputs || zi_now() < w->tidied)
        return answer;
    do {
        answer = ledger_inputs_tidy(w->params->inputs, w->l, TIDY_MOST, w->error);
    } while (again(w, &answer));
    w->tidied = zi_now() + TIDY * (0.75 + 0.5 * ledger_random());
    return answer;
}

static void drop(worker *w, ledger_job *job)
{
    ledger_heart_drop(&w->heart, job->id);
    ledger_job_free(job);
}

/* ---- finishing ---- */

static void count_finished(worker *w, int is_mine)
{
    if (is_mine)
        w->totals->made++;
    else
        w->totals->lost++;
}

/* Stores what waits to be packed. */
static ledger_result store_pack(worker *w)
{
    int64_t ids[PACK_IMAGES];
    int is_mine[PACK_IMAGES] = {0};
    size_t count = w->pack.count;
    ledger_result answer;
    for (size_t i = 0; i < count; i++) {
        ids[i] = w->pack.waiting[i].hold.id;
        is_mine[i] = 1;
    }
    do {
        answer = ledger_pack_store(&w->pack, w->l, is_mine, w->error);
    } while (again(w, &answer));
    for (size_t i = 0; i < count && answer == LEDGER_OK; i++) {
        count_finished(w, is_mine[i]);
        ledger_heart_drop(&w->heart, ids[i]);
    }
    return answer;
}

/* The job can't be made here, or by anybody. */
static ledger_result refuse(worker *w, ledger_job *job, ledger_verdict verdict)
{
    zimage_error reason = *w->error; /* what is said of the connection must not replace it */
    ledger_result answer;
    do {
        answer = verdict == LEDGER_BAD_JOB ? ledger_fail(w->l, job, &reason, w->error)
                                           : ledger_give_back(w->l, job, &reason, w->error);
    } while (again(w, &answer));
    drop(w, job);
    if (verdict == LEDGER_BAD_JOB) {
        w->totals->failed++;
        return answer;
    }
    *w->error = reason;
    return answer == LEDGER_OK ? LEDGER_FAILED : answer;
}

/* The image before this one: its file is there, and its job is done. */
static ledger_result settle(worker *w)
{
    ledger_placing *p = &w->placing;
    if (!ledger_placing_wait(p))
        return LEDGER_OK;
    *w->error = p->error;
    if (p->verdict != LEDGER_MADE)
        return refuse(w, &p->job, p->verdict);
    ledger_result answer = p->answer;
    if (answer == LEDGER_OK)
        count_finished(w, p->is_mine);
    if (answer == LEDGER_OK && p->is_mine && p->is_uncounted)
        do {
            answer = ledger_count_attempt(w->l, p->job.id, w->error);
        } while (again(w, &answer));
    drop(w, &p->job);
    return answer;
}

/* A picture is made. It belongs to the pack now, or is on its way to its file, or is released. */
static ledger_verdict keep(worker *w, ledger_job *job, ledger_picture *picture, ledger_result *answer)
{
    if (w->params->is_packed && ledger_pack_take(&w->pack, job, picture)) {
        ledger_job_free(job); /* its lease is prolonged until it is stored */
        *answer = ledger_pack_is_due(&w->pack) ? store_pack(w) : LEDGER_OK;
        return LEDGER_MADE;
    }
    /* What keeps the image before from its file would keep this one, too. */
    int can_place = !w->params->is_packed && settle(w) == LEDGER_OK;
    if (can_place && ledger_placing_take(&w->placing, job, picture))
        return LEDGER_MADE;
    if (can_place || w->params->is_packed)
        zi_fail_memory(w->error, "a finished image", picture->size);
    ledger_picture_release(picture);
    return LEDGER_BAD_MACHINE;
}

/* ---- one job ---- */

typedef struct stop_state {
    worker *w;
    int64_t id;
} stop_state;

static int has_lost(const void *user)
{
    const stop_state *s = user;
    return ledger_heart_has_lost(&s->w->heart, s->id);
}

static ledger_result make(worker *w, ledger_job *job)
{
    const stop_state stop = {w, job->id};
    ledger_picture picture = {0};
    ledger_result answer = LEDGER_OK;
    double begin = zi_now();
    *w->error = (zimage_error)ZIMAGE_ERROR_INIT;
    if (job->news)
        ledger_news_watch(job->news, &job->watch);
    ledger_verdict verdict = w->engine->make(w->engine->user, job, has_lost, &stop, &picture, w->error);
    if (job->news)
        ledger_news_end(job->news);
    w->totals->busy_seconds += zi_now() - begin;
    if (verdict == LEDGER_MADE)
        verdict = keep(w, job, &picture, &answer);
    if (verdict == LEDGER_INTERRUPTED) {
        w->totals->lost++;
        drop(w, job);
    }
    return verdict == LEDGER_BAD_JOB || verdict == LEDGER_BAD_MACHINE ? refuse(w, job, verdict) : answer;
}

/* The last image that was made and is not stored yet, if its attempt counts: where to note that it does not. */
static int *last_made(worker *w, ledger_hold *made)
{
    ledger_packed *packed = w->pack.count ? &w->pack.waiting[w->pack.count - 1] : NULL;
    ledger_placing *p = &w->placing;
    if (packed && !packed->is_uncounted) {
        *made = packed->hold;
        return &packed->is_uncounted;
    }
    if (!p->is_open || p->is_uncounted)
        return NULL;
    made->id = p->job.id;
    memcpy(made->lease, p->job.lease, sizeof made->lease);
    return &p->is_uncounted;
}

static ledger_result make_next(worker *w)
{
    ledger_job job = w->jobs[w->first++];
    ledger_hold made;
    int is_mine = 0, was_uncounted = 0, *is_uncounted = last_made(w, &made);
    ledger_result answer;
    job.news = job.service ? &w->heart.news : NULL;
    if (job.news)
        ledger_news_begin(job.news, &job);
    do {
        answer = ledger_begin(w->l, &job, w->params->lease_seconds, is_uncounted ? &made : NULL, &is_mine,
                              &was_uncounted, w->error);
    } while (again(w, &answer));
    if (answer == LEDGER_OK && is_uncounted)
        *is_uncounted = was_uncounted;
    if (answer == LEDGER_OK && is_mine)
        return make(w, &job);
    if (job.news)
        ledger_news_end(job.news);
    w->totals->lost += answer == LEDGER_OK;
    drop(w, &job);
    return answer;
}

/* ---- the loop ---- */

/* Nothing to claim. *ends 1: nothing will come. */
static ledger_result idle(worker *w, int *ends)
{
    ledger_result answer = settle(w);
    *ends = 0;
    if (answer == LEDGER_OK)
        answer = store_pack(w);
    if (answer == LEDGER_OK && w->params->until_empty)
        do {
            answer = ledger_is_empty(w->l, w->engine->model, ends, w->error);
        } while (again(w, &answer));
    if (answer == LEDGER_OK && !*ends && ledger_wait(w->l, POLL * (0.75 + 0.5 * ledger_random())))
        ledger_sleep(0.02 * ledger_random()); /* all workers hear it at once */
    return answer;
}

static ledger_result run(worker *w)
{
    ledger_result answer = LEDGER_OK;
    int ends = 0;
    while (answer == LEDGER_OK && !ends && !is_stopping(w)) {
        answer = tidy_inputs(w);
        if (answer == LEDGER_OK && w->first == w->count)
            answer = claim(w);
        if (answer == LEDGER_OK && w->first < w->count)
            answer = make_next(w);
        else if (answer == LEDGER_OK)
            answer = idle(w, &ends);
    }
    return answer;
}

/* Ends what is under way; the first failure counts. */
static ledger_result end_work(worker *w, ledger_result answer)
{
    zimage_error reason = *w->error;
    ledger_result settled = settle(w);
    if (answer != LEDGER_OK && answer != LEDGER_STOPPED) {
        *w->error = reason;
        return answer;
    }
    return settled == LEDGER_OK ? store_pack(w) : settled;
}

/* What was claimed and not begun goes back at once; if the ledger is gone, when the leases are over. */
static void release_rest(worker *w)
{
    int can_ask = 1;
    for (; w->first < w->count; w->first++) {
        can_ask = can_ask && ledger_release(w->l, &w->jobs[w->first], NULL) == LEDGER_OK;
        drop(w, &w->jobs[w->first]);
    }
}

static void name_worker(char name[LEDGER_NAME_MAX])
{
    char host[128] = "";
    gethostname(host, sizeof host - 1);
    snprintf(name, LEDGER_NAME_MAX, "%s/%ld-%04x", host, (long)getpid(), (unsigned)(0xFFFF * ledger_random()));
}

static ledger_result open_all(worker *w)
{
    const ledger_work_params *p = w->params;
    ledger_result answer = ledger_open(p->target, "zimage work", 1, &w->l, w->error);
    if (answer == LEDGER_OK)
        answer = listen(w);
    if (answer == LEDGER_OK)
        answer = ledger_announce(w->l, w->claiming.worker, w->engine->model, p->lease_seconds, w->error);
    if (answer == LEDGER_OK)
        answer = ledger_heart_begin(&w->heart, p->target, &w->claiming, w->error);
    if (answer == LEDGER_OK)
        answer = p->is_packed ? ledger_pack_open(&w->pack, w->l, p->place, w->error)
                              : ledger_placing_begin(&w->placing, p, w->error);
    return answer;
}

ledger_result ledger_work(const ledger_work_params *params, const ledger_engine *engine, ledger_totals *totals,
                          zimage_error *error)
{
    char name[LEDGER_NAME_MAX];
    zimage_error unused = ZIMAGE_ERROR_INIT;
    worker *w = calloc(1, sizeof *w);
    *totals = (ledger_totals){0};
    if (!w) {
        zi_fail_memory(error, "a worker", sizeof *w);
        return LEDGER_FAILED;
    }
    name_worker(name);
    *w = (worker){.params = params, .engine = engine, .totals = totals, .error = error ? error : &unused};
    w->pack.file = -1;
    w->claiming = (ledger_claiming){
        .model = engine->model,
        .worker = name,
        .count = params->claim < CLAIM_MAX ? params->claim : CLAIM_MAX,
        .lease_seconds = params->lease_seconds,
    };
    ledger_result answer = open_all(w);
    if (answer == LEDGER_OK)
        answer = run(w);
    answer = end_work(w, answer);
    if (w->l)
        release_rest(w);
    ledger_heart_end(&w->heart);
    if (w->l)
        ledger_announce(w->l, name, engine->model, 0, NULL); /* it is not there any more */
    ledger_pack_close(&w->pack);
    ledger_placing_end(&w->placing);
    ledger_close(w->l);
    free(w);
    return answer == LEDGER_STOPPED ? LEDGER_OK : answer;
}
