//! Somebody who only asks: what `rdask status` is.

use std::io;
use std::path::Path;
use std::time::Duration;

use rdask_core::hello::Role;
use rdask_core::id::{TaskId, WorkerId};
use rdask_core::message::{
    ClusterStatus, Explanation, FromClient, LeavingWorker, ToClient, UnknownWorkers,
};
use rdask_net::{BindError, Endpoint, EndpointConfig, FileMode, ReadError, SchedulerFile};
use thiserror::Error;
use tokio::runtime::Runtime;

use super::{ConnectError, Connected, ConnectionEnd, Ended, Persistence, dial};

/// The scheduler answers in milliseconds unless it is very busy.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// The scheduler can't be asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// No runtime.
    #[error("no runtime for the connection")]
    Runtime(#[source] io::Error),
    /// The scheduler file can't be read.
    #[error(transparent)]
    File(#[from] ReadError),
    /// No socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The scheduler can't be joined.
    #[error(transparent)]
    Connect(Box<ConnectError>),
    /// The connection ended.
    #[error("the connection to the scheduler ended: {0}")]
    Ended(ConnectionEnd),
    /// No answer.
    #[error("the scheduler has not answered for {} s", ANSWER_TIME_MAX.as_secs())]
    Silent,
}

impl From<ConnectError> for ObserveError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Box::new(error))
    }
}

impl From<Ended> for ObserveError {
    fn from(_: Ended) -> Self {
        Self::Ended(ConnectionEnd::Here)
    }
}

impl ObserveError {
    /// Whether versions differ.
    #[must_use]
    pub fn is_version(&self) -> bool {
        match self {
            Self::File(error) => matches!(error, ReadError::Version { .. }),
            Self::Connect(error) => error.is_version(),
            _ => false,
        }
    }

    /// Whether somebody said no, so that trying again won't help.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::File(error) => !error.may_pass() && !self.is_version(),
            Self::Connect(error) => error.is_refusal(),
            _ => false,
        }
    }
}

/// A connection to a scheduler that only asks; every call waits for its answer.
#[derive(Debug)]
pub struct Observer {
    runtime: Runtime,
    endpoint: Endpoint,
    connected: Connected<FromClient, ToClient>,
    file: SchedulerFile,
    requests: u32,
}

impl Observer {
    /// Connects to the scheduler of a file.
    ///
    /// # Errors
    /// See [`ObserveError`].
    pub fn connect(path: &Path, mode: FileMode) -> Result<Self, ObserveError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(ObserveError::Runtime)?;
        let file = SchedulerFile::read(path, mode)?;
        let (endpoint, connected) = runtime.block_on(async {
            let identity = file.join_identity().map_err(ConnectError::from)?;
            let endpoint = Endpoint::bind(EndpointConfig::dial_only(identity)).await?;
            let connected = dial(&endpoint, &file, Role::Observer, Persistence::none()).await?;
            Ok::<_, ObserveError>((endpoint, connected))
        })?;
        Ok(Self { runtime, endpoint, connected, file, requests: 0 })
    }

    /// The file by which the scheduler was found.
    #[must_use]
    pub fn scheduler_file(&self) -> &SchedulerFile {
        &self.file
    }

    /// What the cluster looks like.
    ///
    /// # Errors
    /// See [`ObserveError`].
    pub fn status(&mut self) -> Result<ClusterStatus, ObserveError> {
        self.ask(
            |request| FromClient::AskStatus { request, when_ready: false },
            |asked, answer| match answer {
                ToClient::Status { request, status } if request == asked => Some(status),
                _ => None,
            },
        )
    }

    /// How it is with a task, of whatever client.
    ///
    /// # Errors
    /// See [`ObserveError`].
    pub fn explain(&mut self, task: TaskId) -> Result<Explanation, ObserveError> {
        self.ask(
            |request| FromClient::Explain { request, task },
            |asked, answer| match answer {
                ToClient::Explained { request, explanation } if request == asked => {
                    Some(explanation)
                }
                _ => None,
            },
        )
    }

    /// Lets workers go: pools, or workers by name; after some time, if any is said, whatever they
    /// have left to do. Which ones go, or why none does.
    ///
    /// # Errors
    /// See [`ObserveError`].
    pub fn retire(
        &mut self,
        names: Vec<String>,
        within: Option<Duration>,
    ) -> Result<Result<Vec<WorkerId>, UnknownWorkers>, ObserveError> {
        self.ask(
            |request| FromClient::Retire { request, names, within },
            |asked, answer| match answer {
                ToClient::Retiring { request, workers } if request == asked => Some(workers),
                _ => None,
            },
        )
    }

    /// What those of these workers that are still there have left to do before they go.
    ///
    /// # Errors
    /// See [`ObserveError`].
    pub fn leaving(&mut self, workers: &[WorkerId]) -> Result<Vec<LeavingWorker>, ObserveError> {
        let workers = workers.to_vec();
        self.ask(
            |request| FromClient::AskLeaving { request, workers },
            |asked, answer| match answer {
                ToClient::Leaving { request, workers } if request == asked => Some(workers),
                _ => None,
            },
        )
    }

    /// Sends a question and waits for what is its answer.
    fn ask<T>(
        &mut self,
        question: impl FnOnce(u32) -> FromClient,
        answered: impl Fn(u32, ToClient) -> Option<T>,
    ) -> Result<T, ObserveError> {
        self.requests += 1;
        let asked = self.requests;
        self.connected.send.send(question(asked))?;
        let receive = &mut self.connected.receive;
        self.runtime.block_on(async {
            let answer = async {
                loop {
                    match receive.recv().await {
                        Ok(message) => {
                            if let Some(answer) = answered(asked, message) {
                                return Ok(answer);
                            }
                        }
                        Err(end) => return Err(ObserveError::Ended(end)),
                    }
                }
            };
            let answer = tokio::time::timeout(ANSWER_TIME_MAX, answer).await;
            answer.unwrap_or(Err(ObserveError::Silent))
        })
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // So that the scheduler need not wait until it finds us silent.
        self.runtime.block_on(self.endpoint.close());
    }
}
