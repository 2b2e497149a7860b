/* The jobs of servers (shared/service.h) in the ledger: a row for the job, and one for each of its images. */
#ifndef ZI_QUEUE_SERVICE_H
#define ZI_QUEUE_SERVICE_H

#include "queue/ledger.h"
#include "queue/store.h"
#include "shared/service.h"

#define LEDGER_SERVICE_CHANNEL "zimage_service" /* an image is over */

/* What a worker reads of each image. */
typedef struct ledger_service_rows {
    const char *model; /* its fingerprint */
    char *const *keys; /* [job->count] */
    char *const *requests;
    const char *const *inputs; /* [job->input_count]: hashes, which all images have */
} ledger_service_rows;

ledger_result ledger_service_add(ledger *l, const service_job *job, const ledger_service_rows *rows,
                                 char known[SERVICE_ID_TEXT], zimage_error *error);
ledger_result ledger_service_cancel(ledger *l, const char *id, zimage_error *error);
ledger_result ledger_service_look(ledger *l, const char *const *ids, size_t count, int places, service_take_part *take,
                                  void *taker, zimage_error *error);
ledger_result ledger_service_find(ledger *l, const service_question *question, service_take_found *take, void *taker,
                                  zimage_error *error);
ledger_result ledger_service_load(ledger *l, service_take_crew *take_crew, service_take_line *take_line, void *taker,
                                  zimage_error *error);

/* ---- watch.c ---- */

#define LEDGER_WATCHED "interval '30 seconds'" /* for which a front's word holds that somebody watches */

ledger_result ledger_service_watch(ledger *l, const service_watch *watches, size_t count, zimage_error *error);
ledger_result ledger_service_news(ledger *l, const service_watched *watched, size_t count, service_take_news *take,
                                  void *taker, zimage_error *error);
/* Removes what nobody reads any more. */
ledger_result ledger_service_tidy_news(ledger *l, zimage_error *error);

/* Reads a finished image. *data is released with free. */
zimage_status ledger_place_read(ledger_store *store, const service_file *file, uint8_t **data, size_t *size,
                                zimage_error *error);
/* Removes the file of an image. name may be NULL: whatever a worker may have written for the key, and not told. */
void ledger_place_remove(ledger_store *store, const char *name, const char *key);

/* Forgets jobs that are older than so many seconds and over, some hundreds at a time. remove: called for each image
 * before its row is forgotten, with its file, or NULL if the ledger knows none, and its key. */
ledger_result ledger_service_tidy(ledger *l, double seconds,
                                  void (*remove)(void *user, const char *file, const char *key), void *user,
                                  zimage_error *error);

ledger_result ledger_service_listen(ledger *l, zimage_error *error);
ledger_result ledger_service_notify(ledger *l, zimage_error *error);
/* The connection's socket, to wait for a notification; -1: none. */
int ledger_socket(const ledger *l);
/* Forgets the notifications that came. */
void ledger_drain(ledger *l);
ledger_result ledger_service_reopen(ledger *l, zimage_error *error);

#endif
