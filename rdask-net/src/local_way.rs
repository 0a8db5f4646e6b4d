//! Whether the socket beside a data connection is worth a try.
//!
//! Most refusals pass: the peer is just starting, takes another name, or has all its seats taken.
//! So whoever is refused goes over the network, and one stream tries again some time later. Only
//! who is another user, or can't prove to be the peer, is never asked again.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::transport::DATA_STREAMS;

/// No sooner is a socket tried again. A try that is refused at once costs microseconds.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// So many times as long as a try took: waiting for one that says nothing takes a twentieth of the
/// time of one stream at most.
const PAUSE_FACTOR: u32 = 20;

/// The way by the local socket, beside one data connection.
pub(crate) struct LocalWay {
    /// Streams at a time.
    streams: Arc<Semaphore>,
    next: Mutex<Next>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It works, or nobody has tried.
    Open,
    /// Whoever comes after that time may try.
    At(Instant),
    Never,
}

impl Default for LocalWay {
    fn default() -> Self {
        let streams = Arc::new(Semaphore::new(DATA_STREAMS as usize));
        Self { streams, next: Mutex::new(Next::Open) }
    }
}

impl LocalWay {
    /// A place for one stream, once there is one; `None` if the socket is not to be tried now.
    pub(crate) async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        let is_trial = self.try_now(Instant::now())?;
        let place = self.streams.clone().acquire_owned().await.ok()?;
        // Others may have been refused while this one waited for its place.
        (is_trial || *self.lock() == Next::Open).then_some(place)
    }

    /// Whether this is a try after a refusal, `None` if it is not to be tried. Of those who come when
    /// it is time to try again only the first one does.
    fn try_now(&self, now: Instant) -> Option<bool> {
        let mut next = self.lock();
        match *next {
            Next::Open => Some(false),
            Next::At(at) if now >= at => {
                *next = Next::At(now + PAUSE_MIN);
                Some(true)
            }
            Next::At(_) | Next::Never => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A try has worked.
    pub(crate) fn works(&self) {
        self.set(Next::Open);
    }

    /// A try that began at some time has failed.
    pub(crate) fn refused(&self, error: &io::Error, began: Instant, now: Instant) {
        let is_lasting =
            matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported);
        let pause = now.saturating_duration_since(began).saturating_mul(PAUSE_FACTOR);
        self.set(if is_lasting { Next::Never } else { Next::At(now + pause.max(PAUSE_MIN)) });
    }

    fn set(&self, new: Next) {
        let mut next = self.lock();
        if *next != Next::Never {
            *next = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may_try(way: &LocalWay, now: Instant) -> bool {
        way.try_now(now).is_some()
    }

    #[test]
    fn a_refusal_that_passes_is_tried_again_by_one_at_a_time() {
        let (way, start) = (LocalWay::default(), Instant::now());
        assert!(may_try(&way, start) && may_try(&way, start));
        way.refused(&io::ErrorKind::ConnectionRefused.into(), start, start);
        assert!(!may_try(&way, start));
        let later = start + PAUSE_MIN;
        assert!(may_try(&way, later));
        assert!(!may_try(&way, later), "one tries");
        way.works();
        assert!(may_try(&way, later) && may_try(&way, later));
    }

    #[test]
    fn a_try_that_took_long_is_not_made_again_soon() {
        let (way, start) = (LocalWay::default(), Instant::now());
        let end = start + Duration::from_secs(2);
        way.refused(&io::ErrorKind::TimedOut.into(), start, end);
        assert!(!may_try(&way, end + Duration::from_secs(39)));
        assert!(may_try(&way, end + Duration::from_secs(40)));
    }

    #[test]
    fn who_is_somebody_else_is_never_asked_again() {
        let (way, start) = (LocalWay::default(), Instant::now());
        way.refused(&io::ErrorKind::PermissionDenied.into(), start, start);
        way.works();
        way.refused(&io::ErrorKind::ConnectionRefused.into(), start, start);
        assert!(!may_try(&way, start + Duration::from_secs(3600)));
    }

    #[tokio::test]
    async fn who_waits_for_a_place_does_not_try_what_others_were_refused() {
        let (way, start) = (LocalWay::default(), Instant::now());
        let mut places = Vec::new();
        for _ in 0..DATA_STREAMS {
            places.push(way.enter().await.unwrap());
        }
        let let_go = async {
            way.refused(&io::ErrorKind::TimedOut.into(), start, start);
            places.clear();
        };
        let (waited, ()) = tokio::join!(way.enter(), let_go);
        assert!(waited.is_none());
    }
}
