/* Requests: the library's own checked copy, their prompts as tokens, and their job. */
#ifndef ZI_ENGINE_REQUEST_H
#define ZI_ENGINE_REQUEST_H

#include "engine/backends.h"
#include "engine/session.h"
#include "pipeline/job.h"

/* *own <- the caller's request with defaults filled in; ZIMAGE_ERROR_ARGUMENT names the field that is out of range. */
zimage_status zi_request_take(const zimage_session *session, const zimage_request *request, zimage_request *own,
                              zimage_error *error);
/* Whether the memory of weights is given back to the system after their last stage, if no other session reads them. Not
 * on a GPU, whose own memory is what is short. */
static inline int zi_request_releases(const zimage_session *session, const zimage_request *request)
{
    return (request->memory_limit > 0 || request->release_weights) && !zi_has_own_memory(session->ops);
}

/* The prompts' token ids; NULL where features were given. Release with zi_tokens_free, also after a failure. */
typedef struct zi_tokens {
    int32_t *ids[ZI_PROMPTS_MAX];
    int64_t counts[ZI_PROMPTS_MAX];
} zi_tokens;

/* Also checks that the transformer has positions for them. */
zimage_status zi_request_tokens(const zimage_session *session, const zimage_request *request, zi_tokens *tokens,
                                zimage_error *error);
void zi_tokens_free(zi_tokens *tokens);

/* The job's sizes and inputs; no outputs. */
void zi_request_job(const zimage_session *session, const zimage_request *request, const zi_tokens *tokens, zi_job *job);
/* A latent of a preview is the mean of so many latents of the job, each way. */
int64_t zi_preview_factor(const zi_job *job);

#endif
