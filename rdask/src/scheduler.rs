//! The scheduler as a process, or as part of one: threads and connections around the core.
//!
//! One thread does the network (connections, certificates, decoding) and short turns of the core,
//! one the longer turns. Inside one program, clients and processes are connected by the same typed
//! queues without a network.

mod claim;
mod network;
mod peers;
mod programs;
mod relays;
mod sessions;
mod shell;
#[cfg(test)]
mod tests;
mod turns;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rdask_core::hello::{Welcome, You};
use rdask_core::id::{Peer, ProcessId};
use rdask_core::message::{
    Contact, FromClient, FromNanny, FromProcess, ToClient, ToNanny, ToProcess,
};
use rdask_core::scheduler::{ClientInfo, Config, NannyInfo};
use rdask_net::{BindError, CertificateError, InterfaceError, PeerNameError, Transport};
use thiserror::Error;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, oneshot};

pub use claim::ClaimError;
use network::Opened;
use peers::connect;
pub use rdask_core::id::WorkerId;
pub use rdask_core::scheduler::Policy;
pub use rdask_net::FileMode;
pub use rdask_net::SchedulerFile;
use shell::{CoreEnd, Input, Newcomer, Setup};
use turns::{Core, CoreThread, Words, are_short};

use crate::connection::{Connected, Inbox, Outbox, Queue, Weigh, outbox};

/// The scheduler's first start within its run.
const FIRST_EPOCH: u64 = 1;

/// What the scheduler keeps of small results unless told otherwise, in bytes.
pub const RESULT_MEMORY: u64 = 1 << 30;

/// How to run a scheduler.
#[derive(Clone, Debug)]
pub struct SchedulerOptions {
    /// Where to write what others need to join. Without it there is no network at all.
    pub scheduler_file: Option<PathBuf>,
    /// What the file that this one replaces may look like: see [`FileMode`].
    pub file_mode: FileMode,
    /// The address to listen on.
    pub host: Option<IpAddr>,
    /// The network interface to listen on.
    pub interface: Option<String>,
    /// The port to listen on, 0 for any.
    pub port: u16,
    /// The transports in use.
    pub transport: Transport,
    /// Whether values within a host take Unix sockets, instead of the network.
    pub local_sockets: bool,
    /// Where to write the process number.
    pub pid_file: Option<PathBuf>,
    /// End after nobody has wanted anything for so long.
    pub idle_timeout: Option<Duration>,
    /// The most bytes of small results to keep.
    pub result_memory: u64,
    /// Who gets ready tasks.
    pub policy: Policy,
    /// Whether SIGTERM and SIGINT end the scheduler in good order, and SIGHUP doesn't.
    pub handle_signals: bool,
}

impl SchedulerOptions {
    /// A scheduler that is reached by a scheduler file.
    #[must_use]
    pub fn new(scheduler_file: impl Into<PathBuf>) -> Self {
        Self { scheduler_file: Some(scheduler_file.into()), ..Self::local() }
    }

    /// A scheduler for this program alone, without network, files and signals.
    #[must_use]
    pub fn local() -> Self {
        Self {
            scheduler_file: None,
            file_mode: FileMode::Private,
            host: None,
            interface: None,
            port: 0,
            transport: Transport::Auto,
            local_sockets: true,
            pid_file: None,
            idle_timeout: None,
            result_memory: RESULT_MEMORY,
            policy: Policy::default(),
            handle_signals: false,
        }
    }
}

/// A scheduler could not be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// No thread or runtime.
    #[error("the scheduler's threads can't be started")]
    Threads(#[source] io::Error),
    /// No such interface.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// No socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// No certificates.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// No name for the run.
    #[error(transparent)]
    Run(#[from] PeerNameError),
    /// The scheduler file can't be written there.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The pid file can't be written.
    #[error("the pid file {path} can't be written")]
    PidFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Programs can't be kept.
    #[error("no room for the programs that clients bring")]
    Programs(#[source] Box<crate::program::cache::CacheError>),
}

/// Why a scheduler ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerEnd {
    /// It was told to.
    Stopped(String),
    /// Nobody has wanted anything for so long.
    Idle(Duration),
    /// A bug: its core panicked, and said why on standard error.
    Panicked,
}

/// A scheduler that runs on threads of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    core: Core,
    net: Option<JoinHandle<ServerEnd>>,
    handle: Handle,
    file: Option<SchedulerFile>,
}

