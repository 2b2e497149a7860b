/* Files that lie where a model's file should be, and are something else. */
#ifndef ZI_BASE_STAND_IN_H
#define ZI_BASE_STAND_IN_H

#include "base/error.h"

/*
 * Refuses a link that leads nowhere, a pointer file of git-lfs, a web page, and a file of another format of weights,
 * each with a sentence that says the way out. Any other path passes, even one without a file: whoever opens the file
 * reports that.
 */
zimage_status zi_refuse_stand_in(const char *path, zimage_error *error);

/* Only the link: for a path that may lack a file. */
zimage_status zi_refuse_dangling_link(const char *path, zimage_error *error);

#endif
