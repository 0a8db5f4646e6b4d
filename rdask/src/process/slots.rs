//! The threads that run user code, and nothing else does.
//!
//! There are as many as have something to do at once: one per running chunk, parked ones
//! included, and one more now and then to drop values. Idle ones are used again. The state
//! machine bounds them: granted slots, and 256 parked runs.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// As main threads have. Threads of Rust have 2 MiB, and code that ran in `main` overflows them.
const STACK_BYTES: usize = 8 << 20;

/// How long the end waits for runs that are under way.
const CLOSING_TIME: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    started: usize,
    threads: Vec<JoinHandle<()>>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    /// Held to take or give a job.
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.lock();
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

/// Has the kernel end this thread's sleeps when they are over. As a rule it adds up to 50 us, to wake
/// up for several threads at once and save power: on the node of a job nobody gains from that.
fn exact_timers() {
    if let Err(error) = nix::sys::prctl::set_timerslack(1) {
        tracing::debug!(%error, "sleeps of tasks may last 50 us longer");
    }
}

/// Threads named "slot-0" and so on.
#[derive(Default)]
pub(super) struct SlotThreads {
    shared: Arc<Shared>,
}

impl SlotThreads {
    /// Runs a job at once, on an idle thread or a new one. A job must not panic.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let mut state = self.shared.lock();
        state.jobs.push_back(Box::new(job));
        if state.idle >= state.jobs.len() {
            drop(state);
            self.shared.wake.notify_one();
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let runtime = Handle::try_current().ok();
        let thread = std::thread::Builder::new()
            .name(format!("slot-{}", state.started))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                exact_timers();
                // Async tasks find their timers and sockets there.
                let _runtime = runtime.as_ref().map(Handle::enter);
                shared.serve();
            })?;
        state.started += 1;
        state.threads.push(thread);
        Ok(())
    }

    /// Ends the threads. One that is still in user code after a second is left to the end of the
    /// OS process: nothing can end it sooner.
    pub(super) fn close(self) {
        let threads = {
            let mut state = self.shared.lock();
            state.closed = true;
            state.jobs.clear();
            std::mem::take(&mut state.threads)
        };
        self.shared.wake.notify_all();
        let deadline = Instant::now() + CLOSING_TIME;
        for thread in threads {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() {
                // A panic of a job has been logged by the panic hook.
                let _ = thread.join();
            } else {
                tracing::warn!(slot = thread.thread().name(), "a task does not end");
            }
        }
    }
}

impl fmt::Debug for SlotThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("SlotThreads")
            .field("threads", &state.threads.len())
            .field("idle", &state.idle)
            .finish_non_exhaustive()
    }
}
