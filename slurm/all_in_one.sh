#!/bin/bash
# Scheduler, workers and client in one job, which ends when the client ends, with its exit status:
#
#     sbatch all_in_one.sh ./square {}
#
# {} stands for the path of the scheduler file; the client also has it in RDASK_SCHEDULER_FILE.
# Each node has a worker with four threads. The two CPUs more are for the scheduler and the client,
# on the first node; the others have them too because Slurm gives all tasks of a job the same.
#
# From the environment of sbatch: RDASK_SCHEDULER_FILE, RDASK_INTERFACE, RDASK (see README.md).
#
#SBATCH --job-name=rdask-all-in-one
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=6
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --no-kill

if [ $# = 0 ]; then
    echo "usage: sbatch all_in_one.sh CLIENT [ARGUMENT...]   ({}: the scheduler file)" >&2
    exit 2
fi

# One file per job, so that several such jobs can run side by side.
export RDASK_SCHEDULER_FILE=${RDASK_SCHEDULER_FILE:-$SLURM_SUBMIT_DIR/scheduler-$SLURM_JOB_ID.json}
export SLURM_EXPORT_ENV=ALL # see more_workers.sh
interface=${RDASK_INTERFACE-ib0}
rdask=${RDASK:-rdask}
threads=$((SLURM_CPUS_PER_TASK - 2))

# This script runs on the job's first node. Scheduler and client are its own children, without
# srun: so it can end the scheduler with a signal and has the client's exit status.
"$rdask" scheduler --scheduler-file "$RDASK_SCHEDULER_FILE" \
    ${interface:+--interface "$interface"} &
scheduler=$!

# On every node a worker. Nobody waits for the scheduler's file here: workers do that themselves.
srun --cpus-per-task="$threads" --no-kill --wait=0 --kill-on-bad-exit=0 --label \
    "$rdask" worker --scheduler-file "$RDASK_SCHEDULER_FILE" \
    ${interface:+--interface "$interface"} --nthreads "$threads" --memory-limit 0 &
workers=$!

# `scancel` and the time limit send SIGTERM to this shell; it passes it on to what it waits for. It
# runs in the background because a shell looks after its signals only between two commands.
run() {
    "$@" &
    running=$!
    wait "$running"
}
trap 'kill -TERM "$running" 2>/dev/null' TERM

# No sleep: `rdask status --wait` returns once all workers are there.
run "$rdask" status --wait --workers "$SLURM_JOB_NUM_NODES" --timeout 60s \
    --scheduler-file "$RDASK_SCHEDULER_FILE" &&
    run "${@//\{\}/$RDASK_SCHEDULER_FILE}"
status=$?

# The scheduler sends its workers home and removes its file. If it is gone already, nobody tells
# the workers: then the end of this script does, because Slurm ends the steps of an ended job.
kill -TERM "$scheduler" 2>/dev/null
if wait "$scheduler"; then wait "$workers"; fi
exit "$status"
