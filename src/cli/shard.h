/* --shard: which part of a batch this process makes. */
#ifndef ZI_CLI_SHARD_H
#define ZI_CLI_SHARD_H

#include <stdint.h>

typedef struct cli_shard {
    uint64_t index, count; /* index: from 0 */
} cli_shard;

/*
 * Reads the text of --shard: "3/64"; "auto": the variables of Slurm, Open MPI or PMI say both numbers; "auto/64": they,
 * or those of PMIx or Kubernetes, say the first one. 0, or CLI_USAGE and a printed sentence.
 */
int cli_shard_read(const char *command, const char *text, cli_shard *shard);

#endif
