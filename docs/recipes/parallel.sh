#!/bin/sh
# A batch on any machines that ssh reaches, by GNU parallel:
#     SHARDS=64 ./parallel.sh MACHINES BATCH.jsonl OUT [OPTIONS OF zimage generate]
# MACHINES is a file for --sshloginfile: a line such as "1/user@host" for each, 1/ meaning one part at a time; "1/:" is
# this machine. BATCH.jsonl and OUT are absolute paths that all machines see. A part that fails is tried again on
# another machine, two times. Started again, it leaves out the parts that the log says are done.
set -eu
machines=$1 batch=$2 out=$3
shift 3
shards=${SHARDS:?}
log=${JOBLOG:-zimage.joblog}
seq 0 $((shards - 1)) | parallel --sshloginfile "$machines" --joblog "$log" --resume-failed --retries 3 \
    zimage generate --batch "$batch" --out-dir "$out" --shard "{}/$shards" --resume -q "$@"
