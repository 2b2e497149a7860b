/* Who watches the jobs of a front, and the news that come from their workers by the ledger. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "front.h"
#include "shared/preview.h"

#define VIEW_SECONDS  10 /* for which one look at a job counts as watching it */
#define TELL_SECONDS  10 /* between two words to the ledger that a job is watched */
#define AGAIN_SECONDS 1  /* the same, while nothing was heard of an image that a worker has begun */
#define STEPS_MOST    1000000
#define JPEG_PIXELS   ((uint64_t)1 << 20)

_Static_assert(SERVICE_PARTIALS == PREVIEW_PARTIALS_MAX, "partial images of a stream");

/* ---- who watches; with the lock ---- */

static int is_watched(const job *j, double now)
{
    return j->streams > 0 || now < j->viewed_until;
}

static int is_shown(const job *j, double now)
{
    return j->wants_previews > 0 && (j->streams > 0 || now < j->shown_until);
}

int front_will_be_watched(const job *j)
{
    return j->request.stream && (j->request.progress || j->request.partial_images > 0);
}

void front_viewed(server *s, job *j, int shows)
{
    double now = serve_now();
    if (!s->front || job_is_over(j))
        return;
    int is_new = !is_watched(j, now) || (shows && !is_shown(j, now));
    j->viewed_until = now + VIEW_SECONDS;
    if (shows)
        j->shown_until = now + VIEW_SECONDS;
    if (is_new)
        front_wake(s);
}

void front_streams(server *s, job *j, int change)
{
    j->streams += change;
    if (s->front && change > 0)
        front_wake(s);
}

/* ---- an image's state; with the lock ---- */

static double sum_of_fractions(const job *j)
{
    double sum = 0;
    for (int i = 0; i < j->count; i++)
        sum += j->parts[i].fraction;
    return sum;
}

void front_part_runs(job *j, int index)
{
    j->parts[index].is_running = 1;
}

void front_part_ends(job *j, int index)
{
    j->parts[index].is_running = 0;
    j->parts[index].fraction = 0;
    j->fraction = sum_of_fractions(j);
}

/* Its worker is gone, or it was never begun. */
void front_part_waits(job *j, int index)
{
    int others = j->made;
    if (!j->parts[index].is_running)
        return;
    front_part_ends(j, index);
    for (int i = 0; i < j->count; i++)
        others += j->parts[i].is_running;
    if (others == 0 && j->state == JOB_RUNNING)
        job_requeued(j);
}

/* ---- telling who watches ---- */

static int is_unheard(const job *j)
{
    for (int i = 0; i < j->count; i++)
        if (j->parts[i].is_running && j->parts[i].known == 0)
            return 1;
    return 0;
}

static int is_due(const job *j, double now)
{
    double pause = is_unheard(j) ? AGAIN_SECONDS : TELL_SECONDS;
    return j->is_stored && !job_is_over(j) && is_watched(j, now) &&
           (now - j->watch_told > pause || (is_shown(j, now) && !j->shows_told));
}

typedef char id_text[JOB_ID_LENGTH + 1];

service_answer front_tell_watched(server *s, const service_ledger *ledger, zimage_error *error)
{
    double now = serve_now();
    size_t count = 0;
    pthread_mutex_lock(&s->lock);
    id_text *ids = calloc(s->jobs.count + 1, sizeof *ids);
    service_watch *watches = calloc(s->jobs.count + 1, sizeof *watches);
    for (job *j = s->jobs.oldest; j && ids && watches; j = j->newer) {
        if (!is_due(j, now))
            continue;
        j->watch_told = now;
        j->shows_told = is_shown(j, now);
        memcpy(ids[count], j->id, sizeof j->id);
        watches[count] = (service_watch){ids[count], j->shows_told, (int)j->request.partial_images};
        count++;
    }
    pthread_mutex_unlock(&s->lock);
    service_answer answer = count > 0 ? ledger->watch(ledger->user, watches, count, error) : SERVICE_OK;
    free(watches);
    free(ids);
    return answer;
}

void front_forget_watched(server *s)
{
    pthread_mutex_lock(&s->lock);
    for (job *j = s->jobs.oldest; j; j = j->newer)
        j->watch_told = 0;
    pthread_mutex_unlock(&s->lock);
}

/* ---- reading news ---- */

/* 0: a stage that this version does not know. */
static int read_stage(const char *name, zimage_stage *stage)
{
    for (int i = 0; i < ZIMAGE_STAGE_COUNT; i++)
        if (!strcmp(zimage_stage_name((zimage_stage)i), name)) {
            *stage = (zimage_stage)i;
            return 1;
        }
    return 0;
}

