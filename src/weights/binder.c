#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weights/memory.h"
#include "weights/names.h"
#include "weights/store.h"

struct zi_binder {
    const zi_store *store;
    zi_names missing, misshapen, not_float;
    uint8_t known[]; /* a flag for each tensor of the store: asked for or ignored */
};

zimage_status zi_binder_new(const zi_store *store, zi_binder **binder, zimage_error *error)
{
    size_t bytes = sizeof **binder + zi_store_count(store);
    *binder = calloc(1, bytes);
    if (!*binder)
        return zi_fail_memory(error, zi_store_path(store), bytes);
    (*binder)->store = store;
    return ZIMAGE_OK;
}

/* "[3, 4]" */
static const char *shape_text(char *text, size_t size, int dims, const int64_t *shape)
{
    size_t length = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < dims && length < size; i++)
        length += (size_t)snprintf(text + length, size - length, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (length < size)
        snprintf(text + length, size - length, "]");
    return text;
}

static int same_shape(const zi_weight *weight, int dims, const int64_t *shape)
{
    return weight->dims == dims && (dims == 0 || memcmp(weight->shape, shape, (size_t)dims * sizeof *shape) == 0);
}

static void add_misshapen(zi_binder *binder, const zi_weight *weight, int dims, const int64_t *shape)
{
    char stored[96], expected[96];
    zi_names_add(&binder->misshapen, "%.96s: %s, expected %s", weight->name,
                 shape_text(stored, sizeof stored, weight->dims, weight->shape),
                 shape_text(expected, sizeof expected, dims, shape));
}

/* The store's tensors are one array in order of name; a weight of it that was found tells its own index. */
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

void zi_bind(zi_binder *binder, const zi_weight **weight, int dims, const int64_t *shape, const char *format, ...)
{
    char name[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);

    *weight = NULL;
    zi_wishes *wishes = zi_store_wishes(binder->store);
    if (wishes) {
        zi_wishes_add(wishes, name, dims, shape);
        return;
    }
    size_t index = index_of(binder->store, name);
    if (index == zi_store_count(binder->store) || strcmp(zi_store_at(binder->store, index)->name, name) != 0) {
        zi_names_add(&binder->missing, "%s", name);
        return;
    }
    const zi_weight *found = zi_store_at(binder->store, index);
    binder->known[index] = 1;
    if (!same_shape(found, dims, shape))
        add_misshapen(binder, found, dims, shape);
    else if (found->dtype == ZI_DTYPE_OTHER)
        zi_names_add(&binder->not_float, "%s: %s", name, zi_store_dtype_of(binder->store, index));
    else
        *weight = found;
}

void zi_bind_ignore(zi_binder *binder, const char *prefix)
{
    size_t count = zi_store_count(binder->store), length = strlen(prefix);
    for (size_t i = index_of(binder->store, prefix); i < count; i++) {
        if (strncmp(zi_store_at(binder->store, i)->name, prefix, length) != 0)
            return;
        binder->known[i] = 1;
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

/* Appends "2 tensors are missing (a, b)"; the word "tensors" only in the first part. Nothing for an empty list. */
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
    char text[4 * sizeof(zi_names) + 256] = "";
    const char *path = zi_store_path(binder->store);
    zi_names unexpected = unexpected_names(binder);
    add_part(text, sizeof text, &binder->missing, "is missing", "are missing");
    add_part(text, sizeof text, &binder->misshapen, "has the wrong shape", "have the wrong shape");
    add_part(text, sizeof text, &binder->not_float, "is not F32, F16 or BF16", "are not F32, F16 or BF16");
    int failed = text[0] != 0;
    add_part(text, sizeof text, &unexpected, failed ? "unexpected" : "is unexpected and not used",
             failed ? "unexpected" : "are unexpected and not used");
    if (failed)
        return zi_fail(error, ZIMAGE_ERROR_MODEL, "%s: %s", path, text);
    if (unexpected.count > 0)
        zi_warn(log, "%s: %s", path, text);
    return ZIMAGE_OK;
}

zimage_status zi_binder_finish(zi_binder *binder, const zi_log *log, zimage_error *error)
{
    zimage_status status = report(binder, log, error);
    free(binder);
    return status;
}
