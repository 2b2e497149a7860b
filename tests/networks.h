/*
 * What the tests of networks share: models of tests/golden/tiny, stages compared with their goldens, weights with
 * a NaN, configurations that are refused.
 */
#ifndef ZI_TESTS_NETWORKS_H
#define ZI_TESTS_NETWORKS_H

#include "change_json.h"
#include "files.h"
#include "fixture.h"
#include "record_ops.h"
#include "tables.h"

#define TOLERANCE 2e-5

static inline void golden_path(char *path, size_t size, const char *name)
{
    snprintf(path, size, "%s/%s", ZIMAGE_TEST_DATA, name);
}

static inline zi_store *open_component(const char *folder, const char *base)
{
    char path[4096];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *store = NULL;
    golden_path(path, sizeof path, folder);
    if (zi_store_open(path, base, &store, NULL, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return store;
}

/* "reference: transformer: a.q" against elements [first, first + count) of the golden NAME. */
static inline void compare_part(zi_run *run, const zi_store *golden, const char *stage, const float *ours, size_t first,
                                size_t count, const char *name)
{
    char line[256];
    size_t total;
    float *want = fixture_floats(golden, name, &total);
    assert_true(first + count <= total);
    snprintf(line, sizeof line, "%s: %s: %s", recorder.inner ? recorder.inner->name : zi_table(run)->name, stage, name);
    parity(line, ours, want + first, count, TOLERANCE);
    free(want);
}

/* The first rows may be enough: fillers are not computed. */
static inline void compare(zi_run *run, const zi_store *golden, const char *stage, const float *ours, size_t count,
                           const char *name)
{
    compare_part(run, golden, stage, ours, 0, count, name);
}

static inline void compare_record(zi_run *run, const zi_store *golden, const char *stage, const char *kind, int index,
                                  const char *name)
{
    const record *r = recorded(kind, index);
    compare(run, golden, stage, r->data, (size_t)r->count, name);
}

static inline int count_block(void *user)
{
    ++*(int64_t *)user;
    return 0;
}

/* A copy of a weight that ends in a NaN; free() the data. */
static inline zi_weight with_nan(const zi_weight *weight)
{
    zi_weight copy = *weight;
    uint8_t *data = malloc(weight->bytes);
    const float nan = NAN;
    assert_non_null(data);
    assert_int_equal(weight->dtype, ZI_F32);
    memcpy(data, weight->data, weight->bytes);
    memcpy(data + weight->bytes - sizeof nan, &nan, sizeof nan);
    copy.data = data;
    return copy;
}

typedef zimage_status (*config_loader)(const char *path, zimage_error *error);

/* Writes config.json: the golden configuration with one field replaced by a JSON value, or removed (NULL). */
static inline const char *change_config(const char *golden, const char *field, const char *value)
{
    char source[4096];
    const char *path = temporary("config.json");
    golden_path(source, sizeof source, golden);
    change_json(source, path, field, value);
    return path;
}

static inline void expect_refusal(config_loader load, const char *golden, const char *field, const char *value,
                                  zimage_status expected)
{
    zimage_error error = ZIMAGE_ERROR_INIT;
    const char *path = temporary("config.json");
    change_config(golden, field, value);
    zimage_status status = load(path, &error);
    if (status == ZIMAGE_OK)
        fail_msg("%s: %s = %s was accepted", golden, field, value ? value : "(missing)");
    assert_error(&error, status, expected, path, field, NULL);
}

typedef struct refusal {
    const char *field, *value;
    zimage_status status;
} refusal;

/* numbers: fields that must be a number of some range, so that null, text and absurd numbers are refused. */
static inline void expect_refusals(config_loader load, const char *golden, const char *const *numbers,
                                   const refusal *refusals, size_t count)
{
    static const char *const absurd[] = {"null", "\"x\"", "-1", "1e300", "9223372036854775807", "[]", "{}"};
    for (; *numbers; numbers++)
        for (size_t i = 0; i < sizeof absurd / sizeof *absurd; i++)
            expect_refusal(load, golden, *numbers, absurd[i], ZIMAGE_ERROR_MODEL);
    for (size_t i = 0; i < count; i++)
        expect_refusal(load, golden, refusals[i].field, refusals[i].value, refusals[i].status);
}

#endif
