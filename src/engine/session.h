/* What is behind the public handles: a model that sessions share, and a session, which owns a backend. */
#ifndef ZI_ENGINE_SESSION_H
#define ZI_ENGINE_SESSION_H

#include <stdatomic.h>

#include "base/numbers.h"
#include "base/pool.h"
#include "ops/speed.h"
#include "pipeline/model.h"
#include "pipeline/texts.h"

struct zimage_model {
    zi_model *inner;
    size_t peak_before;    /* the process's largest size in memory before the model was opened */
    atomic_int references; /* the caller's handle and each session */
};

struct zimage_session {
    zimage_model *model;
    const zi_model *inner; /* model->inner */
    zi_log log;
    zi_pool *pool;
    zi_ops *ops;
    zimage_compute compute; /* never AUTO */
    uint64_t device_memory; /* most bytes of a device's own memory to take; 0: what is free */
    char *cache_folder;     /* NULL: nothing is kept */
    zi_speed speed;         /* of the machine, once a plan has needed it; before, all 0 */
    zi_known_texts texts;   /* of the last job */
    size_t opening_bytes;   /* the process's largest size in memory, if opening the model or the session led to it */
    size_t base_bytes;      /* of the process in memory when the session was open, before any weight was read */
    size_t owned_bytes;     /* zi_model_owned_bytes at that time */
};

/* A handle for a model, which it owns from then on (also after a failure). */
zimage_status zi_model_handle(zi_model *inner, zimage_model **model, zimage_error *error);
void zi_model_reference(zimage_model *model);
/* params: the library's own copy (sized.h). */
zimage_status zi_session_new(zimage_model *model, const zimage_session_params *params, zimage_session **session,
                             zimage_error *error);

#endif
