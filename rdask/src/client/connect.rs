//! How a client comes to a connection.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rdask_core::hello::{Role, You};
use rdask_core::id::ProcessId;
use rdask_core::message::{FromClient, ToClient};
use rdask_net::{Endpoint, EndpointConfig, FileMode, SchedulerFile};
use tokio::time::{Instant, sleep};

use super::Client;
use super::net_thread::NetThread;
use super::parking::block_on;
use super::parts::ClientParts;
use super::session::Session;
use super::values::NetworkValues;
use crate::connection::{Connected, dial};
use crate::error::{ConnectionError, Result};
use crate::{init, program};

/// The variable that names the scheduler's file.
const FILE_VARIABLE: &str = "RDASK_SCHEDULER_FILE";

/// How long a client waits for a scheduler that is just starting.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// Joins the scheduler of a file as a client.
pub(crate) async fn connect(file: &Path) -> Result<Arc<Session>> {
    connect_as(Source::Path(file.to_owned()), None).await
}

/// The client that the tasks of a process share.
pub(crate) fn client_of(file: &SchedulerFile, process: ProcessId) -> Result<Client> {
    let file = Source::Text(Box::new(file.clone()));
    block_on(connect_as(file, Some(process))).map(Client::from_session)
}

/// Where the scheduler says how to join it.
#[derive(Clone)]
enum Source {
    /// In a file, which is read at each try.
    Path(PathBuf),
    /// In what a nanny has handed over.
    Text(Box<SchedulerFile>),
}

/// Joins a scheduler as a client, perhaps the one that a process's tasks share.
async fn connect_as(file: Source, nested_in: Option<ProcessId>) -> Result<Arc<Session>> {
    if !init::is_called() {
        return Err(ConnectionError::NotInitialised.into());
    }
    let net = Arc::new(NetThread::start()?);
    let joined = net.handle().spawn(join(file, nested_in));
    let (endpoint, file, connected) = joined.await.map_err(not_connected)??;
    let You::Client(id) = connected.welcome.you else {
        return Err(not_connected("it takes this program for no client").into());
    };
    let values = NetworkValues::new(endpoint, file);
    Ok(Session::start(ClientParts {
        id,
        send: connected.send,
        receive: connected.receive,
        values: Arc::new(values),
        net,
        nested: nested_in.is_some(),
    }))
}

type Joined = (Endpoint, SchedulerFile, Connected<FromClient, ToClient>);

/// Dials until the scheduler answers, for a while: its file may be a moment old, or of a scheduler
/// that is just being replaced.
async fn join(source: Source, nested_in: Option<ProcessId>) -> Result<Joined, ConnectionError> {
    let role = Role::Client {
        program: program::info().map_err(not_connected)?,
        surroundings: program::surroundings(),
        name: program::name(),
        nested_in,
    };
    let give_up = Instant::now() + PATIENCE;
    loop {
        match try_join(&source, role.clone()).await {
            Ok(joined) => return Ok(joined),
            Err(NoEntry { last: true, error }) => return Err(error),
            Err(NoEntry { error, .. }) if Instant::now() >= give_up => return Err(error),
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}

/// Why a try to join failed, and whether another one would, too.
struct NoEntry {
    last: bool,
    error: ConnectionError,
}

async fn try_join(source: &Source, role: Role) -> Result<Joined, NoEntry> {
    let again = |error: &dyn std::error::Error| NoEntry {
        last: false,
        error: not_connected(chain(error)),
    };
    let file = match source {
        Source::Path(path) => SchedulerFile::read(path, FileMode::default()),
        Source::Text(file) => Ok(SchedulerFile::clone(file)),
    };
    let file = file.map_err(|error| again(&error))?;
    let identity = file.join_identity().map_err(|error| again(&error))?;
    let endpoint = Endpoint::bind(EndpointConfig::dial_only(identity)).await;
    let endpoint = endpoint.map_err(|error| again(&error))?;
    match dial(&endpoint, &file, role).await {
        Ok(connected) => Ok((endpoint, file, connected)),
        Err(error) => Err(NoEntry {
            last: error.is_refusal() || error.is_version(),
            error: not_connected(chain(&error)),
        }),
    }
}

fn not_connected(reason: impl Display) -> ConnectionError {
    ConnectionError::NotConnected {
        reason: reason.to_string(),
    }
}

/// An error and its causes, as one text.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Errors that are transparent say the same again.
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// A client of a cluster inside this process.
pub(crate) fn local() -> Result<Client> {
    Err(not_connected("the local cluster is not built in yet").into())
}
