/* Stored weights on the card: sent when they are first used, in the form that the kernels read. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/internal.h"

#define CHANNELS_MULTIPLE 8 /* of a filter's outputs, as fast convolutions want them */

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
static zi_cuda_weight *find(const zi_cuda_weights *w, const zi_cuda_weight_key *key)
{
    for (size_t i = place_of(key);; i++) {
        zi_cuda_weight *place = &w->places[i & (w->capacity - 1)];
        if (place->key.first == NULL || same_key(&place->key, key))
            return place;
    }
}

static zimage_status make_room(zi_cuda *cuda)
{
    zi_cuda_weights *w = &cuda->weights, larger = {.count = w->count, .capacity = w->capacity ? 2 * w->capacity : 1024};
    if (2 * w->count < w->capacity)
        return ZIMAGE_OK;
    larger.places = calloc(larger.capacity, sizeof(*larger.places));
    if (larger.places == NULL)
        return zi_fail_memory(cuda->ops.error, "the list of weights", larger.capacity * sizeof(*larger.places));
    for (size_t i = 0; i < w->capacity; i++)
        if (w->places[i].key.first != NULL)
            *find(&larger, &w->places[i].key) = w->places[i];
    free(w->places);
    *w = larger;
    return ZIMAGE_OK;
}

void zi_cuda_weights_free(zi_cuda_weights *w)
{
    for (size_t i = 0; i < w->capacity; i++)
        if (w->places[i].key.first != NULL)
            (void)cudaFree(w->places[i].data);
    free(w->places);
    *w = (zi_cuda_weights){0};
}

/* A dense weight's stored numbers on the stack. */
static zimage_status send_stored(zi_cuda *cuda, const zi_weight *w, void **stored)
{
    size_t bytes = (size_t)zi_weight_count(w) * zi_dtype_size(w->dtype);
    ZI_TRY(zi_cuda_stack_alloc(cuda, bytes, w->name, stored));
    return zi_cuda_send(cuda, *stored, w->data, bytes);
}

static zimage_status send_dense(zi_cuda *cuda, const zi_weight *w, zi_dtype type, void *dst)
{
    if (w->dtype == type)
        return zi_cuda_send(cuda, dst, w->data, (size_t)zi_weight_count(w) * zi_dtype_size(type));
    void *stored;
    zi_arena_mark mark = zi_cuda_mark(&cuda->ops);
    ZI_TRY(send_stored(cuda, w, &stored));
    ZI_CUDA_TRY(cuda, zi_cuda_convert(type, dst, w->dtype, stored, zi_weight_count(w), cuda->stream),
                "converting a weight");
    zi_cuda_release(&cuda->ops, mark);
    return ZIMAGE_OK;
}

static int64_t padded_out(const zi_weight *w)
{
    return (w->shape[0] + CHANNELS_MULTIPLE - 1) / CHANNELS_MULTIPLE * CHANNELS_MULTIPLE;
}

static zimage_status send_filter(zi_cuda *cuda, const zi_weight *w, void *dst)
{
    void *stored;
    zi_arena_mark mark = zi_cuda_mark(&cuda->ops);
    ZI_TRY(send_stored(cuda, w, &stored));
    ZI_CUDA_TRY(cuda,
                zi_cuda_arrange_filter(cuda->type, dst, w->dtype, stored, w->shape[0], padded_out(w), w->shape[1],
                                       w->shape[2] * w->shape[3], cuda->stream),
                "arranging a filter");
    zi_cuda_release(&cuda->ops, mark);
    return ZIMAGE_OK;
}

/* Numbers, scales and biases of groups, one behind the other at multiples of 256 bytes. */
static zimage_status send_packed(zi_cuda *cuda, const zi_weight *w, zi_cuda_weight *place)
{
    size_t numbers = (size_t)zi_weight_count(w) / 8 * (size_t)w->bits;
    size_t scales = (size_t)(zi_weight_count(w) / w->group) * zi_dtype_size(w->scale_dtype);
    size_t second = (numbers + 255) / 256 * 256, third = second + (scales + 255) / 256 * 256;
    ZI_TRY(zi_cuda_memory(cuda, third + scales, w->name, &place->data));
    place->scales = (uint8_t *)place->data + second;
    place->biases = (uint8_t *)place->data + third;
    ZI_TRY(zi_cuda_send(cuda, place->data, w->data, numbers));
    ZI_TRY(zi_cuda_send(cuda, place->scales, w->scales, scales));
    return zi_cuda_send(cuda, place->biases, w->biases, scales);
}

/* Where the scales of an fp8 matrix lie: behind its numbers. */
static size_t scales_place(int64_t count)
{
    return ((size_t)count + 255) / 256 * 256;
}

static zimage_status quantise(zi_cuda *cuda, const void *dense, int64_t rows, int64_t columns, const zi_cuda_rows8 *out)
{
    return zi_cuda_check(cuda, zi_cuda_quantise_rows(*out, cuda->type, dense, rows, columns, cuda->stream),
                         "quantising a weight");
}

