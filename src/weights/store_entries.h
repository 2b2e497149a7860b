/* What the binder needs from a store, beyond store.h. Only for src/weights. */
#ifndef ZI_WEIGHTS_STORE_ENTRIES_H
#define ZI_WEIGHTS_STORE_ENTRIES_H

#include "weights/convert.h"
#include "weights/layout.h"
#include "weights/store.h"

/* The zi_store_count tensors, sorted by name. Binding may change what an entry is read as. */
zi_entry *zi_store_entries(zi_store *store);
const zi_layout *zi_store_layout(const zi_store *store);
/* Makes the copy of a bound tensor that the store needs: dequantised, or with channels first; often none. */
zimage_status zi_store_make_copy(zi_store *store, zi_entry *entry, int channels_last, zimage_error *error);
/* Leaves that to zi_store_copy_late. */
void zi_store_defer_copy(zi_store *store, zi_entry *entry, int channels_last);

#endif
