//! How a client comes to a connection.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rdask_core::hello::{Role, You};
use rdask_core::id::ProcessId;
use rdask_core::message::{FromClient, ToClient};
use rdask_net::{Endpoint, EndpointConfig, FileMode, ReadError, SchedulerFile};
use tokio::time::{Instant, sleep, timeout};

use super::net_thread::NetThread;
use super::parts::ClientParts;
use super::session::Session;
use super::values::NetworkValues;
use crate::connection::{Connected, Persistence, dial, scheduler_target};
use crate::data::Routes;
use crate::error::{ConnectionError, Result, chain};
use crate::{init, program};

/// The variable that names the scheduler's file.
const FILE_VARIABLE: &str = "RDASK_SCHEDULER_FILE";

/// How long a client waits for a scheduler that is just starting.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long connecting waits for the workers to start the program.
const READY_TIME_MAX: Duration = Duration::from_secs(2);

/// How long a client goes on without a link. The scheduler keeps what a silent client has for 30 s,
/// and longer when it stood still itself.
const PERSISTENCE: Duration = Duration::from_secs(60);

/// How often it looks meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The scheduler's file, as the environment names it.
///
/// # Errors
/// If it doesn't.
pub(crate) fn file_from_env() -> Result<PathBuf> {
    std::env::var_os(FILE_VARIABLE)
        .filter(|file| !file.is_empty())
        .map(PathBuf::from)
        .ok_or_else(|| ConnectionError::NotNamed.into())
}

/// How a client connects, where [`Client::connect`](crate::Client::connect) does not fit.
///
/// ```no_run
/// # fn main() -> rdask::Result<()> {
/// use rdask::{Client, ConnectOptions};
///
/// let options = ConnectOptions::new().insecure_file_mode(true);
/// let client = Client::connect_with("scheduler.json", options)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until a client connects with them"]
pub struct ConnectOptions {
    file_mode: FileMode,
}

impl ConnectOptions {
    /// What [`Client::connect`](crate::Client::connect) does.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to accept a scheduler file that others could read, for file systems that can't show
    /// owners or permissions. Unless told so a client refuses such a file: whoever can read it can
    /// run code as you.
    ///
    /// ```
    /// let options = rdask::ConnectOptions::new().insecure_file_mode(true);
    /// ```
    pub fn insecure_file_mode(mut self, accept: bool) -> Self {
        self.file_mode = if accept { FileMode::Insecure } else { FileMode::Private };
        self
    }
}

/// Where it says how to join.
enum Door {
    /// In a file that may be new, or about to be replaced.
    Path(PathBuf, FileMode),
    /// Here.
    File(Box<SchedulerFile>),
}

/// Joins the scheduler of a file as a client.
pub(crate) async fn connect(file: &Path, options: ConnectOptions) -> Result<Arc<Session>> {
    connect_through(Door::Path(file.to_owned(), options.file_mode), None, None).await
}

/// Joins a scheduler whose file has been read, perhaps as the client that a process's tasks share.
/// `guard` lives as long as the client does.
pub(crate) async fn connect_file(
    file: SchedulerFile,
    nested_in: Option<ProcessId>,
    guard: Option<Arc<dyn Send + Sync>>,
) -> Result<Arc<Session>> {
    connect_through(Door::File(Box::new(file)), nested_in, guard).await
}

async fn connect_through(
    door: Door,
    nested_in: Option<ProcessId>,
    guard: Option<Arc<dyn Send + Sync>>,
) -> Result<Arc<Session>> {
    if !init::is_called() {
        return Err(ConnectionError::NotInitialised.into());
    }
    let net = Arc::new(NetThread::start()?);
    let joined = net.handle().spawn(join(door, nested_in));
    let (endpoint, file, connected) = joined.await.map_err(not_connected)??;
    let You::Client(id) = connected.welcome.you else {
        return Err(not_connected("it takes this program for no client").into());
    };
    let scheduler = scheduler_target(&file).map_err(not_connected)?;
    let values = NetworkValues::new(Routes::new(endpoint, scheduler), guard);
    let session = Session::start(ClientParts {
        id,
        send: connected.send,
        receive: connected.receive,
        values: Arc::new(values),
        net: Arc::clone(&net),
        nested: nested_in.is_some(),
    });
    // Workers start the program now, and the first tasks need not wait for that. A slow start, or
    // a node that can't be reached, holds nobody up: tasks begin where they can.
    let waiting = Arc::clone(&session);
    let ready = net.handle().spawn(async move {
        if let Ok(Err(error)) = timeout(READY_TIME_MAX, waiting.ready()).await {
            tracing::debug!(%error, "the connection ended before the program was at work");
        }
    });
    ready.await.map_err(not_connected)?;
    Ok(session)
}

type Joined = (Endpoint, SchedulerFile, Connected<FromClient, ToClient>);

/// Dials until the scheduler answers, for a while: its file may be a moment old, or of a scheduler
/// that is just being replaced.
async fn join(door: Door, nested_in: Option<ProcessId>) -> Result<Joined, ConnectionError> {
    let role = Role::Client {
        program: program::info().map_err(not_connected)?,
        surroundings: program::surroundings(),
        name: program::name(),
        nested_in,
    };
    let give_up = Instant::now() + PATIENCE;
    loop {
        match try_join(&door, role.clone()).await {
            Ok(joined) => return Ok(joined),
            Err(error) if !may_pass(&error) || Instant::now() >= give_up => return Err(error),
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// Whether another try to join may do better.
fn may_pass(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::NotConnected { .. })
}

async fn try_join(door: &Door, role: Role) -> Result<Joined, ConnectionError> {
    let file = match door {
        Door::Path(path, mode) => SchedulerFile::read(path, *mode).map_err(|error| {
            let is_version = matches!(error, ReadError::Version { .. });
            not_joined(&error, is_version, !error.may_pass())
        })?,
        Door::File(file) => (**file).clone(),
    };
    let identity = file.join_identity().map_err(|error| not_connected(chain(&error)))?;
    let config = EndpointConfig::dial_only(identity).with_local_sockets(file.local_sockets);
    let endpoint = Endpoint::bind(config).await;
    let endpoint = endpoint.map_err(|error| not_connected(chain(&error)))?;
    let dialled = dial(&endpoint, &file, role, Persistence::at_most(PERSISTENCE)).await;
    let connected =
        dialled.map_err(|error| not_joined(&error, error.is_version(), error.is_refusal()))?;
    Ok((endpoint, file, connected))
}

fn not_joined(
    error: &dyn std::error::Error,
    is_version: bool,
    is_refusal: bool,
) -> ConnectionError {
    let reason = chain(error);
    match (is_version, is_refusal) {
        (true, _) => ConnectionError::Version { reason },
        (false, true) => ConnectionError::Refused { reason },
        (false, false) => ConnectionError::NotConnected { reason },
    }
}

fn not_connected(reason: impl Display) -> ConnectionError {
    ConnectionError::NotConnected { reason: reason.to_string() }
}
