//! Everything that people and scripts read: data on standard output, all else on standard error.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::Context;
use rdask::connection::{ClusterStatus, LEAVING_MAX, LeavingWorker, WorkerStatus};
use rdask::scheduler::{SchedulerFile, WorkerId};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::quantity::show_size;

/// Prints what a command is for. A reader that has gone away needs nothing more.
///
/// # Errors
/// If it is lost otherwise: the disk is full.
pub(crate) fn data(text: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("can't write to standard output")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints what a command of the user's wrote to its standard error.
pub(crate) fn diagnostics(text: &[u8]) {
    if io::stderr().lock().write_all(text).is_err() {
        tracing::debug!("standard error is closed");
    }
}

/// Prints an error with its causes, then what to do about it.
pub(crate) fn error(error: &anyhow::Error, hint: Option<&str>) {
    let mut text = format!("error: {error}\n");
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Some errors quote their cause already.
        if !said.contains(&cause) {
            let _ = writeln!(text, "  caused by: {cause}");
            said = cause;
        }
    }
    if let Some(hint) = hint {
        let _ = writeln!(text, "hint: {hint}");
    }
    // Printing by macros would panic where it can't be written.
    diagnostics(text.as_bytes());
}

/// Prints what clap has to say: help, the version, or what is wrong with the arguments.
pub(crate) fn clap(error: &clap::Error) {
    if error.print().is_err() {
        tracing::debug!("the output is closed");
    }
}

/// What is logged unless `RUST_LOG` says otherwise. The QUIC library warns of each packet that a
/// peer's node sends back, which our own lines say once.
const FILTER: &str = "info,quinn=error,quinn_udp=error";

/// Sends logs to standard error: `RUST_LOG`, or else everything from info on.
pub(crate) fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    let colours = io::IsTerminal::is_terminal(&io::stderr())
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(colours)
        .init();
}

/// The JSON form of [`ClusterStatus`]. Fields are added, never changed or removed.
#[derive(Serialize)]
struct StatusDocument<'a> {
    schema: &'static str,
    version: u32,
    run: &'a str,
    host: &'a str,
    addresses: Vec<String>,
    epoch: u64,
    clients: u32,
    workers: Vec<WorkerDocument<'a>>,
    tasks: TasksDocument,
    result_bytes: u64,
    transferred_bytes: u64,
}

#[derive(Serialize)]
struct WorkerDocument<'a> {
    id: String,
    name: &'a str,
    node: &'a str,
    pool: &'a str,
    slots: u32,
    busy: u32,
    memory_limit: u64,
    processes: u32,
    leaving: bool,
    ends_in_seconds: Option<u64>,
}

#[derive(Serialize)]
struct TasksDocument {
    waiting: u64,
    ready: u64,
    assigned: u64,
    done: u64,
    failed: u64,
}

/// The status as one JSON document.
pub(crate) fn status_json(file: &SchedulerFile, status: &ClusterStatus) -> String {
    let document = StatusDocument {
        schema: "rdask-status",
        version: 1,
        run: &file.run_id,
        host: &file.host,
        addresses: all_addresses(file),
        epoch: status.epoch,
        clients: status.clients,
        workers: status.workers.iter().map(worker_document).collect(),
        tasks: TasksDocument {
            waiting: status.waiting,
            ready: status.ready,
            assigned: status.assigned,
            done: status.done,
            failed: status.failed,
        },
        result_bytes: status.result_bytes,
        transferred_bytes: status.transferred_bytes,
    };
    let json = serde_json::to_string_pretty(&document);
    json.expect("numbers and text always become JSON") + "\n"
}

fn worker_document(worker: &WorkerStatus) -> WorkerDocument<'_> {
    WorkerDocument {
        id: worker.id.to_string(),
        name: &worker.name,
        node: &worker.node,
        pool: &worker.pool,
        slots: worker.slots,
        busy: worker.busy,
        memory_limit: worker.memory_limit,
        processes: worker.processes,
        leaving: worker.leaving,
        ends_in_seconds: worker.ends_in.map(|time| time.as_secs()),
    }
}

