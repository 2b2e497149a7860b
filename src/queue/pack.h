/* Tar files with many images each, for large batches: a million small files are a burden for shared file systems. */
#ifndef ZI_QUEUE_PACK_H
#define ZI_QUEUE_PACK_H

#include "queue/jobs.h"

#define PACK_IMAGES 64 /* in a transaction */
#define PACK_BYTES  ((size_t)64 << 20)

/* An image that waits to be packed. */
typedef struct ledger_packed {
    ledger_hold hold;
    char key[JOB_KEY];
    char *request;
    ledger_picture picture;
    int is_uncounted; /* its attempt does not count: see ledger_begin */
} ledger_packed;

typedef struct ledger_pack {
    const char *folder;
    char name[64];  /* of the tar file under way; "": none yet */
    int file;       /* descriptor, locked for as long as the process lives */
    uint64_t bytes; /* of it that are in the ledger */
    ledger_packed waiting[PACK_IMAGES];
    size_t count, waiting_bytes;
    double since; /* when the first of them was made */
} ledger_pack;

/* Cuts what workers that were killed left behind in tar files of this ledger, and takes one of these files, or begins
 * one. */
ledger_result ledger_pack_open(ledger_pack *pack, ledger *l, const char *folder, zimage_error *error);
/* Adds an image, of which the pack becomes the owner. */
int ledger_pack_take(ledger_pack *pack, const ledger_job *job, const ledger_picture *picture);
/* Whether it is time to store what waits. */
int ledger_pack_is_due(const ledger_pack *pack);
/* Writes and syncs the waiting images that are still this worker's, and commits them in one transaction. is_mine:
 * [pack->count] before the call. After LEDGER_LOST the same call is right; after LEDGER_OK nothing waits. */
ledger_result ledger_pack_store(ledger_pack *pack, ledger *l, int *is_mine, zimage_error *error);
void ledger_pack_forget(ledger_pack *pack);
void ledger_pack_close(ledger_pack *pack);

#endif
