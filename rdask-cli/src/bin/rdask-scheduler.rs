//! `rdask scheduler` under the name that batch scripts written for Dask expect.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

#[expect(clippy::print_stderr, reason = "there is nothing else to say it with")]
fn main() -> ExitCode {
    let beside = std::env::current_exe().map(|path| path.with_file_name("rdask"));
    let error = match beside {
        Ok(path) => Command::new(path).arg("scheduler").args(std::env::args_os().skip(1)).exec(),
        Err(error) => error,
    };
    eprintln!("error: the `rdask` command is not beside this one: {error}");
    ExitCode::from(2)
}
