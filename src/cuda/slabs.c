#include "cuda/slabs.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/residency.h"

/* Where a weight lies in a slab. */
typedef struct slab_place {
    zi_cuda_weight_key key;
    size_t at;
    int offered;
} slab_place;

struct zi_cuda_slab {
    uint8_t *data;
    size_t bytes;
    int device;
    zi_dtype type;        /* the sessions' compute type: one key has another form in another */
    const zi_cuda *owner; /* NULL: none */
    int holders;
    slab_place *places; /* sorted by key */
    int count;
    zi_cuda_slab *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the list, and of owner, holders and offered */
static zi_cuda_slab *all;

/* ---- lists of holds ---------------------------------------------------------------------------------------------- */

static zimage_status make_room(zi_cuda *cuda, zi_cuda_slabs *slabs, int more)
{
    if (slabs->count + more <= slabs->capacity)
        return ZIMAGE_OK;
    int capacity = 2 * (slabs->count + more);
    zi_cuda_slab **list = realloc(slabs->list, (size_t)capacity * sizeof(zi_cuda_slab *));
    if (list == NULL)
        return zi_fail_memory(cuda->error, "a list of slabs", (size_t)capacity * sizeof(zi_cuda_slab *));
    slabs->list = list;
    slabs->capacity = capacity;
    return ZIMAGE_OK;
}

static int contains(const zi_cuda_slabs *slabs, const zi_cuda_slab *slab)
{
    for (int i = 0; i < slabs->count; i++)
        if (slabs->list[i] == slab)
            return 1;
    return 0;
}

/* There is room. */
static void add_hold(zi_cuda_slabs *slabs, zi_cuda_slab *slab)
{
    slab->holders++;
    slabs->list[slabs->count++] = slab;
}

zimage_status zi_cuda_slabs_hold(zi_cuda *cuda, const zi_cuda_slabs *more, zi_cuda_slabs *held)
{
    ZI_TRY(make_room(cuda, held, more->count));
    pthread_mutex_lock(&lock);
    for (int i = 0; i < more->count; i++)
        add_hold(held, more->list[i]);
    pthread_mutex_unlock(&lock);
    return ZIMAGE_OK;
}

void zi_cuda_slabs_adopt(zi_cuda *cuda, const zi_cuda_slabs *held)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < held->count; i++)
        if (held->list[i]->owner == NULL) {
            held->list[i]->owner = cuda;
            cuda->used += held->list[i]->bytes;
        }
    pthread_mutex_unlock(&lock);
}

size_t zi_cuda_slabs_owned(const zi_cuda *cuda, const zi_cuda_slabs *held)
{
    size_t bytes = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < held->count; i++)
        bytes += held->list[i]->owner == cuda ? held->list[i]->bytes : 0;
    pthread_mutex_unlock(&lock);
    return bytes;
}

static void unlist(const zi_cuda_slab *slab)
{
    zi_cuda_slab **place = &all;
    while (*place != slab)
        place = &(*place)->next;
    *place = slab->next;
}

static void free_slab(zi_cuda_slab *slab)
{
    (void)cudaFree(slab->data);
    free(slab->places);
    free(slab);
}

