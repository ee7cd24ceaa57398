#!/usr/bin/env bash
# An array of GPU workers on Slurm. Task 0 also runs the coordinator and, unless AFFECTMILL_QUEUE names NATS servers, one of
# its own inside the allocation.
#
#   sbatch jobs/slurm.sh job.toml                        # options before the script outdo the lines below: --array=0-31
#   AFFECTMILL_QUEUE=nats://head:4222 sbatch jobs/slurm.sh job.toml      # and NATS_CREDS, or NATS_USER and NATS_PASSWORD
#
# Preempted, requeued or out of time, a task drains and comes back by itself. Every task ends with the coordinator's exit
# code: 0, or 3 where some videos failed or are partial (Slurm then says FAILED; the run is finished). After 2 mend the job, after 4 its
# surroundings, and sbatch again: what is labelled stays.
#
# While task 0 waits to come back, the others have nothing to do with its own server. Where tasks are preempted often, a
# server outside (AFFECTMILL_QUEUE) keeps them busy.

# Yours to change: how many, what each gets, and for how long. GPUs in any of Slurm's forms: --gpus=a100:2, --gres=gpu:4,
# --gpus-per-node=2, --gpus=0 for the CPU alone; MIG instances get a worker each.
#SBATCH --job-name=affectmill
#SBATCH --array=0-3
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --output=affectmill-%A_%a.log

# TERM comes 60 seconds before the time is up, to this script alone. They must suffice for [run] drain_seconds (25), as must
# Slurm's KillWait (30) when a task is preempted.
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append

set -uo pipefail

job=${1:?usage: sbatch jobs/slurm.sh job.toml}
affectmill=${AFFECTMILL:-affectmill}    # programs that every node has under the same path
nats_server=${NATS_SERVER:-nats-server} # 2.10 or newer
name=$(basename "$job" .toml | tr -c 'A-Za-z0-9_\n-' _)    # what the job is called on the NATS servers
# Where the other nodes reach this one: as Slurm does. Another network of the cluster is named by AFFECTMILL_ADDRESS.
address=${AFFECTMILL_ADDRESS:-$(scontrol --oneliner show node "$SLURMD_NODENAME" | sed 's/.* NodeAddr=\([^ ]*\).*/\1/')}

task=${SLURM_ARRAY_JOB_ID:?start it by sbatch, as an array}_$SLURM_ARRAY_TASK_ID
# What task 0 tells the others, in one line: `open QUEUE [USER PASSWORD]`, in the end `done CODE`.
board=$job.$SLURM_ARRAY_JOB_ID
server='' coordinator='' worker='' canary='' heard='' again=0 failures=0 stopping=''

# The GPUs that the node gave, as CUDA is told: indices, UUIDs or MIG instances, with commas between them.
devices=${CUDA_VISIBLE_DEVICES:-}
case $devices in NoDevFiles | -1) devices='' ;; esac

# How many there are of a list with commas.
count() { [ -z "$1" ] || tr ',' '\n' <<<"$1" | grep -c .; }

# How many GPUs the task was given. What was asked for may be typed: `a100:2`, or `a100:2,v100:1`.
gpus_given() {
    local asked=${SLURM_GPUS:-${SLURM_GPUS_PER_NODE:-${SLURM_GPUS_PER_TASK:-}}}
    if [ "$asked" = 0 ]; then
        echo 0
    elif [[ ${SLURM_GPUS_ON_NODE:-} =~ ^[0-9]+$ ]]; then
        echo "$SLURM_GPUS_ON_NODE"
    elif [ -n "$devices" ]; then
        count "$devices"
    elif [ -n "${SLURM_JOB_GPUS:-}" ]; then
        count "$SLURM_JOB_GPUS"
    else
        tr ',' '\n' <<<"$asked" | awk -F: '{ sum += $NF } END { print sum + 0 }'
    fi
}
gpus=$(gpus_given)

say() { printf '%s %s: %s\n' "$(date +%T)" "$task" "$*"; }
leads() { [ "$SLURM_ARRAY_TASK_ID" = 0 ]; }
lives() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }

# A trap waits for a command in the foreground, but not for `wait`.
pause() { sleep "$1" & wait $!; }

# Others see the old line or the new one, and nobody but this user sees the password.
tell() { (umask 077 && printf '%s\n' "$*" >"$board.part" && mv "$board.part" "$board"); }

# Waits for as long as it takes: a further TERM ends only the `wait`.
await() {
    local pid
    for pid; do while lives "$pid"; do wait "$pid"; done; done
}

stop() {
    local pid
    for pid; do if lives "$pid"; then kill -TERM "$pid"; fi; done
    await "$@"
}

# For everybody: task 0 takes the others with it.
finish() {
    if leads; then tell "done $1"; fi
    say "ends with exit code $1"
    exit "$1"
}

