# The steps of the tutorial. Sourced by run-tutorial, which calls step_NAME for each in turn. A step
# fails if something went wrong; else it sets `took` (s), and may set `bound` (s) and `detail`. Steps
# that run a client set `took` to the time that the client measured, from `map` to the last result.
# shellcheck shell=bash
# `rdask`, `square`, `chaos` and `any_time` come from run-tutorial, `took`, `bound` and `detail` go there; helpers of poll
# look unused.
# shellcheck disable=SC2034,SC2154,SC2317

steps=(lab scheduler pool compute scale-up compute-wider lose-pool lose-pool-kill lose-node
    private-client all-in-one shut-down)

# Those that `--losses` adds before the last three.
losses=(lose-pool-ledger lose-pool-kill-ledger cut-node)

# The steps that must come before a step.
declare -A needs=(
    [lab]=''
    [scheduler]='lab'
    [pool]='scheduler'
    [compute]='pool'
    [scale-up]='pool'
    [compute-wider]='scale-up'
    [lose-pool]='scale-up'
    [lose-pool-kill]='pool'
    [lose-node]='pool'
    [lose-pool-ledger]='pool'
    [lose-pool-kill-ledger]='pool'
    [cut-node]='pool'
    [private-client]='pool'
    [all-in-one]='lab'
    [shut-down]='pool'
)

# The steps that leave things as they were before.
repeatable=(compute compute-wider lose-pool-kill lose-node lose-pool-ledger lose-pool-kill-ledger
    private-client all-in-one)

# 16 tasks of 1 s take two rounds on one pool's 8 threads, one round on two pools' 16. The rest is
# what rdask may add; Dask adds 30 to 60 ms here.
COMPUTE_MOST=2.03
COMPUTE_WIDER_MOST=1.03
# 32 tasks take one pool four rounds. It takes three of them if another pool is there before the
# third begins; if Slurm is late, that pool's round begins late too.
SCALE_UP_TASKS=32
SCALE_UP_MOST=3.5
# When the second pool is asked for, in seconds after the client's start.
SCALE_UP_AFTER=0.3
# One round: what the pool runs when it gets its notice may end. A second run of any of it would
# end 1.5 s after the beginning at the earliest. Dask takes 2.03 s.
LOSE_POOL_MOST=1.1
# What a killed pool ran begins again, once that is known, where the other's first round ends.
LOSE_POOL_KILL_MOST=2.3
# A node without power says nothing: it is given up after 5 s. Dask takes 32 to 59 s.
LOSE_NODE_MOST=7
# How long a cable is out; longer than it takes to give up a node, shorter than Slurm's patience.
CUT_FOR=20
CUT_SLURMD_TIMEOUT=60
# When the pool is killed, in seconds after all tasks have been handed out: in the middle of the
# first round.
LOSE_POOL_AFTER=0.5
# The same where Slurm has to be asked for steps first, which takes it some 0.2 s.
KILL_POOL_AFTER=0.3

SCRIPTS=$(realpath "$LAB/..")
CHAOS=$(realpath "$LAB/../../chaos")
work=$RDASK_LAB_DIR/tutorial # the user's folder on the shared file system
jobs=()
scheduler_job='' first_pool='' second_pool=''

# --- Words the steps are written in ------------------------------------------------------------

now() { printf '%s' "${EPOCHREALTIME/,/.}"; }
since() { awk -v from="$1" -v to="$(now)" 'BEGIN { printf "%.2f", to - from }'; }
at_most() { awk -v value="$1" -v bound="$2" 'BEGIN { exit !(value <= bound) }'; }

# A step's reason, in the table.
wrong() {
    detail=$*
    return 1
}

# Submits a script from the user's folder; the job's number is in `job`.
submit() { # SCRIPT [ARGUMENT...]
    job=$(cd "$work" && sbatch --parsable "$@" </dev/null) || return
    jobs+=("$job")
}

job_field() { # JOB FIELD
    scontrol --oneliner show job "$1" | tr ' ' '\n' | sed -n "s/^$2=//p"
}

job_ended() { # JOB
    case $(job_field "$1" JobState) in
        PENDING | CONFIGURING | RUNNING | COMPLETING) return 1 ;;
    esac
}

