#!/bin/bash
# A pool of workers: two nodes, one worker on each, four threads in each worker.
#
#     sbatch more_workers.sh
#
# Submit it once, or again for another pool, before the scheduler runs or in the middle of a
# computation: workers wait for the scheduler's file and take their share of what is left to do.
# `scancel` of the job takes the pool away again: that costs time, never a result.
# Other sizes: sbatch --nodes=8 --cpus-per-task=16 more_workers.sh
#
# From the environment of sbatch: RDASK_SCHEDULER_FILE, RDASK_INTERFACE, RDASK (see README.md).
#
#SBATCH --job-name=rdask-workers
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
# Notice to the workers a minute before the time limit, or up to a minute earlier still: time to
# pass on what they hold. Without it they get only the site's KillWait (30 s unless changed).
#SBATCH --signal=TERM@60
# If a node fails, keep the others.
#SBATCH --no-kill

file=${RDASK_SCHEDULER_FILE:-$SLURM_SUBMIT_DIR/scheduler.json}
interface=${RDASK_INTERFACE-ib0}

# With `sbatch --export=NONE` steps would start without what this script has loaded and set.
export SLURM_EXPORT_ENV=ALL

# srun starts one worker per task of the job. Its flags:
#   --cpus-per-task        Since Slurm 22.05 srun does not take it over from sbatch, and would bind
#                          all threads of a worker to one CPU.
#   --no-kill              The step, like the job, survives the loss of a node.
#   --wait=0,              The others stay when one worker has left or failed, whatever the site's
#   --kill-on-bad-exit=0   defaults are.
#   --label                Each line of the log begins with the number of the worker's task.
# And of rdask:
#   --nthreads             How many tasks a worker runs at a time.
#   --memory-limit 0       No watch over memory. `auto` takes Slurm's limit for the job.
#
# No `exec` here. A signal for the script would then hit srun, and srun answers SIGTERM by killing
# the workers at once. A shell just ends, and Slurm ends the workers as it should: SIGTERM, KillWait
# seconds to leave, SIGKILL.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --no-kill --wait=0 --kill-on-bad-exit=0 --label \
    "${RDASK:-rdask}" worker --scheduler-file "$file" ${interface:+--interface "$interface"} \
    --nthreads "$SLURM_CPUS_PER_TASK" --memory-limit 0
