//! One launch: from the scheduler's wish to a process that runs.
//!
//! The program comes from the node's cache, or else from the client's path, or else from whom the
//! scheduler names. Nannies of one node bring it one at a time; those behind find it in the cache.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use rdask_core::id::ProgramHash;
use rdask_core::message::{Exit, FromNanny, Launch, ProgramInfo};
use rdask_net::{PeerName, PeerRole, Target};
use tokio::sync::{mpsc, oneshot};

use super::child::{Start, Started, folder_or};
use super::children::Running;
use super::membership::{Context, Offer};
use super::probe::probe;
use crate::board::BoardFile;
use crate::connection::scheduler_target;
use crate::error::chain;
use crate::handover::{Handover, RDASK_VERSION};
use crate::program::cache::CachedProgram;
use crate::program::exchange::{ExchangeError, fetch, in_background};

/// How often a nanny looks whether another one of its node has brought a program.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How a launch went.
#[derive(Debug)]
pub(super) enum Launched {
    Running(Box<Running>),
    /// It came to nothing, and this is to be said.
    Over(FromNanny),
}

/// Starts a process, unless `killed` resolves before that.
pub(super) async fn run(
    context: &Context,
    launch: Launch,
    mut killed: oneshot::Receiver<Exit>,
) -> Launched {
    let process = launch.process;
    let (program, name) = (launch.program.hash, file_name(&launch.program));
    let worker = context.workers.iter().position(|(id, _)| *id == launch.worker);
    let started = tokio::select! {
        started = start(context, launch) => started,
        _ = &mut killed => {
            let exit = Exit::Planned;
            return Launched::Over(FromNanny::Exited {
                process, exit, board: Vec::new(), stderr: Vec::new(),
            });
        }
    };
    match started {
        Ok(started) => {
            tracing::info!(%process, pid = started.pid, %program, "started {name}");
            let worker = worker.unwrap_or_default() as u32;
            Launched::Running(Box::new(Running { process, worker, program, started, killed }))
        }
        Err(error) => {
            let message = format!("node {}: {}", context.node, chain(&*error));
            tracing::warn!(%process, "could not be started: {message}");
            Launched::Over(FromNanny::LaunchFailed { process, message })
        }
    }
}

type Failure = Box<dyn Error + Send + Sync>;

async fn start(context: &Context, launch: Launch) -> Result<Started, Failure> {
    let Launch { process, worker, program, surroundings } = launch;
    let info = context.workers.iter().find(|(id, _)| *id == worker);
    let (_, info) = info.ok_or_else(|| format!("there is no worker {worker} here"))?;
    let CachedProgram { path, state } = obtain(context, &program).await?;
    let hash = program.hash;
    if !lock(&context.probed).contains(&hash) {
        probe(&path, &surroundings.environment).await.map_err(|error| {
            lacking_features(&error, &surroundings.cpu_features).unwrap_or_else(|| error.into())
        })?;
        lock(&context.probed).push(hash);
    }
    let board = BoardFile::create(info.slots)?;
    let handover = Handover {
        rdask: RDASK_VERSION.to_owned(),
        scheduler_file: context.file.to_json(),
        process,
        worker,
        nanny: context.nanny,
        worker_name: info.name.clone(),
        node: context.node.clone(),
        pool: context.pool.clone(),
        slots: info.slots,
        memory_limit: info.memory_limit,
        program: format!("{hash:#}"),
        file: Some(state),
        umask: surroundings.umask,
        scratch: context.scratch.clone(),
        board: Some(board.path()),
        interface: context.interface.clone(),
        host: context.host.clone(),
    };
    let start = Start {
        path,
        name: file_name(&program),
        handover,
        folder: folder_or(&surroundings.folder, Path::new(&context.scratch)),
        environment: surroundings.environment,
        board,
    };
    Ok(start.start().await?)
}

