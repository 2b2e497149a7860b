#!/bin/bash
# The recipes of docs/recipes, each on this machine: check_recipes.sh PROGRAM SOURCE [RECIPE...]
# - mpirun: Open MPI starts the parts; a line that fails ends no other part
# - parallel: GNU parallel starts them, on this machine
# - kubernetes: the file is YAML, and its command makes one part for each JOB_COMPLETION_INDEX
# - slurm: munged, slurmctld and slurmd run on loopback in a folder of their own; an array makes the parts, and a task
#   that is sent back to the queue in the middle of its work ends it
# All of them together make what one process makes. Debian's packages: openmpi-bin, parallel, python3-yaml, slurm-wlm
# with munge. Without one its recipe is skipped with a line. Exit code 77: all were skipped.
set -eu
program=$(realpath "$1") recipes=$(realpath "$2")/docs/recipes model=$(realpath "$2")/tests/golden/tiny
shift 2
work=$(mktemp -d)
servers=() # process ids
end() {
    for id in "${servers[@]}"; do kill "$id" 2>/dev/null || true; done
    for id in "${servers[@]}"; do wait "$id" 2>/dev/null || true; done
    rm -rf "$work"
}
trap end EXIT
fail() { echo "FAIL: $*"; squeue 2>/dev/null | head -5; tail -n 20 "$work"/*.log 2>/dev/null; exit 1; }
done_any=0
skip() { echo "SKIPPED: $*"; }

mkdir "$work/bin"
ln -s "$program" "$work/bin/zimage"
export PATH="$work/bin:$PATH" ZIMAGE_MODEL="$model"
options=(--steps 1 -W 16 -H 16 --no-cache)
cd "$work"
for i in $(seq 40); do echo "{\"prompt\": \"apple $i\", \"seed\": $i}"; done >b.jsonl
zimage generate --batch b.jsonl --out-dir whole --shard 0/1 --resume -q "${options[@]}" >/dev/null
sums() { (cd "$1" && find . -name '*.png' -type f | sort | xargs sha256sum); }
sums whole >whole.sums
# whole FOLDER RECIPE LOG...: the folder has the images of the batch, and each was made once
whole() {
    [ "$(cat "${@:3}" | grep -c "png  16x16")" = 40 ] || fail "$2: images were made twice"
    sums "$1" | cmp - whole.sums || fail "$2: not the images of the batch"
    [ -z "$(find "$1" -type f ! -name '*.png')" ] || fail "$2: other files: $(ls "$1")"
    echo "$2: $(wc -l <whole.sums) images, those of one process"
    done_any=1
}

check_mpirun() {
    command -v mpirun >/dev/null || { skip "mpirun.sh: there is no mpirun (Debian: openmpi-bin)"; return; }
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 # in this test
    local loopback="--oversubscribe --mca oob_tcp_if_include lo --mca btl self"
    PROCESSES=3 MPIRUN_OPTIONS=$loopback "$recipes/mpirun.sh" b.jsonl mpi "${options[@]}" >mpirun.log 2>&1 ||
        fail "mpirun.sh: exit code $?"
    whole mpi mpirun.sh mpirun.log
    # One part fails at once, the others go on.
    { cat b.jsonl; echo '{"prompt": "x", "seed": 1, "width": 17, "output": "x.png"}'; } >bad.jsonl
    PROCESSES=3 MPIRUN_OPTIONS=$loopback "$recipes/mpirun.sh" bad.jsonl mpi2 "${options[@]}" >mpirun.log 2>&1 || true
    sums mpi2 | cmp - whole.sums || fail "mpirun.sh: a part that fails has ended others"
    [ "$(cat mpi2/failed-*.jsonl | wc -l)" = 1 ] || fail "mpirun.sh: failures: $(cat mpi2/failed-*.jsonl)"
}

check_parallel() {
    command -v parallel >/dev/null || { skip "parallel.sh: there is no GNU parallel (Debian: parallel)"; return; }
    parallel --version 2>/dev/null | grep -q GNU || { skip "parallel.sh: parallel is another program"; return; }
    mkdir -p home && export PARALLEL_HOME="$work/home" && touch home/will-cite
    echo "2/:" >machines # this machine, two parts at a time
    SHARDS=5 JOBLOG=$work/joblog "$recipes/parallel.sh" machines "$work/b.jsonl" "$work/par" "${options[@]}" \
        >parallel.log 2>&1 || fail "parallel.sh: exit code $?"
    whole par parallel.sh parallel.log
    [ "$(wc -l <joblog)" = 6 ] || fail "parallel.sh: the log has $(wc -l <joblog) lines"
    SHARDS=5 JOBLOG=$work/joblog "$recipes/parallel.sh" machines "$work/b.jsonl" "$work/par" "${options[@]}" \
        >parallel.log 2>&1 || fail "parallel.sh: the second run has failed"
    [ "$(wc -l <joblog)" = 6 ] || fail "parallel.sh: the second run has started parts that were done"
}

# Prints the completions, and the container's command with a word a line.
read_yaml() {
    python3 - "$1" <<'END'
import sys, yaml
job = yaml.safe_load(open(sys.argv[1]))
assert job["apiVersion"] == "batch/v1" and job["kind"] == "Job"
spec = job["spec"]
assert spec["completionMode"] == "Indexed"
pod = spec["template"]["spec"]
container = pod["containers"][0]
assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
print(spec["completions"], *container["command"], *container["args"], sep="\n")
END
}

check_kubernetes() {
    python3 -c 'import yaml' 2>/dev/null ||
        { skip "kubernetes.yaml: no reader of YAML (Debian: python3-yaml)"; return; }
    read_yaml "$recipes/kubernetes.yaml" >words || fail "kubernetes.yaml: not what a Job needs"
    mapfile -t words <words
    local completions=${words[0]} command=("${words[@]:1}")
    [ "${command[0]}" = zimage ] || fail "kubernetes.yaml: the command is ${command[0]}"
    command=("${command[@]//\/work\/batch.jsonl/$work/b.jsonl}")
    command=("${command[@]//\/work\/out/$work/kube}")
    for index in $(seq 0 $((completions - 1))); do
        JOB_COMPLETION_INDEX=$index "${command[@]}" "${options[@]}" >>kubernetes.log 2>&1 ||
            fail "kubernetes.yaml: index $index"
    done
    whole kube kubernetes.yaml kubernetes.log
}

# Waits until a command succeeds, at most 60 s.
until_true() {
    local last=$((SECONDS + 60))
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $last ] || fail "in vain: $*"
        sleep 0.2
    done
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

start_slurm() {
    local user name
    user=$(id -un) name=$(hostname -s)
    mkdir -m 700 munge && mkdir state spool
    dd if=/dev/urandom of=munge/key bs=1024 count=1 2>/dev/null && chmod 400 munge/key
    munged --foreground --force --socket="$work/munge/socket" --key-file="$work/munge/key" \
        --pid-file="$work/munge/pid" --log-file="$work/munge.log" --seed-file="$work/munge/seed" >munged.log 2>&1 &
    servers+=($!)
    chmod 711 . munge
    cat >slurm.conf <<END
ClusterName=test
SlurmctldHost=$name(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
SlurmUser=$user
SlurmdUser=$user
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/linear
SchedulerParameters=sched_interval=1
ReturnToService=2
MpiDefault=none
NodeName=$name NodeAddr=127.0.0.1 CPUs=1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
    export SLURM_CONF=$work/slurm.conf
    until_true test -S munge/socket
    slurmctld -D >slurmctld.log 2>&1 &
    servers+=($!)
    slurmd -D -N "$name" >slurmd.log 2>&1 &
    servers+=($!)
    until_true sh -c 'sinfo -h -o %T | grep -q idle'
}
queue_is_empty() { [ -z "$(squeue -h)" ]; }

check_slurm() {
    for name in munged slurmctld slurmd sbatch; do
        command -v $name >/dev/null || { skip "slurm.sh: there is no $name (Debian: slurm-wlm, munge)"; return; }
    done
    start_slurm
    sbatch --array=1-4 "$recipes/slurm.sh" b.jsonl "$work/slurm" "${options[@]}" >sbatch.log 2>&1 || fail "sbatch"
    until_true queue_is_empty
    whole slurm slurm.sh zimage-[1-4].log
    # A task that goes back to the queue in the middle of its work.
    sbatch --array=0-0 "$recipes/slurm.sh" b.jsonl "$work/again" -W 16 -H 16 --no-cache --steps 200 \
        >sbatch.log 2>&1 || fail "sbatch"
    until_true sh -c "find again -name '*.png' | grep -q ."
    job=$(squeue -h -o %F | head -1)
    scontrol requeue "${job}_0"
    until_true sh -c 'squeue -h -o %T | grep -qx PENDING'
    scontrol update "jobid=${job}_0" starttime=now+3 # else it waits for two minutes
    until_true sh -c "find again -name '*.png' | wc -l | grep -qx 40"
    until_true queue_is_empty
    # Several processes in each task, by srun.
    sbatch --array=0-1 --ntasks=2 --overcommit --wrap "srun --overcommit zimage generate --batch b.jsonl \
        --out-dir $work/srun --shard auto --resume -q ${options[*]}" >sbatch.log 2>&1 || fail "sbatch"
    until_true queue_is_empty
    whole srun "srun in an array" slurm-*.out
}

for recipe in "${@:-mpirun parallel kubernetes slurm}"; do
    for name in $recipe; do "check_$name"; done
done
[ $done_any = 1 ] || exit 77
