//! The nanny: what `rdask worker` is. It brings workers to a scheduler, starts programs' processes
//! in them, watches them and reports how they ended.
//!
//! It never runs user code itself, so that it always answers. One thread does everything; only
//! what waits for the disk runs beside it.

pub mod child;
mod children;
mod launch;
mod membership;
mod memory_watch;
pub mod probe;
mod session;

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use rdask_core::hello::Role;
use rdask_core::message::{FromNanny, ToNanny};
use rdask_net::{
    BindError, Endpoint, FileMode, InterfaceError, ReadError, SchedulerFile, address_of,
};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::connection::{
    ConnectError, Connected, ConnectionEnd, Persistence, contact_of, dial, joining,
};
use crate::program::cache::{Cache, CacheError};
use crate::slurm;
use children::Children;
use membership::{Gone, Membership};

pub use rdask_core::message::WorkerInfo;

/// The first pause between two tries to find the scheduler; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often a waiting nanny says what it waits for.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// How long to go on without a scheduler unless told otherwise.
pub const DEATH_TIMEOUT: Duration = Duration::from_secs(300);

/// How to run a nanny.
#[derive(Clone, Debug)]
pub struct NannyOptions {
    /// Where the scheduler says how to join it.
    pub scheduler_file: PathBuf,
    /// What to demand of that file.
    pub file_mode: FileMode,
    /// The workers to bring.
    pub workers: Vec<WorkerInfo>,
    /// The Slurm job or `--pool` label.
    pub pool: String,
    /// The node's name.
    pub node: String,
    /// The address to listen on.
    pub host: Option<IpAddr>,
    /// The network interface to listen on.
    pub interface: Option<String>,
    /// The ports to listen on.
    pub ports: RangeInclusive<u16>,
    /// A folder for what nobody needs later.
    pub local_directory: Option<PathBuf>,
    /// How long to go on without a scheduler.
    pub death_timeout: Duration,
    /// After so long the workers are given notice.
    pub lifetime: Option<Duration>,
    /// Where to write the process number.
    pub pid_file: Option<PathBuf>,
    /// Whether SIGTERM and SIGINT are a notice to the nanny.
    pub handle_signals: bool,
}

/// Why a nanny ended in good order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NannyEnd {
    /// The scheduler told it to.
    Told(String),
    /// A signal did.
    Signal(&'static str),
    /// Its lifetime was over before it found a scheduler.
    Lifetime,
}

