//! Messages that nobody waits for: they wait a little for others to go along with.
//!
//! A packet of its own costs both ends a system call, a wake-up and an acknowledgement, which is
//! most of what a short message costs.

use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::weight::Weigh;

/// How long a message may wait for others: longer than a round trip, and nothing to anybody who
/// frees memory.
const WAIT: Duration = Duration::from_millis(1);

/// So many are worth a packet of their own.
const HELD_MAX: usize = 64;

/// The messages that wait, in order.
pub(super) struct Held<M> {
    messages: Vec<M>,
    until: Instant,
}

impl<M: Weigh> Held<M> {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { messages: Vec::new(), until: Instant::now() }
    }

    /// Returns what is to be sent now: nothing, if all of it can wait.
    pub(super) fn admit(&mut self, messages: Vec<M>) -> Vec<M> {
        let can_wait = messages.len() <= HELD_MAX && messages.iter().all(Weigh::can_wait);
        if !can_wait {
            return self.take_with(messages);
        }
        if self.messages.is_empty() {
            self.until = Instant::now() + WAIT;
        }
        self.messages.extend(messages);
        if self.messages.len() > HELD_MAX { self.take() } else { Vec::new() }
    }

    /// All that wait, and these behind them.
    pub(super) fn take_with(&mut self, messages: Vec<M>) -> Vec<M> {
        if self.messages.is_empty() {
            return messages;
        }
        let mut all = self.take();
        all.extend(messages);
        all
    }

    /// All that wait.
    pub(super) fn take(&mut self) -> Vec<M> {
        std::mem::take(&mut self.messages)
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Resolves when they have waited for long enough.
    pub(super) fn waited(&self) -> Sleep {
        sleep_until(self.until)
    }
}

#[cfg(test)]
mod tests {
    use rdask_core::message::ToProcess;

    use super::*;

    fn seen(report: u64) -> ToProcess {
        ToProcess::Seen { report }
    }

    fn urgent() -> ToProcess {
        ToProcess::Exit { reason: String::new() }
    }

    #[test]
    fn what_can_wait_goes_along_with_what_can_not() {
        let mut held = Held::new();
        assert_eq!(held.admit(vec![urgent()]), [urgent()]);
        assert_eq!(held.admit(vec![seen(1)]), []);
        assert_eq!(held.admit(vec![seen(2)]), []);
        assert_eq!(held.admit(vec![urgent(), seen(3)]), [seen(1), seen(2), urgent(), seen(3)]);
        assert!(held.is_empty());
    }

    #[tokio::test]
    async fn it_waits_a_millisecond_from_the_first_on() {
        let mut held = Held::new();
        let begun = Instant::now();
        assert_eq!(held.admit(vec![seen(1)]), []);
        tokio::time::sleep(WAIT / 2).await;
        let until = held.until;
        assert_eq!(held.admit(vec![seen(2)]), []);
        assert_eq!(held.until, until);
        held.waited().await;
        assert!(begun.elapsed() >= WAIT);
        assert_eq!(held.take(), [seen(1), seen(2)]);
    }

    #[test]
    fn many_do_not_wait() {
        let mut held = Held::new();
        let sent = (0..=HELD_MAX as u64).flat_map(|report| held.admit(vec![seen(report)]));
        assert_eq!(sent.count(), HELD_MAX + 1);
        assert!(held.is_empty());
    }
}
