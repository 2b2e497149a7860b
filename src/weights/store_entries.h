/* What binding needs of a store beyond store.h. Inside this room. */
#ifndef ZI_WEIGHTS_STORE_ENTRIES_H
#define ZI_WEIGHTS_STORE_ENTRIES_H

#include "weights/convert.h"
#include "weights/layout.h"
#include "weights/store.h"

/* The tensors, zi_store_count of them in order of name; binding may change what they are read as. */
zi_entry *zi_store_entries(zi_store *store);
const zi_layout *zi_store_layout(const zi_store *store);
/* Puts a bound tensor into memory of the store if it can't be used as it is stored, or isn't meant to be. */
zimage_status zi_store_make_copy(zi_store *store, zi_entry *entry, int channels_last, zimage_error *error);

#endif
