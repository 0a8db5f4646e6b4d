# What the lab is made of: its settings, its processes, its nodes and their cables.
# Sourced by up, down, node, init and run-tutorial.
# shellcheck shell=bash

: "${RDASK_LAB_DIR:=${TMPDIR:-/tmp}/rdask-lab}" # configuration, keys, logs, process records
: "${RDASK_LAB_NODES:=4}"                       # node1, node2, ...
: "${RDASK_LAB_CPUS:=8}"                        # CPUs of a node, as Slurm believes
: "${RDASK_LAB_MEMORY:=4096}"                   # MiB of a node, as Slurm believes
: "${RDASK_LAB_NET:=10.99.78}"                  # node N is NET.N, the login node is NET.254
: "${RDASK_LAB_INTERFACE:=ib0}"                 # a node's network interface
: "${RDASK_LAB_LINK:=rdasklab}"                 # the login node's, on this machine
: "${RDASK_LAB_PORT:=16827}"                    # slurmctld; slurmd has the next one
: "${RDASK_LAB_KILL_WAIT:=5}"                   # s from SIGTERM to SIGKILL; Slurm's default is 30
: "${RDASK_LAB_SLURMD_TIMEOUT:=20}"             # s until a silent node is DOWN; Slurm's default is 300
: "${RDASK_LAB_UP_TIMEOUT:=60}"                 # s that `up` waits for the nodes to be idle

# The nodes' first process gets these from whoever boots it.
export "${!RDASK_LAB_@}"
export SLURM_CONF=$RDASK_LAB_DIR/slurm.conf

SKIPPED=77 # the exit status that automake, meson and others take for "not run here"

say() { printf 'lab: %s\n' "$*"; }
complain() { printf 'lab: %s\n' "$*" >&2; }
fail() {
    complain "error: $*"
    exit 1
}
skip() {
    complain "skipped: $*"
    exit "$SKIPPED"
}

