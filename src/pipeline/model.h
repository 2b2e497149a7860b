/*
 * An open model: the networks of one folder bound to mapped weights, its tokenizer and schedule. It never changes once
 * it is open (but see zi_store_copy_late), so any number of threads may run it, each on a backend of its own.
 */
#ifndef ZI_PIPELINE_MODEL_H
#define ZI_PIPELINE_MODEL_H

#include "base/numbers.h"
#include "pipeline/family.h"
#include "text/tokenizer.h"

typedef struct zi_model {
    const zi_family *family;
    zi_networks *networks;
    zi_store *stores[ZI_COMPONENTS]; /* NULL: the model lacks the component */
    zi_tokenizer *tokenizer;         /* NULL without a text encoder */
    zi_scheduler_config scheduler;
    zi_facts facts;
    zi_fingerprint fingerprint; /* of configurations and weights; state 0: the model is no folder's */
} zi_model;

/* What the caller chooses beside the folder. */
typedef struct zi_model_choice {
    zi_dtype dequantize; /* what packed weights become; ZI_GROUPED: they stay packed */
    /* Folders instead of the model's own; NULL: the model's own. */
    const char *components[ZI_COMPONENTS], *tokenizer, *scheduler;
} zi_model_choice;

/* Opens a model folder (zimage_model_open says which). *model is released with zi_model_close. */
zimage_status zi_model_open(const char *path, const zi_model_choice *choice, const zi_log *log, zi_model **model,
                            zimage_error *error);
/* A model without components; the caller adds them with zi_model_add and ends with zi_model_finish. */
zimage_status zi_model_new(const zi_family *family, zi_model **model, zimage_error *error);
/* Binds a configured component to a store, which the model owns from then on. */
zimage_status zi_model_add(zi_model *model, zi_component_kind kind, zi_store *store, const zi_log *log,
                           zimage_error *error);
/* Fills facts. */
void zi_model_finish(zi_model *model);
void zi_model_close(zi_model *model);
/* A session of the model begins (change 1) or ends (-1). */
void zi_model_count_session(const zi_model *model, int change);
/* Whether the weight files are as they were when they were mapped (zi_store_check). */
zimage_status zi_model_check(const zi_model *model, const zi_log *log, zimage_error *error);

/* Bytes of the copies of weights in memory (zi_store_owned_bytes): more once an image is encoded. */
size_t zi_model_owned_bytes(const zi_model *model);

/* Pixels of an image whose request gives no size: the family's, or fewer where the model has no positions for them. */
static inline int32_t zi_default_width(const zi_facts *facts)
{
    return (int32_t)zi_min_int64(facts->default_side, facts->max_width);
}

static inline int32_t zi_default_height(const zi_facts *facts)
{
    return (int32_t)zi_min_int64(facts->default_side, facts->max_height);
}

static inline int zi_model_has(const zi_model *model, zi_component_kind kind)
{
    return model->stores[kind] != NULL;
}

#endif
