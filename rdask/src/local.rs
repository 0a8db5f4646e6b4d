//! A whole cluster in one program, or beside it: for tests, laptops and single nodes.
//!
//! With threads, scheduler and process are threads of this program, joined by queues: no files, no
//! ports, no encoding of what stays inside. With processes, this very program is started again in
//! worker mode, and everything is as on many nodes, over loopback.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdask_core::hello::You;
use rdask_core::id::{ProcessId, ProgramHash};
use rdask_core::message::{Contact, ProgramInfo, Surroundings, ToNanny, WorkerInfo};
use rdask_core::scheduler::{ClientInfo, NannyInfo};
use rdask_net::FileMode;
use tokio::task::JoinSet;

use crate::board::Board;
use crate::client::Client;
use crate::client::connect::connect_file;
use crate::client::nested::NestedClient;
use crate::client::net_thread::NetThread;
use crate::client::parking::park_on;
use crate::client::parts::{BoxFuture, ClientParts, NotFetched, Put, ValueSource};
use crate::client::values::LocalValues;
use crate::connection::Connected;
use crate::error::{ConnectionError, Result, chain};
use crate::nanny::{self, NannyOptions, probe};
use crate::process::{DataPlane, Home, ProcessRuntime, ProcessSetup};
use crate::scheduler::{Policy, SchedulerOptions, Server};
use crate::{init, program, slurm};

/// The name of the one program that there is in a cluster of threads.
const THIS_PROGRAM: ProgramHash = ProgramHash([0; 32]);

/// A cluster on this machine. Dropping it and all its clients ends it.
///
/// ```
/// # fn main() -> rdask::Result<()> {
/// let cluster = rdask::LocalCluster::new().threads(4).start()?;
/// let client = cluster.client()?;
/// let squares = client.map(|x| x * x, [1.0, 2.0, 3.0]);
/// assert_eq!(client.gather(squares)?, [1.0, 4.0, 9.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LocalCluster {
    running: Arc<Running>,
}

/// How to set up a [`LocalCluster`]; made by [`LocalCluster::new`].
#[derive(Clone, Copy, Debug)]
pub struct LocalClusterBuilder {
    processes: u32,
    threads: Option<u32>,
    policy: Policy,
}

impl LocalCluster {
    /// A cluster of threads of this program, one for each processor, unless told otherwise.
    #[expect(clippy::new_ret_no_self, reason = "the builder is what a cluster begins with")]
    #[must_use]
    pub fn new() -> LocalClusterBuilder {
        LocalClusterBuilder { processes: 0, threads: None, policy: Policy::default() }
    }

    /// A client of the cluster. There may be several.
    ///
    /// # Errors
    /// If the system gives no threads, or the cluster doesn't answer.
    ///
    /// # Panics
    /// Inside an async runtime.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// let cluster = rdask::LocalCluster::new().start()?;
    /// let (one, other) = (cluster.client()?, cluster.client()?); // they share the slots equally
    /// # Ok(())
    /// # }
    /// ```
    pub fn client(&self) -> Result<Client> {
        match &*self.running {
            Running::Threads(cluster) => {
                connect_threads(cluster, Some(Arc::clone(&self.running)), None)
            }
            Running::Processes(cluster) => {
                let file = cluster.server.scheduler_file().ok_or_else(no_file)?.clone();
                let guard: Arc<dyn Send + Sync> = Arc::clone(&self.running) as _;
                let session = park_on(connect_file(file, None, Some(guard)))?;
                Ok(Client::from_session(session))
            }
        }
    }
}

impl LocalClusterBuilder {
    /// So many processes of this program, each with its own memory; 0 for threads of this one.
    ///
    /// The program must call [`rdask::init`](crate::init) first in `main`, or have
    /// [`#[rdask::main]`](crate::main): it is started again, as a worker.
    ///
    /// ```no_run
    /// #[rdask::main]
    /// fn main() -> rdask::Result<()> {
    ///     let cluster = rdask::LocalCluster::new().processes(2).threads(4).start()?; // 8 slots
    ///     let pid = cluster.client()?.submit(|| std::process::id(), ()).result()?;
    ///     assert_ne!(pid, std::process::id());
    ///     Ok(())
    /// }
    /// ```
    #[must_use]
    pub fn processes(mut self, count: u32) -> Self {
        self.processes = count;
        self
    }

