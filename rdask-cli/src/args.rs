//! What the `rdask` command understands. Only names, types and help; [`commands`](crate::commands)
//! gives them meaning.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rdask::{Policy, TaskId};

use crate::address;
use crate::quantity::{self, Memory, Workers};

/// The value of a repeated or listed flag, kept whole: clap would take a `Vec` for repetition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources(pub(crate) Vec<(String, u64)>);

fn resources(text: &str) -> Result<Resources, String> {
    quantity::resources(text).map(Resources)
}

/// Map plain Rust functions over data, on every node, over QUIC.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "\
Begin with a scheduler on one node and workers wherever there are cores:

  rdask scheduler --scheduler-file scheduler.json &
  srun rdask worker --scheduler-file scheduler.json

Then run your program, which finds them by the same file, or look at them:

  rdask status --scheduler-file scheduler.json

Or run commands in the cluster, without a program of your own:

  rdask submit -- hostname
  rdask map --each-line files.txt -- gzip {}

RDASK_SCHEDULER_FILE stands for --scheduler-file everywhere."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the scheduler: it decides which task runs where
    Scheduler(Scheduler),
    /// Bring workers to the scheduler: slots and memory on this node
    Worker(Worker),
    /// Show the cluster, or wait until it has workers
    Status(Status),
    /// Let workers go in good order: nothing that they hold is lost
    Retire(Retire),
    /// Say why a task isn't running, or how it ended
    Explain(Explain),
    /// Run a command somewhere in the cluster
    Submit(Submit),
    /// Run a command once for each line of a file
    Map(Map),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// QUIC, and TLS over TCP where UDP does not get through
    #[default]
    Auto,
    /// QUIC only
    Quic,
    /// TLS over TCP only
    Tls,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:

  rdask scheduler --scheduler-file scheduler.json
  rdask scheduler --scheduler-file ~/run7.json --interface ib0 --idle-timeout '30 minutes'

It ends on SIGTERM or Ctrl-C, tells workers and clients why, and removes its file.
Whoever can read the file can use the cluster: it is written for you alone.")]
pub(crate) struct Scheduler {
    /// Where to write what workers and clients need to join, on a file system they share
    #[arg(long, value_name = "FILE", env = "RDASK_SCHEDULER_FILE")]
    pub(crate) scheduler_file: PathBuf,
    /// Address to listen on, or a name of this node [default: all]
    #[arg(long, value_name = "ADDRESS|NAME", conflicts_with = "interface", value_parser = address::host)]
    pub(crate) host: Option<IpAddr>,
    /// Network interface to listen on, such as ib0
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
    /// Port to listen on, 0 for any
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// How peers talk
    #[arg(long, value_enum, default_value_t)]
    pub(crate) transport: Transport,
    /// Send values over the network within a host, too: no Unix sockets, no reading in memory
    #[arg(long)]
    pub(crate) no_local_sockets: bool,
    /// Where to write the process number
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// End after nobody has wanted anything for so long, such as '30 minutes'
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub(crate) idle_timeout: Option<Duration>,
    /// Memory for small results; what comes beyond stays with workers
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = quantity::size)]
    pub(crate) result_memory: u64,
    /// Who gets ready tasks: 'locality', or 'random' (or 'random:SEED') for comparison
    #[arg(long, value_name = "POLICY", default_value = "locality", value_parser = policy)]
    pub(crate) policy: Policy,
    /// Replace a scheduler file that others could read, on file systems that can't show modes
    #[arg(long)]
    pub(crate) insecure_file_mode: bool,
}

