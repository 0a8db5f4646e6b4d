//! What a task can know of itself: [`context`].
//!
//! A slot enters a chunk once; which of its tasks runs is read off the chunk's own counter, so
//! that tasks which never ask pay nothing.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdask_core::id::TaskId;
use rdask_core::message::Assign;
use rdask_core::process::run_number;

use crate::process::Home;
use crate::process::control::Control;

/// Whether this process got SIGTERM.
static ENDING: AtomicBool = AtomicBool::new(false);

/// What a run that gives up unwinds with.
pub(crate) const GIVEN_UP: &str = "the run was lost with its worker";

/// This process got SIGTERM.
pub(crate) fn note_end() {
    ENDING.store(true, Ordering::Relaxed);
}

/// What a running task can know of itself. It is a handle: a task may pass it to its own threads.
///
/// ```
/// # fn main() -> rdask::Result<()> {
/// // Two runs of one task may be alive after a network cut: no other run writes to this name.
/// let simulate = |seed: u64| {
///     let context = rdask::context();
///     format!("result-{seed}.part{} by {}", context.run(), context.worker())
/// };
/// let client = rdask::Client::local()?;
/// assert_eq!(client.submit(simulate, (7,)).result()?, "result-7.part1 by local");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Context {
    task: TaskId,
    run: u32,
    home: Arc<Home>,
    control: Arc<Control>,
}

impl Context {
    /// The task.
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// Which run of the task this is, from 1.
    pub fn run(&self) -> u32 {
        self.run
    }

    /// The client that the tasks of this process share.
    pub(crate) fn nested(&self) -> &crate::NestedClient {
        &self.home.client
    }

    /// The name of the worker that runs it.
    pub fn worker(&self) -> &str {
        &self.home.worker
    }

    /// The name of the node it runs on.
    pub fn node(&self) -> &str {
        &self.home.node
    }

    /// Whether somebody cancelled the task, or it has timed out. A long task may look from time to
    /// time and return early; what it returns is not used.
    ///
    /// ```
    /// # fn main() -> rdask::Result<()> {
    /// let search = |first: u64| {
    ///     let context = rdask::context();
    ///     (first..).find(|n| context.is_cancelled() || n * n == 3)
    /// };
    /// let client = rdask::Client::local()?;
    /// let found = client.submit(search, (0,));
    /// found.cancel();
    /// assert!(found.result().unwrap_err().is_cancelled());
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_cancelled(&self) -> bool {
        self.control.is_cancelled(self.task.index)
    }

    /// Whether the worker has been told to end: its process got SIGTERM, as all processes of a
    /// Slurm job do on some sites. The task may go on while time allows.
    ///
    /// ```
    /// fn simulate(steps: u64) -> u64 {
    ///     let context = rdask::context();
    ///     let last = (0..steps).find(|_step| context.is_ending());
    ///     last.unwrap_or(steps) // a later task goes on from there
    /// }
    /// # let _ = simulate;
    /// ```
    pub fn is_ending(&self) -> bool {
        ENDING.load(Ordering::Relaxed)
    }

    /// Ends the run as one that was lost with its worker: the task runs again elsewhere, and
    /// nobody is blamed. For tasks whose child processes were ended with the worker.
    ///
    /// It unwinds as a panic does, so a program with `panic = "abort"` ends.
    ///
    /// ```
    /// fn convert(path: String) -> bool {
    ///     let status = std::process::Command::new("convert").arg(path).status();
    ///     if rdask::context().is_ending() {
    ///         rdask::context().give_up(); // who knows whether it ended by itself
    ///     }
    ///     status.is_ok_and(|status| status.success())
    /// }
    /// # let _ = convert;
    /// ```
    pub fn give_up(&self) -> ! {
        self.control.give_up();
        std::panic::resume_unwind(Box::new(GIVEN_UP))
    }

    /// The same as [`is_cancelled`](Self::is_cancelled), to be passed on alone.
    pub fn cancelled(&self) -> CancelToken {
        CancelToken { index: self.task.index, control: Arc::clone(&self.control) }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("task", &self.task)
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

/// Tells whether a task was cancelled. Made by [`Context::cancelled`].
///
/// ```
/// fn render(lines: u32) -> u32 {
///     let token = rdask::context().cancelled();
///     let drawn = std::thread::spawn(move || (0..lines).take_while(|_| !token.is_cancelled()).count());
///     drawn.join().unwrap() as u32
/// }
/// # let client = rdask::Client::local().unwrap();
/// assert_eq!(client.submit(render, (600,)).result().unwrap(), 600);
/// ```
#[derive(Clone)]
pub struct CancelToken {
    index: u32,
    control: Arc<Control>,
}

impl CancelToken {
    /// Whether it was.
    pub fn is_cancelled(&self) -> bool {
        self.control.is_cancelled(self.index)
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelToken").field(&self.is_cancelled()).finish()
    }
}

/// The chunk that a slot thread is in.
struct Current {
    assign: Arc<Assign>,
    control: Arc<Control>,
    home: Arc<Home>,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// While it lives, this thread runs tasks of a chunk.
#[derive(Debug)]
pub(crate) struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

/// Makes this thread one that runs tasks of a chunk.
pub(crate) fn enter(assign: Arc<Assign>, control: Arc<Control>, home: Arc<Home>) -> Entered {
    CURRENT.set(Some(Current { assign, control, home }));
    Entered(())
}

/// What the task that runs on this thread can know of itself; `None` if no task does. For functions
/// that are called outside of tasks, too.
///
/// ```
/// fn is_wanted() -> bool {
///     rdask::try_context().is_none_or(|context| !context.is_cancelled())
/// }
/// assert!(is_wanted());
/// ```
pub fn try_context() -> Option<Context> {
    CURRENT.with_borrow(|current| {
        let current = current.as_ref()?;
        let index = current.control.current()?;
        Some(Context {
            task: TaskId { array: current.assign.array, index },
            run: run_number(&current.assign, index),
            home: Arc::clone(&current.home),
            control: Arc::clone(&current.control),
        })
    })
}

/// What the task that runs on this thread can know of itself.
///
/// # Panics
/// If no task runs on this thread: in `main`, in a client, or on a thread that a task has started.
/// Such a thread can be given the task's own context, or use [`try_context`].
///
/// ```
/// # let client = rdask::Client::local().unwrap();
/// let node = client.submit(|| rdask::context().node().to_owned(), ());
/// println!("it ran on {}", node.result().unwrap());
/// ```
#[track_caller]
pub fn context() -> Context {
    try_context().expect(
        "rdask::context() may only be called inside a task, on the thread that runs it; pass the \
         context to threads of your own, or use rdask::try_context()",
    )
}

/// Waits for other tasks inside of one: its slots serve others meanwhile. Outside of tasks it
/// just waits.
///
/// Returns once `wait` has and a slot is free again.
#[doc(hidden)]
pub fn park_while<R>(wait: impl FnOnce() -> R) -> R {
    /// Takes the slots again even if the wait panics: the run goes on, if only to unwind.
    struct Parked(Arc<Control>);

    impl Drop for Parked {
        fn drop(&mut self) {
            self.0.unpark();
        }
    }

    let control = CURRENT.with_borrow(|current| {
        let current = current.as_ref()?;
        current.control.current()?;
        Some(Arc::clone(&current.control))
    });
    let _parked = control.map(|control| {
        control.park();
        Parked(control)
    });
    wait()
}