impl Server {
    /// Starts a scheduler; returns once others can join it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(options: SchedulerOptions) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StartError::Threads)?;
        let handle = runtime.handle().clone();
        let (core, core_thread) = turns::core();
        let net_core = core.clone();
        let (ready, is_ready) = std_mpsc::sync_channel(1);
        let net = std::thread::Builder::new()
            .name("rdask-net".to_owned())
            .spawn(move || run_net(&runtime, options, (net_core, core_thread), &ready));
        let net = net.map_err(StartError::Threads)?;
        match is_ready.recv() {
            Ok(Ok(file)) => Ok(Self { core, net: Some(net), handle, file }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StartError::Threads(io::Error::other("the network thread panicked"))),
        }
    }

    /// What others need to join, unless there is no network.
    #[must_use]
    pub fn scheduler_file(&self) -> Option<&SchedulerFile> {
        self.file.as_ref()
    }

    /// For clients and processes of the same program, without a network.
    pub(crate) fn door(&self) -> Door {
        Door { core: self.core.clone(), handle: self.handle.clone() }
    }

    /// Connects a nanny of the same program: the one that a local cluster's worker needs.
    ///
    /// # Errors
    /// If the scheduler is ending.
    pub(crate) fn connect_local_nanny(
        &self,
        info: NannyInfo,
    ) -> Result<Connected<FromNanny, ToNanny>, String> {
        self.door().connect(
            |outbox| Newcomer::Nanny(info, Vec::new(), outbox),
            |peer, messages| match peer {
                Peer::Nanny(id) => Input::FromNanny(id, messages),
                Peer::Client(_) | Peer::Process(_) => unreachable!("a nanny was connected"),
            },
        )
    }

    /// Ends the scheduler; everybody is told why. Returns when its threads have ended.
    pub fn stop(mut self, reason: &str) -> ServerEnd {
        self.end(reason)
    }

    /// Waits until the scheduler ends by itself: a signal, its idle timeout, or a bug.
    pub fn wait(mut self) -> ServerEnd {
        self.join()
    }

    pub(crate) fn end(&mut self, reason: &str) -> ServerEnd {
        let (core, reason) = (self.core.clone(), reason.to_owned());
        // Not on this thread, which may be one that must not block.
        drop(self.handle.spawn(async move { core.tell(Input::Stop(reason)).await }));
        self.join()
    }

    fn join(&mut self) -> ServerEnd {
        match self.net.take().map(JoinHandle::join) {
            Some(Ok(end)) => end,
            Some(Err(_)) => ServerEnd::Panicked,
            None => ServerEnd::Stopped("it had ended".to_owned()),
        }
    }
}

/// The way into a scheduler of the same program.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    core: Core,
    handle: Handle,
}

impl Door {
    /// Connects a client of the same program.
    ///
    /// # Errors
    /// If the scheduler is ending.
    pub(crate) fn connect_client(
        &self,
        info: ClientInfo,
    ) -> Result<Connected<FromClient, ToClient>, String> {
        self.connect(
            |outbox| Newcomer::Client(info, outbox),
            |peer, messages| match peer {
                Peer::Client(id) => Input::FromClient(id, messages),
                Peer::Nanny(_) | Peer::Process(_) => unreachable!("a client was connected"),
            },
        )
    }

    /// Connects a process of the same program, as a launch of a local nanny asked for.
    ///
    /// # Errors
    /// If no such process is awaited, or the scheduler is ending.
    pub(crate) async fn connect_process(
        &self,
        process: ProcessId,
        contact: Contact,
    ) -> Result<Connected<FromProcess, ToProcess>, String> {
        let door = self.clone();
        let connect = move || {
            door.connect(
                |outbox| Newcomer::Process(process, contact, outbox),
                |peer, messages| match peer {
                    Peer::Process(id) => Input::FromProcess(id, messages),
                    Peer::Client(_) | Peer::Nanny(_) => unreachable!("a process was connected"),
                },
            )
        };
        tokio::task::spawn_blocking(connect).await.map_err(|error| error.to_string())?
    }