/// What became of workers that were to go.
#[derive(Serialize)]
struct RetiredDocument {
    schema: &'static str,
    version: u32,
    workers: Vec<String>,
    gone: bool,
    left: Vec<LeavingDocument>,
}

/// A worker that is still there, and what for.
#[derive(Serialize)]
struct LeavingDocument {
    id: String,
    name: String,
    runs: u64,
    values: u64,
    bytes: u64,
    tasks: Vec<String>,
    left_seconds: Option<f64>,
}

/// The workers that were retired, as one JSON document, and what those that are there have left.
pub(crate) fn retired_json(workers: &[WorkerId], left: &[LeavingWorker]) -> String {
    let left = left.iter().map(|worker| LeavingDocument {
        id: worker.id.to_string(),
        name: worker.name.clone(),
        runs: worker.runs,
        values: worker.values,
        bytes: worker.bytes,
        tasks: worker.first_runs.iter().map(ToString::to_string).collect(),
        left_seconds: worker.left.map(|time| time.as_secs_f64()),
    });
    let left: Vec<LeavingDocument> = left.collect();
    let document = RetiredDocument {
        schema: "rdask-retire",
        version: 1,
        workers: workers.iter().map(ToString::to_string).collect(),
        gone: left.is_empty(),
        left,
    };
    let json = serde_json::to_string_pretty(&document);
    json.expect("numbers and text always become JSON") + "\n"
}

/// The same for people.
pub(crate) fn retired_text(workers: &[WorkerId], left: &[LeavingWorker]) -> String {
    match (workers.len(), left.len()) {
        (all, 0) => format!("{all} worker(s) have left\n"),
        (all, left) if all == left => format!("{all} worker(s) are leaving\n"),
        (all, LEAVING_MAX) => format!("{LEAVING_MAX} or more of {all} workers are leaving\n"),
        (all, left) => format!("{left} of {all} worker(s) are leaving, the others have left\n"),
    }
}

/// How many workers' doings are shown of those that leave.
const LEAVING_SHOWN: usize = 10;

/// What workers have left to do before they go, a line for each.
pub(crate) fn leaving_text(left: &[LeavingWorker]) -> String {
    let mut text = String::new();
    for worker in left.iter().take(LEAVING_SHOWN) {
        let mut waits = Vec::new();
        if worker.runs > 0 {
            let tasks: Vec<String> = worker.first_runs.iter().map(ToString::to_string).collect();
            let more = if worker.runs > tasks.len() as u64 { ", ..." } else { "" };
            waits.push(format!("{} task(s) to end ({}{more})", worker.runs, tasks.join(", ")));
        }
        if worker.values > 0 {
            waits.push(format!(
                "{} value(s) of about {} to copy",
                worker.values,
                show_size(worker.bytes)
            ));
        }
        if waits.is_empty() {
            waits.push("nothing, and goes".to_owned());
        }
        let time = worker.left.map_or(String::new(), |time| {
            format!("; goes in {:.0} s in any case", time.as_secs_f64().ceil())
        });
        // Writing to a string never fails.
        let _ = writeln!(text, "{} waits for {}{time}", worker.name, waits.join(", "));
    }
    if left.len() > LEAVING_SHOWN {
        let _ = writeln!(text, "and {} more", left.len() - LEAVING_SHOWN);
    }
    text
}

