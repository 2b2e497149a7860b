#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weights/memory.h"
#include "weights/store_entries.h"

#define NAME_MAX_BYTES 512

/* A tensor of the store. KNOWN: it was asked for or ignored. CHANNELS_LAST: it was bound, and has this layout. */
enum { UNEXPECTED, KNOWN, CHANNELS_LAST };

struct zi_binder {
    zi_store *store;
    /* Called for a tensor that the store does not have: it is reported when binding ends, or collected to be made. */
    void (*absent)(zi_binder *binder, const char *name, int dims, const int64_t *shape);
    zi_names missing, misshapen, not_float, not_grouped;
    const char *late; /* the prefix of zi_bind_late; NULL: none */
    uint8_t known[];  /* for each tensor of the store one of the above */
};

static void report_absent(zi_binder *binder, const char *name, int dims, const int64_t *shape)
{
    zi_names_add(&binder->missing, "%s", name);
}

static void collect_absent(zi_binder *binder, const char *name, int dims, const int64_t *shape)
{
    zi_specs_add(zi_store_specs(binder->store), name, dims, shape);
}

zimage_status zi_binder_new(zi_store *store, zi_binder **binder, zimage_error *error)
{
    size_t bytes = sizeof **binder + zi_store_count(store);
    *binder = calloc(1, bytes);
    if (!*binder)
        return zi_fail_memory(error, zi_store_path(store), bytes);
    (*binder)->store = store;
    (*binder)->absent = zi_store_specs(store) ? collect_absent : report_absent;
    return ZIMAGE_OK;
}

static int same_shape(const zi_weight *weight, int dims, const int64_t *shape)
{
    return weight->dims == dims && (dims == 0 || memcmp(weight->shape, shape, (size_t)dims * sizeof *shape) == 0);
}

static void add_misshapen(zi_binder *binder, const zi_weight *weight, int dims, const int64_t *shape)
{
    char stored[96], expected[96];
    zi_names_add(&binder->misshapen, "%.96s: %s, expected %s", weight->name,
                 zi_shape_text(stored, sizeof stored, weight->dims, weight->shape),
                 zi_shape_text(expected, sizeof expected, dims, shape));
}

