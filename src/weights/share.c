/*
 * Sharing weights between models. Two models are equal in a part more often than in whole files: the same text encoder
 * is published in two shards or in three. So each tensor is looked for by itself.
 *
 * The list is a part of the process, not of a handle: whoever opens a second model need not know the first. It holds
 * files, in the order in which they came. A tensor gives way only to one of an older file. So two models that are
 * opened at the same time never give way to each other.
 */
#include "weights/share.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"

#define PIECE  ZI_MIB       /* bytes that are compared at a time */
#define SAMPLE (size_t)4096 /* bytes that are compared first, at three places: most other tensors differ there */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all that is below, and of next, order, references */
static zi_safetensors *list;                             /* the newest first */
static uint64_t last_order;

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static int is_alike(const zi_entry *a, const zi_entry *b)
{
    return strcmp(a->dtype, b->dtype) == 0 && a->rank == b->rank && a->weight.bytes == b->weight.bytes &&
           a->weight.dims == b->weight.dims && memcmp(a->weight.shape, b->weight.shape, sizeof a->weight.shape) == 0;
}

static size_t place_of(const zi_entry *entry)
{
    return (size_t)(entry->weight.data - entry->file->mapping.data);
}

/* ---- the list ---------------------------------------------------------------------------------------------------- */

static int is_unchanged(const zi_safetensors *file)
{
    int written = 0;
    return zi_safetensors_check(file, &written, NULL) == ZIMAGE_OK && !written;
}

static void unlist(const zi_safetensors *file)
{
    zi_safetensors **place = &list;
    while (*place != file)
        place = &(*place)->next;
    *place = file->next;
}

void zi_file_let_go(zi_safetensors *file)
{
    if (!file)
        return;
    pthread_mutex_lock(&lock);
    int last = file->references <= 1;
    if (file->references == 1)
        unlist(file);
    file->references -= file->references > 0;
    pthread_mutex_unlock(&lock);
    if (!last)
        return;
    zi_safetensors_close(file);
    free(file);
}

/* Whether both are one file, and were found with one header. */
static int is_same(const zi_safetensors *a, const zi_safetensors *b)
{
    if (!zi_mapping_is_same(&a->mapping, &b->mapping) || a->count != b->count)
        return 0;
    for (size_t i = 0; i < a->count; i++) {
        const zi_entry *x = &a->entries[i], *y = &b->entries[i];
        if (strcmp(x->weight.name, y->weight.name) != 0 || !is_alike(x, y) || place_of(x) != place_of(y))
            return 0;
    }
    return 1;
}

/* The file of the list that is the same one as `file`, with a reference; `file` itself, which is on the list then. */
static zi_safetensors *find_or_list(zi_safetensors *file)
{
    zi_safetensors *found;
    pthread_mutex_lock(&lock);
    for (found = list; found; found = found->next)
        if (found != file && is_same(found, file) && is_unchanged(found))
            break;
    if (found) {
        found->references++;
    } else if (file->references == 0) {
        file->references = 1;
        file->order = ++last_order;
        file->next = list;
        list = file;
    }
    pthread_mutex_unlock(&lock);
    return found ? found : file;
}

/* All files of the list, each with a reference, the oldest first. free() them. NULL: out of memory. */
static zi_safetensors **list_all(size_t *count)
{
    *count = 0;
    pthread_mutex_lock(&lock);
    for (const zi_safetensors *f = list; f; f = f->next)
        ++*count;
    zi_safetensors **all = calloc(*count + 1, sizeof(zi_safetensors *));
    size_t i = all ? *count : 0;
    for (zi_safetensors *f = list; f && i > 0; f = f->next) {
        f->references++;
        all[--i] = f;
    }
    pthread_mutex_unlock(&lock);
    return all;
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static int equal_part(const zi_entry *a, const zi_entry *b, size_t at, size_t size, uint8_t *buffer)
{
    return zi_mapping_equal(&a->file->mapping, place_of(a) + at, &b->file->mapping, place_of(b) + at, size, buffer,
                            PIECE);
}

/* Whether both have the same bytes, and their files are as they were when they were mapped. */
static int is_equal(const zi_entry *a, const zi_entry *b, uint8_t *buffer)
{
    size_t bytes = a->weight.bytes, sample = zi_min_size(bytes, SAMPLE);
    if (bytes == 0 || !is_alike(a, b))
        return 0;
    for (size_t i = 0; i < 3; i++)
        if (!equal_part(a, b, i * (bytes - sample) / 2, sample, buffer))
            return 0;
    return equal_part(a, b, 0, bytes, buffer) && is_unchanged(a->file) && is_unchanged(b->file);
}

/* The equal tensor of the oldest file that has one; NULL: there is none in an older file. */
static const zi_entry *find_equal(const zi_entry *entry, zi_safetensors *const *all, size_t count, uint8_t *buffer)
{
    for (size_t i = 0; i < count && all[i]->order < entry->file->order; i++) {
        const zi_entry *other = zi_entries_find(all[i]->entries, all[i]->count, entry->weight.name);
        if (other && is_equal(entry, other, buffer))
            return other;
    }
    return NULL;
}

/* ---- sharing ----------------------------------------------------------------------------------------------------- */

/* The tensors of a file become those of the same file on the list. */
static void take_listed(zi_safetensors **file, zi_entry *entries, size_t count)
{
    zi_safetensors *own = *file, *listed = find_or_list(own);
    if (listed == own)
        return;
    for (size_t i = 0; i < count; i++)
        if (entries[i].file == own)
            entries[i] = *zi_entries_find(listed->entries, listed->count, entries[i].weight.name);
    *file = listed;
    zi_file_let_go(own);
}

static int is_used(const zi_safetensors *file, const zi_entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (entries[i].file == file)
            return 1;
    return 0;
}

/* Keeps of all[all_count] those of which the store has a tensor, and lets the others go. Returns how many stay. */
static size_t keep_used(zi_safetensors **all, size_t all_count, const zi_entry *entries, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < all_count; i++) {
        if (is_used(all[i], entries, count))
            all[kept++] = all[i];
        else
            zi_file_let_go(all[i]);
    }
    return kept;
}

zimage_status zi_files_share(zi_safetensors ***files, size_t *file_count, zi_entry *entries, size_t count,
                             zimage_error *error)
{
    size_t all_count;
    for (size_t i = 0; i < *file_count; i++)
        take_listed(&(*files)[i], entries, count);
    zi_safetensors **all = list_all(&all_count);
    uint8_t *buffer = all && all_count > *file_count ? malloc(2 * PIECE) : NULL;
    if (!all || (all_count > *file_count && !buffer)) {
        for (size_t i = 0; all && i < all_count; i++)
            zi_file_let_go(all[i]);
        free(all);
        return zi_fail_memory(error, "a list of weight files", all ? 2 * PIECE : 0);
    }
    for (size_t i = 0; buffer && i < count; i++) {
        const zi_entry own = entries[i], *equal = find_equal(&own, all, all_count, buffer);
        if (!equal)
            continue;
        entries[i] = *equal;
        zi_mapping_forget(&own.file->mapping, place_of(&own), own.weight.bytes);
    }
    free(buffer);
    size_t kept = keep_used(all, all_count, entries, count);
    for (size_t i = 0; i < *file_count; i++)
        zi_file_let_go((*files)[i]);
    free(*files);
    *files = all;
    *file_count = kept;
    return ZIMAGE_OK;
}