    /// So many slots: in each process, or in this one. At least 1; unless told otherwise, the
    /// processors are shared among the processes.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// let cluster = rdask::LocalCluster::new().threads(4).start()?;
    /// assert_eq!(cluster.client()?.status()?.workers[0].slots, 4);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn threads(mut self, count: u32) -> Self {
        self.threads = Some(count.max(1));
        self
    }

    /// Who gets ready tasks: random processes, for example, to see what locality is worth.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// let cluster = rdask::LocalCluster::new().policy(rdask::Policy::Random { seed: 1 }).start()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Starts the cluster.
    ///
    /// # Errors
    /// If the system gives no threads or no port; with processes also if this program can't be
    /// started as a worker, as under a test harness.
    ///
    /// # Panics
    /// Inside an async runtime.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// let cluster = rdask::LocalCluster::new().start()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn start(self) -> Result<LocalCluster> {
        let running = if self.processes == 0 {
            Running::Threads(Threads::start(self.slots(), self.policy)?)
        } else {
            Running::Processes(Processes::start(self.processes, self.slots(), self.policy)?)
        };
        Ok(LocalCluster { running: Arc::new(running) })
    }

    fn slots(&self) -> u32 {
        self.threads
            .unwrap_or_else(|| {
                let all = std::thread::available_parallelism().map_or(1, usize::from);
                u32::try_from(all).unwrap_or(u32::MAX) / self.processes.max(1)
            })
            .max(1)
    }
}

/// What runs.
#[derive(Debug)]
enum Running {
    Threads(Threads),
    Processes(Processes),
}

/// A cluster of threads of this program.
#[derive(Debug)]
struct Threads {
    /// Ended first: what runs on the thread below ends with its links.
    server: Server,
    values: LocalValues,
    _thread: NetThread,
}

impl Threads {
    fn start(slots: u32, policy: Policy) -> Result<Self> {
        let options = SchedulerOptions { policy, ..SchedulerOptions::local() };
        let server = Server::start(options).map_err(|e| not_started(&e))?;
        let thread = NetThread::start()?;
        let worker =
            WorkerInfo { name: "local".to_owned(), slots, memory_limit: 0, resources: Vec::new() };
        let info = NannyInfo {
            node: slurm::node_name(),
            pool: "local".to_owned(),
            workers: vec![worker],
            contact: no_contact(),
        };
        let nanny = server.connect_local_nanny(info).map_err(not_connected)?;
        let values = LocalValues::default();
        let host = Host { door: server.door(), values: values.clone() };
        thread.handle().spawn(host.serve(nanny));
        Ok(Self { server, values, _thread: thread })
    }
}

/// How long processes on threads have to end with the scheduler.
const ENDING_TIME_MAX: Duration = Duration::from_secs(2);

/// The nanny of a cluster of threads: a launch is a task on the same thread.
struct Host {
    door: crate::scheduler::Door,
    values: LocalValues,
}

impl Host {
    async fn serve(self, mut nanny: Connected<rdask_core::message::FromNanny, ToNanny>) {
        let mut processes = JoinSet::new();
        loop {
            tokio::select! {
                message = nanny.receive.recv() => match message {
                    Ok(ToNanny::Launch(launch)) => self.launch(&mut processes, launch.process),
                    // Retired, or the end of the scheduler.
                    Ok(ToNanny::Exit { .. }) => break,
                    Ok(_) => {}
                    Err(_) => break,
                },
                Some(_) = processes.join_next() => {}
            }
        }
        drop(nanny);
        // Their links have ended, too, unless the worker was retired.
        let ended = async { while processes.join_next().await.is_some() {} };
        if tokio::time::timeout(ENDING_TIME_MAX, ended).await.is_err() {
            processes.shutdown().await;
        }
    }

    fn launch(&self, processes: &mut JoinSet<()>, process: ProcessId) {
        let (door, values) = (self.door.clone(), self.values.clone());
        processes.spawn(async move {
            let connected = match door.connect_process(process, no_contact()).await {
                Ok(connected) => connected,
                Err(reason) => return tracing::error!(%process, reason, "not registered"),
            };
            let (to_scheduler, from_scheduler) = connected.into_channels();
            let nested_door = door.clone();
            let nested_values = values.clone();
            let client = NestedClient::new(move || {
                connect_local(&nested_door, nested_values.clone(), None, Some(process))
            });
            let home = Home { worker: "local".to_owned(), node: slurm::node_name(), client };
            let data = DataPlane::Local;
            let setup = ProcessSetup {
                process,
                slots: 0,
                home,
                to_scheduler,
                from_scheduler,
                data,
                // Nobody outlives this OS process to read it.
                board: Board::default(),
            };
            let runtime = ProcessRuntime::new(setup);
            values.add(process, runtime.values());
            let reason = runtime.run().await;
            tracing::debug!(%process, reason, "a local process ended");
            values.remove(process);
        });
    }
}

fn connect_threads(
    cluster: &Threads,
    guard: Option<Arc<Running>>,
    nested_in: Option<ProcessId>,
) -> Result<Client> {
    let guard = guard.map(|guard| guard as Arc<dyn Send + Sync>);
    connect_local(&cluster.server.door(), cluster.values.clone(), guard, nested_in)
}