fn policy(text: &str) -> Result<Policy, String> {
    match text.split_once(':') {
        None if text == "locality" => Ok(Policy::Locality),
        None if text == "random" => Ok(Policy::Random { seed: 1 }),
        Some(("random", seed)) => {
            let seed = seed.parse().map_err(|_| format!("'{seed}' is no whole number"))?;
            Ok(Policy::Random { seed })
        }
        _ => Err("expected 'locality', 'random' or 'random:SEED'".to_owned()),
    }
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:

  rdask worker --scheduler-file scheduler.json                     one worker with all cores
  rdask worker --scheduler-file scheduler.json --nworkers 4 --nthreads 2
  srun -c 16 rdask worker --scheduler-file scheduler.json --interface ib0
  rdask worker --scheduler-file scheduler.json --resources 'GPU=2' --memory-limit 64GiB

It waits for the file, so that scheduler and workers may start in any order. On SIGTERM
(scancel) it leaves; its tasks run elsewhere, and what it holds goes there.")]
pub(crate) struct Worker {
    /// The file that the scheduler writes
    #[arg(long, value_name = "FILE", env = "RDASK_SCHEDULER_FILE")]
    pub(crate) scheduler_file: PathBuf,
    /// Slots of each worker [default: the cores that this process may use, shared among workers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) nthreads: Option<u32>,
    /// How many workers: a number, -1 for one per core (-2 for one less, and so on), or auto, which is
    /// one with all cores
    #[arg(long, value_name = "N", default_value = "1", allow_negative_numbers = true, value_parser = quantity::workers)]
    pub(crate) nworkers: Workers,
    /// Memory of each worker: 0 (no limit), auto, a part such as 0.5, or a size such as 4GiB
    #[arg(long, value_name = "SIZE", default_value = "auto", value_parser = quantity::memory)]
    pub(crate) memory_limit: Memory,
    /// Network interface to listen on, such as ib0
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
    /// Address to listen on, or a name of this node [default: all]
    #[arg(long, value_name = "ADDRESS|NAME", conflicts_with = "interface", value_parser = address::host)]
    pub(crate) host: Option<IpAddr>,
    /// Port to listen on, or a range such as 30000:30100 [default: any]
    #[arg(long, value_name = "PORT[:PORT]", value_parser = quantity::ports)]
    pub(crate) worker_port: Option<RangeInclusive<u16>>,
    /// Name of the worker; several get -0, -1, ... [default: NODE-JOB-POSITION in a step of a Slurm
    /// job, else NODE-PID]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Label of the workers that come and go together [default: the Slurm job, else "local"]
    #[arg(long, value_name = "LABEL")]
    pub(crate) pool: Option<String>,
    /// What tasks can ask for besides slots, such as 'GPU=2 MEM=10e9'
    #[arg(long, value_name = "LIST", default_value = "", hide_default_value = true, value_parser = resources)]
    pub(crate) resources: Resources,
    /// Folder for programs and temporary files, on this node [default: $TMPDIR or /tmp]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) local_directory: Option<PathBuf>,
    /// How long to go on without a scheduler
    #[arg(long, value_name = "TIME", default_value = "300s", value_parser = quantity::duration)]
    pub(crate) death_timeout: Duration,
    /// Leave in good order after so long, such as '55 minutes' [default: shortly before the end of
    /// the Slurm job, else never]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub(crate) lifetime: Option<Duration>,
    /// Make the lifetime up to so much shorter or longer, so that not all workers leave at once
    #[arg(long, value_name = "TIME", default_value = "0s", requires = "lifetime", value_parser = quantity::duration)]
    pub(crate) lifetime_stagger: Duration,
    /// Where to write the process number
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Accept a scheduler file that others could read, on file systems that can't show modes
    #[arg(long)]
    pub(crate) insecure_file_mode: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:

  rdask retire 4711                      the workers of the Slurm job 4711
  rdask retire node7-4711-0 node8-4711-1 these two workers
  rdask retire --timeout 10m 4711        the same, and in ten minutes at most
  rdask retire --no-wait gpu             begin, and don't wait until they are gone

Their running tasks end, however long that takes. What they have not started goes to other workers,
and so does what only they hold. With --timeout, what is left by then is given up: those tasks run
again elsewhere, and those values are made again.

It says what it waits for, on standard error. Ctrl-C ends the wait only: the workers go all the same.
`rdask status` shows the names of pools and workers.")]
pub(crate) struct Retire {
    /// The file that the scheduler writes
    #[arg(long, value_name = "FILE", env = "RDASK_SCHEDULER_FILE")]
    pub(crate) scheduler_file: PathBuf,
    /// Pools, or names of workers
    #[arg(required = true, value_name = "POOL|WORKER")]
    pub(crate) names: Vec<String>,
    /// How long their tasks and copies may take, such as '10 minutes' [default: as long as they do]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Don't wait until they are gone
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// One JSON document instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Accept a scheduler file that others could read, on file systems that can't show modes
    #[arg(long)]
    pub(crate) insecure_file_mode: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:

  rdask status --scheduler-file scheduler.json
  rdask status --json | jq '.workers | length'
  rdask status --wait --workers 4 --timeout 60s && ./my-program")]
pub(crate) struct Status {
    /// The file that the scheduler writes
    #[arg(long, value_name = "FILE", env = "RDASK_SCHEDULER_FILE")]
    pub(crate) scheduler_file: PathBuf,
    /// One JSON document instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Wait until there are enough workers
    #[arg(long)]
    pub(crate) wait: bool,
    /// How many are enough
    #[arg(long, value_name = "N", default_value_t = 1, requires = "wait")]
    pub(crate) workers: u32,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "60s", requires = "wait", value_parser = quantity::duration)]
    pub(crate) timeout: Duration,
    /// Accept a scheduler file that others could read, on file systems that can't show modes
    #[arg(long)]
    pub(crate) insecure_file_mode: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:

  rdask explain c3.0.17 --scheduler-file scheduler.json
  rdask explain c3.0.17 --json | jq .reason

Tasks have the names that logs and errors show, and that `remote.id()` gives.")]
pub(crate) struct Explain {
    /// The task, such as c3.0.17
    #[arg(value_name = "TASK")]
    pub(crate) task: TaskId,
    /// The file that the scheduler writes
    #[arg(long, value_name = "FILE", env = "RDASK_SCHEDULER_FILE")]
    pub(crate) scheduler_file: PathBuf,
    /// One JSON document instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Accept a scheduler file that others could read, on file systems that can't show modes
    #[arg(long)]
    pub(crate) insecure_file_mode: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Commands {
    /// The file that the scheduler writes
    #[arg(long, value_name = "FILE", env = "RDASK_SCHEDULER_FILE")]
    pub(crate) scheduler_file: PathBuf,
    /// Set a variable for the command; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = quantity::variable)]
    pub(crate) env: Vec<(String, String)>,
    /// A line of JSON per command: index, line, status, node, error, stdout, stderr
    #[arg(long)]
    pub(crate) json: bool,
    /// Accept a scheduler file that others could read, on file systems that can't show modes
    #[arg(long)]
    pub(crate) insecure_file_mode: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:

  rdask submit --scheduler-file scheduler.json -- hostname
  rdask submit --env OMP_NUM_THREADS=4 -- ./simulate --steps 1000
  rdask submit --json -- hostname | jq -r .node

The command runs in this folder, on some node, with an empty standard input. Its output and exit
status become this command's. Ctrl-C ends it there, too: it gets SIGTERM, and SIGKILL after 5 s.")]
pub(crate) struct Submit {
    #[command(flatten)]
    pub(crate) commands: Commands,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:

  rdask map --each-line files.txt -- gzip {}
  find . -name '*.fits' | rdask map --each-line - -- ./reduce --input {} --output {}.out
  rdask map --json --each-line files.txt -- gzip {} | jq -r 'select(.status != 0).line'

{} stands for the line; without it the line comes last. Output is printed in the order of the
lines. The exit status is 0, or that of the first line whose command failed. Ctrl-C ends all commands:
they get SIGTERM, and SIGKILL after 5 s.")]
pub(crate) struct Map {
    /// The file whose lines to take, or - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) each_line: PathBuf,
    #[command(flatten)]
    pub(crate) commands: Commands,
}

#[cfg(test)]
mod examples;
