/* Input images of jobs: objects that are called by their hash, and how long they stay. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "queue/connection.h"
#include "queue/store.h"

#define NUMBER_TEXT 32
#define TIDY_FILES  "200" /* in a transaction */
#define INPUT_NAME  (HASH_TEXT + 24)

/* Within which an object that a job needed is not looked at again. */
#define LOOKED "interval '10 minutes'"

struct ledger_inputs {
    char *place;
    ledger_store *store; /* opened when it is needed: most workers never do */
};

ledger_inputs *ledger_inputs_new(const char *place)
{
    ledger_inputs *inputs = calloc(1, sizeof *inputs);
    if (inputs && place && !(inputs->place = strdup(place))) {
        free(inputs);
        return NULL;
    }
    return inputs;
}

void ledger_inputs_free(ledger_inputs *inputs)
{
    if (!inputs)
        return;
    ledger_store_close(inputs->store);
    free(inputs->place);
    free(inputs);
}

static zimage_status open_store(ledger_inputs *inputs, zimage_error *error)
{
    return inputs->store ? ZIMAGE_OK : ledger_store_open(inputs->place, &inputs->store, error);
}

/* Also of a row that somebody changed. 0: it is no hash. */
static int name_of(const char *hash, char name[INPUT_NAME])
{
    if (strlen(hash) != HASH_TEXT - 1 || strspn(hash, "0123456789abcdef") != HASH_TEXT - 1)
        return 0;
    snprintf(name, INPUT_NAME, STORE_INPUTS "%.2s/%.2s/%s.png", hash, hash + 2, hash);
    return 1;
}

/* ---- reading ---- */

/* An object that is missing or wrong is no fault of the request, and none of this machine. */
static ledger_verdict bad_input(const char *hash, const char *what, zimage_error *error)
{
    zi_fail(error, ZIMAGE_ERROR_INTERNAL, "image: the input image %.8s... %s", hash, what);
    return LEDGER_BAD_JOB;
}

ledger_verdict ledger_inputs_read(ledger_inputs *inputs, const char hash[HASH_TEXT], uint8_t **data, size_t *size,
                                  zimage_error *error)
{
    char name[INPUT_NAME], found[HASH_TEXT], *bytes;
    *data = NULL;
    if (!name_of(hash, name))
        return bad_input(hash, "has no hash", error);
    if (open_store(inputs, error) != ZIMAGE_OK)
        return LEDGER_BAD_MACHINE;
    if (ledger_store_get(inputs->store, name, 0, 0, &bytes, size, error) != ZIMAGE_OK)
        return ledger_store_lacks(inputs->store, name) ? bad_input(hash, "is not among the results (any more)", error)
                                                       : LEDGER_BAD_MACHINE;
    int is_hashed = hash_sha256(&(hash_piece){bytes, *size}, 1, found);
    if (is_hashed && !strcmp(found, hash)) {
        *data = (uint8_t *)bytes;
        return LEDGER_MADE;
    }
    free(bytes);
    if (is_hashed)
        return bad_input(hash, "is another file: it was changed", error);
    zi_fail_memory(error, "the hash of an input image", 0);
    return LEDGER_BAD_MACHINE;
}

/* ---- keeping ---- */

/* Who removes files holds the row while it does so, and this waits for it; afterwards the file is kept. */
static ledger_result announce(ledger *l, const char *hash, double seconds, zimage_error *error)
{
    char text[NUMBER_TEXT];
    const char *values[] = {hash, text};
    snprintf(text, sizeof text, "%.3f", seconds);
    return ledger_do(l,
                     "insert into zimage.input (hash, kept_until) values ($1, now() + make_interval(secs => $2))"
                     " on conflict (hash) do update"
                     " set kept_until = greatest(zimage.input.kept_until, excluded.kept_until)",
                     2, values, NULL, error);
}

/* An object that has the name, but other bytes, was damaged: it is stored again. */
static zimage_status put(ledger_inputs *inputs, const ledger_input *input, const char *hash, zimage_error *error)
{
    char name[INPUT_NAME];
    uint8_t *found;
    size_t size;
    int was_there;
    ZI_TRY(open_store(inputs, error));
    if (!ledger_store_is_bucket(inputs->place))
        zi_folder_create(inputs->place); /* the first worker may come later */
    name_of(hash, name);
    ZI_TRY(ledger_store_put(inputs->store, name, 1, input->data, input->size, &was_there, error));
    if (!was_there)
        return ZIMAGE_OK;
    ledger_verdict verdict = ledger_inputs_read(inputs, hash, &found, &size, error);
    free(found);
    if (verdict != LEDGER_BAD_JOB)
        return verdict == LEDGER_MADE ? ZIMAGE_OK : ZIMAGE_ERROR_FILE;
    ledger_store_remove(inputs->store, name);
    return ledger_store_put(inputs->store, name, 1, input->data, input->size, &was_there, error);
}