static zimage_status send_fp8(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, zi_cuda_weight *place)
{
    int64_t columns = a->shape[1], rows = a->shape[0] + (b != NULL ? b->shape[0] : 0), count = rows * columns;
    void *dense;
    ZI_TRY(zi_cuda_memory(cuda, scales_place(count) + (size_t)rows * sizeof(float), a->name, &place->data));
    place->scales = (uint8_t *)place->data + scales_place(count);
    zi_arena_mark mark = zi_cuda_mark(&cuda->ops);
    ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)count * zi_dtype_size(cuda->type), a->name, &dense));
    ZI_TRY(send_dense(cuda, a, cuda->type, dense));
    if (b != NULL)
        ZI_TRY(send_dense(cuda, b, cuda->type, zi_cuda_at(dense, cuda->type, zi_weight_count(a))));
    ZI_TRY(quantise(cuda, dense, rows, columns, &(zi_cuda_rows8){place->data, place->scales}));
    zi_cuda_release(&cuda->ops, mark);
    return ZIMAGE_OK;
}

static zimage_status send(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, zi_cuda_weight *place)
{
    zi_dtype type = place->key.form == ZI_FORM_VECTOR ? ZI_F32 : cuda->type;
    int64_t count = zi_weight_count(a) + (b != NULL ? zi_weight_count(b) : 0);
    if (place->key.form == ZI_FORM_PACKED)
        return send_packed(cuda, a, place);
    if (place->key.form == ZI_FORM_FP8)
        return send_fp8(cuda, a, b, place);
    if (place->key.form == ZI_FORM_FILTER)
        count = count / a->shape[0] * padded_out(a);
    ZI_TRY(zi_cuda_memory(cuda, (size_t)count * zi_dtype_size(type), a->name, &place->data));
    if (place->key.form == ZI_FORM_FILTER)
        return send_filter(cuda, a, place->data);
    ZI_TRY(send_dense(cuda, a, type, place->data));
    return b != NULL ? send_dense(cuda, b, type, zi_cuda_at(place->data, type, zi_weight_count(a))) : ZIMAGE_OK;
}

/* The weight's (or pair's) place, sent if it is new. */
static zimage_status get(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, zi_cuda_form form,
                         const zi_cuda_weight **weight)
{
    const uint8_t *second = b != NULL ? b->data : NULL;
    zi_cuda_weight made = {.key = {a->data, second, a->shape[0], zi_weight_count(a), a->dtype, form}};
    ZI_TRY(make_room(cuda));
    zi_cuda_weight *place = find(&cuda->weights, &made.key);
    *weight = place;
    if (place->key.first != NULL)
        return ZIMAGE_OK;
    zimage_status status = send(cuda, a, b, &made);
    if (status != ZIMAGE_OK) {
        (void)cudaStreamSynchronize(cuda->stream); /* copies into it may be under way */
        (void)cudaFree(made.data);
        return status;
    }
    *place = made;
    cuda->weights.count++;
    return ZIMAGE_OK;
}

static zimage_status unpack(zi_cuda *cuda, const zi_weight *w, void *dst)
{
    const zi_cuda_weight *packed;
    ZI_TRY(get(cuda, w, NULL, ZI_FORM_PACKED, &packed));
    return zi_cuda_check(cuda,
                         zi_cuda_unpack_groups(cuda->type, dst, packed->data, w->bits, w->group, w->scale_dtype,
                                               packed->scales, packed->biases, zi_weight_count(w), cuda->stream),
                         "unpacking a weight");
}

zimage_status zi_cuda_matrix(zi_cuda *cuda, const zi_weight *w, void **data)
{
    const zi_cuda_weight *weight;
    if (w->dtype == ZI_GROUPED) {
        ZI_TRY(zi_cuda_stack_alloc(cuda, (size_t)zi_weight_count(w) * zi_dtype_size(cuda->type), w->name, data));
        return unpack(cuda, w, *data);
    }
    ZI_TRY(get(cuda, w, NULL, ZI_FORM_MATRIX, &weight));
    *data = weight->data;
    return ZIMAGE_OK;
}

zimage_status zi_cuda_pair(zi_cuda *cuda, const zi_weight *a, const zi_weight *b, void **data)
{
    const zi_cuda_weight *weight;
    if (a->dtype != ZI_GROUPED && b->dtype != ZI_GROUPED) {
        ZI_TRY(get(cuda, a, b, ZI_FORM_MATRIX, &weight));
        *data = weight->data;
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
    const zi_cuda_weight *weight;
    if (a->dtype == ZI_GROUPED || (b != NULL && b->dtype == ZI_GROUPED))
        return quantise_packed(cuda, a, b, rows);
    ZI_TRY(get(cuda, a, b, ZI_FORM_FP8, &weight));
    *rows = (zi_cuda_rows8){weight->data, weight->scales};
    return ZIMAGE_OK;
}

zimage_status zi_cuda_vector(zi_cuda *cuda, const zi_weight *w, const float **data)
{
    const zi_cuda_weight *weight;
    *data = NULL;
    if (w == NULL)
        return ZIMAGE_OK;
    assert(w->dtype != ZI_GROUPED);
    ZI_TRY(get(cuda, w, NULL, ZI_FORM_VECTOR, &weight));
    *data = weight->data;
    return ZIMAGE_OK;
}

zimage_status zi_cuda_filter(zi_cuda *cuda, const zi_weight *w, void **data)
{
    const zi_cuda_weight *weight;
    assert(w->dtype != ZI_GROUPED && w->dims == 4);
    ZI_TRY(get(cuda, w, NULL, ZI_FORM_FILTER, &weight));
    *data = weight->data;
    return ZIMAGE_OK;
}
