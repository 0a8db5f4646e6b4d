//! `rdask retire`.

use std::time::Duration;

use rdask::connection::observer::Observer;

use super::status::failed;
use super::{Failed, Failure, file_mode};
use crate::args::Retire;
use crate::output;

/// How often a waiting command looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) fn run(args: Retire) -> Result<u8, Failed> {
    let mode = file_mode(args.insecure_file_mode);
    let mut observer = Observer::connect(&args.scheduler_file, mode).map_err(failed)?;
    let retired = observer.retire(args.names).map_err(failed)?;
    let retired = retired.map_err(|error| Failed::new(Failure::Usage, error))?;
    if !args.no_wait {
        let is_there = |observer: &mut Observer| {
            let status = observer.status()?;
            Ok(status.workers.iter().any(|worker| retired.contains(&worker.id)))
        };
        while is_there(&mut observer).map_err(failed)? {
            std::thread::sleep(LOOK_EVERY);
        }
    }
    let text = if args.json {
        output::retired_json(&retired, !args.no_wait)
    } else {
        output::retired_text(&retired, !args.no_wait)
    };
    output::data(text.as_bytes());
    Ok(0)
}