/* The index of the first tensor whose name is not below `name`, by bisection: tensors are sorted by name. */
static size_t index_of(const zi_store *store, const char *name)
{
    size_t low = 0, high = zi_store_count(store);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(zi_store_at(store, middle)->name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The tensor of that name, which is marked as known; NULL: there is none. */
static zi_entry *find_known(zi_binder *binder, const char *name)
{
    size_t index = index_of(binder->store, name), count = zi_store_count(binder->store);
    if (index == count || strcmp(zi_store_at(binder->store, index)->name, name) != 0)
        return NULL;
    binder->known[index] = KNOWN;
    return &zi_store_entries(binder->store)[index];
}

/* X.scales or X.biases (part) of X.weight; NULL: there is none. */
static const zi_entry *find_beside(zi_store *store, const char *weight_name, const char *part)
{
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%.*s%s", (int)(strlen(weight_name) - strlen("weight")), weight_name, part);
    return zi_entries_find(zi_store_entries(store), zi_store_count(store), name);
}

/* Reads `found`, a packed matrix, as [out, in] from now on. 0: that is impossible, and the binder keeps the problem. */
static int bind_packed(zi_binder *binder, zi_entry *found, const int64_t *shape)
{
    const zi_entry *entries = zi_store_entries(binder->store);
    const zi_entry *beside[] = {find_beside(binder->store, found->weight.name, "scales"),
                                find_beside(binder->store, found->weight.name, "biases")};
    for (int i = 0; i < 2; i++)
        if (beside[i])
            binder->known[beside[i] - entries] = KNOWN;
    return zi_entry_group(found, beside[0], beside[1], shape, &binder->not_grouped);
}

/* Whether a tensor that should be a matrix holds packed numbers. */
static int is_packed(const zi_entry *entry)
{
    const char *name = entry->weight.name, *ending = strrchr(name, '.');
    return strcmp(entry->dtype, "U32") == 0 && entry->weight.dtype == ZI_DTYPE_OTHER && ending &&
           strcmp(ending, ".weight") == 0;
}

void zi_bind(zi_binder *binder, const zi_weight **weight, int dims, const int64_t *shape, const char *format, ...)
{
    char reference[NAME_MAX_BYTES], name[NAME_MAX_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reference, sizeof reference, format, arguments);
    va_end(arguments);

    *weight = NULL;
    const zi_layout *layout = zi_store_layout(binder->store);
    zi_layout_name(layout, reference, name, sizeof name);
    zi_entry *found = find_known(binder, name);
    if (!found) {
        binder->absent(binder, name, dims, shape);
        return;
    }
    int64_t channels_last[4];
    if (dims == 4 && zi_layout_channels_last(layout) && !found->owned) {
        const int64_t turned[] = {shape[0], shape[2], shape[3], shape[1]};
        shape = memcpy(channels_last, turned, sizeof turned);
        binder->known[found - zi_store_entries(binder->store)] = CHANNELS_LAST;
    }
    if (dims == 2 && is_packed(found) && !bind_packed(binder, found, shape))
        return;
    if (!same_shape(&found->weight, dims, shape))
        add_misshapen(binder, &found->weight, dims, shape);
    else if (!zi_is_float(found->weight.dtype) && found->weight.dtype != ZI_GROUPED)
        zi_names_add(&binder->not_float, "%s: %s%s", name, found->dtype,
                     found->rank > 4 ? " of more than 4 dimensions" : "");
    else
        *weight = &found->weight;
}

void zi_bind_precise(zi_binder *binder, const zi_weight *weight, zi_precise computations)
{
    if (weight && (weight->dtype != ZI_GROUPED || weight->bits >= 8))
        zi_store_entries(binder->store)[index_of(binder->store, weight->name)].weight.precise = computations;
}

void zi_bind_positive(zi_binder *binder)
{
    zi_tensor_specs *specs = zi_store_specs(binder->store);
    if (specs && specs->count > 0)
        specs->list[specs->count - 1].positive = 1;
}

int zi_binder_has_outdated(const zi_binder *binder, const char *name)
{
    return !zi_store_is_sharded(binder->store) && zi_store_find(binder->store, name) != NULL;
}

int zi_binder_has(const zi_binder *binder, const char *reference)
{
    char name[NAME_MAX_BYTES];
    zi_layout_name(zi_store_layout(binder->store), reference, name, sizeof name);
    return zi_store_specs(binder->store) || zi_store_find(binder->store, name);
}

void zi_bind_ignore(zi_binder *binder, const char *prefix)
{
    size_t count = zi_store_count(binder->store), length = strlen(prefix);
    for (size_t i = index_of(binder->store, prefix); i < count; i++) {
        if (strncmp(zi_store_at(binder->store, i)->name, prefix, length) != 0)
            return;
        binder->known[i] = KNOWN;
    }
}

static zi_names unexpected_names(const zi_binder *binder)
{
    zi_names names = {0};
    for (size_t i = 0; i < zi_store_count(binder->store); i++)
        if (!binder->known[i])
            zi_names_add(&names, "%s", zi_store_at(binder->store, i)->name);
    return names;
}

/* Appends "2 tensors are missing (a, b)"; later parts leave the word "tensors" out. An empty list appends nothing. */
static void add_part(char *text, size_t size, zi_names *names, const char *one, const char *many)
{
    size_t length = strlen(text);
    if (names->count == 0)
        return;
    const char *noun = length > 0 ? "" : names->count == 1 ? " tensor" : " tensors";
    snprintf(text + length, size - length, "%s%zu%s %s (%s)", length > 0 ? ", " : "", names->count, noun,
             names->count == 1 ? one : many, zi_names_text(names));
}

static zimage_status report(zi_binder *binder, const zi_log *log, zimage_error *error)
{
    char text[5 * sizeof(zi_names) + 256] = "";
    const char *path = zi_store_path(binder->store);
    zi_names unexpected = unexpected_names(binder);
    add_part(text, sizeof text, &binder->missing, "is missing", "are missing");
    add_part(text, sizeof text, &binder->misshapen, "has the wrong shape", "have the wrong shape");
    add_part(text, sizeof text, &binder->not_float, "is not F32, F16 or BF16", "are not F32, F16 or BF16");
    add_part(text, sizeof text, &binder->not_grouped, "is not quantised as MLX does", "are not quantised as MLX does");
    int failed = text[0] != 0;
    add_part(text, sizeof text, &unexpected, failed ? "unexpected" : "is unexpected and not used",
             failed ? "unexpected" : "are unexpected and not used");
    if (failed)
        return zi_fail(error, ZIMAGE_ERROR_MODEL, "%s: %s", path, text);
    if (unexpected.count > 0)
        zi_warn(log, "%s: %s", path, text);
    return ZIMAGE_OK;
}

void zi_bind_late(zi_binder *binder, const char *prefix)
{
    binder->late = prefix;
}

static zimage_status make_copies(zi_binder *binder, zimage_error *error)
{
    for (size_t i = 0; i < zi_store_count(binder->store); i++) {
        zi_entry *entry = &zi_store_entries(binder->store)[i];
        int turned = binder->known[i] == CHANNELS_LAST;
        int late = binder->late && strncmp(entry->weight.name, binder->late, strlen(binder->late)) == 0;
        if (binder->known[i] && late)
            zi_store_defer_copy(binder->store, entry, turned);
        else if (binder->known[i])
            ZI_TRY(zi_store_make_copy(binder->store, entry, turned, error));
    }
    return ZIMAGE_OK;
}

zimage_status zi_binder_finish(zi_binder *binder, const zi_log *log, zimage_error *error)
{
    zimage_status status = report(binder, log, error);
    if (status == ZIMAGE_OK)
        status = make_copies(binder, error);
    free(binder);
    return status;
}

/* The bits of the first bound packed matrix; 0: there is none. */
static int bound_bits(zi_store *store)
{
    for (size_t i = 0; i < zi_store_count(store); i++)
        if (zi_store_at(store, i)->dtype == ZI_GROUPED)
            return zi_store_at(store, i)->bits;
    return 0;
}

void zi_store_group_others(zi_store *store)
{
    int bits = bound_bits(store);
    for (size_t i = 0; bits && i < zi_store_count(store); i++) {
        zi_entry *entry = &zi_store_entries(store)[i];
        const char *name = entry->weight.name;
        zi_names problems = {0};
        if (!is_packed(entry) || entry->weight.dims != 2)
            continue;
        const int64_t shape[] = {entry->weight.shape[0], 32 * entry->weight.shape[1] / bits};
        zi_entry_group(entry, find_beside(store, name, "scales"), find_beside(store, name, "biases"), shape, &problems);
    }
}