# poll SECONDS COMMAND...: until COMMAND succeeds. Readiness is always asked for, never slept for.
poll() {
    local deadline=$((${EPOCHREALTIME/./} + $1 * 1000000))
    shift
    until "$@"; do
        [ "${EPOCHREALTIME/./}" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

# --- One at a time -----------------------------------------------------------------------------

# Takes the lab's lock and holds it until this script ends. The lock is on the directory itself, so
# nothing is left behind; a purge may have replaced it while we waited.
lock_lab() {
    while :; do
        mkdir -p "$RDASK_LAB_DIR"
        # Root is about to trust what is in there, and /tmp is everyone's.
        if [ -L "$RDASK_LAB_DIR" ] || [ ! -O "$RDASK_LAB_DIR" ]; then
            fail "$RDASK_LAB_DIR belongs to someone else; set RDASK_LAB_DIR"
        fi
        exec {lock_fd}<"$RDASK_LAB_DIR"
        flock --wait 120 "$lock_fd" || fail "another command holds $RDASK_LAB_DIR for 2 minutes"
        [ "/proc/self/fd/$lock_fd" -ef "$RDASK_LAB_DIR" ] && return
        exec {lock_fd}<&-
    done
}

# --- Processes ---------------------------------------------------------------------------------

# A process is known by its pid and by when it started, because pids are used again.
start_of() { # PID
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return
    local field
    read -ra field <<<"${stat##*) }" # behind "PID (NAME)", which may hold spaces
    [ "${field[0]-Z}" != Z ] || return
    printf '%s' "${field[19]}"
}

record() { # NAME PID
    local start
    start=$(start_of "$2") || return
    printf '%s %s\n' "$2" "$start" >"$RDASK_LAB_DIR/run/$1.new"
    mv "$RDASK_LAB_DIR/run/$1.new" "$RDASK_LAB_DIR/run/$1"
}

# Prints the pid of NAME if that very process lives.
running() { # NAME
    local pid start
    { read -r pid start <"$RDASK_LAB_DIR/run/$1"; } 2>/dev/null || return
    [ "$(start_of "$pid")" = "$start" ] || return
    printf '%s' "$pid"
}

gone() { ! running "$1" >/dev/null; }

# Starts a daemon that outlives us. It gets no descriptor of ours: a daemon that held the lock, or
# the pipe of whoever called us, would keep them waiting for ever. Its environment says whose it is.
spawn() { # NAME COMMAND...
    local name=$1
    shift
    (
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
        done
        exec env RDASK_LAB_OWNER="$RDASK_LAB_DIR" setsid "$@"
    ) </dev/null >>"$RDASK_LAB_DIR/log/$name.out" 2>&1 &
    spawned=$!
    disown "$spawned"
}

end() { # NAME SIGNAL
    local pid
    if pid=$(running "$1"); then
        kill "-$2" "$pid" 2>/dev/null || true
        poll 10 gone "$1" || kill -KILL "$pid" 2>/dev/null || true
        poll 10 gone "$1" || fail "$1 (pid $pid) does not end"
    fi
    rm -f "$RDASK_LAB_DIR/run/$1"
}

# Ends what an earlier lab in this directory left behind without a record.
end_leftovers() {
    local environ pid start
    while read -r environ; do
        pid=${environ#/proc/} pid=${pid%/environ}
        start=$(start_of "$pid") || continue
        grep -qzxF "RDASK_LAB_OWNER=$RDASK_LAB_DIR" "$environ" 2>/dev/null || continue
        complain "ending a leftover: pid $pid, $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
        [ "$(start_of "$pid")" = "$start" ] && kill -KILL "$pid" 2>/dev/null
    done < <(grep -lzxF "RDASK_LAB_OWNER=$RDASK_LAB_DIR" /proc/[0-9]*/environ 2>/dev/null)
}

# --- Nodes and cables --------------------------------------------------------------------------

node_names() {
    local number
    for ((number = 1; number <= RDASK_LAB_NODES; number++)); do echo "node$number"; done
}

address_of() { printf '%s.%s' "$RDASK_LAB_NET" "${1#node}"; }

# The switch is a bridge in a network namespace of its own: there, this machine's firewall has no
# say about what nodes send each other, and all of it disappears with one process.
in_switch() {
    local pid
    pid=$(running switch) || fail "the switch does not run; see slurm/lab/up"
    nsenter --target "$pid" --net "$@"
}

in_node() { # NODE COMMAND...
    local pid
    pid=$(running "$1") || fail "$1 is switched off"
    shift
    nsenter --target "$pid" --net --uts --ipc --mount --pid --wd="$PWD" "$@"
}

# A node is its first process and the namespaces it was started in.
switch_on() { # NODE
    local pid
    rm -f "$RDASK_LAB_DIR/run/$1"
    spawn "$1" unshare --net --uts --ipc --mount --pid --fork --kill-child "$LAB/init" "$1"
    poll 10 running "$1" >/dev/null || fail "$1 does not start, see $RDASK_LAB_DIR/log/$1.out"
    pid=$(running "$1")
    in_switch ip link add name "$1" type veth peer name "$RDASK_LAB_INTERFACE" netns "$pid"
    in_switch ip link set "$1" master switch up
}

# The cable goes first: a node that loses power says goodbye to nobody.
switch_off() { # NODE
    if running switch >/dev/null; then
        in_switch ip link delete "$1" 2>/dev/null || true
    fi
    end "$1" KILL
}

# Plugs the cable in. SIGHUP makes slurmd register; slurmctld itself asks a DOWN node only every
# minute or two.
plug_in() { # NODE
    in_switch ip link set "$1" up
    in_node "$1" pkill -HUP -x slurmd || true # none: init is about to start one
}

# --- The whole lab -----------------------------------------------------------------------------

# Only a directory with this file in it is ever emptied.
LAB_MARK=$RDASK_LAB_DIR/.rdask-lab

end_lab() {
    local file
    # The nodes there are, whatever RDASK_LAB_NODES says today.
    for file in "$RDASK_LAB_DIR"/run/node*; do
        if [ -e "$file" ]; then switch_off "${file##*/}"; fi
    done
    end slurmctld TERM
    end munged TERM
    end switch KILL
    end_leftovers
    if ip link show "$RDASK_LAB_LINK" >/dev/null 2>&1; then
        ip link delete "$RDASK_LAB_LINK" 2>/dev/null || true # it may be on its way out already
    fi
}

remove_lab() {
    if [ -e "$LAB_MARK" ]; then rm -rf "$RDASK_LAB_DIR"; fi
}
