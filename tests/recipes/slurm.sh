#!/usr/bin/env bash
# Runs jobs/slurm.sh for real, on a Slurm of one machine that it sets up on loopback and tears down: with GPUs (of which the
# machine needs none) asked for in several forms; as an array of three;
# with a task preempted in the midst; with task 0, and its server, taken away in the midst. Each time the job must end by
# itself, with labels that are byte for byte those of a plain run, and leave no process behind. What is cancelled stays away.
#
#   AFFECTMILL=target/debug/affectmill NATS_SERVER=~/.cache/affectmill/nats/nats-server tests/recipes/slurm.sh
#
# Needs slurmctld, slurmd, slurm-client, munge (Debian's packages), ffmpeg.
set -euo pipefail

recipe=$(realpath "${RECIPE:-$(dirname "$0")/../../jobs/slurm.sh}")
AFFECTMILL=$(realpath "${AFFECTMILL:?the program}")
NATS_SERVER=$(realpath "${NATS_SERVER:?nats-server}")
export AFFECTMILL NATS_SERVER
unset AFFECTMILL_QUEUE AFFECTMILL_ADDRESS NATS_CREDS NATS_USER NATS_PASSWORD
clips=${CLIPS:-100} frames=${FRAMES:-30}

began=$SECONDS
say() { printf '%3d s  %s\n' $((SECONDS - began)) "$*"; }
fail() {
    say "FAILED: $*"
    exit 1
}

home=$(mktemp -d /tmp/slurm-test.XXXXXX)
mkdir "$home/tmp"
export TMPDIR=$home/tmp
daemons=() passed=''
cleanup() {
    local code=$?
    if [ $code -ne 0 ]; then
        tail -n 40 "$home"/work/*.log "$home"/slurmctld.log "$home"/slurmd.log 2>/dev/null || true
    fi
    if [ -S "$home/munge/socket" ]; then
        # Of this Slurm, and not of another one that the machine may belong to.
        export SLURM_CONF=$home/slurm.conf
        timeout 20 scancel --user="$(id -un)" 2>/dev/null || true
        for _ in $(seq 100); do [ -n "$(squeue --noheader)" ] || break; sleep 0.1; done
    fi
    for pid in $(ours) "${daemons[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    sleep 1
    for pid in $(ours) $(keepers) "${daemons[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    rm -rf "$home"
    [ -z "$passed" ] || say "all good"
    exit $code
}

# What runs for this test's jobs, and for nobody else's, whoever its parent is by now.
ours() { grep -lszFx "SLURM_SUBMIT_DIR=$home/work" /proc/[0-9]*/environ | cut -d/ -f3 || true; }

# Slurm's own process for each task, which goes on when its daemons are gone.
keepers() {
    { grep -lszFx "SLURM_CONF=$home/slurm.conf" /proc/[0-9]*/environ || true; } | cut -d/ -f3 | while read -r pid; do
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != slurmstepd ] || echo "$pid"
    done
}

# ---- Slurm on loopback ------------------------------------------------------------------------------------------------

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

start_slurm() {
    local host
    host=$(hostname -s)
    mkdir "$home/munge" "$home/state" "$home/spool"
    chmod 700 "$home/munge"
    (umask 077 && head -c 1024 /dev/urandom >"$home/munge/key")
    munged --foreground --force --key-file="$home/munge/key" --socket="$home/munge/socket" --pid-file="$home/munge/pid" \
        --seed-file="$home/munge/seed" --log-file="$home/munge/log" >/dev/null 2>&1 &
    daemons+=($!)
    # Four GPUs that are none: Slurm wants a device, and takes their numbers from their names.
    for n in 0 1 2 3; do ln -s /dev/null "$home/gpu$n"; done
    echo "Name=gpu Type=a100 File=$home/gpu[0-3]" >"$home/gres.conf"
    cat >"$home/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
# A job that was requeued waits as long as credentials last, 120 seconds by default.
AuthInfo=socket=$home/munge/socket,cred_expire=5
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 Gres=gpu:a100:4
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
    export SLURM_CONF=$home/slurm.conf
    until [ -S "$home/munge/socket" ]; do sleep 0.1; done
    slurmctld -D >/dev/null 2>&1 &
    daemons+=($!)
    slurmd -D >/dev/null 2>&1 &
    daemons+=($!)
    for _ in $(seq 100); do
        [ "$(sinfo --noheader --format=%T 2>/dev/null)" != idle ] || return 0
        sleep 0.2
    done
    fail "Slurm does not come up"
}

