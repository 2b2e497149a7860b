/* What a published model would take on this machine: planned from its configuration, without its weights. */
#ifndef ZI_MEASURE_ESTIMATE_H
#define ZI_MEASURE_ESTIMATE_H

#include "pipeline/model.h"

typedef struct zi_estimate {
    uint64_t parameters[ZI_COMPONENTS]; /* that an image needs */
    uint64_t peak_bytes;                /* of the largest stage: activations, and its network in bf16 */
    double seconds;                     /* of one image with the model's own number of steps */
    int steps;
} zi_estimate;

/* model: as zi_synthetic.model; side: of the square image, in pixels. */
zimage_status zi_estimate_model(const char *model, int64_t side, const zimage_session_params *params,
                                zi_estimate *estimate, zimage_error *error);

#endif
