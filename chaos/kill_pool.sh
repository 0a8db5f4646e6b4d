#!/usr/bin/env bash
# Kills a pool of workers in the middle of whatever runs, to see that only time is lost.
set -euo pipefail

usage() {
    cat <<'END'
usage: kill_pool.sh [--signal TERM|KILL] POOL
       kill_pool.sh [--signal TERM|KILL] --newest
       kill_pool.sh [--list]

Kills all workers of a pool at once. Try it while a program computes:

  ./square scheduler.json 64 &
  chaos/kill_pool.sh 4711                  as scancel does: a notice, then the end
  chaos/kill_pool.sh --signal KILL 4711    as a power failure does: no notice at all

POOL is a Slurm job number, or the label of workers on this machine (`rdask worker --pool LABEL`;
without --pool it is "local"). Without POOL the pools are listed and nothing is killed.

  --signal TERM   workers get SIGTERM and leave: what runs may end, what they hold is passed on.
                  Slurm: scancel JOB (SIGKILL follows after KillWait). This is the default
  --signal KILL   everything on the pool's nodes dies in an instant.
                  Slurm: scancel JOB.STEP, for plain `scancel --signal=KILL JOB` gives notice first
  --newest        the pool that came last, instead of POOL
  --list          list the pools that could be killed

Only what is rdask's and yours is touched. A local process must be a running `rdask` that has
noted itself in $TMPDIR/rdask-nannies-UID with this very start; a job must be one that starts rdask.

Exit status: 0 killed (or listed), 1 no such pool or not rdask's, 2 wrong usage.
END
}

