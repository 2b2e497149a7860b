/* In place of the other files of this folder, where the program was built without libpq. */
#include "base/error.h"
#include "queue/ledger.h"
#include "queue/service.h"

static ledger_result refuse(zimage_error *error)
{
    zi_fail(error, ZIMAGE_ERROR_UNSUPPORTED, "this build has no ledger: it was made without libpq 14 or newer");
    return LEDGER_FAILED;
}

ledger_result ledger_open(const char *target, const char *program, int needs_schema, ledger **l, zimage_error *error)
{
    *l = NULL;
    return refuse(error);
}

void ledger_close(ledger *l)
{
}

const char *ledger_place(const ledger *l)
{
    return "";
}

ledger_result ledger_init(ledger *l, int *before, int *after, zimage_error *error)
{
    *before = *after = 0;
    return refuse(error);
}

ledger_spool *ledger_spool_new(void)
{
    return NULL;
}

void ledger_spool_free(ledger_spool *spool)
{
}

ledger_inputs *ledger_inputs_new(const char *place)
{
    return NULL;
}

void ledger_inputs_free(ledger_inputs *inputs)
{
}

ledger_result ledger_inputs_keep(ledger_inputs *inputs, ledger *l, const ledger_input *input, char hash[HASH_TEXT],
                                 zimage_error *error)
{
    *hash = 0;
    return refuse(error);
}

ledger_result ledger_inputs_tidy(ledger_inputs *inputs, ledger *l, double seconds, zimage_error *error)
{
    return refuse(error);
}

ledger_verdict ledger_inputs_read(ledger_inputs *inputs, const char hash[HASH_TEXT], uint8_t **data, size_t *size,
                                  zimage_error *error)
{
    *data = NULL;
    refuse(error);
    return LEDGER_BAD_MACHINE;
}

int ledger_spool_take(ledger_spool *spool, const ledger_line *line)
{
    return -1;
}

ledger_result ledger_add(ledger *l, const ledger_adding *adding, ledger_spool *spool, double patience,
                         int (*on_stored)(const ledger_added *added, void *user), void *user, ledger_added *added,
                         zimage_error *error)
{
    *added = (ledger_added){0};
    return refuse(error);
}

ledger_result ledger_has_chosen(ledger *l, const ledger_choice *choice, zimage_error *error)
{
    return refuse(error);
}

ledger_result ledger_status(ledger *l, const ledger_choice *choice, json_t **status, zimage_error *error)
{
    *status = NULL;
    return refuse(error);
}

ledger_result ledger_export(ledger *l, const ledger_choice *choice, int (*take)(const char *line, void *user),
                            void *user, zimage_error *error)
{
    return refuse(error);
}

ledger_result ledger_retry(ledger *l, const ledger_choice *choice, uint64_t *jobs, zimage_error *error)
{
    *jobs = 0;
    return refuse(error);
}

ledger_result ledger_cancel(ledger *l, const ledger_choice *choice, uint64_t *jobs, zimage_error *error)
{
    *jobs = 0;
    return refuse(error);
}

ledger_result ledger_work(const ledger_work_params *params, const ledger_engine *engine, ledger_totals *totals,
                          zimage_error *error)
{
    *totals = (ledger_totals){0};
    return refuse(error);
}

void ledger_tell(ledger_news *news, const zimage_progress *progress)
{
}

int ledger_wants_preview(ledger_news *news, int step, int steps)
{
    return 0;
}

ledger_result ledger_service_watch(ledger *l, const service_watch *watches, size_t count, zimage_error *error)
{
    return refuse(error);
}

ledger_result ledger_service_news(ledger *l, const service_watched *watched, size_t count, service_take_news *take,
                                  void *taker, zimage_error *error)
{
    return refuse(error);
}

ledger_result ledger_service_add(ledger *l, const service_job *job, const ledger_service_rows *rows,
                                 char known[SERVICE_ID_TEXT], zimage_error *error)
{
    *known = 0;
    return refuse(error);
}

ledger_result ledger_service_cancel(ledger *l, const char *id, zimage_error *error)
{
    return refuse(error);
}

ledger_result ledger_service_look(ledger *l, const char *const *ids, size_t count, int places, service_take_part *take,
                                  void *taker, zimage_error *error)
{
    return refuse(error);
}

ledger_result ledger_service_find(ledger *l, const service_question *question, service_take_found *take, void *taker,
                                  zimage_error *error)
{
    return refuse(error);
}

ledger_result ledger_service_load(ledger *l, service_take_crew *take_crew, service_take_line *take_line, void *taker,
                                  zimage_error *error)
{
    return refuse(error);
}

ledger_result ledger_service_tidy(ledger *l, double seconds,
                                  void (*remove)(void *user, const char *file, const char *key), void *user,
                                  zimage_error *error)
{
    return refuse(error);
}

zimage_status ledger_place_read(ledger_store *store, const service_file *file, uint8_t **data, size_t *size,
                                zimage_error *error)
{
    *data = NULL;
    refuse(error);
    return ZIMAGE_ERROR_UNSUPPORTED;
}

zimage_status ledger_store_open(const char *place, ledger_store **store, zimage_error *error)
{
    *store = NULL;
    refuse(error);
    return ZIMAGE_ERROR_UNSUPPORTED;
}

void ledger_store_close(ledger_store *store)
{
}

void ledger_place_remove(ledger_store *store, const char *name, const char *key)
{
}

ledger_result ledger_service_listen(ledger *l, zimage_error *error)
{
    return refuse(error);
}

ledger_result ledger_service_reopen(ledger *l, zimage_error *error)
{
    return refuse(error);
}

ledger_result ledger_service_notify(ledger *l, zimage_error *error)
{
    return refuse(error);
}

int ledger_socket(const ledger *l)
{
    return -1;
}

void ledger_drain(ledger *l)
{
}
