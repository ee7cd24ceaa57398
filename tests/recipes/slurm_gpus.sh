#!/usr/bin/env bash
# Runs jobs/slurm.sh as a task of an array under the environments in which Slurm starts it for GPUs that were asked for in
# different forms. The program is one that writes down how it is called. Needs no Slurm.
#
#   tests/recipes/slurm_gpus.sh          (RECIPE=FILE: another one than jobs/slurm.sh)
set -euo pipefail

recipe=$(realpath "${RECIPE:-$(dirname "$0")/../../jobs/slurm.sh}")
home=$(mktemp -d /tmp/slurm-gpus.XXXXXX)
trap 'rm -rf "$home"' EXIT
mkdir "$home/bin"
cat >"$home/bin/affectmill" <<'END'
#!/usr/bin/env bash
echo "${CUDA_VISIBLE_DEVICES-unset} $*" >>"$CALLS"
if [ -n "${BROKEN:-}" ]; then
    echo "--all-gpus, but libtorch sees no GPU here" >&2
    [[ "$*" != *--all-gpus* ]] || exit 2
fi
# Until the task takes its workers with it.
trap 'kill %1; exit 75' TERM
sleep 20 & wait $!
END
chmod +x "$home/bin/affectmill"

failed=0
# A form: the task's exit code, and for each worker CUDA_VISIBLE_DEVICES, threads and `all` for --all-gpus.
expect() { # NAME "CODE: WORKER; WORKER" VARIABLE=VALUE...
    local name=$1 expected=$2 board=$home/$1.toml.7 calls=$home/$1.calls code=0 task found
    shift 2
    : >"$calls"
    echo 'open nats://nowhere:1' >"$board"
    env -i PATH="$home/bin:$PATH" TMPDIR="$home" CALLS="$calls" AFFECTMILL="$home/bin/affectmill" AFFECTMILL_ADDRESS=127.0.0.1 \
        SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=1 SLURM_CPUS_PER_TASK=8 "$@" bash "$recipe" "$home/$name.toml" >"$home/$name.log" 2>&1 &
    task=$!
    # All workers of a task are started within its first turn.
    for _ in $(seq 100); do [ -s "$calls" ] && break; sleep 0.05; done
    sleep 0.3
    # A task that has nothing to wait for ends by itself.
    [[ $expected != 0:* ]] || echo 'done 0' >"$board"
    wait $task || code=$?
    found=$(sed -E 's/ --allow-torchscript//; s/^(\S*) worker .*--threads ([0-9]+)( --all-gpus)?$/\1 \2\3/; s/ --all-gpus/ all/' "$calls" | sort | paste -sd ';' | sed 's/;/; /g')
    if [ "$code: $found" = "$expected" ]; then
        echo "$name: $found"
    else
        echo "$name: '$code: $found', not '$expected'"
        cat "$home/$name.log"
        return 1
    fi
}

forms=()
form() { expect "$@" & forms+=($!); }

form none '0: unset 8'
form no_gpus '0: 0 8' SLURM_GPUS=0 CUDA_VISIBLE_DEVICES=0
form hidden '0: NoDevFiles 8' CUDA_VISIBLE_DEVICES=NoDevFiles
form gpus '0: 0,1 4 all' SLURM_GPUS=2 SLURM_GPUS_ON_NODE=2 CUDA_VISIBLE_DEVICES=0,1
form typed '0: 0,1 4 all' SLURM_GPUS=a100:2 SLURM_GPUS_ON_NODE=2 CUDA_VISIBLE_DEVICES=0,1
form typed_alone '0: unset 2 all' SLURM_GPUS=a100:2,v100:2
# Of several nodes this one has a part.
form two_nodes '0: 0 8 all' SLURM_GPUS=2 SLURM_GPUS_ON_NODE=1 CUDA_VISIBLE_DEVICES=0
form gres '0: 0,1,2,3 2 all' SLURM_GPUS_ON_NODE=4 CUDA_VISIBLE_DEVICES=0,1,2,3
# Slurm before SLURM_GPUS_ON_NODE.
form gres_old '0: 0,1,2,3 2 all' SLURM_JOB_GPUS=0,1,2,3 CUDA_VISIBLE_DEVICES=0,1,2,3
form job_gpus '0: unset 4 all' SLURM_JOB_GPUS=2,3
form per_node '0: 0,1 4 all' SLURM_GPUS_PER_NODE=a100:2 SLURM_GPUS_ON_NODE=2 CUDA_VISIBLE_DEVICES=0,1
form per_node_alone '0: unset 2 all' SLURM_GPUS_PER_NODE=h100:4
form per_task '0: unset 4 all' SLURM_GPUS_PER_TASK=2
form uuids '0: GPU-8a2,GPU-9b3 4 all' SLURM_GPUS_ON_NODE=2 CUDA_VISIBLE_DEVICES=GPU-8a2,GPU-9b3
form uuids_alone '0: GPU-8a2,GPU-9b3 4 all' CUDA_VISIBLE_DEVICES=GPU-8a2,GPU-9b3
form mig '0: MIG-1c 4 all; MIG-2d 4 all' SLURM_GPUS_ON_NODE=2 CUDA_VISIBLE_DEVICES=MIG-1c,MIG-2d
form mig_old '0: MIG-GPU-8a2/1/0 8 all' SLURM_GPUS_ON_NODE=1 CUDA_VISIBLE_DEVICES=MIG-GPU-8a2/1/0
form few_cpus '0: 0,1,2,3 1 all' SLURM_GPUS_ON_NODE=4 CUDA_VISIBLE_DEVICES=0,1,2,3 SLURM_CPUS_PER_TASK=2
form cpus_per_gpu '0: 0,1 6 all' SLURM_GPUS_ON_NODE=2 CUDA_VISIBLE_DEVICES=0,1 SLURM_CPUS_PER_TASK= SLURM_CPUS_ON_NODE=12
# A GPU that is out of order is no reason to label on the CPU.
form broken '2: 0 8 all' SLURM_GPUS_ON_NODE=1 CUDA_VISIBLE_DEVICES=0 BROKEN=1

for pid in "${forms[@]}"; do wait "$pid" || failed=1; done
[ $failed = 0 ] && echo "all good"
