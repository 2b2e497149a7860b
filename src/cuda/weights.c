/* The hash table of all weights that were used, and weights in the form that an operation reads. */
#include "cuda/weights.h"

#include <assert.h>
#include <stdlib.h>

#include "cuda/internal.h"
#include "cuda/residency.h"

static size_t place_of(const zi_cuda_weight_key *key)
{
    uint64_t sum = (uint64_t)(uintptr_t)key->first * 31 + (uint64_t)(uintptr_t)key->second * 7;
    sum += key->first_id * 127 + key->second_id * 61;
    sum += (uint64_t)key->rows * 5 + (uint64_t)key->count * 3 + key->stored * 8 + key->form;
    return (size_t)(sum * 0x9E3779B97F4A7C15u >> 20);
}

static int same_key(const zi_cuda_weight_key *a, const zi_cuda_weight_key *b)
{
    return a->first_id == b->first_id && a->second_id == b->second_id && a->first == b->first &&
           a->second == b->second && a->rows == b->rows && a->count == b->count && a->stored == b->stored &&
           a->form == b->form;
}

/* The place of the weight with that key, or the free place for it. */
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
        return zi_fail_memory(cuda->error, "the list of weights", larger.capacity * sizeof(void *));
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

/* ---- reading weights --------------------------------------------------------------------------------------------- */

/* The entry of the weight (or pair), made if it is new. */
static zimage_status find_or_add(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, zi_cuda_form form,
                                 zi_cuda_weight **weight)
{
    ZI_TRY(zi_cuda_check_form(cuda, a, form));
    ZI_TRY(b != NULL ? zi_cuda_check_form(cuda, b, form) : ZIMAGE_OK);
    const zi_cuda_weight_key key = {a->id,       b != NULL ? b->id : 0, a->data,  b != NULL ? b->data : NULL,
                                    a->shape[0], zi_weight_count(a),    a->dtype, form};
    ZI_TRY(make_room(cuda));
    zi_cuda_weight **found = find(&cuda->weights, &key);
    if (*found == NULL) {
        *found = calloc(1, sizeof(**found));
        if (*found == NULL)
            return zi_fail_memory(cuda->error, a->name, sizeof(**found));
        (*found)->key = key;
        cuda->weights.count++;
    }
    *weight = *found;
    (*weight)->a = a;
    (*weight)->b = b;
    zi_cuda_weight_measure(cuda, *weight);
    return ZIMAGE_OK;
}

/* A weight in the form that kernels read. */
typedef struct ready_weight {
    void *data;
    void *scales, *biases; /* of ZI_FORM_PACKED; the scales of ZI_FORM_FP8, too */
} ready_weight;

static zimage_status get(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, zi_cuda_form form, ready_weight *ready)
{
    zi_cuda_weight *weight = NULL;
    *ready = (ready_weight){NULL, NULL, NULL};
    zimage_status status = find_or_add(cuda, a, b, form, &weight);
    if (status != ZIMAGE_OK || weight == NULL)
        return status;
    ZI_TRY(zi_cuda_residency_get(cuda, weight, &ready->data));
    if (form == ZI_FORM_PACKED) {
        zi_cuda_groups g = zi_cuda_groups_of(a);
        ready->scales = (uint8_t *)ready->data + g.second;
        ready->biases = (uint8_t *)ready->data + g.third;
    }
    if (form == ZI_FORM_FP8)
        ready->scales = (uint8_t *)ready->data + zi_cuda_fp8_scales(weight);
    return ZIMAGE_OK;
}

zimage_status zi_cuda_groups_in(zi_cuda *cuda, const zi_weight *w, zi_cuda_packed_weight *packed)
{
    ready_weight ready;
    ZI_TRY(get(cuda, w, NULL, ZI_FORM_PACKED, &ready));
    *packed = (zi_cuda_packed_weight){ready.data, ready.scales, ready.biases};
    return ZIMAGE_OK;
}

static zimage_status dequantise(zi_cuda *cuda, const zi_weight *w, void *dst)
{
    zi_cuda_packed_weight packed;
    ZI_TRY(zi_cuda_groups_in(cuda, w, &packed));
    return ZI_CUDA_RUN(cuda,
                       zi_cuda_unpack_groups(cuda->type, dst, packed.numbers, w->bits, w->group, w->scale_dtype,
                                             packed.scales, packed.biases, zi_weight_count(w), cuda->stream),
                       "dequantising a weight");
}

zimage_status zi_cuda_matrix(zi_cuda *cuda, const zi_weight *w, void **data)
{
    ready_weight weight;
    if (w->dtype == ZI_GROUPED) {
        ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)zi_weight_count(w) * zi_dtype_size(cuda->type), w->name, data));
        return dequantise(cuda, w, *data);
    }
    ZI_TRY(get(cuda, w, NULL, ZI_FORM_MATRIX, &weight));
    *data = weight.data;
    return ZIMAGE_OK;
}

zimage_status zi_cuda_pair(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, void **data)
{
    ready_weight weight;
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
            ZI_TRY(dequantise(cuda, both[i], dst));
            continue;
        }
        ZI_TRY(zi_cuda_matrix(cuda, both[i], &dense));
        ZI_CUDA_TRY(cuda, zi_cuda_convert(cuda->type, dst, cuda->type, dense, zi_weight_count(both[i]), cuda->stream),
                    "copying a weight");
    }
    return ZIMAGE_OK;
}

/* MLX's groups stay packed in device memory; each use dequantises them and quantises them to fp8, on the stack. */
static zimage_status requantise(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, zi_cuda_rows8 *rows)
{
    int64_t columns = a->shape[1], count = a->shape[0] + (b != NULL ? b->shape[0] : 0);
    void *dense;
    ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)(count * columns), a->name, &rows->data));
    ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)count * sizeof(float), a->name, (void **)&rows->scales));
    ZI_TRY(b != NULL ? zi_cuda_pair(cuda, a, b, &dense) : zi_cuda_matrix(cuda, a, &dense));
    return ZI_CUDA_RUN(cuda, zi_cuda_quantise_rows(*rows, cuda->type, dense, columns, count, columns, cuda->stream),
                       "quantising a weight");
}

zimage_status zi_cuda_fp8(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, zi_cuda_rows8 *rows)
{
    ready_weight weight;
    if (a->dtype == ZI_GROUPED || (b != NULL && b->dtype == ZI_GROUPED))
        return requantise(cuda, a, b, rows);
    ZI_TRY(get(cuda, a, b, ZI_FORM_FP8, &weight));
    *rows = (zi_cuda_rows8){weight.data, weight.scales};
    return ZIMAGE_OK;
}

zimage_status zi_cuda_vector(zi_cuda *cuda, const zi_weight *w, const float **data)
{
    ready_weight weight;
    *data = NULL;
    if (w == NULL)
        return ZIMAGE_OK;
    ZI_TRY(get(cuda, w, NULL, ZI_FORM_VECTOR, &weight));
    *data = weight.data;
    return ZIMAGE_OK;
}

zimage_status zi_cuda_filter(zi_cuda *cuda, const zi_weight *w, void **data)
{
    ready_weight weight;
    assert(w->dims == 4);
    ZI_TRY(get(cuda, w, NULL, ZI_FORM_FILTER, &weight));
    *data = weight.data;
    return ZIMAGE_OK;
}
