//! The way to a process: a stream of its own, or where there is none one by the scheduler.
//!
//! A firewall may stand between an access node and compute nodes, or between two pools. Who doesn't
//! get through in two seconds asks the scheduler, which reaches everybody, and goes on to ask it for
//! this process. It still looks for a direct way now and then, and nobody waits for that. A process
//! that is gone can't be had by the scheduler either, so that costs nobody more time than before.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdask_core::id::ProcessId;
use rdask_core::message::{Contact, DataReply, DataRequest};
use rdask_net::{DataStream, DialError, Endpoint, Target};

use super::{DataError, in_time, read_head_within, target, write_head};

/// Who has not been reached after so long is asked for by the scheduler.
const DIRECT_TIME_MAX: Duration = Duration::from_secs(2);

/// How long to wait for a place: the scheduler relays some streams at a time.
const PLACE_TIME_MAX: Duration = Duration::from_secs(300);

/// How often to look whether a relayed process can be reached by now.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// About so many processes there is a warning: a firewall is seldom about one.
const WARNINGS_MAX: usize = 8;

/// How an endpoint reaches processes. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Routes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    scheduler: Target,
    relayed: Mutex<Relayed>,
}

/// Processes that only the scheduler reaches.
#[derive(Debug, Default)]
struct Relayed {
    /// When to look for a direct way again.
    looks: BTreeMap<ProcessId, Instant>,
    /// How often somebody was told.
    warnings: usize,
}

/// What is known of the way to a process.
enum Known {
    /// Nothing, or that it can be reached.
    Nothing,
    /// The scheduler reaches it. Whether it is time to look again.
    Relayed { look: bool },
}

impl Routes {
    /// Those of an endpoint that has joined the scheduler there.
    #[must_use]
    pub fn new(endpoint: Endpoint, scheduler: Target) -> Self {
        Self(Arc::new(Shared { endpoint, scheduler, relayed: Mutex::default() }))
    }

    /// Where they begin.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Where they lead if there is no other way.
    #[must_use]
    pub fn scheduler(&self) -> &Target {
        &self.0.scheduler
    }

    /// Opens a stream to a process.
    pub(super) async fn open(
        &self,
        contact: &Contact,
        process: ProcessId,
    ) -> Result<DataStream, DataError> {
        let to = target(self.endpoint(), contact, process)?;
        if let Known::Relayed { look } = self.known(process) {
            if look {
                let reaching = self.reach(to);
                self.look_again(process, reaching);
            }
            let relayed = self.relay(process).await;
            if relayed.is_err() {
                self.lock().looks.remove(&process);
            }
            return relayed;
        }
        let mut reaching = Box::pin(self.reach(to.clone()));
        let failed = match tokio::time::timeout(DIRECT_TIME_MAX, &mut reaching).await {
            Ok(Ok(())) => return self.open_direct(&to).await,
            Ok(Err(error @ DialError::Closed)) => return Err(error.into()),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        match (self.relay(process).await, failed) {
            (Ok(stream), failed) => {
                self.remember(process);
                if failed.is_none() {
                    self.look_again(process, reaching);
                }
                Ok(stream)
            }
            (Err(relay), Some(direct)) => {
                Err(DataError::Unreachable { direct, relay: Box::new(relay) })
            }
            // It may only be slow.
            (Err(relay), None) => match reaching.await {
                Ok(()) => self.open_direct(&to).await,
                Err(direct) => Err(DataError::Unreachable { direct, relay: Box::new(relay) }),
            },
        }
    }

    async fn open_direct(&self, to: &Target) -> Result<DataStream, DataError> {
        Ok(in_time(self.endpoint().open_data(to)).await??)
    }

    /// Asks the scheduler for a stream to a process.
    async fn relay(&self, process: ProcessId) -> Result<DataStream, DataError> {
        let asked = async {
            let mut stream = self.endpoint().open_data(self.scheduler()).await?;
            write_head(&mut stream, &DataRequest::Relay { process }).await?;
            match read_head_within(&mut stream, PLACE_TIME_MAX).await? {
                DataReply::Connected => Ok(stream.into_relayed()),
                DataReply::Refused { message } => Err(DataError::NotRelayed(message)),
                _ => Err(DataError::Nonsense),
            }
        };
        tokio::time::timeout(PLACE_TIME_MAX, asked).await.map_err(|_| DataError::Stalled)?
    }

    fn reach(&self, to: Target) -> impl Future<Output = Result<(), DialError>> + Send + 'static {
        let endpoint = self.endpoint().clone();
        async move { endpoint.reach(&to).await }
    }

    /// Goes on to look for a direct way, beside those who take the other one.
    fn look_again(
        &self,
        process: ProcessId,
        reaching: impl Future<Output = Result<(), DialError>> + Send + 'static,
    ) {
        let routes = self.clone();
        tokio::spawn(async move {
            if reaching.await.is_ok() {
                routes.lock().looks.remove(&process);
                tracing::info!("{process} can be reached from here now");
            }
        });
    }

    fn known(&self, process: ProcessId) -> Known {
        let now = Instant::now();
        match self.lock().looks.get_mut(&process) {
            None => Known::Nothing,
            Some(next) if *next <= now => {
                *next = now + LOOK_EVERY;
                Known::Relayed { look: true }
            }
            Some(_) => Known::Relayed { look: false },
        }
    }

    fn remember(&self, process: ProcessId) {
        let mut relayed = self.lock();
        let is_new = relayed.looks.insert(process, Instant::now() + LOOK_EVERY).is_none();
        if is_new && relayed.warnings < WARNINGS_MAX {
            relayed.warnings += 1;
            tracing::warn!(
                "{process} can't be reached from here: values take the way by the scheduler, which \
                 is slower; see docs/operations.md"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Relayed> {
        self.0.relayed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