fail() {
    printf 'error: %s\n' "$1" >&2
    [ $# = 1 ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

misuse() {
    printf 'error: %s\nhint: kill_pool.sh --help\n' "$1" >&2
    exit 2
}

# --- Local pools -------------------------------------------------------------------------------

records=${TMPDIR:-/tmp}/rdask-nannies-$(id -u)

field() { # FILE NAME
    sed -n "s/^$2 //p" "$1" 2>/dev/null | head -n 1
}

# When a process started, in clock ticks since the machine did. Zombies have ended.
start_of() { # PID
    local stat fields
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    read -ra fields <<<"${stat##*) }" # behind "PID (NAME)", which may hold anything
    [ "${fields[0]-Z}" != Z ] || return 1
    printf '%s' "${fields[19]}"
}

# Whether the file at PATH is an rdask; one that was replaced while it runs has a suffix.
is_rdask() { # PID
    local exe
    exe=$(readlink "/proc/$1/exe" 2>/dev/null) || return 1
    exe=${exe% (deleted)}
    [ "${exe##*/}" = rdask ]
}

# Prints "PID START POOL" of each nanny on this machine that is what its record says, oldest first.
nannies() {
    local record pid start
    [ -d "$records" ] || return 0
    if [ -L "$records" ] || [ ! -O "$records" ]; then
        fail "$records belongs to someone else" "set TMPDIR to where your workers have it"
    fi
    for record in "$records"/*; do
        pid=$(field "$record" pid) start=$(field "$record" start)
        [[ $pid =~ ^[1-9][0-9]*$ && $(field "$record" host) = "$(</proc/sys/kernel/hostname)" ]] || continue
        [ "$(start_of "$pid")" = "$start" ] || continue
        if ! is_rdask "$pid"; then
            printf 'refused: process %s is %s, which is not rdask\n' \
                "$pid" "$(readlink "/proc/$pid/exe")" >&2
            continue
        fi
        printf '%s %s %s\n' "$pid" "$start" "$(field "$record" pool)"
    done | sort -n -k 2
}

# The processes of a nanny: its children, which it started for programs.
processes_of() { # PID
    local task
    for task in /proc/"$1"/task/*/children; do
        { tr ' ' '\n' <"$task"; } 2>/dev/null || true
    done | grep . || true
}

kill_local() { # POOL
    local pid start pool targets=() processes=()
    while read -r pid start pool; do
        if [ "$pool" = "$1" ]; then
            targets+=("$pid:$start")
            [ "$signal" = TERM ] || mapfile -t -O "${#processes[@]}" processes < <(processes_of "$pid")
        fi
    done <<<"$all_nannies"
    [ ${#targets[@]} -gt 0 ] || return 1
    local target killed=()
    for target in "${targets[@]}"; do
        pid=${target%:*}
        # It may have ended since, and its number be another's.
        [ "$(start_of "$pid")" = "${target#*:}" ] && kill "-$signal" "$pid" 2>/dev/null && killed+=("$pid")
    done
    # They end with their nanny anyway; a power failure makes no difference between them.
    for pid in "${processes[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    printf 'pool %s: %s sent to %d nanny(s): %s\n' "$1" "$signal" "${#killed[@]}" "${killed[*]}"
}

# --- Slurm pools -------------------------------------------------------------------------------

has_slurm() { command -v squeue >/dev/null && command -v scancel >/dev/null; }

# Whether a job starts rdask workers: by its name, or else by its script.
job_is_rdask() { # JOB NAME
    [[ $2 == rdask* ]] || scontrol write batch_script "$1" - 2>/dev/null | grep -q 'rdask[- ]worker'
}

# Prints "JOB NAME" of each running job of ours that could be a pool, oldest first.
slurm_pools() {
    local job name
    has_slurm || return 0
    squeue --noheader --me --states=RUNNING --sort=S --format='%i %j' 2>/dev/null |
        while read -r job name; do
            # It starts rdask, but no workers.
            [ "$name" != rdask-scheduler ] || continue
            if job_is_rdask "$job" "$name"; then printf '%s %s\n' "$job" "$name"; fi
        done || true # no Slurm that answers
}

kill_slurm() { # JOB
    local owner name steps
    read -r owner name < <(squeue --noheader --jobs "$1" --format='%u %j' 2>/dev/null) || return 1
    [ "$owner" = "$(id -un)" ] || fail "job $1 belongs to $owner"
    job_is_rdask "$1" "$name" ||
        fail "job $1 does not start rdask workers" "kill_pool.sh --list shows those that do"
    if [ "$signal" = TERM ]; then
        scancel "$1"
        printf 'pool %s: scancel, which sends TERM, then KILL after KillWait\n' "$1"
        return
    fi
    # Workers are tasks of numbered steps; the script is step "batch" and ends by itself.
    steps=$(squeue --noheader --steps --jobs "$1" --format=%i | grep -E '\.[0-9]+$') ||
        fail "job $1 has no step with workers" "are its workers started by srun?"
    mapfile -t steps <<<"$steps"
    scancel "${steps[@]}"
    printf 'pool %s: KILL sent to its steps: %s\n' "$1" "${steps[*]}"
}

# -----------------------------------------------------------------------------------------------

list() {
    local pools
    pools=$(
        grep . <<<"$all_nannies" | awk '{ sub(/^[0-9]+ [0-9]+ /, ""); count[$0]++ } END { for (pool in count) printf "%-20s %d nanny(s) on this machine\n", pool, count[pool] }' || true
        slurm_pools | awk '{ printf "%-20s Slurm job %s\n", $1, $2 }'
    )
    if [ -z "$pools" ]; then
        printf 'no pools: neither rdask workers on this machine nor Slurm jobs that start them\n'
    else
        printf '%s\n' "$pools"
    fi
}

# The pool that came last: of Slurm, where there is one; else the newest nanny's.
newest() {
    local pool
    pool=$(slurm_pools | tail -n 1)
    pool=${pool%% *}
    [ -n "$pool" ] || pool=$(tail -n 1 <<<"$all_nannies" | cut -d ' ' -f 3-)
    printf '%s' "$pool"
}

signal=TERM pool='' newest=''
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage && exit 0 ;;
        --signal) signal=${2-} && { shift || true; } ;;
        --signal=*) signal=${1#*=} ;;
        --newest) newest=yes ;;
        --list) ;;
        -*) misuse "there is no $1" ;;
        *) [ -z "$pool" ] || misuse "one pool at a time" && pool=$1 ;;
    esac
    shift || true
done
signal=${signal#SIG}
case $signal in
    TERM | KILL) ;;
    *) misuse "--signal is TERM or KILL" ;;
esac
[ -z "$pool" ] || [ -z "$newest" ] || misuse "either a pool or --newest"

all_nannies=$(nannies)
if [ -n "$newest" ]; then
    pool=$(newest)
    [ -n "$pool" ] || fail "there is no pool to kill"
fi
if [ -z "$pool" ]; then
    list
    exit 0
fi
if kill_local "$pool"; then exit 0; fi
if [[ $pool =~ ^[0-9]+(_[0-9]+)?$ ]] && has_slurm && kill_slurm "$pool"; then exit 0; fi
fail "there is no pool $pool" "kill_pool.sh --list shows what there is"
