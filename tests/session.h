/* Opens a session on a model folder in one call. */
#ifndef ZI_TESTS_SESSION_H
#define ZI_TESTS_SESSION_H

#include "zimage.h"

/* The session keeps the model open. params may be NULL. */
static inline zimage_status session_on(const char *folder, const zimage_model_params *model_params,
                                       const zimage_session_params *params, zimage_session **session,
                                       zimage_error *error)
{
    zimage_model *model = NULL;
    *session = NULL;
    zimage_status status = zimage_model_open(folder, model_params, &model, error);
    if (status == ZIMAGE_OK)
        status = zimage_session_open(model, params, session, error);
    zimage_model_close(model);
    return status;
}

#endif
