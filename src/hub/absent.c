/* In place of pull.c, where the program was built without libcurl. */
#include "hub/hub.h"

hub_result hub_pull(const hub_pull_params *params, char path[PATH_MAX], zimage_error *error)
{
    *path = 0;
    return hub_fail(error, HUB_FAILED, "this build can't download: it was made without libcurl 7.85 or newer");
}
