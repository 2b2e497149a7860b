#!/bin/sh
# A batch on a cluster with Slurm: an array of 64 tasks, each of which makes one part of the batch.
#     sbatch slurm.sh BATCH.jsonl OUT [OPTIONS OF zimage generate]
# OUT is a folder that all machines see. Slurm starts a task again whose machine fails or is taken away (--requeue); it
# goes on where it was. After failures that OUT/failed-*.jsonl lists, submit the same array again: only what is missing
# is made. Another number of tasks (sbatch --array=0-7 slurm.sh ...) is fine for that, too.
#SBATCH --job-name=zimage
#SBATCH --array=0-63
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=zimage-%a.log
set -eu
batch=$1 out=$2
shift 2
exec zimage generate --batch "$batch" --out-dir "$out" --shard auto --resume -q "$@"