    fn connect<Out, In>(
        &self,
        newcomer: impl FnOnce(Outbox<In>) -> Newcomer,
        input_of: fn(Peer, Vec<Out>) -> Input,
    ) -> Result<Connected<Out, In>, String>
    where
        Out: Words + Send + 'static,
        In: Weigh + Send + 'static,
    {
        let (to_peer, from_core) = outbox();
        let (send, to_core) = outbox();
        let newcomer = newcomer(to_peer);
        let core = self.core.clone();
        // Waited for without an async runtime, so that async programs may call this too.
        let (answer, answered) = std_mpsc::sync_channel(1);
        self.handle.spawn(async move {
            let you = connect(&core, newcomer).await;
            let peer = you.as_ref().ok().map(You::peer);
            let taken = answer.send(you).is_ok();
            if let Some(peer) = peer.filter(|_| taken) {
                bring(&core, peer, to_core, input_of).await;
                core.tell(Input::LinkLost(peer)).await;
            }
        });
        let you = answered.recv().unwrap_or_else(|_| Err("the scheduler has ended".to_owned()))?;
        let welcome = Welcome { epoch: FIRST_EPOCH, certificate: Vec::new(), you };
        Ok(Connected { welcome, send, receive: Inbox::of_queue(from_core) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.net.is_some() {
            self.end("the program that ran the scheduler ended it");
        }
    }
}

/// Brings what a peer in the same program says to the core, until it leaves.
async fn bring<M: Words>(
    core: &Core,
    peer: Peer,
    mut queue: Queue<M>,
    input_of: fn(Peer, Vec<M>) -> Input,
) {
    const AT_ONCE: usize = 1024;
    while let Some(drained) = queue.drain(AT_ONCE).await {
        let are_short = are_short(drained.messages.iter());
        core.tell_words(are_short, || input_of(peer, drained.messages)).await;
        if drained.close.is_some() {
            return;
        }
    }
}

type Ready = std_mpsc::SyncSender<Result<Option<SchedulerFile>, StartError>>;

/// The network thread: listens, starts the core's thread, and ends when that does.
fn run_net(
    runtime: &Runtime,
    options: SchedulerOptions,
    (core, core_thread): (Core, CoreThread),
    ready: &Ready,
) -> ServerEnd {
    let not_started = || ServerEnd::Stopped("it did not start".to_owned());
    let opened = match runtime.block_on(Opened::open(&options)) {
        Ok(opened) => opened,
        Err(error) => {
            // The starter waits for it.
            drop(ready.send(Err(error)));
            return not_started();
        }
    };
    let (forgotten, to_forget) = mpsc::unbounded_channel();
    let config = Config {
        epoch: FIRST_EPOCH,
        result_bytes_max: options.result_memory,
        policy: options.policy,
    };
    let setup = Setup { config, idle_timeout: options.idle_timeout, forgotten };
    let (ended, core_ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("rdask-core".to_owned()).spawn(move || {
        // A panic drops the sender, which says it as well.
        drop(ended.send(core_thread.run(setup)));
    });
    let thread = match thread {
        Ok(thread) => thread,
        Err(error) => {
            drop(ready.send(Err(StartError::Threads(error))));
            return not_started();
        }
    };
    drop(ready.send(Ok(opened.file())));
    let end = runtime.block_on(opened.serve(core, core_ended, to_forget, options.handle_signals));
    let panicked = thread.join().is_err();
    match end {
        Some(CoreEnd::Stopped(reason)) => ServerEnd::Stopped(reason),
        Some(CoreEnd::Idle(time)) => ServerEnd::Idle(time),
        None => {
            debug_assert!(panicked, "only a panic ends the core without a word");
            ServerEnd::Panicked
        }
    }
}
