/* Stored weights on the card: sent when they are first used, in the form that the kernels read. */
#include <assert.h>
#include <stdlib.h>

#include "cuda/internal.h"

#define CHANNELS_MULTIPLE 8 /* of a filter's outputs: products of few of them read whole rows of 8 */

static size_t place_of(const zi_cuda_weight_key *key)
{
    uint64_t sum = (uint64_t)(uintptr_t)key->first * 31 + (uint64_t)(uintptr_t)key->second * 7;
    sum += (uint64_t)key->rows * 5 + (uint64_t)key->count * 3 + key->stored * 8 + key->form;
    return (size_t)(sum * 0x9E3779B97F4A7C15u >> 20);
}

static int same_key(const zi_cuda_weight_key *a, const zi_cuda_weight_key *b)
{
    return a->first == b->first && a->second == b->second && a->rows == b->rows && a->count == b->count &&
           a->stored == b->stored && a->form == b->form;
}

/* The weight's place, or the free one where it would go. */
static zi_cuda_weight **find(const zi_cuda_weights *w, const zi_cuda_weight_key *key)
{
    for (size_t i = place_of(key);; i++) {
        zi_cuda_weight **place = &w->places[i & (w->capacity - 1)];
        if (*place == NULL || same_key(&(*place)->key, key))
            return place;
    }
}

static zimage_status make_room(zi_cuda *cuda)
{
    zi_cuda_weights *w = &cuda->weights, larger = {.count = w->count, .capacity = w->capacity ? 2 * w->capacity : 1024};
    if (2 * w->count < w->capacity)
        return ZIMAGE_OK;
    larger.places = calloc(larger.capacity, sizeof(void *));
    if (larger.places == NULL)
        return zi_fail_memory(cuda->ops.error, "the list of weights", larger.capacity * sizeof(void *));
    for (size_t i = 0; i < w->capacity; i++)
        if (w->places[i] != NULL)
            *find(&larger, &w->places[i]->key) = w->places[i];
    free(w->places);
    *w = larger;
    return ZIMAGE_OK;
}

void zi_cuda_weights_free(zi_cuda *cuda)
{
    zi_cuda_weights *w = &cuda->weights;
    for (size_t i = 0; i < w->capacity; i++) {
        if (w->places[i] != NULL && w->places[i]->owned)
            zi_cuda_memory_free(cuda, w->places[i]->data, w->places[i]->bytes);
        free(w->places[i]);
    }
    free(w->places);
    *w = (zi_cuda_weights){0};
}

/* ---- sizes --------------------------------------------------------------------------------------------------------- */

static int64_t padded_out(const zi_weight *w)
{
    return (w->shape[0] + CHANNELS_MULTIPLE - 1) / CHANNELS_MULTIPLE * CHANNELS_MULTIPLE;
}

/* A packed weight: numbers, scales and biases, one behind the other. */
typedef struct groups {
    size_t numbers, scales; /* bytes */
    size_t second, third;   /* where scales and biases begin */
} groups;

static groups groups_of(const zi_weight *w)
{
    groups g = {.numbers = (size_t)zi_weight_count(w) / 8 * (size_t)w->bits,
                .scales = (size_t)(zi_weight_count(w) / w->group) * zi_dtype_size(w->scale_dtype)};
    g.second = zi_cuda_round_up(g.numbers);
    g.third = g.second + zi_cuda_round_up(g.scales);
    return g;
}

static size_t stored_bytes(const zi_weight *w)
{
    return (size_t)zi_weight_count(w) * zi_dtype_size(w->dtype);
}

/* What a weight's numbers become in that form. */
static zi_dtype type_of(const zi_cuda *cuda, const zi_cuda_weight *weight)
{
    return weight->key.form == ZI_FORM_VECTOR ? ZI_F32 : cuda->type;
}

/* Whether all that is stored is of that type. */
static int all_of(const zi_cuda_weight *weight, zi_dtype type)
{
    return weight->a->dtype == type && (weight->b == NULL || weight->b->dtype == type);
}

/* Where b begins in what is sent: right behind a where both are read as one. */
static size_t second_place(const zi_cuda_weight *weight)
{
    size_t a = stored_bytes(weight->a);
    return weight->a->dtype == weight->b->dtype ? a : zi_cuda_round_up(a);
}

/* Where the scales of an fp8 matrix lie: behind its numbers. */
static size_t scales_place(int64_t count)
{
    return zi_cuda_round_up((size_t)count);
}

static int64_t rows_of(const zi_cuda_weight *weight)
{
    return weight->a->shape[0] + (weight->b != NULL ? weight->b->shape[0] : 0);
}

static int64_t count_of(const zi_cuda_weight *weight)
{
    return zi_weight_count(weight->a) + (weight->b != NULL ? zi_weight_count(weight->b) : 0);
}

