#!/bin/sh
# A batch on the machines of Open MPI's mpirun, one process a part:
#     PROCESSES=64 MPIRUN_OPTIONS="--hostfile hosts" ./mpirun.sh BATCH.jsonl OUT [OPTIONS OF zimage generate]
# OUT is a folder that all machines see. mpirun only starts the processes; they say nothing to each other. One that
# fails must not end the others, so mpirun is told. If a machine fails mpirun ends all; start it again: only what is
# missing is made.
set -eu
batch=$1 out=$2
shift 2
# shellcheck disable=SC2086 # several options
exec mpirun -n "${PROCESSES:?}" ${MPIRUN_OPTIONS:-} --mca orte_abort_on_non_zero_status 0 \
    zimage generate --batch "$batch" --out-dir "$out" --shard auto --resume -q "$@"
