/* Where finished images lie: a file each, which appears once and whole. */
#ifndef ZI_QUEUE_PLACE_H
#define ZI_QUEUE_PLACE_H

#include "queue/ledger.h"

/* Which of the 65,536 folders are known to be on the disk, with those above them. */
typedef struct ledger_synced {
    uint8_t bits[65536 / 8];
} ledger_synced;

/* Writes a picture as FOLDER/ab/cd/KEY.png, or as FOLDER/output, and syncs it and its folder. A file that is there
 * already stays: a worker that had the job before has made it. Adds to facts: "file" (in the folder), "bytes",
 * "sha256", and "found" where the file was there. */
ledger_verdict ledger_place_picture(const char *folder, const ledger_job *job, const ledger_picture *picture,
                                    ledger_synced *synced, zimage_error *error);

#endif