# ---- what is labelled -------------------------------------------------------------------------------------------------

make_project() {
    mkdir -p work/videos work/bad
    ffmpeg -nostdin -v error -f lavfi -i testsrc2=size=96x64:rate=25 -frames:v $((clips * frames)) -c:v libx264 -preset ultrafast \
        -pix_fmt yuv420p -g "$frames" -keyint_min "$frames" -sc_threshold 0 \
        -f segment -segment_time "$(awk "BEGIN { print ($frames - 0.5) / 25 }")" -reset_timestamps 1 work/videos/%03d.mp4
    cp work/videos/000.mp4 work/bad/good.mp4
    head -c 4096 /dev/urandom >work/bad/bad.mp4
    "$AFFECTMILL" init-weights --kind mini_xception --seed 7 --crop arcface112 -o work/w.safetensors >/dev/null
    local output
    for output in plain array preempted leader cancelled failed; do
        cat >"work/$output.toml" <<END
[input]
uri = "$([ $output = failed ] && echo bad || echo videos)/"
[faces]
mode = "full_frame"
[[models]]
name = "fer"
kind = "mini_xception"
weights = "w.safetensors"
[output]
uri = "$output/"
shard_frames = $frames
END
    done
}

# ---- the job ----------------------------------------------------------------------------------------------------------

submit() { # NAME: prints the array's id
    (cd work && sbatch --parsable --array=0-2 --gpus=0 --cpus-per-task=1 --mem=0 --time=10 --output="$1-%a.log" "$recipe" "$1.toml")
}

committed() { { find "work/$1/_affectmill/commits" -name '*.json' 2>/dev/null || true; } | wc -l; }

await_middle() { # NAME: until some shards are done, and many are not
    local n
    for _ in $(seq 600); do
        n=$(committed "$1")
        if [ "$n" -ge $((clips / 10)) ]; then
            [ "$n" -le $((clips / 2)) ] || fail "$1 was too fast: $n of $clips shards are done; raise FRAMES"
            say "$1: $n of $clips shards are done"
            return
        fi
        sleep 0.1
    done
    fail "$1 does not get on: $n of $clips shards"
}

field() { scontrol --oneliner show job "$1" | sed -n "s/.*[ ]$2=\([^ ]*\).*/\1/p"; }

