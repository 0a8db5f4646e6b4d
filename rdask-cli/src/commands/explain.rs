//! `rdask explain`.

use rdask::connection::observer::Observer;

use super::{Failed, file_mode, status};
use crate::args::Explain;
use crate::{explanation, output};

pub(super) fn run(args: &Explain) -> Result<u8, Failed> {
    let mode = file_mode(args.insecure_file_mode);
    let asked = Observer::connect(&args.scheduler_file, mode)
        .and_then(|mut observer| observer.explain(args.task));
    let found = asked.map_err(status::failed)?;
    let text = if args.json { explanation::json(&found) } else { explanation::text(&found) };
    output::data(text.as_bytes()).map_err(Failed::unprinted)?;
    Ok(0)
}
