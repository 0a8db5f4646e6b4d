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
    output::data(text.as_bytes());
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
        let missing = match look(args) {
            Ok((observer, status)) if status.workers.len() >= wanted => {
                return Ok((observer, status));
            }
            Ok((mut observer, status)) => {
                // One connection for as long as it lasts.
                match follow(&mut observer, wanted, deadline) {
                    Ok(Some(status)) => return Ok((observer, status)),
                    Ok(None) => anyhow!("{} of {wanted} workers", status.workers.len()),
                    Err(error) => anyhow::Error::new(error),
                }
            }
            Err(error) if error.is_version() || error.is_refusal() => return Err(failed(error)),
            Err(error) => anyhow::Error::new(error),
        };
        if Instant::now() >= deadline {
            let waited = format!("waited {} s for {wanted} worker(s)", args.timeout.as_secs_f64());
            return Err(Failed::new(Failure::Unreachable, missing.context(waited)));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn follow(
    observer: &mut Observer,
    wanted: usize,
    deadline: Instant,
) -> Result<Option<ClusterStatus>, ObserveError> {
    while Instant::now() < deadline {
        std::thread::sleep(LOOK_EVERY);
        let status = observer.status()?;
        if status.workers.len() >= wanted {
            return Ok(Some(status));
        }
    }
    Ok(None)
}

pub(super) fn failed(error: ObserveError) -> Failed {
    let failure = match &error {
        error if error.is_version() => Failure::Version,
        error if error.is_refusal() => Failure::Refused,
        _ => Failure::Unreachable,
    };
    let failed = Failed::new(failure, error);
    match failure {
        Failure::Unreachable => failed.with_hint(
            "is the scheduler running with this --scheduler-file? Start one with `rdask scheduler`, \
             or wait for it with `rdask status --wait`",
        ),
        _ => failed,
    }
}