/// The status for people: one line per pool, the workers of each below.
pub(crate) fn status_text(file: &SchedulerFile, status: &ClusterStatus) -> String {
    let mut text = String::new();
    let addresses = all_addresses(file);
    // Writing to a string never fails.
    let _ = writeln!(
        text,
        "scheduler  run {} on {} at {}, epoch {}",
        file.run_id,
        file.host,
        addresses.join(", "),
        status.epoch
    );
    let _ = writeln!(text, "clients    {}", status.clients);
    let _ = writeln!(
        text,
        "tasks      {} waiting, {} ready, {} assigned, {} done, {} failed",
        status.waiting, status.ready, status.assigned, status.done, status.failed
    );
    let _ = writeln!(
        text,
        "results    {} kept by the scheduler, {} moved between processes",
        show_size(status.result_bytes),
        show_size(status.transferred_bytes)
    );
    let mut pools: BTreeMap<&str, Vec<&WorkerStatus>> = BTreeMap::new();
    for worker in &status.workers {
        pools.entry(&worker.pool).or_default().push(worker);
    }
    let sum = |workers: &[&WorkerStatus], of: fn(&WorkerStatus) -> u32| -> u64 {
        workers.iter().map(|worker| u64::from(of(worker))).sum()
    };
    if pools.is_empty() {
        text.push_str("workers    none; bring some with `rdask worker`\n");
    }
    for (pool, workers) in pools {
        let (busy, slots) = (sum(&workers, |w| w.busy), sum(&workers, |w| w.slots));
        let _ = writeln!(
            text,
            "pool {pool}: {} worker(s), {busy} of {slots} slots busy",
            workers.len()
        );
        for worker in workers {
            let limit = match worker.memory_limit {
                0 => "no memory limit".to_owned(),
                bytes => show_size(bytes),
            };
            let _ = writeln!(
                text,
                "  {:<4} {:<24} {:<16} {} of {} busy, {limit}{}",
                worker.id.to_string(),
                worker.name,
                worker.node,
                worker.busy,
                worker.slots,
                end_of(worker)
            );
        }
    }
    text
}

/// What people should know of a worker's end.
fn end_of(worker: &WorkerStatus) -> String {
    match worker.ends_in {
        _ if worker.leaving => ", leaving".to_owned(),
        Some(time) => format!(", leaves in {} s", time.as_secs()),
        None => String::new(),
    }
}

/// Where the scheduler listens; by TLS if by nothing else.
fn all_addresses(file: &SchedulerFile) -> Vec<String> {
    if file.addresses.is_empty() {
        return file.tls_addresses.iter().map(|at| format!("{at} (TLS)")).collect();
    }
    file.addresses.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> SchedulerFile {
        SchedulerFile {
            version: SchedulerFile::VERSION,
            run_id: "r1".into(),
            epoch: 1,
            addresses: vec!["10.0.0.1:4000".parse().unwrap()],
            tls_addresses: Vec::new(),
            ca_certificate: "SECRET".into(),
            join_certificate: "SECRET".into(),
            join_key: "SECRET".into(),
            pid: 1,
            host: "login1".into(),
            started: 0,
            slurm_job_id: None,
            local_sockets: true,
        }
    }

    fn status() -> ClusterStatus {
        let worker = |id, pool: &str| WorkerStatus {
            id: WorkerId(id),
            name: format!("node{id}"),
            node: format!("node{id}"),
            pool: pool.into(),
            slots: 4,
            busy: 1,
            memory_limit: 1 << 30,
            processes: 1,
            leaving: false,
            ends_in: None,
        };
        ClusterStatus {
            epoch: 1,
            workers: vec![worker(0, "17"), worker(1, "17"), worker(2, "18")],
            ready: 5,
            ..ClusterStatus::default()
        }
    }

    #[test]
    fn people_see_pools_and_slots_and_no_key() {
        let text = status_text(&file(), &status());
        assert!(text.contains("pool 17: 2 worker(s), 2 of 8 slots busy"), "{text}");
        assert!(text.contains("run r1 on login1 at 10.0.0.1:4000"), "{text}");
        assert!(text.contains("5 ready") && !text.contains("SECRET"), "{text}");
    }

    #[test]
    fn scripts_see_one_document() {
        let json = status_json(&file(), &status());
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["schema"], "rdask-status");
        assert_eq!(value["workers"][2]["pool"], "18");
        assert_eq!(value["tasks"]["ready"], 5);
        assert!(!json.contains("SECRET"));
    }
}
