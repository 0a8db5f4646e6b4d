#!/bin/bash
# The scheduler, as a job of its own:
#
#     sbatch scheduler.sh
#
# It decides who does what and computes nothing itself, so one CPU is plenty. Give it more time than
# any computation needs: when it ends, its workers end too.
#
# From the environment of sbatch: RDASK_SCHEDULER_FILE, RDASK_INTERFACE, RDASK (see README.md).
#
#SBATCH --job-name=rdask-scheduler
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --time=08:00:00
#SBATCH --output=%x-%j.log
# A requeued job goes on in the log it has.
#SBATCH --open-mode=append

# The scheduler writes its addresses and a key to join into this file. Workers and clients find it
# there, so the file must be in a folder that all nodes see. It is yours alone (mode 0600).
file=${RDASK_SCHEDULER_FILE:-$SLURM_SUBMIT_DIR/scheduler.json}

# Listen on the fast network. RDASK_INTERFACE= (set, but empty) leaves the choice to rdask.
interface=${RDASK_INTERFACE-ib0}

# No srun: a job's script already runs on the job's first node. And `exec`, so that the scheduler
# takes the shell's place: `scancel` and the time limit signal the script's own process, and the
# scheduler uses those seconds to send its workers home and to remove its file.
exec "${RDASK:-rdask}" scheduler --scheduler-file "$file" \
    ${interface:+--interface "$interface"}
