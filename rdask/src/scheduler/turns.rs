//! Who runs the core: a thread of its own, or, while that has nothing to do, whoever brings the core
//! something small.
//!
//! To wake a thread takes longer than most turns of the core. So the network thread does a short
//! turn itself, unless the core is at work or something waits for it: then all queue up, and the
//! core's thread takes what has come meanwhile in one turn, while the network goes on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdask_core::message::{FromClient, FromNanny, FromProcess};
use tokio::sync::mpsc;

use super::shell::{CoreEnd, Input, Setup, Shell};
use crate::connection::Weigh;

/// Facts that wait for the core. When full, whoever has more waits, and so do the frames behind it.
const INPUTS_MAX: usize = 4096;

/// Facts that the core takes between two looks at what there is to do.
const BATCH_MAX: usize = 1024;

/// Words of more bytes take the core longer than it takes to wake its thread.
const SMALL_BYTES: usize = 4096;

/// What peers say.
pub(crate) trait Words: Weigh {
    /// Whether a turn for it takes time in proportion to its own bytes. What takes tasks back, and
    /// the end of a process, may touch millions.
    fn is_brief(&self) -> bool;
}

impl Words for FromClient {
    fn is_brief(&self) -> bool {
        !matches!(self, Self::Release { .. } | Self::Cancel { .. } | Self::Detach { .. })
    }
}

impl Words for FromProcess {
    fn is_brief(&self) -> bool {
        !matches!(self, Self::Offer { .. })
    }
}

impl Words for FromNanny {
    fn is_brief(&self) -> bool {
        false
    }
}

/// Whether a turn for all of these is over before the core's thread would have woken up.
pub(crate) fn are_short<'a, M: Words + 'a>(mut words: impl Iterator<Item = &'a M>) -> bool {
    let mut room = SMALL_BYTES;
    words.all(|one| match room.checked_sub(one.weight()) {
        Some(left) => {
            room = left;
            one.is_brief()
        }
        None => false,
    })
}

/// The way to the core.
#[derive(Clone, Debug)]
pub(crate) struct Core {
    inputs: mpsc::Sender<Input>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Locked for a turn. Nothing is there before the core's thread begins and after it has ended.
    shell: Mutex<Option<Running>>,
    /// How many facts were sent to the core's thread that have not had their turn. Counted up
    /// before they are sent and down with the shell locked, so that whoever has locked it and sees
    /// none overtakes nobody.
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct Running {
    shell: Shell,
    /// When the core's thread looks by itself.
    looks_at: Instant,
}

/// The other end, for the core's thread.
#[derive(Debug)]
pub(crate) struct CoreThread {
    inputs: mpsc::Receiver<Input>,
    shared: Arc<Shared>,
}

/// A core that has not begun.
pub(crate) fn core() -> (Core, CoreThread) {
    let (sender, inputs) = mpsc::channel(INPUTS_MAX);
    let shared = Arc::new(Shared::default());
    (Core { inputs: sender, shared: Arc::clone(&shared) }, CoreThread { inputs, shared })
}

impl Core {
    /// Tells the core something that is of no use to anybody if the core has ended.
    pub(crate) async fn tell(&self, input: Input) {
        match self.inputs.reserve().await {
            Ok(place) => self.queue(place, input),
            Err(_) => tracing::debug!("the core has ended"),
        }
    }

    /// Tells the core words of a peer. Returns whether there is a core.
    ///
    /// # Cancel safety
    /// Cancel safe: `input` is called when there is room for what it makes, or not at all.
    pub(crate) async fn tell_words(&self, are_short: bool, input: impl FnOnce() -> Input) -> bool {
        let input = match are_short {
            true => match self.take_turn(input) {
                None => return true,
                Some(input) => input,
            },
            false => input,
        };
        let Ok(place) = self.inputs.reserve().await else { return false };
        self.queue(place, input());
        true
    }

    /// Leaves it to the core's thread.
    fn queue(&self, place: mpsc::Permit<'_, Input>, input: Input) {
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        place.send(input);
    }

    /// Resolves when the core has ended.
    pub(crate) async fn closed(&self) {
        self.inputs.closed().await;
    }

    /// Does a turn on this thread, or gives back what it was for.
    fn take_turn<F: FnOnce() -> Input>(&self, input: F) -> Option<F> {
        // Somebody else has it, or has panicked, which the core's thread reports.
        let Ok(mut running) = self.shared.shell.try_lock() else { return Some(input) };
        let Some(Running { shell, looks_at }) = running.as_mut() else { return Some(input) };
        if self.shared.waiting.load(Ordering::Relaxed) > 0 {
            return Some(input);
        }
        let end = shell.turn([input()]);
        debug_assert!(end.is_none(), "words of a peer end no scheduler");
        let is_late = Instant::now() + shell.time_to_wait() < *looks_at;
        drop(running);
        if is_late && let Ok(place) = self.inputs.try_reserve() {
            self.queue(place, Input::Look);
        }
        None
    }
}

impl CoreThread {
    /// Runs the core until it is told to stop, or has been idle for long enough.
    pub(crate) fn run(mut self, setup: Setup) -> CoreEnd {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime with timers needs nothing that could be missing");
        let running = Running { shell: Shell::new(setup), looks_at: Instant::now() };
        *self.shared.lock() = Some(running);
        // Connections end when the core lets go of them, also if it has panicked.
        let _end = LetGo(Arc::clone(&self.shared));
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let wait = self.shared.time_to_wait();
            let received = runtime.block_on(async {
                tokio::time::timeout(wait, self.inputs.recv_many(&mut batch, BATCH_MAX)).await
            });
            if received == Ok(0) {
                return CoreEnd::Stopped("the scheduler's endpoint was dropped".to_owned());
            }
            if let Some(end) = self.shared.turn(&mut batch) {
                return end;
            }
        }
    }
}