await_gone() { # NAME
    local left
    for _ in $(seq 50); do
        left=$(ours)
        [ -n "$left" ] || break
        sleep 0.1
    done
    [ -z "$left" ] || fail "$1: still there: $(ps -o pid,args -p "${left//$'\n'/,}")"
    left=$(ls -A "$TMPDIR")
    [ -z "$left" ] || fail "$1: still there: $left in TMPDIR"
}

await_end() { # NAME ID "STATE EXIT:SIGNAL RESTARTS" of tasks 0, 1 and 2
    local name=$1 id=$2 task found
    shift 2
    for _ in $(seq 900); do
        if [ -z "$(squeue --noheader --jobs="$id" 2>/dev/null)" ]; then break; fi
        sleep 0.2
    done
    for task in 0 1 2; do
        found="$(field "${id}_$task" JobState) $(field "${id}_$task" ExitCode) $(field "${id}_$task" Restarts)"
        # shellcheck disable=SC2053 # a pattern
        [[ $found == $1 ]] || fail "$name: task $task is '$found', not '$1'"
        shift
    done
    await_gone "$name"
    say "$name: all three tasks ended as they should"
}

same_labels() { # NAME
    [ -e "work/$1/_SUCCESS" ] || fail "$1 is not finished"
    diff -r work/plain/labels "work/$1/labels" || fail "$1: other labels than the plain run's"
    say "$1: $(find "work/$1/labels" -name '*.parquet' | wc -l) parts, byte for byte those of the plain run"
}

trap cleanup EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
cd "$home"
make_project
"$AFFECTMILL" run work/plain.toml --quiet
say "a plain run labelled $clips clips of $frames frames"
start_slurm
say "Slurm $(sinfo --version | cut -d' ' -f2) is up"

# How the script calls its workers: CUDA_VISIBLE_DEVICES, threads, `all` for --all-gpus. The program only writes it down, and ends
# the run then.
mkdir bin
cat >bin/affectmill <<'END'
#!/usr/bin/env bash
if [ "$1" = run ]; then
    until [ -s "$CALLS" ]; do sleep 0.1; done
    exit 0
fi
trap 'kill %1; exit 75' TERM
sed -E 's/^(\S*) worker .*--threads ([0-9]+)( --all-gpus)?$/\1 \2\3/; s/ --all-gpus/ all/' <<<"${CUDA_VISIBLE_DEVICES-unset} $*" >>"$CALLS"
sleep 60 & wait $!
END
chmod +x bin/affectmill
sed '/^#SBATCH --gpus/d' "$recipe" >bin/slurm.sh
gpus() { # EXPECTED OPTION...
    local expected=$1 found
    shift
    rm -f "$home/calls" work/gpus.toml.*
    (cd work && CALLS=$home/calls AFFECTMILL=$home/bin/affectmill AFFECTMILL_QUEUE=nats://nowhere:1 sbatch --wait --array=0 \
        --cpus-per-task=4 --mem=0 --time=10 --output="gpus-%a.log" "$@" "$home/bin/slurm.sh" gpus.toml >/dev/null) \
        || fail "$*: $(cat work/gpus-0.log)"
    found=$(paste -sd ';' "$home/calls")
    # Without GPUs Slurm leaves the variable out, or sets it to nothing of use.
    [[ $found =~ ^($expected)$ ]] || fail "$*: '$found', not '$expected'"
    say "$*: $found"
}
gpus '(unset|NoDevFiles|) 4' --gpus=0
gpus '0 4 all' --gpus=1
gpus '0,1 2 all' --gpus=a100:2
gpus '0,1,2,3 1 all' --gres=gpu:4
gpus '0,1 2 all' --gres=gpu:a100:2
gpus '0,1 2 all' --gpus-per-node=2
await_gone gpus

id=$(submit array)
for _ in $(seq 300); do [ ! -e "work/array.toml.$id" ] || break; sleep 0.1; done
[ "$(stat --format=%a "work/array.toml.$id")" = 600 ] || fail "others can read the password"
done="COMPLETED 0:0 0" again="COMPLETED 0:0 1"
await_end array "$id" "$done" "$done" "$done"
same_labels array

id=$(submit preempted)
await_middle preempted
scancel --signal=TERM --batch "${id}_1"
await_end preempted "$id" "$done" "$again" "$done"
same_labels preempted

id=$(submit leader)
await_middle leader
before=$(cat "work/leader.toml.$id")
scontrol requeue "${id}_0"
for _ in $(seq 600); do [ "$(cat "work/leader.toml.$id")" = "$before" ] || break; sleep 0.1; done
case $(cat "work/leader.toml.$id") in
    "$before") fail "task 0 does not come back" ;;
    open*) say "leader: task 0 is back, with another server" ;;
esac
await_end leader "$id" "$again" "$done" "$done"
same_labels leader

id=$(submit cancelled)
await_middle cancelled
scancel "$id"
gone="CANCELLED * 0"
await_end cancelled "$id" "$gone" "$gone" "$gone"

id=$(submit failed)
failed="FAILED 3:0 0"
await_end failed "$id" "$failed" "$failed" "$failed"
[ -e work/failed/_SUCCESS ] || fail "a run with a bad video is not finished"
passed=yes
