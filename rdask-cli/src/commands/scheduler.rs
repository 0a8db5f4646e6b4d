//! `rdask scheduler`.

use anyhow::anyhow;
use rdask::scheduler::{SchedulerOptions, Server, ServerEnd, StartError};

use super::{Failed, Failure, file_mode};
use crate::args::Scheduler;

pub(super) fn run(args: Scheduler) -> Result<u8, Failed> {
    let options = SchedulerOptions {
        file_mode: file_mode(args.insecure_file_mode),
        host: args.host,
        interface: args.interface,
        port: args.port,
        transport: args.transport.into(),
        local_sockets: !args.no_local_sockets,
        pid_file: args.pid_file,
        idle_timeout: args.idle_timeout,
        result_memory: args.result_memory,
        policy: args.policy,
        handle_signals: true,
        ..SchedulerOptions::new(args.scheduler_file)
    };
    let server = Server::start(options).map_err(|error| {
        let failure = match &error {
            StartError::Claim(_) | StartError::Programs(_) => Failure::Refused,
            _ => Failure::Usage,
        };
        Failed::new(
            failure,
            anyhow::Error::new(error).context("the scheduler could not be started"),
        )
    })?;
    match server.wait() {
        ServerEnd::Stopped(reason) => tracing::info!("ended: {reason}"),
        ServerEnd::Idle(time) => tracing::info!("ended: idle for {} s", time.as_secs()),
        // The core's thread has said why. 101 is what a panic of main would give.
        ServerEnd::Panicked => std::process::exit(101),
        other => {
            return Err(Failed::new(
                Failure::Unreachable,
                anyhow!("ended in a new way: {other:?}"),
            ));
        }
    }
    Ok(0)
}