/// Takes the core away from those who would do turns.
struct LetGo(Arc<Shared>);

impl Drop for LetGo {
    fn drop(&mut self) {
        *self.0.shell.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.shell.lock().expect("the core has not panicked")
    }

    fn time_to_wait(&self) -> Duration {
        let mut running = self.lock();
        let Some(Running { shell, looks_at }) = running.as_mut() else { return Duration::ZERO };
        let wait = shell.time_to_wait();
        *looks_at = Instant::now() + wait;
        wait
    }

    fn turn(&self, batch: &mut Vec<Input>) -> Option<CoreEnd> {
        let mut running = self.lock();
        let shell = &mut running.as_mut()?.shell;
        let count = batch.len();
        let end = shell.turn(batch.drain(..));
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        end.or_else(|| shell.end_if_idle())
    }
}

#[cfg(test)]
mod tests {
    use rdask_core::id::ClientId;
    use rdask_core::message::{FromClient, ToClient};
    use rdask_core::scheduler::Config;
    use tokio::sync::oneshot;

    use super::super::shell::Newcomer;
    use super::*;
    use crate::connection::{Queue, outbox};

    fn setup() -> Setup {
        let (forgotten, _) = mpsc::unbounded_channel();
        let config = Config { epoch: 1, ..Config::default() };
        Setup { config, idle_timeout: None, forgotten }
    }

    fn ask(request: u32) -> Input {
        let words = FromClient::AskStatus { request, when_ready: false };
        Input::FromClient(ClientId(1), vec![words])
    }

    /// An observer, and where it hears from the core.
    fn join() -> (Input, oneshot::Receiver<Result<rdask_core::hello::You, String>>, Queue<ToClient>)
    {
        let (to_observer, heard) = outbox();
        let (answer, answered) = oneshot::channel();
        (Input::Connect(Newcomer::Observer(to_observer), answer), answered, heard)
    }

    async fn hear(heard: &mut Queue<ToClient>, count: usize) -> Vec<u32> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            let drained = heard.drain(usize::MAX).await.unwrap();
            numbers.extend(drained.messages.iter().map(|message| match message {
                ToClient::Status { request, .. } => *request,
                other => panic!("{other:?}"),
            }));
        }
        numbers
    }

    #[tokio::test]
    async fn small_words_have_their_turn_at_once_and_in_order() {
        let (core, thread) = core();
        let thread = std::thread::spawn(move || thread.run(setup()));
        let (newcomer, answered, mut heard) = join();
        core.tell(newcomer).await;
        answered.await.unwrap().unwrap();
        // Small ones and large ones in turns: some are for this thread, some for the core's.
        for number in 0..1000 {
            assert!(core.tell_words(number % 3 > 0, || ask(number)).await);
        }
        assert_eq!(hear(&mut heard, 1000).await, (0..1000).collect::<Vec<u32>>());
        core.tell(Input::Stop("done".to_owned())).await;
        assert_eq!(thread.join().unwrap(), CoreEnd::Stopped("done".to_owned()));
        assert!(!core.tell_words(true, || ask(0)).await, "there is no core any more");
    }

    #[tokio::test]
    async fn nothing_overtakes_what_waits() {
        let (core, thread) = core();
        let (newcomer, answered, mut heard) = join();
        core.tell(newcomer).await;
        // The core's thread has not begun: all of it waits.
        for number in 0..10 {
            assert!(core.tell_words(true, || ask(number)).await);
        }
        let thread = std::thread::spawn(move || thread.run(setup()));
        answered.await.unwrap().unwrap();
        assert_eq!(hear(&mut heard, 10).await, (0..10).collect::<Vec<u32>>());
        core.tell(Input::Stop("done".to_owned())).await;
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_panic_in_a_turn_ends_the_core_and_lets_go_of_everybody() {
        let (core, thread) = core();
        let thread = std::thread::spawn(move || thread.run(setup()));
        let (newcomer, answered, mut heard) = join();
        core.tell(newcomer).await;
        answered.await.unwrap().unwrap();
        // Words that a bug makes panic, on the thread of whoever brings them.
        let turn = std::panic::AssertUnwindSafe(|| {
            loop {
                if core.take_turn(|| panic!("a bug")).is_none() {
                    unreachable!("it panics");
                }
                std::thread::yield_now();
            }
        });
        std::panic::catch_unwind(turn).unwrap_err();
        // The core's thread finds out with the next thing that it hears of.
        core.tell(Input::Look).await;
        assert!(thread.join().is_err());
        assert!(heard.drain(usize::MAX).await.is_none(), "its connection has ended");
        core.closed().await;
        assert!(!core.tell_words(true, || ask(0)).await, "nobody takes turns at a broken core");
    }
}
