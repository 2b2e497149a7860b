/* Tensors of tests/golden files, through the project's own (tested) reader. */
#ifndef ZI_TESTS_FIXTURE_H
#define ZI_TESTS_FIXTURE_H

#include "support.h"
#include "weights/store.h"

static inline zi_store *fixture_open(const char *name)
{
    char path[4096];
    zimage_error error = ZIMAGE_ERROR_INIT;
    zi_store *store = NULL;
    snprintf(path, sizeof path, "%s/%s", ZIMAGE_TEST_DATA, name);
    if (zi_store_open_file(path, &store, &error) != ZIMAGE_OK)
        fail_msg("%s", error.message);
    return store;
}

static inline const zi_weight *fixture_find(const zi_store *store, const char *name)
{
    const zi_weight *weight = zi_store_find(store, name);
    if (!weight)
        fail_msg("%s: no tensor %s", zi_store_path(store), name);
    return weight;
}

/* A float tensor as float32; free() it. count may be NULL. */
static inline float *fixture_floats(const zi_store *store, const char *name, size_t *count)
{
    const zi_weight *weight = fixture_find(store, name);
    int64_t n = zi_weight_count(weight);
    float *values = malloc((size_t)(n ? n : 1) * sizeof *values);
    assert_non_null(values);
    zi_weight_unpack(weight, 0, n, values);
    if (count)
        *count = (size_t)n;
    return values;
}

/* Pixels [count / channels][channels] to planes [channels][count / channels], as the reference has them. */
static inline void fixture_to_planes(float *planes, const float *pixels, size_t channels, size_t count)
{
    for (size_t i = 0; i < count; i++)
        planes[i % channels * (count / channels) + i / channels] = pixels[i];
}

/* The same in place, of RGB. */
static inline void fixture_channels_first(float *rgb, size_t count)
{
    float *planes = malloc(count * sizeof *planes);
    assert_non_null(planes);
    fixture_to_planes(planes, rgb, 3, count);
    memcpy(rgb, planes, count * sizeof *rgb);
    free(planes);
}

#endif
