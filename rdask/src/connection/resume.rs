//! The dialer's side of a connection: when its link breaks it dials again and goes on.

use std::fmt;
use std::time::Duration;

use rdask_core::hello::{Hello, HelloError, Resumption, Role, decode_resumption, encode_hello};
use rdask_core::id::Peer;
use rdask_net::{Endpoint, SchedulerFile};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::queue::ConnectionEnd;
use super::session::{Halves, LinkEnd, Session};
use super::weight::Weigh;
use super::{WELCOME_TIME_MAX, frame_of, scheduler_target};

/// The first pause between two tries; it doubles up to the longest. The first try is made at once.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often a dialer says that it still has no link.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// How long to look for a scheduler whose link broke.
pub struct Persistence {
    time: Duration,
    is_replaced: Box<dyn FnMut() -> bool + Send + Sync>,
}

impl Persistence {
    /// Not at all: the connection ends with its first link.
    #[must_use]
    pub fn none() -> Self {
        Self::at_most(Duration::ZERO)
    }

    /// At most for so long.
    #[must_use]
    pub fn at_most(time: Duration) -> Self {
        Self { time, is_replaced: Box::new(|| false) }
    }

    /// As long as there is no reason to give up: for those who are ended by others.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::at_most(Duration::MAX)
    }

    /// The same, until this says that another scheduler has taken the place.
    #[must_use]
    pub fn unless(self, is_replaced: impl FnMut() -> bool + Send + Sync + 'static) -> Self {
        Self { is_replaced: Box::new(is_replaced), ..self }
    }
}

impl fmt::Debug for Persistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Persistence").field("time", &self.time).finish_non_exhaustive()
    }
}

/// What a dialer needs to come back.
pub(super) struct Return {
    pub(super) endpoint: Endpoint,
    pub(super) file: SchedulerFile,
    pub(super) who: Peer,
    pub(super) epoch: u64,
    pub(super) persistence: Persistence,
}

/// Why one try to come back failed.
enum Failed {
    /// Another one may succeed.
    ForNow(String),
    ForGood(ConnectionEnd),
}

/// Carries a connection's messages over one link after the other until it ends.
pub(super) async fn carry<Out, In>(
    mut session: Session<Out, In>,
    mut link: Halves,
    mut back: Return,
    mut taken: mpsc::Sender<Result<In, ConnectionEnd>>,
) where
    Out: Serialize + Weigh + Send,
    In: DeserializeOwned + Send,
{
    let mut tries = 0;
    let end = loop {
        let end = session.run(link, &mut taken).await;
        let why = match end {
            LinkEnd::Over(end) => break end,
            end if back.persistence.time.is_zero() => break end.into_connection_end(),
            LinkEnd::Broken { why, .. } => why,
            LinkEnd::Gone => "its node says that its process is gone".to_owned(),
        };
        tracing::warn!("the link to the scheduler broke ({why}): dialling again");
        let resumed = tokio::select! {
            resumed = back.resume(&mut session, &mut tries) => resumed,
            // Nobody waits for messages any more.
            () = taken.closed() => Err(ConnectionEnd::Here),
        };
        match resumed {
            Ok(halves) => link = halves,
            Err(end) => break end,
        }
        tracing::info!("linked with the scheduler again");
    };
    // Whoever waits until the last words are out need not take in what has arrived.
    drop(session);
    // Nobody may be left who asks how it ended.
    drop(taken.send(Err(end)).await);
}

impl Return {
    /// A new link on which the connection goes on, or how it ended.
    async fn resume<Out, In>(
        &mut self,
        session: &mut Session<Out, In>,
        tries: &mut u64,
    ) -> Result<Halves, ConnectionEnd>
    where
        Out: Serialize + Weigh + Send,
        In: DeserializeOwned + Send,
    {
        let started = Instant::now();
        let mut warn_at = started + WARN_EVERY;
        let mut pause = PAUSE_MIN;
        loop {
            *tries += 1;
            let dialled = tokio::select! {
                dialled = self.try_resume(session.received(), *tries) => dialled,
                () = session.abandoned() => return Err(ConnectionEnd::Here),
            };
            let why = match dialled {
                Ok((halves, count)) => return session.rewind(count).map(|()| halves),
                Err(Failed::ForGood(end)) => return Err(end),
                Err(Failed::ForNow(why)) => why,
            };
            let now = Instant::now();
            if (self.persistence.is_replaced)() {
                let why = "another scheduler has taken its place".to_owned();
                return Err(ConnectionEnd::Lost(why));
            }
            if now - started + pause > self.persistence.time {
                return Err(ConnectionEnd::NoScheduler { time: now - started, last: why });
            }
            if now >= warn_at {
                warn_at = now + WARN_EVERY;
                let seconds = (now - started).as_secs();
                tracing::warn!("no link to the scheduler for {seconds} s, trying on: {why}");
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = session.abandoned() => return Err(ConnectionEnd::Here),
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Dials under the name that the scheduler has given us; the link, and how many of our
    /// messages it has.
    async fn try_resume(&self, received: u64, attempt: u64) -> Result<(Halves, u64), Failed> {
        let lost = |why: String| Failed::ForGood(ConnectionEnd::Lost(why));
        let target = scheduler_target(&self.file).map_err(|error| lost(error.to_string()))?;
        let link = self.endpoint.dial_control(&target).await.map_err(|error| {
            let text = error.to_string();
            if error.is_nobody_there() { lost(text) } else { Failed::ForNow(text) }
        })?;
        let is_quic = link.is_quic();
        let hello = Hello {
            run_id: self.file.run_id.clone(),
            certificate_request: Vec::new(),
            role: Role::Resume { who: self.who, epoch: self.epoch, attempt, received },
        };
        let (mut sender, mut receiver) = link.split();
        // One that was busy for too long may have closed the link.
        let broken = |end: LinkEnd| match end {
            LinkEnd::Over(end) if !matches!(end, ConnectionEnd::Closed(_)) => Failed::ForGood(end),
            end => Failed::ForNow(end.into_connection_end().to_string()),
        };
        let sent = sender.send(&frame_of(&encode_hello(&hello))).await;
        sent.map_err(|error| broken(LinkEnd::of(error)))?;
        let no_answer = || Failed::ForNow("it does not answer".to_owned());
        let answer = timeout(WELCOME_TIME_MAX, receiver.recv()).await.map_err(|_| no_answer())?;
        let answer = answer.map_err(|error| broken(LinkEnd::of(error)))?.ok_or_else(no_answer)?;
        match decode_resumption(&answer) {
            Ok(Resumption::Resumed { received }) => {
                Ok((Halves { sender, receiver, is_quic }, received))
            }
            Ok(Resumption::Fenced) => Err(Failed::ForGood(ConnectionEnd::Fenced)),
            Err(HelloError::Refused(reason)) => Err(lost(format!("it refused: {reason}"))),
            Err(error) => Err(lost(error.to_string())),
        }
    }
}
