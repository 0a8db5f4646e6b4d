//! `rdask status`.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use rdask::connection::ClusterStatus;
use rdask::connection::observer::{ObserveError, Observer};

use super::{Failed, Failure, file_mode};
use crate::args::Status;
use crate::output;

/// How often a waiting command looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(super) fn run(args: &Status) -> Result<u8, Failed> {
    let (observer, status) = if args.wait { wait(args)? } else { look(args).map_err(failed)? };
    let file = observer.scheduler_file();
    let text = if args.json {
        output::status_json(file, &status)
    } else {
        output::status_text(file, &status)
    };
    output::data(text.as_bytes()).map_err(Failed::unprinted)?;
    Ok(0)
}

fn look(args: &Status) -> Result<(Observer, ClusterStatus), ObserveError> {
    let mut observer = Observer::connect(&args.scheduler_file, file_mode(args.insecure_file_mode))?;
    let status = observer.status()?;
    Ok((observer, status))
}

/// Looks until there are enough workers, or time is up. The scheduler need not be there yet.
fn wait(args: &Status) -> Result<(Observer, ClusterStatus), Failed> {
    let deadline = Instant::now() + args.timeout;
    let wanted = args.workers as usize;
    loop {
        // One connection for as long as it lasts.
        let followed = look(args).and_then(|(mut observer, status)| {
            let status = follow(&mut observer, status, wanted, deadline)?;
            Ok((observer, status))
        });
        let (failure, missing) = match followed {
            Ok((observer, status)) if status.workers.len() >= wanted => {
                return Ok((observer, status));
            }
            Ok((_, status)) => {
                (Failure::TooFewWorkers, anyhow!("{} of {wanted} came", status.workers.len()))
            }
            Err(error) if error.is_version() || error.is_refusal() => return Err(failed(error)),
            Err(error) => (Failure::Unreachable, error.into()),
        };
        if Instant::now() >= deadline {
            let waited = format!("waited {} s for {wanted} worker(s)", args.timeout.as_secs_f64());
            return Err(not_in_time(failure, missing.context(waited)));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Asks until there are enough workers, or time is up.
fn follow(
    observer: &mut Observer,
    mut status: ClusterStatus,
    wanted: usize,
    deadline: Instant,
) -> Result<ClusterStatus, ObserveError> {
    while status.workers.len() < wanted && Instant::now() < deadline {
        std::thread::sleep(LOOK_EVERY);
        status = observer.status()?;
    }
    Ok(status)
}

fn not_in_time(failure: Failure, error: anyhow::Error) -> Failed {
    let failed = Failed::connecting(failure, error);
    match failure {
        Failure::TooFewWorkers => failed.with_hint(
            "the scheduler is there. Bring workers with `rdask worker`; what keeps those that were \
             started is in their logs, or they still wait for a Slurm job (`squeue --me`)",
        ),
        _ => failed,
    }
}

pub(super) fn failed(error: ObserveError) -> Failed {
    let failure = match &error {
        error if error.is_version() => Failure::Version,
        error if error.is_refusal() => Failure::Refused,
        _ => Failure::Unreachable,
    };
    Failed::connecting(failure, error)
}