job_succeeded() { # JOB
    [ "$(job_field "$1" JobState)" = COMPLETED ] && [ "$(job_field "$1" ExitCode)" = 0:0 ]
}

# Ends what an earlier run with --keep left running in our folder.
end_earlier_jobs() {
    local earlier
    for earlier in $(squeue --noheader --format='%i %Z' | awk -v folder="$work" '$2 == folder { print $1 }'); do
        scancel "$earlier"
        poll 20 job_ended "$earlier" || true
    done
}

wait_for_workers() { # NUMBER
    timeout 70 "$rdask" status --wait --workers "$1" --timeout 60s \
        --scheduler-file "$RDASK_SCHEDULER_FILE" </dev/null >"$work/status.log" 2>&1 ||
        wrong "no $1 workers: $(tail -n 1 "$work/status.log")"
}

status() {
    timeout 10 "$rdask" status --json --scheduler-file "$RDASK_SCHEDULER_FILE" </dev/null 2>/dev/null
}

# Whether no worker of a pool is left, as the scheduler sees it.
pool_left() { # JOB
    local view
    view=$(status) && ! grep -qF "\"pool\": \"$1\"" <<<"$view"
}

tasks_assigned() { # NUMBER
    local view
    view=$(status) && grep -qxE " *\"assigned\": $1,?" <<<"$view"
}

# A client program as if just compiled: the same code, other bytes, which no worker has seen.
compile_client() { # NAME
    cp "$square" "$work/$1"
    printf 'rdask tutorial %s %s' "$1" "$EPOCHREALTIME" >>"$work/$1"
}

# As Rust prints a vector: [0.0, 1.0, 4.0, ...]
squares() { # COUNT
    seq 0 $(($1 - 1)) | awk '{ printf "%s%d.0", sep, $1 * $1; sep = ", " }' | sed 's/.*/[&]/'
}

# What a client printed: sets `took` to the time of its computation.
read_client() { # LOG [COUNT]
    grep -qxF "$(squares "${2-16}")" "$1" || wrong "not the right squares, see $1" || return
    took=$(sed -n 's/^Computation time: \([0-9.]*\) s$/\1/p' "$1")
    [ -n "$took" ] || wrong "no time printed, see $1"
}

# Sets `whole` to the time from the client's start to its end.
run_client() { # NAME
    local begin
    begin=$(now)
    timeout 60 "$work/$1" "$RDASK_SCHEDULER_FILE" </dev/null >"$work/$1.log" 2>&1 ||
        wrong "the client exited with $?, see $work/$1.log" || return
    whole=$(since "$begin")
    read_client "$work/$1.log"
}

# How often each worker of the first pool received a program since its log had SIZE bytes, one line
# per worker: COUNT TASK. srun puts the task's number in front of each line of the log.
programs_received() { # SIZE
    tail -c "+$(($1 + 1))" "$work/rdask-workers-$first_pool.log" |
        sed -n 's/^ *\([0-9]*\): .* program [0-9a-f]* received from .*/\1/p' | sort | uniq -c
}