static void measure(const zi_cuda *cuda, zi_cuda_weight *w)
{
    int64_t count = count_of(w);
    if (w->key.form == ZI_FORM_PACKED) {
        groups g = groups_of(w->a);
        w->bytes = w->stored = g.third + g.scales;
        w->direct = 1;
        return;
    }
    w->stored = w->b != NULL ? second_place(w) + stored_bytes(w->b) : stored_bytes(w->a);
    if (w->key.form == ZI_FORM_FP8)
        w->bytes = scales_place(count) + (size_t)rows_of(w) * sizeof(float);
    else if (w->key.form == ZI_FORM_FILTER)
        w->bytes = (size_t)(count / w->a->shape[0] * padded_out(w->a)) * zi_dtype_size(cuda->type);
    else
        w->bytes = (size_t)count * zi_dtype_size(type_of(cuda, w));
    w->direct = (w->key.form == ZI_FORM_MATRIX || w->key.form == ZI_FORM_VECTOR) && all_of(w, type_of(cuda, w));
}

int zi_cuda_weight_parts(const zi_cuda_weight *weight, uint8_t *to, zi_upload_part parts[ZI_UPLOAD_PARTS])
{
    const zi_weight *a = weight->a, *b = weight->b;
    if (weight->key.form == ZI_FORM_PACKED) {
        groups g = groups_of(a);
        parts[0] = (zi_upload_part){a->data, to, g.numbers};
        parts[1] = (zi_upload_part){a->scales, to + g.second, g.scales};
        parts[2] = (zi_upload_part){a->biases, to + g.third, g.scales};
        return 3;
    }
    parts[0] = (zi_upload_part){a->data, to, stored_bytes(a)};
    if (b == NULL)
        return 1;
    parts[1] = (zi_upload_part){b->data, to + second_place(weight), stored_bytes(b)};
    return 2;
}

/* ---- forms --------------------------------------------------------------------------------------------------------- */

/* a, then b, as numbers of one type. */
static zimage_status convert(zi_cuda *cuda, const zi_cuda_weight *w, const uint8_t *stored, zi_dtype type, void *data)
{
    const zi_weight *a = w->a, *b = w->b;
    ZI_CUDA_TRY(cuda, zi_cuda_convert(type, data, a->dtype, stored, zi_weight_count(a), cuda->stream),
                "converting a weight");
    if (b == NULL)
        return ZIMAGE_OK;
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_convert(type, zi_cuda_at(data, type, zi_weight_count(a)), b->dtype,
                                       stored + second_place(w), zi_weight_count(b), cuda->stream),
                       "converting a weight");
}

static zimage_status quantise(zi_cuda *cuda, const void *dense, int64_t rows, int64_t columns, const zi_cuda_rows8 *out)
{
    return ZI_CUDA_RUN(cuda, zi_cuda_quantise_rows(*out, cuda->type, dense, rows, columns, cuda->stream),
                       "quantising a weight");
}

static zimage_status form_fp8(zi_cuda *cuda, const zi_cuda_weight *w, const uint8_t *stored, void *data)
{
    const zi_cuda_rows8 rows = {data, (float *)(void *)((uint8_t *)data + scales_place(count_of(w)))};
    void *dense = (void *)stored;
    zi_arena_mark mark = zi_cuda_mark(&cuda->ops);
    if (!all_of(w, cuda->type)) {
        ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)count_of(w) * zi_dtype_size(cuda->type), w->a->name, &dense));
        ZI_TRY(convert(cuda, w, stored, cuda->type, dense));
    }
    ZI_TRY(quantise(cuda, dense, rows_of(w), w->a->shape[1], &rows));
    zi_cuda_release(&cuda->ops, mark);
    return ZIMAGE_OK;
}

zimage_status zi_cuda_weight_form(zi_cuda *cuda, const zi_cuda_weight *w, const uint8_t *stored, void *data)
{
    if (w->key.form == ZI_FORM_FP8)
        return form_fp8(cuda, w, stored, data);
    if (w->key.form != ZI_FORM_FILTER)
        return convert(cuda, w, stored, type_of(cuda, w), data);
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_arrange_filter(cuda->type, data, w->a->dtype, stored, w->a->shape[0], padded_out(w->a),
                                              w->a->shape[1], w->a->shape[2] * w->a->shape[3], cuda->stream),
                       "arranging a filter");
}

/* ---- use ----------------------------------------------------------------------------------------------------------- */

/* The weight's (or pair's) place, made if it is new. */
static zimage_status place(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, zi_cuda_form form,
                           zi_cuda_weight **weight)
{
    const uint8_t *second = b != NULL ? b->data : NULL;
    const zi_cuda_weight_key key = {a->data, second, a->shape[0], zi_weight_count(a), a->dtype, form};
    ZI_TRY(make_room(cuda));
    zi_cuda_weight **found = find(&cuda->weights, &key);
    if (*found == NULL) {
        *found = calloc(1, sizeof(**found));
        if (*found == NULL)
            return zi_fail_memory(cuda->ops.error, a->name, sizeof(**found));
        (*found)->key = key;
        cuda->weights.count++;
    }
    *weight = *found;
    (*weight)->a = a;
    (*weight)->b = b;
    measure(cuda, *weight);
    return ZIMAGE_OK;
}

