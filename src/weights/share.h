/*
 * The list of weight files that the process's open models share. Only for src/weights; zi_store_share in store.h says
 * what it does.
 */
#ifndef ZI_WEIGHTS_SHARE_H
#define ZI_WEIGHTS_SHARE_H

#include "weights/safetensors.h"

/* Takes a store's reference to a file, which is closed and freed with the last one. NULL is accepted. */
void zi_file_let_go(zi_safetensors *file);

/*
 * The files and the tensors of a store: files[*file_count], each with a reference, and entries[count] of these files.
 * Puts the files on the list, or takes those that are there already. Lets tensors that are equal to tensors of files
 * that were on the list before be these, and lets go of files of which no tensor is left. The capacity of *files may
 * change. After a failure they are a valid store, too.
 */
zimage_status zi_files_share(zi_safetensors ***files, size_t *file_count, zi_entry *entries, size_t count,
                             zimage_error *error);

#endif