show_logs() {
    local log
    for log in "$work"/*.log; do
        [ -s "$log" ] || continue
        printf '\n==> %s <==\n' "$log"
        tail -n 20 "$log"
    done
}

# --- The steps ---------------------------------------------------------------------------------

step_lab() {
    local begin status=0
    begin=$(now)
    "$LAB/up" </dev/null >"${TMPDIR:-/tmp}/rdask-lab-up.$$" 2>&1 || status=$?
    if [ "$status" != 0 ]; then
        cat "${TMPDIR:-/tmp}/rdask-lab-up.$$" >&2
        rm -f "${TMPDIR:-/tmp}/rdask-lab-up.$$"
        exit "$status" # 77: it can't run here
    fi
    rm -f "${TMPDIR:-/tmp}/rdask-lab-up.$$"
    took=$(since "$begin")
    end_earlier_jobs
    rm -rf "$work"
    mkdir -p "$work"
    export RDASK=$rdask RDASK_SCHEDULER_FILE=$work/scheduler.json
    # Each node's own memory: /tmp is shared here, as a disk on a node would not be.
    export RDASK_CACHE=/dev/shm/rdask
}

step_scheduler() {
    local begin
    begin=$(now)
    submit "$SCRIPTS/scheduler.sh" || wrong "sbatch failed" || return
    scheduler_job=$job
    # Nobody waits for the scheduler before the next command.
    submit "$SCRIPTS/more_workers.sh" || wrong "sbatch failed" || return
    first_pool=$job
    pool_submitted=$(now)
    file_or_end() { [ -e "$RDASK_SCHEDULER_FILE" ] || job_ended "$scheduler_job"; }
    poll 30 file_or_end || wrong "no $RDASK_SCHEDULER_FILE after 30 s" || return
    [ -e "$RDASK_SCHEDULER_FILE" ] || wrong "job $scheduler_job ended without a file" || return
    took=$(since "$begin")
    detail="sbatch to scheduler file"
}

step_pool() {
    wait_for_workers 2 || return
    took=$(since "$pool_submitted")
    detail="sbatch to 2 workers"
}

step_compute() {
    compile_client compiled-later
    run_client compiled-later || return
    bound=$COMPUTE_MOST
    detail="2 workers, a program they have never seen; the client ran for $whole s"
}

step_scale_up() {
    local client begin joined
    compile_client longer
    timeout 60 "$work/longer" "$RDASK_SCHEDULER_FILE" "$SCALE_UP_TASKS" </dev/null \
        >"$work/longer.log" 2>&1 &
    client=$!
    # Not a wait for something to be ready: in the middle is what is tested.
    sleep "$SCALE_UP_AFTER"
    begin=$(now)
    submit "$SCRIPTS/more_workers.sh" || wrong "sbatch failed" || return
    second_pool=$job
    wait_for_workers 4 || return
    joined=$(since "$begin")
    wait "$client" || wrong "the client exited with $?, see $work/longer.log" || return
    read_client "$work/longer.log" "$SCALE_UP_TASKS" || return
    bound=$SCALE_UP_MOST
    detail="$SCALE_UP_TASKS tasks, 2 workers join in the middle, $joined s after sbatch"
}

step_compute_wider() {
    compile_client wider
    run_client wider || return
    bound=$COMPUTE_WIDER_MOST
    detail="4 workers; the client ran for $whole s"
}

# Runs a client, and a command in the middle of its computation.
lose_midway() { # CLIENT COMMAND...
    local name=$1 client
    shift
    compile_client "$name"
    timeout 60 "$work/$name" "$RDASK_SCHEDULER_FILE" </dev/null >"$work/$name.log" 2>&1 &
    client=$!
    strike_midway "$client" "$work/$name.log" "$@" || return
    read_client "$work/$name.log"
}

# Runs a command in the middle of the 16 tasks of a client that was started; waits for the client.
strike_midway() { # PID LOG COMMAND...
    local client=$1 log=$2
    shift 2
    all_assigned() { tasks_assigned 16; }
    poll 20 all_assigned || wrong "the tasks were not handed out, see $log" || return
    # Not a wait for something to be ready: the moment is what is tested.
    sleep "${after:-$LOSE_POOL_AFTER}"
    kill -0 "$client" 2>/dev/null || wrong "the client had ended before anything was lost" || return
    "$@" </dev/null >>"$work/lost.log" 2>&1 || wrong "$* failed, see $work/lost.log" || return
    wait "$client" || wrong "the client exited with $?, see $log"
}

# A second pool, if there is none.
second_pool_again() {
    if [ -n "$second_pool" ] && ! job_ended "$second_pool"; then return; fi
    submit "$SCRIPTS/more_workers.sh" || wrong "sbatch failed" || return
    second_pool=$job
    wait_for_workers 4
}

step_lose_pool() {
    local begin left
    begin=$(now)
    lose_midway bereft scancel "$second_pool" || return
    poll 20 pool_left "$second_pool" || wrong "pool $second_pool is still listed after 20 s" || return
    left=$(since "$begin")
    poll 20 job_ended "$second_pool" || wrong "job $second_pool does not end" || return
    bound=$LOSE_POOL_MOST
    detail="scancel $LOSE_POOL_AFTER s into the first round, no second run; pool off the list within $left s (Dask 2.03 s)"
}

# A second run of what was lost takes a second from then on: without, nothing was tested.
really_lost() {
    at_most 1.2 "$took" || wrong "all was over in $took s: the pool died too late"
}

step_lose_pool_kill() {
    local after=$KILL_POOL_AFTER
    second_pool_again || return
    lose_midway killed "$CHAOS/kill_pool.sh" --signal KILL "$second_pool" || return
    really_lost || return
    poll 20 job_ended "$second_pool" || wrong "job $second_pool does not end" || return
    bound=$LOSE_POOL_KILL_MOST
    detail="the same processes, by SIGKILL"
}

# A node of the second pool where nothing else of ours runs: sets `node`.
lonely_node() {
    local others
    others=$(nodes_of "$scheduler_job" && nodes_of "$first_pool")
    node=$(nodes_of "$second_pool" | grep -vxF "$others" | head -n 1)
    [ -n "$node" ] || wrong "job $second_pool has no node of its own"
}

nodes_of() { scontrol show hostnames "$(job_field "$1" NodeList)"; } # JOB

# Ends the second pool, and waits until its nodes can be used again.
end_second_pool() {
    scancel "$second_pool"
    poll 20 job_ended "$second_pool" || wrong "job $second_pool does not end" || return
    all_idle() { ! sinfo --noheader --format=%T | grep -vqE '^(idle|mixed|allocated)$'; }
    poll 60 all_idle || wrong "not all nodes came back: $(sinfo --noheader --format='%N %T' | tr '\n' ' ')"
}

step_lose_node() {
    local node
    second_pool_again || return
    lonely_node || return
    lose_midway dark "$LAB/node" crash "$node" || return
    really_lost || return
    "$LAB/node" boot "$node" >>"$work/lost.log" 2>&1 || wrong "$node does not boot" || return
    end_second_pool || return
    bound=$LOSE_NODE_MOST
    detail="$node loses power $LOSE_POOL_AFTER s into the first round (Dask 32 to 59 s)"
}

step_cut_node() {
    local node cut heal=$((CUT_FOR)) back
    second_pool_again || return
    lonely_node || return
    cut=$(now)
    lose_midway cut "$LAB/node" cut "$node" || return
    # Not a wait for something to be ready: how long it is out is what is tested.
    sleep "$(awk -v begin="$cut" -v now="$(now)" -v long="$heal" \
        'BEGIN { left = long - (now - begin); print (left > 0 ? left : 0) }')"
    "$LAB/node" heal "$node" >>"$work/lost.log" 2>&1 || wrong "$node does not heal" || return
    back=$(now)
    wait_for_workers 4 || return
    back=$(since "$back")
    local right_after=$took
    # All 16 at a time: without the node there are 12 slots.
    compile_client healed
    run_client healed || return
    at_most "$took" "$COMPUTE_WIDER_MOST" || [ -n "$any_time" ] ||
        wrong "16 tasks took $took s: $node is not used again" || return
    end_second_pool || return
    detail="$node cut off for $CUT_FOR s, back $back s after it was healed; then 16 tasks in $took s"
    took=$right_after
    bound=$LOSE_NODE_MOST
}

# A client whose tasks note each run in a ledger. Its 16 naps of 1 s are like those of the others.
lose_with_ledger() { # NAME COMMAND...
    local name=$1 client
    shift
    # A program works in its client's folder, which all nodes share; another folder takes another
    # program, or processes of an earlier client would take part from theirs.
    mkdir -p "$work/$name"
    cp "$chaos" "$work/$name/client"
    printf 'rdask tutorial %s %s' "$name" "$EPOCHREALTIME" >>"$work/$name/client"
    (cd "$work/$name" && exec timeout 60 ./client client naps "$RDASK_SCHEDULER_FILE" 16 --millis 1000) \
        </dev/null >"$work/$name.log" 2>&1 &
    client=$!
    strike_midway "$client" "$work/$name.log" "$@" || return
    took=$(sed -n 's/^{"seconds":\([0-9.]*\).*/\1/p' "$work/$name.log" | awk '{ printf "%.3f", $1 }')
    [ -n "$took" ] || wrong "no time printed, see $work/$name.log" || return
    runs=$(grep -c '^b ' "$work/$name/ledger")
    second_runs=$(awk '$1 == "b" && $3 > 1' "$work/$name/ledger" | wc -l)
}

