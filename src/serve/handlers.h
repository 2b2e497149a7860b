/* The handlers of the table of endpoints. */
#ifndef ZI_SERVE_HANDLERS_H
#define ZI_SERVE_HANDLERS_H

#include "http.h"

typedef enum MHD_Result handler(exchange *x);

/* operations.c */
handler handle_health, handle_metrics, handle_slots, handle_props;
/* page.c */
handler handle_page, handle_page_file;
/* openapi.c */
handler handle_openapi;
/* openai.c */
handler handle_models, handle_model, handle_make_images, handle_file;
/* native.c */
handler handle_job_create, handle_jobs, handle_job, handle_job_cancel, handle_job_events, handle_job_picture,
    handle_plan;
/* gallery_api.c */
handler handle_gallery, handle_gallery_image, handle_gallery_remove;
/* read_recipe.c */
handler handle_recipe;

/* sdapi.c */
handler handle_sdapi_images, handle_progress, handle_interrupt, handle_options, handle_set_options, handle_sd_models,
    handle_samplers, handle_schedulers, handle_upscalers, handle_empty_list, handle_empty_object, handle_embeddings,
    handle_png_info, handle_memory;

/* The description of a model: what a client needs to fill a request. NULL: no memory. */
json_t *model_json(server *s, const model_entry *entry);
/* "png" and "image/png" */
const char *format_type(zimage_format format);
/* The request of a job's image, with all that was decided for it. NULL: no memory. */
json_t *job_request_json(const job *j, int index);
/* An image of the exchange's job, or its thumbnail if the client asks for that. */
enum MHD_Result answer_picture(exchange *x, int index);
/* Whether the argument "thumb" asks for a thumbnail. 0: it asks for something else, a fault. */
int exchange_wants_thumb(exchange *x, int *is_thumb);
/* A seed as JSON: a text above 2^63 - 1. */
json_t *seed_json(uint64_t seed);
/* Ignored fields or warnings. */
json_t *notes_json(char *const notes[], size_t count);

#endif