fn connect_local(
    door: &crate::scheduler::Door,
    values: LocalValues,
    guard: Option<Arc<dyn Send + Sync>>,
    nested_in: Option<ProcessId>,
) -> Result<Client> {
    let info = ClientInfo {
        program: ProgramInfo { hash: THIS_PROGRAM, size: 0, path: String::new() },
        surroundings: Surroundings::default(),
        name: program::name(),
        nested_in,
    };
    let net = Arc::new(NetThread::start()?);
    let connected = door.connect_client(info).map_err(not_connected)?;
    let You::Client(id) = connected.welcome.you else {
        return Err(not_connected("it takes this program for no client".to_owned()).into());
    };
    Ok(Client::from_parts(ClientParts {
        id,
        send: connected.send,
        receive: connected.receive,
        values: Arc::new(Guarded { values, _cluster: guard }),
        net,
        nested: nested_in.is_some(),
    }))
}

/// Values inside this program, and what must live as long as somebody wants them.
struct Guarded {
    values: LocalValues,
    _cluster: Option<Arc<dyn Send + Sync>>,
}

impl ValueSource for Guarded {
    fn get(
        &self,
        task: rdask_core::id::TaskId,
        holder: ProcessId,
        contact: Contact,
    ) -> BoxFuture<'_, Result<rdask_core::bulk::Bulk, NotFetched>> {
        self.values.get(task, holder, contact)
    }

    fn put(&self, put: Put) -> BoxFuture<'_, Result<(), String>> {
        self.values.put(put)
    }

    fn send_program(&self) -> BoxFuture<'_, Result<(), String>> {
        self.values.send_program()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.values.close()
    }
}

/// A cluster of processes of this program.
#[derive(Debug)]
struct Processes {
    server: Server,
    nanny: Option<JoinHandle<()>>,
    folder: PathBuf,
}

impl Processes {
    fn start(processes: u32, slots: u32, policy: Policy) -> Result<Self> {
        check_program()?;
        let folder = private_folder()?;
        let mut options = SchedulerOptions::new(folder.join("scheduler.json"));
        options.host = Some(std::net::Ipv4Addr::LOCALHOST.into());
        options.handle_signals = false;
        options.policy = policy;
        let server = Server::start(options).map_err(|error| not_started(&error))?;
        let workers = (0..processes)
            .map(|nth| WorkerInfo {
                name: format!("local-{nth}"),
                slots,
                memory_limit: 0,
                resources: Vec::new(),
            })
            .collect();
        let options = NannyOptions {
            scheduler_file: folder.join("scheduler.json"),
            file_mode: FileMode::Private,
            workers,
            pool: "local".to_owned(),
            node: slurm::node_name(),
            host: Some(std::net::Ipv4Addr::LOCALHOST.into()),
            interface: None,
            ports: 0..=0,
            local_directory: None,
            death_timeout: nanny::DEATH_TIMEOUT,
            lifetime: None,
            pid_file: None,
            handle_signals: false,
        };
        let run = move || {
            if let Err(error) = nanny::run(options) {
                tracing::error!("the local cluster's nanny has ended: {}", chain(&error));
            }
        };
        let nanny = std::thread::Builder::new().name("rdask-nanny".to_owned()).spawn(run);
        let nanny = nanny.map_err(|error| not_started(&error))?;
        Ok(Self { server, nanny: Some(nanny), folder })
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // It tells the nanny to end, which ends the processes.
        self.server.end("its program ended the local cluster");
        if let Some(nanny) = self.nanny.take() {
            // A panic there has been printed there.
            let _ = nanny.join();
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::debug!(%error, folder = %self.folder.display(), "a folder stays");
        }
    }
}

/// Whether this program can be started as a worker. Under a test harness it would run all the tests
/// again: found out by a call that a harness refuses and [`init`](crate::init) answers.
fn check_program() -> Result<()> {
    if !init::is_called() {
        return Err(ConnectionError::NotInitialised.into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| not_started(&error))?;
    let probed = runtime.block_on(probe::probe("/proc/self/exe".as_ref(), &[]));
    probed.map_err(|error| {
        not_connected(format!(
            "this program can't be started as a worker ({}): `rdask::init()` must come first in \
             main, and a test harness has a main of its own, so use `processes(0)` in tests",
            chain(&error)
        ))
        .into()
    })
}

/// A folder that only this user can look into.
fn private_folder() -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let nth = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("rdask-local-{}-{nth}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    // A folder of this name that exists is another's, or of a process long gone: never ours.
    std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|error| not_started(&error))?;
    Ok(folder)
}

fn no_contact() -> Contact {
    Contact { quic: Vec::new(), tls: Vec::new() }
}

fn not_started(error: &(dyn std::error::Error + 'static)) -> ConnectionError {
    not_connected(format!("the local cluster can't be started: {}", chain(error)))
}

fn not_connected(reason: String) -> ConnectionError {
    ConnectionError::NotConnected { reason }
}

fn no_file() -> ConnectionError {
    not_connected("the local cluster has no network".to_owned())
}

/// A client of a cluster of threads that lives as long as the client does.
pub(crate) fn client() -> Result<Client> {
    LocalCluster::new().start()?.client()
}
