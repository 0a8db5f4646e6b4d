//! Whether the socket beside a data connection is worth a try.
//!
//! Most refusals pass: the peer is just starting, takes another name, or has all its seats taken.
//! So whoever is refused goes over the network, and one stream tries again some time later. Only
//! who is another user, or can't prove to be the peer, is never asked again.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
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
        if !self.may_try(Instant::now()) {
            return None;
        }
        self.streams.clone().acquire_owned().await.ok()
    }

    /// Of those who come when it is time to try again only the first one does.
    fn may_try(&self, now: Instant) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        match *next {
            Next::Open => true,
            Next::At(at) if now >= at => {
                *next = Next::At(now + PAUSE_MIN);
                true
            }
            Next::At(_) | Next::Never => false,
        }
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
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if *next != Next::Never {
            *next = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_passes_is_tried_again_by_one_at_a_time() {
        let (way, start) = (LocalWay::default(), Instant::now());
        assert!(way.may_try(start) && way.may_try(start));
        way.refused(&io::ErrorKind::ConnectionRefused.into(), start, start);
        assert!(!way.may_try(start));
        let later = start + PAUSE_MIN;
        assert!(way.may_try(later));
        assert!(!way.may_try(later), "one tries");
        way.works();
        assert!(way.may_try(later) && way.may_try(later));
    }

    #[test]
    fn a_try_that_took_long_is_not_made_again_soon() {
        let (way, start) = (LocalWay::default(), Instant::now());
        let end = start + Duration::from_secs(2);
        way.refused(&io::ErrorKind::TimedOut.into(), start, end);
        assert!(!way.may_try(end + Duration::from_secs(39)));
        assert!(way.may_try(end + Duration::from_secs(40)));
    }

    #[test]
    fn who_is_somebody_else_is_never_asked_again() {
        let (way, start) = (LocalWay::default(), Instant::now());
        way.refused(&io::ErrorKind::PermissionDenied.into(), start, start);
        way.works();
        way.refused(&io::ErrorKind::ConnectionRefused.into(), start, start);
        assert!(!way.may_try(start + Duration::from_secs(3600)));
    }
}
