/* Models that are known to work, and what each would take on this machine. */
#ifndef ZI_HUB_SUGGEST_H
#define ZI_HUB_SUGGEST_H

#include "hub/result.h"

typedef struct hub_suggestion {
    const char *id, *licence;
    int is_gated;            /* its licence has to be accepted on the hub */
    uint64_t download_bytes; /* of the weights, counted from the published configuration */
    uint64_t peak_bytes;     /* of the process, for a square image on the CPU with weights in bf16 */
    double seconds;          /* the same, predicted */
    int steps;
} hub_suggestion;

size_t hub_suggestion_count(void);
/* side: of the image, in pixels. */
zimage_status hub_suggest(size_t index, int64_t side, const zimage_session_params *session, hub_suggestion *suggestion,
                          zimage_error *error);

#endif