/* The ledger knows of an object before it is there, so none is forgotten. */
ledger_result ledger_inputs_keep(ledger_inputs *inputs, ledger *l, const ledger_input *input, char hash[HASH_TEXT],
                                 zimage_error *error)
{
    const ledger_patience patience = {.seconds = input->patience};
    if (!hash_sha256(&(hash_piece){input->data, input->size}, 1, hash)) {
        zi_fail_memory(error, "the hash of an input image", 0);
        return LEDGER_FAILED;
    }
    ledger_result answer = announce(l, hash, input->seconds, error);
    while (answer == LEDGER_LOST && input->patience > 0) {
        answer = ledger_persist(l, &patience, error);
        if (answer == LEDGER_OK)
            answer = announce(l, hash, input->seconds, error);
        else if (answer == LEDGER_STOPPED)
            answer = LEDGER_FAILED;
    }
    if (answer == LEDGER_OK && put(inputs, input, hash, error) != ZIMAGE_OK)
        answer = LEDGER_FAILED;
    return answer;
}

/* ---- removing ---- */

/* Who adds a job holds the rows of its inputs: these are skipped. What the second statement sees of jobs is newer than
 * the locks of the first. */
static const char lock_old[] =
    "create temporary table zimage_old_input on commit drop as select hash from zimage.input where kept_until < now()"
    " order by kept_until limit " TIDY_FILES " for update skip locked";

static const char keep_needed[] =
    "with needed as (select hash from zimage_old_input o where exists (select from zimage.job j"
    "    where j.inputs is not null and j.state <> 'done' and j.inputs @> array[o.hash]"
    "    and (j.state in ('queued', 'running') or j.service is null))),"
    " kept as (update zimage.input set kept_until = now() + " LOOKED " where hash in (select hash from needed))"
    " delete from zimage_old_input where hash in (select hash from needed)";

/* Inside of a transaction. *looked: how many objects were looked at. */
static ledger_result remove_some(ledger_inputs *inputs, ledger *l, uint64_t *looked, zimage_error *error)
{
    char name[INPUT_NAME];
    PGresult *result;
    ledger_result answer = ledger_do(l, lock_old, 0, NULL, looked, error);
    if (answer == LEDGER_OK)
        answer = ledger_do(l, keep_needed, 0, NULL, NULL, error);
    if (answer == LEDGER_OK)
        answer = ledger_ask(l, "select hash from zimage_old_input", 0, NULL, &result, error);
    if (answer != LEDGER_OK)
        return answer;
    for (int row = 0; row < PQntuples(result); row++)
        if (name_of(PQgetvalue(result, row, 0), name))
            ledger_store_remove(inputs->store, name);
    PQclear(result);
    return ledger_do(l, "delete from zimage.input where hash in (select hash from zimage_old_input)", 0, NULL, NULL,
                     error);
}

static ledger_result tidy_once(ledger_inputs *inputs, ledger *l, uint64_t *looked, zimage_error *error)
{
    if (open_store(inputs, error) != ZIMAGE_OK)
        return LEDGER_FAILED;
    ledger_result answer = ledger_do(l, "begin", 0, NULL, NULL, error);
    if (answer == LEDGER_OK)
        answer = remove_some(inputs, l, looked, error);
    return ledger_end(l, answer, error);
}

/* Objects go before rows: what is interrupted is done again. */
ledger_result ledger_inputs_tidy(ledger_inputs *inputs, ledger *l, double seconds, zimage_error *error)
{
    double end = zi_now() + seconds;
    ledger_result answer;
    uint64_t old = 1;
    do {
        answer = ledger_do(l, "select from zimage.input where kept_until < now() limit 1", 0, NULL, &old, error);
        if (answer == LEDGER_OK && old > 0)
            answer = tidy_once(inputs, l, &old, error);
    } while (answer == LEDGER_OK && old > 0 && zi_now() < end);
    return answer;
}
