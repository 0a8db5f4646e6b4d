//! `rdask worker`.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use rdask::nanny::{NannyEnd, NannyError, NannyOptions, WorkerInfo};
use rdask::{memory, slurm};

use super::{Failed, Failure, file_mode};
use crate::args::Worker;
use crate::quantity::{Memory, show_size};
use crate::record::Record;

pub(super) fn run(args: Worker) -> Result<u8, Failed> {
    let options = NannyOptions {
        workers: workers(&args),
        scheduler_file: args.scheduler_file,
        file_mode: file_mode(args.insecure_file_mode),
        pool: args.pool.or_else(slurm::job_id).unwrap_or_else(|| "local".to_owned()),
        node: slurm::node_name(),
        host: args.host,
        interface: args.interface,
        ports: args.worker_port.unwrap_or(0..=0),
        local_directory: args.local_directory,
        death_timeout: args.death_timeout,
        lifetime: args.lifetime.map(|lifetime| staggered(lifetime, args.lifetime_stagger)),
        pid_file: args.pid_file,
        handle_signals: true,
    };
    let _record = record(&options);
    match rdask::nanny::run(options) {
        Ok(NannyEnd::Told(reason)) => tracing::info!("ended: {reason}"),
        Ok(NannyEnd::Signal(name)) => tracing::info!("ended: got {name}"),
        Ok(NannyEnd::Lifetime) => tracing::info!("ended: its lifetime is over"),
        Ok(other) => tracing::info!("ended: {other:?}"),
        Err(error) => return Err(failed(error)),
    }
    Ok(0)
}

/// Notes that this nanny runs. It runs without that too.
fn record(options: &NannyOptions) -> Option<Record> {
    if slurm::job_id().is_some() {
        return None;
    }
    let record = Record::write(&options.pool, &options.scheduler_file);
    record
        .inspect_err(|error| tracing::warn!("not listed among this machine's nannies: {error}"))
        .ok()
}

/// The lifetime, give or take up to the stagger.
fn staggered(lifetime: Duration, stagger: Duration) -> Duration {
    // The standard library's maps are seeded anew in each process.
    let random = RandomState::new().build_hasher().finish();
    let share = random as f64 / u64::MAX as f64;
    (lifetime + stagger.mul_f64(2.0 * share)).saturating_sub(stagger)
}

fn failed(error: NannyError) -> Failed {
    let failure = match &error {
        error if error.is_version() => Failure::Version,
        NannyError::NoScheduler { .. } => Failure::Unreachable,
        NannyError::File(_) | NannyError::Refused(_) => Failure::Refused,
        _ => Failure::Usage,
    };
    let failed = Failed::new(failure, error);
    match failure {
        Failure::Unreachable => failed.with_hint(
            "is the scheduler running, with the same --scheduler-file, on a file system that this \
             node shares? --death-timeout sets how long to wait",
        ),
        _ => failed,
    }
}

/// The workers to bring, alike but for their names.
fn workers(args: &Worker) -> Vec<WorkerInfo> {
    let cores = usable_cores();
    let ours = slurm::cpus_per_task().map_or(cores, |cpus| cpus.min(cores));
    let count = args.nworkers.count(ours);
    let slots = args.nthreads.unwrap_or_else(|| (ours / count).max(1));
    let wanted = slots.saturating_mul(count);
    if wanted > cores {
        tracing::warn!(
            "{wanted} slots on {cores} core(s) that this process may use: inside Slurm ask for \
             more with `srun -c {wanted}` (srun no longer takes -c over from sbatch)"
        );
    }
    let memory_limit = match args.memory_limit {
        Memory::Auto => memory::available() / u64::from(count),
        Memory::Fraction(part) => (memory::available() as f64 * part) as u64,
        Memory::Bytes(bytes) => bytes,
    };
    let shown = if memory_limit == 0 { "no limit".to_owned() } else { show_size(memory_limit) };
    tracing::info!("{} worker(s) with {slots} slot(s) and {shown} of memory each", count);
    let name = args.name.clone().unwrap_or_else(default_name);
    (0..count)
        .map(|number| WorkerInfo {
            name: if count == 1 { name.clone() } else { format!("{name}-{number}") },
            slots,
            memory_limit,
            resources: args.resources.0.clone(),
        })
        .collect()
}

/// The node's name, and the position in the Slurm step, or else the process number, since a node
/// may have several nannies.
fn default_name() -> String {
    let node = slurm::node_name();
    match (slurm::job_id(), slurm::step_position()) {
        (Some(job), Some(position)) => format!("{node}-{job}-{position}"),
        _ => format!("{node}-{}", std::process::id()),
    }
}

/// How many cores the affinity mask and the cgroup allow.
fn usable_cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cores).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_staggered_both_ways_and_within_bounds() {
        let (lifetime, stagger) = (Duration::from_secs(100), Duration::from_secs(10));
        let all: Vec<Duration> = (0..100).map(|_| staggered(lifetime, stagger)).collect();
        assert!(all.iter().all(|one| (90..=110).contains(&one.as_secs())), "{all:?}");
        assert!(all.iter().any(|one| *one < lifetime) && all.iter().any(|one| *one > lifetime));
        assert_eq!(staggered(lifetime, Duration::ZERO), lifetime);
        assert!(staggered(stagger, lifetime) <= Duration::from_secs(110));
    }
}
