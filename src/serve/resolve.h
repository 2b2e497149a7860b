/* What a request means for a model: defaults filled in, and all refused that the model or the server can't do. */
#ifndef ZI_SERVE_RESOLVE_H
#define ZI_SERVE_RESOLVE_H

#include "request.h"
#include "serve.h"

typedef struct resolved_request {
    int32_t width, height, steps;
    double guidance, strength; /* strength 0: the model's default */
    uint64_t seed;             /* of the first image */
    zimage_format format;
    int quality;  /* as zimage_save_params has it */
    int previews; /* as request_previews */
    char fingerprint[sizeof((zimage_model_info *)0)->fingerprint];
} resolved_request;

/* Which previews somebody may look at: 1: of some steps; 2: of as many as cost little; 0: none. */
int request_previews(const serve_request *request);
/* What can be said without the model: limits of the server, fields that exclude each other. 0: a fault. */
int resolve_early(serve_request *request, const serve_params *params, fault *f);
/* The rest. Fields without effect are noted in the request. 0: a fault. */
int resolve_request(serve_request *request, const zimage_model_info *info, const serve_params *params,
                    resolved_request *resolved, fault *f);
/* The library's request for image number `index`. It points into both structs. */
void resolve_fill(const serve_request *request, const resolved_request *resolved, int index, zimage_request *library);

#endif