/// What the user calls a program.
fn file_name(program: &ProgramInfo) -> String {
    Path::new(&program.path).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A program on this node, with all its bytes.
async fn obtain(context: &Context, program: &ProgramInfo) -> Result<CachedProgram, Failure> {
    let hash = program.hash;
    let claim = loop {
        if let Some(found) = in_background(&context.cache, move |cache| cache.find(hash)).await? {
            tracing::info!("program {hash} found in cache");
            context.tell(FromNanny::HasProgram { hash });
            return Ok(found);
        }
        match context.cache.try_claim(hash)? {
            Some(claim) => break claim,
            None => tokio::time::sleep(LOOK_AGAIN).await,
        }
    };
    // Another nanny may have brought it between the look and the claim.
    let found = in_background(&context.cache, move |cache| cache.find(hash)).await?;
    let found = match found {
        Some(found) => found,
        None => match copy_from_client(context, program).await {
            Some(copied) => {
                tracing::info!("program {hash} found at {}", program.path);
                copied
            }
            None => fetch_as_told(context, hash).await?,
        },
    };
    drop(claim);
    context.tell(FromNanny::HasProgram { hash });
    Ok(found)
}

/// The program from the client's own path, if a file there has the right bytes. It is copied: a
/// file that is built anew, or a server that stalls, must not end what runs.
async fn copy_from_client(context: &Context, program: &ProgramInfo) -> Option<CachedProgram> {
    let (hash, size, from) = (program.hash, program.size, PathBuf::from(&program.path));
    let copied = in_background(&context.cache, move |cache| {
        let metadata = std::fs::metadata(&from).ok()?;
        if !from.is_absolute() || !metadata.is_file() || metadata.len() != size {
            return None;
        }
        cache.store(hash, File::open(from).ok()?).ok()
    });
    copied.await.ok().flatten()
}

/// The program from whom the scheduler names, until one of them has it.
async fn fetch_as_told(context: &Context, hash: ProgramHash) -> Result<CachedProgram, Failure> {
    let (offer, mut offers) = mpsc::unbounded_channel();
    lock(&context.offers).insert(hash, offer);
    context.tell(FromNanny::WantProgram { hash });
    loop {
        let offer = offers.recv().await.ok_or("the scheduler is gone")?;
        let (target, who) = target_of(context, &offer)?;
        let begin = Instant::now();
        match fetch(&context.endpoint, &target, hash, &context.cache).await {
            Ok((fetched, size)) => {
                lock(&context.offers).remove(&hash);
                let (megabytes, seconds) = (size as f64 / 1e6, begin.elapsed().as_secs_f64());
                tracing::info!(
                    "program {hash} received from {who} ({megabytes:.1} MB, {seconds:.2} s)"
                );
                return Ok(fetched);
            }
            // No other source helps a node that can't keep it.
            Err(ExchangeError::Cache(error)) => {
                lock(&context.offers).remove(&hash);
                return Err(error.into());
            }
            Err(error) => {
                let message = format!("from {who}: {}", chain(&error));
                tracing::warn!("program {hash} could not be fetched {message}");
                context.tell(FromNanny::FetchFailed { hash, message });
            }
        }
    }
}

fn target_of(context: &Context, offer: &Offer) -> Result<(Target, String), Failure> {
    Ok(match offer {
        None => (scheduler_target(&context.file)?, "scheduler".to_owned()),
        Some((id, contact)) => {
            let name = PeerName::new(PeerRole::Nanny, u64::from(id.0), &context.file.run_id)?;
            let (quic, tls) = (contact.quic.clone(), contact.tls.clone());
            let at = quic
                .first()
                .or(tls.first())
                .map_or_else(String::new, |at| format!(" at {}", at.ip()));
            (Target { quic, tls, name }, format!("nanny {id}{at}"))
        }
    })
}

/// A program that dies of an illegal instruction was built for the client's processor.
fn lacking_features(error: &super::probe::ProbeError, client: &[String]) -> Option<Failure> {
    const SIGILL: &str = "signal: 4";
    let super::probe::ProbeError::Ended { status, .. } = error else {
        return None;
    };
    if !status.contains(SIGILL) {
        return None;
    }
    let here = crate::program::surroundings().cpu_features;
    let lacking: Vec<_> = client.iter().filter(|feature| !here.contains(feature)).collect();
    let lacking = lacking.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
    let message = format!(
        "the program uses instructions that this processor lacks ({lacking}): build it without \
         `-C target-cpu=native`, or for this node's processor"
    );
    Some(message.into())
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