/* Whether a preview is a whole image, and a small one. */
static int is_jpeg(const service_news *news)
{
    static const uint8_t begin[] = {0xff, 0xd8, 0xff};
    zimage_image *image = NULL;
    if (!news->jpeg || news->size < sizeof begin || news->size > SERVICE_JPEG_BYTES ||
        memcmp(news->jpeg, begin, sizeof begin) != 0)
        return 0;
    int ok = zimage_image_decode(news->jpeg, news->size, JPEG_PIXELS, &image, NULL) == ZIMAGE_OK;
    zimage_image_free(image);
    return ok;
}

/* A worker may be of any version, and the ledger is not the server's own. 0: the news are none. */
static int check(const service_news *news, zimage_stage *stage)
{
    return read_stage(news->stage, stage) && news->step >= 0 && news->step <= news->steps &&
           news->steps <= STEPS_MOST && isfinite(news->fraction) && news->fraction >= 0 && news->fraction <= 1 &&
           (news->number == SERVICE_PROGRESS || is_jpeg(news));
}

/* With the lock. */
static int is_wanted(const job *j, const job_part *part, const service_news *news)
{
    if (news->number < 0)
        return j->wants_previews == 2;
    return news->number < j->request.partial_images && !(part->partials >> news->number & 1);
}

/* With the lock. */
static void show_preview(job *j, job_part *part, const service_news *news, job_event event)
{
    int is_counted = news->number >= 0;
    event.kind = EVENT_PREVIEW;
    event.partial = is_counted ? news->number : -1;
    event.data = malloc(news->size);
    event.size = news->size;
    if (!event.data)
        return;
    memcpy(event.data, news->jpeg, news->size);
    if (is_counted)
        part->partials |= 1u << news->number;
    job_happened(j, &event);
}

/* With the lock. */
static void take_checked(job *j, const service_news *news, zimage_stage stage, int is_good)
{
    job_part *part = &j->parts[news->index];
    if (!part->is_running || news->serial <= part->known)
        return; /* what came too early comes again */
    part->known = news->serial;
    if (!is_good)
        return;
    const job_event event = job_progress(news->index, stage, news->step, news->steps, news->fraction);
    int is_preview = news->number != SERVICE_PROGRESS;
    if (is_preview && !is_wanted(j, part, news))
        return;
    if (!is_preview || news->fraction > part->fraction) { /* a preview may come before the progress that it shows */
        part->fraction = news->fraction;
        job_progressed(j, &event, sum_of_fractions(j));
    }
    if (is_preview)
        show_preview(j, part, news, event);
}

/* service_take_news of server. */
static void take(void *taker, const service_news *news)
{
    server *s = taker;
    zimage_stage stage = ZIMAGE_STAGE_TEXT;
    int is_good = news->number >= SERVICE_PREVIEW && news->number < SERVICE_PARTIALS && check(news, &stage);
    pthread_mutex_lock(&s->lock);
    job *j = job_find_any(&s->jobs, news->id);
    if (j && !job_is_over(j) && news->index >= 0 && news->index < j->count && !j->pictures[news->index].data)
        take_checked(j, news, stage, is_good);
    pthread_mutex_unlock(&s->lock);
}

/* The images of watched jobs that are not there yet; both are released with free. With the lock. */
static size_t list_watched(const server *s, id_text **ids, service_watched **watched)
{
    double now = serve_now();
    size_t most = 0, count = 0;
    for (const job *j = s->jobs.oldest; j; j = j->newer)
        most += (size_t)j->count;
    *ids = calloc(most + 1, sizeof **ids);
    *watched = calloc(most + 1, sizeof **watched);
    for (const job *j = s->jobs.oldest; j && *ids && *watched; j = j->newer)
        for (int i = 0; i < j->count && j->is_stored && !job_is_over(j) && is_watched(j, now); i++) {
            if (!j->parts[i].is_running)
                continue;
            memcpy((*ids)[count], j->id, sizeof j->id);
            (*watched)[count] = (service_watched){(*ids)[count], i, j->parts[i].known};
            count++;
        }
    return count;
}

service_answer front_read_news(server *s, const service_ledger *ledger, zimage_error *error)
{
    id_text *ids;
    service_watched *watched;
    pthread_mutex_lock(&s->lock);
    size_t count = list_watched(s, &ids, &watched);
    pthread_mutex_unlock(&s->lock);
    service_answer answer = count > 0 ? ledger->news(ledger->user, watched, count, take, s, error) : SERVICE_OK;
    free(watched);
    free(ids);
    return answer;
}