void zi_cuda_slabs_drop(zi_cuda *cuda, zi_cuda_slabs *held, int owner)
{
    for (int i = 0; i < held->count; i++) {
        zi_cuda_slab *slab = held->list[i];
        pthread_mutex_lock(&lock);
        if (owner && slab->owner == cuda) {
            slab->owner = NULL;
            cuda->used -= slab->bytes;
        }
        int last = --slab->holders == 0;
        if (last)
            unlist(slab);
        pthread_mutex_unlock(&lock);
        if (last)
            free_slab(slab);
    }
    free(held->list);
    *held = (zi_cuda_slabs){0};
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static int compare_places(const void *a, const void *b)
{
    return memcmp(&((const slab_place *)a)->key, &((const slab_place *)b)->key, sizeof(zi_cuda_weight_key));
}

static slab_place *place_of(const zi_cuda_slab *slab, const zi_cuda_weight_key *key)
{
    slab_place wanted = {0};
    memcpy(&wanted.key, key, sizeof(*key));
    return bsearch(&wanted, slab->places, (size_t)slab->count, sizeof(slab_place), compare_places);
}

static zimage_status allocate(zi_cuda *cuda, int count, size_t bytes, zi_cuda_slab **slab)
{
    size_t places = (size_t)count * sizeof(slab_place);
    zi_cuda_slab *s = calloc(1, sizeof(*s));
    void *data;
    *slab = NULL;
    if (s != NULL)
        s->places = calloc(1, places);
    zimage_status status = s != NULL && s->places != NULL ? zi_cuda_memory(cuda, bytes, "resident weights", &data)
                                                          : zi_fail_memory(cuda->error, "a slab", places);
    if (status != ZIMAGE_OK) {
        if (s != NULL)
            free(s->places);
        free(s);
        return status;
    }
    s->data = data;
    s->bytes = bytes;
    s->device = cuda->device;
    s->type = cuda->type;
    s->owner = cuda;
    s->count = count;
    *slab = s;
    return ZIMAGE_OK;
}

zimage_status zi_cuda_slab_new(zi_cuda *cuda, zi_cuda_weight *const *weights, int count, zi_cuda_slabs *held)
{
    size_t bytes = 0;
    zi_cuda_slab *slab;
    for (int i = 0; i < count; i++)
        bytes += zi_cuda_round_up(weights[i]->bytes);
    ZI_TRY(make_room(cuda, held, 1));
    ZI_TRY(allocate(cuda, count, bytes, &slab));
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        memcpy(&slab->places[i].key, &weights[i]->key, sizeof(zi_cuda_weight_key));
        slab->places[i].at = at;
        weights[i]->data = slab->data + at;
        weights[i]->slab = slab;
        at += zi_cuda_round_up(weights[i]->bytes);
    }
    qsort(slab->places, (size_t)count, sizeof(*slab->places), compare_places);
    pthread_mutex_lock(&lock);
    add_hold(held, slab);
    slab->next = all;
    all = slab;
    pthread_mutex_unlock(&lock);
    return ZIMAGE_OK;
}

/* ---- offering ---------------------------------------------------------------------------------------------------- */

/* Whether sessions of that device and compute type may read the slab's weights. */
static int is_alike(const zi_cuda *cuda, const zi_cuda_slab *slab)
{
    return slab->device == cuda->device && slab->type == cuda->type;
}

static int is_offered(const zi_cuda *cuda, const zi_cuda_weight_key *key)
{
    for (const zi_cuda_slab *slab = all; slab != NULL; slab = slab->next) {
        const slab_place *place = is_alike(cuda, slab) ? place_of(slab, key) : NULL;
        if (place != NULL && place->offered)
            return 1;
    }
    return 0;
}

/* Addresses alone do not identify a weight. */
static int has_identity(const zi_cuda_weight_key *key)
{
    return key->first_id != 0 && (key->second == NULL || key->second_id != 0);
}

void zi_cuda_slabs_offer(zi_cuda *cuda)
{
    zi_cuda_residency *r = cuda->residency;
    if (r == NULL || !r->has_unoffered)
        return;
    r->has_unoffered = 0;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < cuda->weights.capacity; i++) {
        zi_cuda_weight *w = cuda->weights.places[i];
        if (w == NULL || w->slab == NULL || !w->ready || !has_identity(&w->key))
            continue;
        slab_place *place = place_of(w->slab, &w->key);
        if (!place->offered && !is_offered(cuda, &w->key))
            place->offered = 1;
        r->has_unoffered |= !place->offered; /* the other slab may go, and the next time this place takes over */
    }
    pthread_mutex_unlock(&lock);
}

/* Whether a session that arranges its memory may read weights of the slab. One that it holds alone goes away then. */
static int is_open_to(const zi_cuda *cuda, const zi_cuda_slab *slab, int own, const zi_cuda_slabs *found)
{
    if (slab->owner == NULL || !is_alike(cuda, slab))
        return 0;
    return slab->owner != cuda || (own && (slab->holders > 1 || contains(found, slab)));
}

zimage_status zi_cuda_slabs_find(zi_cuda *cuda, zi_cuda_weight *const *weights, int count, int own,
                                 zi_cuda_slabs *found)
{
    zimage_status status = ZIMAGE_OK;
    for (int i = 0; i < count; i++)
        weights[i]->offered = NULL;
    pthread_mutex_lock(&lock);
    for (zi_cuda_slab *slab = all; slab != NULL && status == ZIMAGE_OK; slab = slab->next) {
        int open = is_open_to(cuda, slab, own, found), used = 0;
        for (int i = 0; i < count && open; i++) {
            const slab_place *place = weights[i]->offered == NULL ? place_of(slab, &weights[i]->key) : NULL;
            if (place == NULL || !place->offered)
                continue;
            weights[i]->offered = slab->data + place->at;
            weights[i]->offered_here = slab->owner == cuda;
            used = 1;
        }
        if (used && !contains(found, slab))
            status = make_room(cuda, found, 1);
        if (used && !contains(found, slab) && status == ZIMAGE_OK)
            add_hold(found, slab);
    }
    pthread_mutex_unlock(&lock);
    return status;
}
