//! A nanny whose worker's processes are tasks of a runtime.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdask::connection::{Connected, ConnectionEnd, Persistence};
use rdask_core::hello::Role;
use rdask_core::id::ProcessId;
use rdask_core::message::{Exit, FromNanny, ToNanny, WorkerInfo};
use tokio::task::{AbortHandle, JoinSet};

use super::{Stage, process};

/// A broken link is dialled anew for so long.
const PERSISTENCE: Duration = Duration::from_secs(10);

/// Joins the scheduler with one worker and does what it says until it ends.
pub(super) async fn run(stage: Arc<Stage>, number: u32) -> anyhow::Result<()> {
    let worker = WorkerInfo {
        name: format!("e{number}"),
        slots: stage.slots,
        memory_limit: 0,
        resources: Vec::new(),
    };
    let role = |contact| Role::Nanny {
        node: "emulated".to_owned(),
        pool: "emulated".to_owned(),
        pid: std::process::id(),
        workers: vec![worker.clone()],
        contact,
        returning: Vec::new(),
    };
    let joined = stage.join::<FromNanny, ToNanny>(role, || Persistence::at_most(PERSISTENCE));
    let (endpoint, Connected { send, mut receive, .. }) = joined.await?;
    let mut processes = JoinSet::new();
    let mut running: BTreeMap<ProcessId, AbortHandle> = BTreeMap::new();
    loop {
        let told = tokio::select! {
            message = receive.recv() => match message {
                Ok(ToNanny::Launch(launch)) => {
                    let own = processes.spawn(process::run(Arc::clone(&stage), launch.process));
                    running.insert(launch.process, own);
                    continue;
                }
                Ok(ToNanny::Kill { process, .. }) => {
                    if let Some(own) = running.remove(&process) {
                        own.abort();
                    }
                    exited(process, Exit::Planned)
                }
                Ok(ToNanny::AskJobEnd) => FromNanny::JobEndsIn { time: None },
                // Nothing was asked for.
                Ok(ToNanny::FetchProgram { .. } | ToNanny::Keep { .. }) => continue,
                Ok(ToNanny::Exit { .. }) | Err(ConnectionEnd::Closed(_)) => break,
                Err(end) => return Err(end.into()),
            },
            Some(ended) = processes.join_next() => match ended {
                Ok(ended) => {
                    let process = ended?;
                    running.remove(&process);
                    exited(process, Exit::Code(0))
                }
                Err(error) if error.is_cancelled() => continue,
                Err(error) => return Err(error.into()),
            },
        };
        if send.send(told).is_err() {
            break;
        }
    }
    processes.shutdown().await;
    endpoint.close().await;
    Ok(())
}

fn exited(process: ProcessId, exit: Exit) -> FromNanny {
    FromNanny::Exited { process, exit, board: Vec::new(), stderr: Vec::new() }
}
