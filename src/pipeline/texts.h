/* Text features of the prompts of a session's last job, in host memory: the same prompts need no encoder again. */
#ifndef ZI_PIPELINE_TEXTS_H
#define ZI_PIPELINE_TEXTS_H

#include "pipeline/job.h"

typedef struct zi_known_text {
    int32_t *ids; /* [tokens]; NULL: a free place */
    int64_t tokens, rows;
    float *features; /* [rows, facts.features] */
} zi_known_text;

typedef struct zi_known_texts {
    zi_known_text text[ZI_PROMPTS_MAX];
} zi_known_texts;

/* Prompts of the job that are known get their features, which live until the next call; the others' are forgotten. */
void zi_texts_recall(zi_known_texts *known, zi_job *job);
/* After a prompt was encoded. Without memory for it nothing is remembered, and that is no error. */
zimage_status zi_texts_remember(zi_known_texts *known, zi_run *run, const zi_job *job, int index);
void zi_texts_forget(zi_known_texts *known);
/* Bytes that the job's texts take. */
size_t zi_texts_bytes(const zi_job *job);

#endif