/// Why a nanny ended otherwise.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NannyError {
    /// No runtime or signals.
    #[error("the nanny can't be started")]
    Start(#[source] io::Error),
    /// Programs can't be kept.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The scheduler file can't be used, and waiting won't help.
    #[error(transparent)]
    File(#[from] Box<ReadError>),
    /// No scheduler for too long.
    #[error("no scheduler for {} s, giving up", .time.as_secs())]
    NoScheduler {
        /// For how long.
        time: Duration,
        /// The last try.
        #[source]
        last: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The scheduler answered, and trying again won't help.
    #[error("the scheduler can't be joined")]
    Refused(#[source] Box<ConnectError>),
    /// No such interface.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// No socket.
    #[error(transparent)]
    Bind(#[from] BindError),
}

impl NannyError {
    /// Whether it is for different versions of rdask.
    #[must_use]
    pub fn is_version(&self) -> bool {
        match self {
            Self::File(error) => matches!(**error, ReadError::Version { .. }),
            Self::Refused(error) => error.is_version(),
            _ => false,
        }
    }
}

/// Runs a nanny until it is told to end, by the scheduler or a signal. Processes are its
/// children and end with the thread that calls this.
///
/// # Errors
/// See [`NannyError`].
pub fn run(options: NannyOptions) -> Result<NannyEnd, NannyError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(NannyError::Start)?;
    let _pid_file = PidFile::write(options.pid_file.as_deref()).map_err(NannyError::Start)?;
    if options.handle_signals && slurm::job_id().is_some() {
        // The step's end reaches its direct child on every site; others hear of it by this.
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)
            .map_err(|errno| NannyError::Start(errno.into()))?;
    }
    let end = runtime.block_on(async {
        let mut signals = Signals::new(options.handle_signals).map_err(NannyError::Start)?;
        let cache = Cache::of_this_node(options.local_directory.as_deref())?;
        tracing::debug!(folder = %cache.folder().display(), "programs are kept");
        serve(&options, &cache, &mut signals).await
    });
    // What still reads a disk must not hold up the end.
    runtime.shutdown_background();
    end
}

/// Serves one scheduler after the other.
async fn serve(
    options: &NannyOptions,
    cache: &Cache,
    signals: &mut Signals,
) -> Result<NannyEnd, NannyError> {
    let end = options.lifetime.map(|lifetime| Instant::now() + lifetime);
    let mut children = Children::default();
    loop {
        let over = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        let joined = tokio::select! {
            joined = join(options, &mut children) => joined?,
            () = over => return Ok(NannyEnd::Lifetime),
            name = signals.next() => return Ok(NannyEnd::Signal(name)),
        };
        children.belong_to(&joined.file.run_id).await;
        let membership = Membership::new(options, cache.clone(), joined, &mut children);
        membership.tell_end(end, options.handle_signals);
        match membership.serve(signals).await {
            Gone::Told(reason) => return Ok(NannyEnd::Told(reason)),
            Gone::Signal(name) => return Ok(NannyEnd::Signal(name)),
            Gone::Lost(ConnectionEnd::NoScheduler { time, last }) => {
                return Err(NannyError::NoScheduler { time, last: last.into() });
            }
            Gone::Lost(ConnectionEnd::Fenced) => tracing::warn!(
                "the scheduler has given this nanny up: joining anew with the processes that are here"
            ),
            Gone::Lost(end) => tracing::warn!(
                file = %options.scheduler_file.display(),
                "the scheduler is gone ({end}): its processes here are ended, waiting for it or \
                 the next one for {} s", options.death_timeout.as_secs()
            ),
        }
    }
}

/// A connection to a scheduler, and what was needed for it.
#[derive(Debug)]
struct Joined {
    endpoint: Endpoint,
    file: SchedulerFile,
    connected: Connected<FromNanny, ToNanny>,
}

/// Finds a scheduler and joins it, as often and as long as it takes.
async fn join(options: &NannyOptions, children: &mut Children) -> Result<Joined, NannyError> {
    let started = Instant::now();
    let mut pause = PAUSE_MIN;
    let mut warn_at = started + WARN_EVERY;
    loop {
        let error = match try_join(options, children).await {
            Ok(joined) => return Ok(joined),
            Err(NotJoined::ForGood(error)) => return Err(error),
            Err(NotJoined::ForNow(error)) => error,
        };
        let now = Instant::now();
        let waited = now - started;
        if waited + pause > options.death_timeout {
            return Err(NannyError::NoScheduler { time: waited, last: error });
        }
        if now >= warn_at {
            warn_at = now + WARN_EVERY;
            tracing::warn!("no scheduler for {} s, trying on: {error}", waited.as_secs());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

enum NotJoined {
    ForNow(Box<dyn std::error::Error + Send + Sync>),
    ForGood(NannyError),
}

async fn try_join(options: &NannyOptions, children: &mut Children) -> Result<Joined, NotJoined> {
    let file = SchedulerFile::read(&options.scheduler_file, options.file_mode);
    let file = file.map_err(|error| match error.may_pass() {
        true => NotJoined::ForNow(error.into()),
        false => NotJoined::ForGood(NannyError::File(Box::new(error))),
    })?;
    let for_good = |error: ConnectError| NotJoined::ForGood(NannyError::Refused(Box::new(error)));
    let mut config = joining(&file).map_err(|error| for_good(error.into()))?;
    config.ports = options.ports.clone();
    if let Some(host) = options.host {
        config.bind = host;
    } else if let Some(interface) = &options.interface {
        let address = address_of(interface);
        config.bind = address.map_err(|error| NotJoined::ForGood(error.into()))?;
    }
    let endpoint = Endpoint::bind(config).await;
    let endpoint = endpoint.map_err(|error| NotJoined::ForGood(error.into()))?;
    let role = Role::Nanny {
        node: options.node.clone(),
        pool: options.pool.clone(),
        pid: std::process::id(),
        workers: options.workers.clone(),
        contact: contact_of(&endpoint),
        returning: children.returning(&file.run_id),
    };
    match dial(&endpoint, &file, role, persistence(options, &file)).await {
        Ok(connected) => Ok(Joined { endpoint, file, connected }),
        Err(error) if error.is_version() => Err(for_good(error)),
        // A refusal may come of a file that a new scheduler is about to replace.
        Err(error) => Err(NotJoined::ForNow(error.into())),
    }
}

/// How long to go on without a link: its processes run meanwhile. A new scheduler ends that.
fn persistence(options: &NannyOptions, file: &SchedulerFile) -> Persistence {
    let (path, mode, run) =
        (options.scheduler_file.clone(), options.file_mode, file.run_id.clone());
    let is_replaced = move || SchedulerFile::read(&path, mode).is_ok_and(|file| file.run_id != run);
    Persistence::at_most(options.death_timeout).unless(is_replaced)
}

/// The signals that a nanny takes as a notice: none inside another program.
struct Signals(Option<(tokio::signal::unix::Signal, tokio::signal::unix::Signal)>);

impl Signals {
    fn new(wanted: bool) -> io::Result<Self> {
        if !wanted {
            return Ok(Self(None));
        }
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self(Some((terminate, interrupt))))
    }

    /// The name of the next one.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost when the future is dropped.
    async fn next(&mut self) -> &'static str {
        let Some((terminate, interrupt)) = &mut self.0 else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    }
}

/// A file with our process number, as long as we live.
#[derive(Debug)]
struct PidFile(Option<PathBuf>);

impl PidFile {
    fn write(path: Option<&Path>) -> io::Result<Self> {
        if let Some(path) = path {
            std::fs::write(path, format!("{}\n", std::process::id()))?;
        }
        Ok(Self(path.map(Path::to_owned)))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, path = %path.display(), "the pid file stays");
        }
    }
}