step_lose_pool_ledger() {
    local runs second_runs
    second_pool_again || return
    lose_with_ledger ledger-term "$CHAOS/kill_pool.sh" "$second_pool" || return
    [ "$second_runs" = 0 ] || wrong "$second_runs second run(s), see $work/ledger-term/ledger" || return
    poll 20 job_ended "$second_pool" || wrong "job $second_pool does not end" || return
    bound=$LOSE_POOL_MOST
    detail="scancel; $runs runs of 16 tasks, none a second one"
}

step_lose_pool_kill_ledger() {
    local runs second_runs after=$KILL_POOL_AFTER
    second_pool_again || return
    lose_with_ledger ledger-kill "$CHAOS/kill_pool.sh" --signal KILL "$second_pool" || return
    # What the pool's eight slots had at work.
    { [ "$second_runs" -ge 1 ] && [ "$second_runs" -le 8 ]; } || wrong "$second_runs second run(s), see $work/ledger-kill/ledger" || return
    poll 20 job_ended "$second_pool" || wrong "job $second_pool does not end" || return
    bound=$LOSE_POOL_KILL_MOST
    detail="SIGKILL; $runs runs of 16 tasks, $second_runs of them second ones"
}

step_private_client() {
    local log size received
    log=$work/rdask-workers-$first_pool.log
    size=$(stat --format=%s "$log")
    compile_client private
    mkdir -p "$work/home"
    # The client's folder is in a mount namespace of its own: for everybody else it is empty.
    # shellcheck disable=SC2016 # expanded by the inner shell
    timeout 60 unshare --mount sh -c '
        mount -t tmpfs tmpfs "$1/home" && mv "$1/private" "$1/home" &&
            exec "$1/home/private" "$2"' sh "$work" "$RDASK_SCHEDULER_FILE" \
        </dev/null >"$work/private.log" 2>&1 ||
        wrong "the client exited with $?, see $work/private.log" || return
    read_client "$work/private.log" || return
    got_everywhere() { [ "$(programs_received "$size" | wc -l)" = 2 ]; }
    poll 5 got_everywhere || true # srun may hold back a line for a moment
    received=$(programs_received "$size" | awk '{ printf "%s%s", sep, $1; sep = "+" }')
    [ "$received" = 1+1 ] || wrong "programs received per worker: ${received:-none}, not 1+1" || return
    # With the second pool still there, one round is enough.
    if [ -n "$second_pool" ] && ! job_ended "$second_pool"; then bound=$COMPUTE_WIDER_MOST; else bound=$COMPUTE_MOST; fi
    detail="program sent once to each node"
}

