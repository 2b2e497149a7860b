/* Files and commits beside the next image. */
#include "queue/placing.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/stack.h"

void ledger_picture_release(ledger_picture *picture)
{
    if (picture->release)
        picture->release(picture->data);
    json_decref(picture->facts);
}

static int is_stopping(void *user)
{
    const ledger_placing *p = user;
    return p->params->stopping && p->params->stopping();
}

/* The connection that makes images says when the ledger is gone, so this one is silent. */
static ledger_result finish(ledger_placing *p, const char *result)
{
    const ledger_patience patience = {.stopping = is_stopping, .user = p};
    ledger_hold hold = {.id = p->job.id};
    ledger_result answer;
    memcpy(hold.lease, p->job.lease, sizeof hold.lease);
    do {
        answer = ledger_finish(p->l, &hold, &result, 1, &p->is_mine, &p->error);
        if (answer != LEDGER_LOST)
            return answer;
        answer = ledger_persist(p->l, &patience, &p->error);
    } while (answer == LEDGER_OK);
    return answer;
}

static void *place(void *placing)
{
    ledger_placing *p = placing;
    p->verdict = ledger_place_picture(p->store, &p->job, &p->picture, &p->error);
    if (p->verdict != LEDGER_MADE)
        return NULL;
    char *text = json_dumps(p->picture.facts, JSON_COMPACT);
    if (text) {
        p->answer = finish(p, text);
    } else {
        zi_fail_memory(&p->error, "the result of a job", 0);
        p->answer = LEDGER_FAILED;
    }
    free(text);
    return NULL;
}

ledger_result ledger_placing_begin(ledger_placing *placing, const ledger_work_params *params, zimage_error *error)
{
    placing->params = params;
    if (ledger_store_open(params->place, &placing->store, error) != ZIMAGE_OK)
        return LEDGER_FAILED;
    return ledger_open(params->target, "zimage work, files", 1, &placing->l, error);
}

int ledger_placing_take(ledger_placing *placing, const ledger_job *job, const ledger_picture *picture)
{
    char *suffix = strdup(picture->suffix), *output = picture->output ? strdup(picture->output) : NULL;
    sigset_t all, before;
    if (!suffix || (picture->output && !output)) {
        free(suffix);
        free(output);
        return 0;
    }
    placing->is_open = 1;
    placing->is_uncounted = 0;
    placing->job = *job;
    placing->picture = *picture;
    placing->picture.suffix = placing->suffix = suffix;
    placing->picture.output = placing->output = output;
    placing->verdict = LEDGER_MADE;
    placing->answer = LEDGER_OK;
    placing->is_mine = 0;
    placing->error = (zimage_error)ZIMAGE_ERROR_INIT;
    sigfillset(&all); /* signals are the main thread's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    placing->has_thread = zi_thread_start(&placing->thread, place, placing) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!placing->has_thread)
        place(placing);
    return 1;
}

int ledger_placing_wait(ledger_placing *placing)
{
    if (!placing->is_open)
        return 0;
    if (placing->has_thread)
        pthread_join(placing->thread, NULL);
    ledger_picture_release(&placing->picture);
    free(placing->suffix);
    free(placing->output);
    placing->is_open = 0;
    return 1;
}

void ledger_placing_end(ledger_placing *placing)
{
    ledger_close(placing->l);
    placing->l = NULL;
    ledger_store_close(placing->store);
    placing->store = NULL;
}
