/*
 * News of the image that a worker makes for a server's client: how far it is, and previews. Nothing is told while
 * nobody watches, and no preview is made. The worker's thread says what there is, the heart's thread tells the ledger.
 */
#ifndef ZI_QUEUE_NEWS_H
#define ZI_QUEUE_NEWS_H

#include <pthread.h>

#include "queue/connection.h"
#include "shared/preview.h"

/* The channel of NOTIFY on which a worker hears that one of its jobs is watched from now on, of its name in SQL. The
 * name may be longer than a channel's. */
#define LEDGER_WORKER_CHANNEL(name) "'zimage_' || left(encode(sha256(convert_to(" name ", 'UTF8')), 'hex'), 40)"

/* One thing that happened, which becomes a row. */
typedef struct news_event {
    zimage_stage stage;
    int step, steps;
    double fraction;
    uint8_t *jpeg; /* of a preview */
    size_t size;
} news_event;

struct ledger_news {
    pthread_mutex_t lock;
    pthread_cond_t sent;
    int wake; /* a byte in it wakes the heart */
    /* behind the lock */
    int64_t job; /* under way; 0: none that can be watched */
    char lease[LEDGER_LEASE_TEXT];
    double watched_until, shown_until; /* by zi_now: that somebody watches, and looks at previews */
    int partials;                      /* of the client's stream; 0: it wants what is cheap */
    int is_asked;                      /* whether somebody watches is asked next */
    int is_changed, is_sending;
    double told, told_preview; /* when, by zi_now */
    news_event progress;
    news_event newest, counted[PREVIEW_PARTIALS_MAX]; /* previews that are not told yet; without a jpeg: none */
};

void ledger_news_init(ledger_news *news, int wake);
void ledger_news_free(ledger_news *news);

/* ---- the worker's thread ---- */

/* The job is this worker's from now on; before ledger_begin, so that no word is lost that comes while it asks. */
void ledger_news_begin(ledger_news *news, const ledger_job *job);
/* What ledger_begin has read. */
void ledger_news_watch(ledger_news *news, const ledger_watch *watch);
/* Waits a moment until the partial images of the job are told, and forgets it. */
void ledger_news_end(ledger_news *news);

/* ---- the heart's thread ---- */

/* The channel is heard from now on; once for each connection. */
ledger_result ledger_news_listen(ledger *l, const char *worker, zimage_error *error);
/* Somebody may watch this job; 0: the one under way, whatever it is. */
void ledger_news_ask(ledger_news *news, int64_t job);
/* Seconds until there is something to send; not above 0: now. */
double ledger_news_due(ledger_news *news);
/* Sends one thing. What the ledger does not take is dropped. */
ledger_result ledger_news_send(ledger_news *news, ledger *l);

/* Columns of zimage.watch, named w, from which `ledger_read_watch` reads. A time may be infinite, in an odd row. */
#define LEDGER_WATCH_SECONDS(time)                                                                                     \
    "extract(epoch from greatest(now(), least(now() + interval '1 hour', " time ")) - now())"
#define LEDGER_WATCH_COLUMNS                                                                                           \
    LEDGER_WATCH_SECONDS("w.until")                                                                                    \
    ", " LEDGER_WATCH_SECONDS("coalesce(w.shown_until, now())") ", w.partials"
ledger_watch ledger_read_watch(const PGresult *result, int row, int column);

#endif