# The server goes last, so that what is given back reaches it.
# shellcheck disable=SC2317 # called by the trap
cleanup() {
    # shellcheck disable=SC2086 # a word for each process
    stop $worker "$coordinator"
    stop "$server" "$canary"
    rm -rf "$scratch"
}

scratch=$(mktemp --directory --tmpdir affectmill.XXXXXX)
trap cleanup EXIT
trap 'stopping=yes' TERM
# Dies of any TERM that Slurm sends to more than this script.
sleep infinity &
canary=$!

# A server on a free port. Nothing in it must last: what is not committed, the coordinator puts there again.
serve() {
    user=affectmill
    password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    cat >"$scratch/nats.conf" <<END
host: "$address"
port: -1
ports_file_dir: "$scratch"
authorization { user: "$user", password: "$password" }
jetstream { store_dir: "$scratch" }
END
    "$nats_server" --config "$scratch/nats.conf" --log "$scratch/nats.log" &
    server=$!
    until queue=$(grep -ho 'nats://[^"]*' "$scratch"/*.ports 2>/dev/null); do
        if ! lives "$server"; then
            cat "$scratch/nats.log"
            say "the NATS server does not start at $address (AFFECTMILL_ADDRESS)"
            finish 4
        fi
        pause 0.2
    done
}

coordinate() {
    "$affectmill" run "$job" --set run.queue="$queue" --set run.name="$name" &
    coordinator=$!
}

# A process that labels on the GPUs it is shown.
work() { # OPTION...
    # The job is posted when it is planned, which may take long.
    "$affectmill" worker --queue "$queue" --job "$name" --wait 86400 "$@" &
    worker="$worker $!"
}

label() {
    local cpus=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}} device
    local threads=$((cpus / (gpus > 1 ? gpus : 1)))
    local options=(--threads $((threads > 1 ? threads : 1)))
    # On a server of its own nobody else can post a job: this user's file alone says what runs here.
    if [ -z "${AFFECTMILL_QUEUE:-}" ]; then options+=(--allow-torchscript); fi
    worker=''
    case $gpus,$devices in
        0,*) work "${options[@]}" ;;
        # Of MIG instances CUDA shows a process one.
        *,MIG-*)
            for device in ${devices//,/ }; do
                CUDA_VISIBLE_DEVICES=$device work "${options[@]}" --all-gpus
            done
            ;;
        # Rather none than a node whose GPU is out of order: the CPU would be slow, and label differently.
        *) work "${options[@]}" --all-gpus ;;
    esac
}

if leads; then
    queue=${AFFECTMILL_QUEUE:-} user='' password=''
    if [ -z "$queue" ]; then
        serve
        export NATS_USER=$user NATS_PASSWORD=$password
    fi
    say "coordinates at $queue"
    coordinate
    tell "open $queue $user $password"
fi

while [ -z "$stopping" ]; do
    if [ -n "$coordinator" ] && ! lives "$coordinator"; then
        wait "$coordinator"
        code=$?
        case $code in
            0 | 2 | 3 | 4) finish "$code" ;;
            # Killed, which the workers have not noticed.
            *) ((++failures < 5)) || finish 4 ;;
        esac
        coordinate
    fi
    if [ -n "$server" ] && ! lives "$server"; then
        cat "$scratch/nats.log"
        say "the NATS server has ended"
        break
    fi
    ended='' line='' state=''
    for pid in $worker; do lives "$pid" || ended=$pid; done
    { read -r line <"$board"; } 2>/dev/null
    read -r state queue user password <<<"$line"
    if [ "$state" = "done" ]; then
        say "ends with exit code $queue"
        exit "$queue"
    elif [ "$line" != "$heard" ] && ((SECONDS >= again)); then
        # The first word of task 0, or a new one: it came back, and its server is another.
        # shellcheck disable=SC2086
        stop $worker
        if [ -n "$user" ]; then export NATS_USER=$user NATS_PASSWORD=$password; fi
        heard=$line
        label
    elif [ -n "$ended" ]; then
        wait "$ended"
        code=$?
        case $code in
            0) ;; # the run is finished, which task 0 will say in a moment
            2) finish 2 ;; # what is wrong here does not mend
            *) ((++failures < 5)) || finish "$code" ;;
        esac
        # shellcheck disable=SC2086
        stop $worker
        worker='' heard='' again=$((SECONDS + 5))
    fi
    pause 1
done

say "drains"
pause 0.5
# Slurm signals every process of a task that it requeues, preempts or cancels, but only this script when the time is up. A
# second TERM would stop at once what the first one drains.
# shellcheck disable=SC2086
if lives "$canary"; then stop $worker "$coordinator"; else await $worker "$coordinator"; fi
# Slurm brings back by itself what it preempts, and what somebody cancels must stay away.
if [ "$(squeue --noheader --jobs="$task" --format=%T)" = RUNNING ]; then
    say "comes back"
    scontrol requeue "$task"
fi
exit 75
