#include "queue/news.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "shared/base64.h"

#define NUMBER_TEXT  32
#define PAUSE        0.2  /* seconds between two news of a job */
#define REPEAT       10.0 /* the same again: the ledger says whether somebody still watches */
#define NEVER        1e9
#define LAST_SECONDS 2      /* in which the partial images of an image that is made are told */
#define JPEG_MOST    262144 /* bytes; the table's limit */

/* In place of the number of a partial image: how far the image is, and a preview that nobody counts. */
enum { NUMBER_PROGRESS = -1, NUMBER_PREVIEW = -2 };

void ledger_news_init(ledger_news *news, int wake)
{
    *news = (ledger_news){.wake = wake};
    pthread_mutex_init(&news->lock, NULL);
    pthread_cond_init(&news->sent, NULL);
}

/* ---- behind the lock ---- */

static void drop(news_event *preview)
{
    zimage_free(preview->jpeg);
    *preview = (news_event){.jpeg = NULL};
}

static void drop_previews(ledger_news *news)
{
    drop(&news->newest);
    for (int i = 0; i < PREVIEW_PARTIALS_MAX; i++)
        drop(&news->counted[i]);
}

static int is_watched(const ledger_news *news)
{
    return news->job != 0 && zi_now() < news->watched_until;
}

static int is_shown(const ledger_news *news)
{
    return news->job != 0 && zi_now() < news->shown_until;
}

/* The number of the first partial image that waits; NUMBER_PROGRESS: none. */
static int first_counted(const ledger_news *news)
{
    for (int i = 0; i < PREVIEW_PARTIALS_MAX; i++)
        if (news->counted[i].jpeg)
            return i;
    return NUMBER_PROGRESS;
}

static void take_watch(ledger_news *news, const ledger_watch *watch)
{
    double now = zi_now();
    news->watched_until = now + watch->seconds;
    news->shown_until = now + watch->shown_seconds;
    news->partials = watch->partials;
}

static void wake_heart(const ledger_news *news)
{
    while (write(news->wake, "", 1) < 0 && errno == EINTR) {
    }
}

void ledger_news_free(ledger_news *news)
{
    drop_previews(news);
    pthread_cond_destroy(&news->sent);
    pthread_mutex_destroy(&news->lock);
}

/* ---- the worker's thread ---- */

void ledger_news_begin(ledger_news *news, const ledger_job *job)
{
    pthread_mutex_lock(&news->lock);
    news->job = job->id;
    memcpy(news->lease, job->lease, sizeof news->lease);
    take_watch(news, &(ledger_watch){.seconds = 0});
    news->progress = (news_event){.stage = ZIMAGE_STAGE_TEXT};
    news->told = news->told_preview = 0;
    news->is_asked = news->is_changed = 0;
    pthread_mutex_unlock(&news->lock);
}

void ledger_news_watch(ledger_news *news, const ledger_watch *watch)
{
    pthread_mutex_lock(&news->lock);
    if (watch->seconds > 0) /* else the heart may have heard of somebody meanwhile */
        take_watch(news, watch);
    pthread_mutex_unlock(&news->lock);
}

void ledger_news_end(ledger_news *news)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += LAST_SECONDS;
    int code = 0;
    pthread_mutex_lock(&news->lock);
    while (code == 0 && is_watched(news) && (news->is_sending || first_counted(news) >= 0))
        code = pthread_cond_timedwait(&news->sent, &news->lock, &end);
    news->job = 0;
    drop_previews(news);
    pthread_mutex_unlock(&news->lock);
}

int ledger_wants_preview(ledger_news *news, int step, int steps)
{
    pthread_mutex_lock(&news->lock);
    int partials = news->partials, mode = is_shown(news) ? 2 : 0;
    pthread_mutex_unlock(&news->lock);
    return mode && partials ? preview_partial_after(partials, step, steps) >= 0 : mode;
}

void ledger_tell(ledger_news *news, const zimage_progress *p)
{
    const news_event progress = {.stage = p->stage, .step = p->step, .steps = p->steps, .fraction = p->fraction};
    news_event preview = progress;
    if (p->preview)
        preview_encode(p, &preview.jpeg, &preview.size);
    if (preview.size > JPEG_MOST)
        drop(&preview);
    pthread_mutex_lock(&news->lock);
    int is_news = preview.jpeg != NULL || !news->is_changed;
    news->progress = progress;
    news->is_changed = 1;
    if (preview.jpeg) {
        int partial = preview_partial_after(news->partials, p->step, p->steps);
        news_event *place = partial >= 0 ? &news->counted[partial] : &news->newest;
        drop(place);
        *place = preview;
    }
    if (is_news && is_watched(news))
        wake_heart(news);
    pthread_mutex_unlock(&news->lock);
}

/* ---- the heart's thread ---- */

ledger_result ledger_news_listen(ledger *l, const char *worker, zimage_error *error)
{
    PGresult *result;
    char sql[80];
    const char *values[] = {worker};
    ledger_result answer = ledger_ask(l, "select " LEDGER_WORKER_CHANNEL("$1"), 1, values, &result, error);
    if (answer != LEDGER_OK)
        return answer;
    snprintf(sql, sizeof sql, "listen %.60s", PQgetvalue(result, 0, 0));
    PQclear(result);
    return ledger_do(l, sql, 0, NULL, NULL, error);
}

void ledger_news_ask(ledger_news *news, int64_t job)
{
    pthread_mutex_lock(&news->lock);
    news->is_asked |= news->job != 0 && (job == 0 || job == news->job);
    pthread_mutex_unlock(&news->lock);
}