step_all_in_one() {
    local begin log
    compile_client alone
    begin=$(now)
    # The script's own choice of file, as for a user who has not set it.
    submit --export=ALL,RDASK_SCHEDULER_FILE= "$SCRIPTS/all_in_one.sh" ./alone '{}' ||
        wrong "sbatch failed" || return
    log=$work/rdask-all-in-one-$job.log
    poll 60 job_ended "$job" || wrong "job $job does not end" || return
    job_succeeded "$job" ||
        wrong "job $job: $(job_field "$job" JobState), exit $(job_field "$job" ExitCode)" || return
    read_client "$log" || return
    [ ! -e "$work/scheduler-$job.json" ] || wrong "scheduler-$job.json is still there" || return
    bound=$COMPUTE_MOST
    detail="job ended after $(since "$begin") s"
}

step_shut_down() {
    local begin file
    begin=$(now)
    scancel "$scheduler_job"
    file_gone() { [ ! -e "$RDASK_SCHEDULER_FILE" ]; }
    poll 10 file_gone || wrong "$RDASK_SCHEDULER_FILE is still there after 10 s" || return
    file=$(since "$begin")
    poll 20 job_ended "$first_pool" || wrong "the workers stay after 20 s" || return
    job_succeeded "$first_pool" ||
        wrong "pool $first_pool: $(job_field "$first_pool" JobState), exit $(job_field "$first_pool" ExitCode)" || return
    poll 10 job_ended "$scheduler_job" || wrong "job $scheduler_job does not end" || return
    took=$(since "$begin")
    detail="file gone after $file s, then the workers left"
}
