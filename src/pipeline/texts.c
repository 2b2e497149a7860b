#include "pipeline/texts.h"

#include <stdlib.h>
#include <string.h>

static void forget(zi_known_text *text)
{
    free(text->ids);
    free(text->features);
    *text = (zi_known_text){0};
}

void zi_texts_forget(zi_known_texts *known)
{
    for (int i = 0; i < ZI_PROMPTS_MAX; i++)
        forget(&known->text[i]);
}

static int is_text_of(const zi_known_text *text, const zi_prompt *prompt)
{
    return text->ids && prompt->encoded && text->tokens == prompt->tokens &&
           memcmp(text->ids, prompt->ids, (size_t)prompt->tokens * sizeof *text->ids) == 0;
}

void zi_texts_recall(zi_known_texts *known, zi_job *job)
{
    for (int i = 0; i < ZI_PROMPTS_MAX; i++) {
        zi_known_text *text = &known->text[i];
        int is_used = 0;
        for (int k = 0; k < job->prompts; k++) {
            zi_prompt *prompt = &job->prompt[k];
            if (!is_text_of(text, prompt))
                continue;
            *prompt = (zi_prompt){.tokens = text->rows, .ids = prompt->ids, .features = text->features};
            is_used = 1;
        }
        if (!is_used)
            forget(text);
    }
}

/* There is one: a job has at most as many prompts as there are places, and each is known or new. */
static zi_known_text *free_place(zi_known_texts *known)
{
    for (int i = 0; i < ZI_PROMPTS_MAX; i++)
        if (!known->text[i].ids)
            return &known->text[i];
    return NULL;
}

zimage_status zi_texts_remember(zi_known_texts *known, zi_run *run, const zi_job *job, int index)
{
    const zi_prompt *prompt = &job->prompt[index];
    const zi_tensor *features = &job->features[index];
    zi_known_text *place = free_place(known);
    if (!prompt->encoded || !place)
        return ZIMAGE_OK;
    zi_known_text text = {.tokens = prompt->tokens, .rows = zi_feature_rows(job, index)};
    text.ids = malloc((size_t)text.tokens * sizeof *text.ids);
    text.features = malloc((size_t)zi_tensor_count(features) * sizeof *text.features);
    zimage_status status = ZIMAGE_OK;
    if (text.ids && text.features) {
        memcpy(text.ids, prompt->ids, (size_t)text.tokens * sizeof *text.ids);
        status = zi_table(run)->download(run, text.features, features);
    }
    if (status == ZIMAGE_OK && text.ids && text.features)
        *place = text;
    else
        forget(&text);
    return status;
}

size_t zi_texts_bytes(const zi_job *job)
{
    size_t rows = 0;
    for (int i = 0; i < job->prompts; i++)
        rows += job->prompt[i].ids ? (size_t)zi_feature_rows(job, i) : 0;
    return rows * (size_t)job->model->facts.features * sizeof(float);
}