double ledger_news_due(ledger_news *news)
{
    double now = zi_now(), due = NEVER;
    pthread_mutex_lock(&news->lock);
    if (news->job && (news->is_asked || (is_watched(news) && first_counted(news) >= 0))) {
        due = 0;
    } else if (is_watched(news)) {
        due = news->told + (news->is_changed ? PAUSE : REPEAT) - now;
        if (news->newest.jpeg && news->told_preview + PAUSE - now < due)
            due = news->told_preview + PAUSE - now;
    }
    pthread_mutex_unlock(&news->lock);
    return due;
}

/* The row may be a front's of another version. */
ledger_watch ledger_read_watch(const PGresult *result, int row, int column)
{
    if (row >= PQntuples(result) || PQgetisnull(result, row, column + 2))
        return (ledger_watch){.seconds = 0};
    int partials = atoi(PQgetvalue(result, row, column + 2));
    return (ledger_watch){.seconds = strtod(PQgetvalue(result, row, column), NULL),
                          .shown_seconds = strtod(PQgetvalue(result, row, column + 1), NULL),
                          .partials = partials >= 0 && partials <= PREVIEW_PARTIALS_MAX ? partials : 0};
}

/* What is sent, as texts. */
typedef struct message {
    int64_t job;
    char id[NUMBER_TEXT], lease[LEDGER_LEASE_TEXT], number[NUMBER_TEXT], step[NUMBER_TEXT], steps[NUMBER_TEXT],
        fraction[NUMBER_TEXT];
    const char *stage;
    char *jpeg; /* base64; NULL: none */
} message;

/* Behind the lock: the next thing that is to be told, whose jpeg the caller then has, and its number. */
static int take_event(ledger_news *news, news_event *event)
{
    double now = zi_now();
    int number = first_counted(news);
    if (number < 0 && news->newest.jpeg && news->told_preview + PAUSE <= now)
        number = NUMBER_PREVIEW;
    news_event *place = number >= 0                ? &news->counted[number]
                        : number == NUMBER_PREVIEW ? &news->newest
                                                   : &news->progress;
    *event = *place;
    place->jpeg = NULL;
    news->is_asked = 0;
    news->is_sending = 1;
    if (number == NUMBER_PREVIEW)
        news->told_preview = now;
    if (number == NUMBER_PROGRESS) {
        news->told = now;
        news->is_changed = 0;
    }
    return number;
}

static void fill(message *m, const ledger_news *news, const news_event *event, int number)
{
    *m = (message){.job = news->job, .stage = zimage_stage_name(event->stage)};
    memcpy(m->lease, news->lease, sizeof m->lease);
    snprintf(m->id, sizeof m->id, "%lld", (long long)news->job);
    snprintf(m->number, sizeof m->number, "%d", number);
    snprintf(m->step, sizeof m->step, "%d", event->step);
    snprintf(m->steps, sizeof m->steps, "%d", event->steps);
    snprintf(m->fraction, sizeof m->fraction, "%.6f", event->fraction);
}

static char *base64_of(const news_event *preview)
{
    size_t length = base64_length(preview->size);
    char *text = malloc(length + 1);
    if (text) {
        base64_write(preview->jpeg, preview->size, 0, text, length);
        text[length] = 0;
    }
    return text;
}

/* Nothing is written unless the job is still this worker's, and somebody watches it. */
static const char tell_sql[] =
    "with j as (select id, service from zimage.job where id = $1 and lease = $2 and state = 'running'),"
    " w as (select w.* from zimage.watch w, j where w.service = j.service and w.until > now()),"
    " n as (insert into zimage.news (job, number, serial, lease, stage, step, steps, fraction, jpeg)"
    "  select j.id, $3::smallint, nextval('zimage.news_serial'), $2::uuid, $4, $5::integer, $6::integer,"
    "   $7::double precision, decode($8, 'base64') from j, w"
    "  on conflict (job, number) do update set serial = excluded.serial, lease = excluded.lease,"
    "   stage = excluded.stage, step = excluded.step, steps = excluded.steps, fraction = excluded.fraction,"
    "   jpeg = excluded.jpeg, told_at = now())"
    "select " LEDGER_WATCH_COLUMNS ", (select set_config('synchronous_commit', 'off', true)) from w";

ledger_result ledger_news_send(ledger_news *news, ledger *l)
{
    message m;
    news_event event;
    PGresult *result = NULL;
    pthread_mutex_lock(&news->lock);
    if (!news->job) { /* it ended in between */
        pthread_mutex_unlock(&news->lock);
        return LEDGER_OK;
    }
    int number = take_event(news, &event);
    fill(&m, news, &event, number);
    pthread_mutex_unlock(&news->lock);
    m.jpeg = event.jpeg ? base64_of(&event) : NULL;
    zimage_free(event.jpeg);
    const char *values[] = {m.id, m.lease, m.number, m.stage, m.step, m.steps, m.fraction, m.jpeg};
    ledger_result answer = ledger_ask(l, tell_sql, 8, values, &result, NULL);
    free(m.jpeg);
    const ledger_watch watch = ledger_read_watch(result, 0, 0);
    PQclear(result);
    pthread_mutex_lock(&news->lock);
    news->is_sending = 0;
    if (news->job == m.job && !strcmp(news->lease, m.lease)) {
        take_watch(news, &watch); /* nobody, after a failure: the next beat asks again */
        if (answer != LEDGER_OK)
            drop_previews(news);
    }
    pthread_cond_broadcast(&news->sent);
    pthread_mutex_unlock(&news->lock);
    return answer;
}
