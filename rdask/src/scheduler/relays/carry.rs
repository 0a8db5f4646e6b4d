//! Carrying bytes from one stream to another, and taking turns at it.
//!
//! What is under way to us on a stream waits in the same socket as everybody's messages: half a MiB,
//! for which the net thread takes a millisecond. So only two streams with much to carry do so at a
//! time. That is all that one thread can do anyway: with eight of them nothing is quicker, and
//! messages take four times as long.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use rdask_net::DataStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::yield_now;

use crate::data::PATIENCE;

/// How many streams with much to carry do so at a time.
pub(super) const BULK_MAX: usize = 2;

/// Much is what doesn't fit in here.
const LITTLE_BYTES: usize = 256 << 10;

/// So much, and it is others' turn: nobody waits until his peer gives up.
const TURN_BYTES: usize = 8 << 20;

/// Who takes nothing for so long, or says nothing in the beginning, stands still or is gone, and has a
/// place that others wait for. Who answers may have to think.
const STALL_MAX: Duration = Duration::from_secs(5);

/// Chunks that are carried at once. A chunk is a packet's.
const CHUNKS_MAX: usize = 16;

/// A stream's part of what all may carry.
struct Turn<'places> {
    bulk: &'places Semaphore,
    place: Option<SemaphorePermit<'places>>,
    left: usize,
}

impl<'places> Turn<'places> {
    fn new(bulk: &'places Semaphore) -> Self {
        Self { bulk, place: None, left: LITTLE_BYTES }
    }

    /// Waits until it may carry something. They wait in order.
    async fn wait(&mut self) {
        if self.left == 0 {
            self.place = None;
            self.place = self.bulk.acquire().await.ok();
            self.left = TURN_BYTES;
        }
    }

    fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }
}

/// Carries bytes both ways until one end has finished, or given up.
///
/// While it waits for who is to take bytes it takes none from there. That holds nobody up: of two
/// who get and put only one has much to say at a time. Who asks has heard all that it wants when it
/// ends; who answers has answered.
pub(super) async fn carry(
    one: &mut DataStream,
    other: &mut DataStream,
    bulk: &Semaphore,
) -> io::Result<()> {
    let mut turn = Turn::new(bulk);
    let mut from_one = vec![Bytes::new(); CHUNKS_MAX];
    let mut from_other = from_one.clone();
    let mut patience = STALL_MAX;
    loop {
        turn.wait().await;
        let came = within(patience, async {
            Ok(tokio::select! {
                came = one.read_chunks(&mut from_one) => (true, came),
                came = other.read_chunks(&mut from_other) => (false, came),
            })
        });
        let (to, chunks) = match came.await? {
            (true, came) => (&mut *other, &mut from_one[..came?]),
            (false, came) => (&mut *one, &mut from_other[..came?]),
        };
        if chunks.is_empty() {
            return within(STALL_MAX, to.finish()).await;
        }
        for chunk in chunks {
            turn.spend(chunk.len());
            within(STALL_MAX, to.write_bytes(std::mem::take(chunk))).await?;
        }
        patience = PATIENCE;
        yield_now().await;
    }
}

async fn within<T>(time: Duration, moving: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(time, moving).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Whether it may carry something now.
    fn may(turn: &mut Turn<'_>) -> bool {
        pin!(turn.wait()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn little_needs_no_turn_and_much_takes_turns_in_order() {
        let bulk = Semaphore::new(1);
        let mut turns = [Turn::new(&bulk), Turn::new(&bulk), Turn::new(&bulk)];
        for turn in &mut turns {
            assert!(may(turn), "each has little so far");
            turn.spend(LITTLE_BYTES);
        }
        let [first, second, third] = &mut turns;
        assert!(may(first));
        first.spend(TURN_BYTES - 1);
        assert!(may(first) && !may(second));
        first.spend(1);
        // Who has had a turn goes to the end of the queue.
        let (mut second_waits, mut third_waits) = (pin!(second.wait()), pin!(third.wait()));
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(second_waits.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(third_waits.as_mut().poll(&mut context), Poll::Pending);
        assert!(!may(first));
        assert!(second_waits.as_mut().poll(&mut context).is_ready());
        assert_eq!(third_waits.as_mut().poll(&mut context), Poll::Pending);
    }
}
