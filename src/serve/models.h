/*
 * The models that the server knows. A request names a model by its id; nothing that a request holds becomes a path.
 * Workers open models, each for itself, and close them; the weights are in memory once.
 */
#ifndef ZI_SERVE_MODELS_H
#define ZI_SERVE_MODELS_H

#include <pthread.h>

#include "job.h"
#include "serve.h"
#include "shared/vocabulary.h"

#define SIZE_CLASSES 32 /* powers of two of an image's pixels */

typedef struct model_entry {
    char *id;
    const char *folder;
    int64_t created; /* when its folder was changed, seconds since 1970 */
    int users;       /* sessions of workers; 0: it is closed. With the server's lock */
    int is_known;    /* 1: it was open once, and info is valid. With the server's lock */
    zimage_model *model;
    zimage_model_info info;
    pthread_mutex_t planning;    /* guards the next six */
    zimage_session *planner;     /* plans and checks requests beside the workers' sessions; NULL: closed */
    zimage_tokenizer *tokenizer; /* counts tokens of prompts; NULL: closed */
    vocabulary *words;           /* what it knows; NULL: closed, or it does not say */
    zimage_template template;
    int32_t tokens_max;         /* of a prompt; what is more is cut */
    double ratio[SIZE_CLASSES]; /* measured seconds in predicted ones; 0: nothing was measured */
    int is_elsewhere;           /* 1: other machines make the images: without a measurement nothing is predicted */
} model_entry;

typedef struct model_alias {
    char *name;
    model_entry *entry; /* NULL: the default model */
} model_alias;

typedef struct model_table {
    model_entry entries[SERVE_MODELS_MAX];
    int count, standard; /* standard: the default model */
    model_alias aliases[SERVE_ALIASES_MAX];
    int alias_count;
    pthread_mutex_t loading; /* one model is opened at a time */
} model_table;

/* 0: an id is given twice, the default or an alias names no model, or there is no memory. */
int models_init(model_table *table, const serve_params *params, zimage_error *error);
void models_free(model_table *table);
/* NULL or "": the default model. NULL is returned for an id that nobody knows. */
model_entry *models_find(model_table *table, const char *id);

typedef struct prediction {
    double seconds; /* of one image; 0: not known, because the model is closed */
    double planned; /* the same before it is corrected by what was measured */
    uint64_t peak_bytes, least_bytes;
    int is_short; /* 1: it does not fit the memory that is free now */
} prediction;

/* Checks a request as the library does and predicts its time and memory. 0: a fault. Without the server's lock. */
int models_predict(model_entry *entry, const serve_request *request, const resolved_request *resolved, prediction *out,
                   fault *f);
/* Tokens of a prompt with its template, before a cut to *most; -1: not known, because the model is closed. Without the
 * server's lock. */
int64_t models_count_tokens(model_entry *entry, const char *prompt, int32_t *most);
/* A warning of words of a prompt that the model does not know, as vocabulary_warning. 0: there is nothing to warn of,
 * or the model is closed. Without the server's lock. */
int models_warn_of_words(model_entry *entry, const char *prompt, char text[VOCABULARY_WARNING]);
/* Tells how long an image took in truth: later predictions follow, and those of jobs that are not over. Without both
 * locks. */
void models_measured(model_entry *entry, const resolved_request *resolved, double planned, double seconds,
                     job_table *jobs, pthread_mutex_t *lock);

/* Opens a session, and the model if no worker has it open. `lock` is the server's. */
zimage_status models_open(model_table *table, model_entry *entry, const zimage_session_params *params,
                          pthread_mutex_t *lock, zimage_session **session, zimage_error *error);
/* Closes a worker's session, and the model with the last one. */
void models_close(model_table *table, model_entry *entry, pthread_mutex_t *lock, zimage_session *session);

#endif
