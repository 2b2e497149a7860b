/* The finished images of jobs in the place of results. */
#ifndef ZI_QUEUE_PLACE_H
#define ZI_QUEUE_PLACE_H

#include "queue/ledger.h"
#include "queue/store.h"

/* Stores a picture as ab/cd/KEY.png, or by the name that its request gives it. One that is there already stays: a
 * worker that had the job before has made it. Adds to facts: "file" (its name), "bytes", "sha256", and "found" where it
 * was there. */
ledger_verdict ledger_place_picture(ledger_store *store, const ledger_job *job, const ledger_picture *picture,
                                    zimage_error *error);

#endif