static zimage_status get(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, zi_cuda_form form, zi_cuda_ready *ready)
{
    zi_cuda_weight *weight = NULL;
    *ready = (zi_cuda_ready){NULL, NULL, NULL};
    zimage_status status = place(cuda, a, b, form, &weight);
    if (status != ZIMAGE_OK || weight == NULL)
        return status;
    ZI_TRY(zi_cuda_residency_get(cuda, weight, &ready->data));
    if (form == ZI_FORM_PACKED) {
        groups g = groups_of(a);
        ready->scales = (uint8_t *)ready->data + g.second;
        ready->biases = (uint8_t *)ready->data + g.third;
    }
    if (form == ZI_FORM_FP8)
        ready->scales = (uint8_t *)ready->data + scales_place(count_of(weight));
    return ZIMAGE_OK;
}

static zimage_status unpack(zi_cuda *cuda, const zi_weight *w, void *dst)
{
    zi_cuda_ready packed;
    ZI_TRY(get(cuda, w, NULL, ZI_FORM_PACKED, &packed));
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_unpack_groups(cuda->type, dst, packed.data, w->bits, w->group, w->scale_dtype,
                                             packed.scales, packed.biases, zi_weight_count(w), cuda->stream),
                       "unpacking a weight");
}

zimage_status zi_cuda_matrix(zi_cuda *cuda, const zi_weight *w, void **data)
{
    zi_cuda_ready weight;
    if (w->dtype == ZI_GROUPED) {
        ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)zi_weight_count(w) * zi_dtype_size(cuda->type), w->name, data));
        return unpack(cuda, w, *data);
    }
    ZI_TRY(get(cuda, w, NULL, ZI_FORM_MATRIX, &weight));
    *data = weight.data;
    return ZIMAGE_OK;
}

zimage_status zi_cuda_pair(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, void **data)
{
    zi_cuda_ready weight;
    if (a->dtype != ZI_GROUPED && b->dtype != ZI_GROUPED) {
        ZI_TRY(get(cuda, a, b, ZI_FORM_MATRIX, &weight));
        *data = weight.data;
        return ZIMAGE_OK;
    }
    const zi_weight *both[2] = {a, b};
    int64_t count = zi_weight_count(a) + zi_weight_count(b);
    ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)count * zi_dtype_size(cuda->type), a->name, data));
    for (int i = 0; i < 2; i++) {
        void *dst = zi_cuda_at(*data, cuda->type, i > 0 ? zi_weight_count(a) : 0), *dense;
        if (both[i]->dtype == ZI_GROUPED) {
            ZI_TRY(unpack(cuda, both[i], dst));
            continue;
        }
        ZI_TRY(zi_cuda_matrix(cuda, both[i], &dense));
        ZI_CUDA_TRY(cuda, zi_cuda_convert(cuda->type, dst, cuda->type, dense, zi_weight_count(both[i]), cuda->stream),
                    "copying a weight");
    }
    return ZIMAGE_OK;
}

/* Groups stay packed on the card and are quantised anew at each use, on the stack. */
static zimage_status quantise_packed(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, zi_cuda_rows8 *rows)
{
    int64_t columns = a->shape[1], count = a->shape[0] + (b != NULL ? b->shape[0] : 0);
    void *dense;
    ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)(count * columns), a->name, &rows->data));
    ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)count * sizeof(float), a->name, (void **)&rows->scales));
    ZI_TRY(b != NULL ? zi_cuda_pair(cuda, a, b, &dense) : zi_cuda_matrix(cuda, a, &dense));
    return quantise(cuda, dense, count, columns, rows);
}

zimage_status zi_cuda_fp8(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, zi_cuda_rows8 *rows)
{
    zi_cuda_ready weight;
    if (a->dtype == ZI_GROUPED || (b != NULL && b->dtype == ZI_GROUPED))
        return quantise_packed(cuda, a, b, rows);
    ZI_TRY(get(cuda, a, b, ZI_FORM_FP8, &weight));
    *rows = (zi_cuda_rows8){weight.data, weight.scales};
    return ZIMAGE_OK;
}

zimage_status zi_cuda_vector(zi_cuda *cuda, const zi_weight *w, const float **data)
{
    zi_cuda_ready weight;
    *data = NULL;
    if (w == NULL)
        return ZIMAGE_OK;
    assert(w->dtype != ZI_GROUPED);
    ZI_TRY(get(cuda, w, NULL, ZI_FORM_VECTOR, &weight));
    *data = weight.data;
    return ZIMAGE_OK;
}

zimage_status zi_cuda_filter(zi_cuda *cuda, const zi_weight *w, void **data)
{
    zi_cuda_ready weight;
    assert(w->dtype != ZI_GROUPED && w->dims == 4);
    ZI_TRY(get(cuda, w, NULL, ZI_FORM_FILTER, &weight));
    *data = weight.data;
    return ZIMAGE_OK;
}
