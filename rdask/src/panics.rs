//! Panics of tasks: caught, with message, place and backtrace.
//!
//! The place and the backtrace are known only to the panic hook, which runs on the panicking thread
//! before the unwinding. Ours notes them if the thread is running a chunk of tasks, and otherwise
//! calls the hook that was there before. If the user replaced our hook, or if the panic was resumed
//! and no hook ran, the message from the panic itself is left.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use crate::function::{Failure, FailureKind};

/// How many panics of a chunk get a backtrace. Finding the names of its frames takes milliseconds:
/// a map whose every task panics should not take hours for it.
const BACKTRACES_PER_CHUNK_MAX: u32 = 4;

thread_local! {
    /// How many panics on this thread may still take a backtrace, if it is running tasks.
    static WATCHED: Cell<Option<u32>> = const { Cell::new(None) };
    /// The last panic on this thread that the hook saw.
    static SEEN: RefCell<Option<Seen>> = const { RefCell::new(None) };
}

/// What the hook knows of a panic.
struct Seen {
    message: String,
    location: Option<String>,
    backtrace: Option<Backtrace>,
}

/// While it lives, panics on this thread are noted instead of printed.
#[derive(Debug)]
pub(crate) struct Watch {
    /// What was so before: a task may run a chunk of others while it waits.
    outer: Option<u32>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        install_hook();
        SEEN.with_borrow_mut(Option::take);
        Self { outer: WATCHED.replace(Some(BACKTRACES_PER_CHUNK_MAX)) }
    }

    /// Describes the panic that was caught.
    pub(crate) fn failure(&mut self, panic: Box<dyn Any + Send>) -> Failure {
        let message = message_of(&*panic);
        drop_quietly(panic);
        // A panic that the task itself caught may have been seen before one that no hook saw.
        let seen = SEEN.with_borrow_mut(Option::take).filter(|seen| seen.message == message);
        let (location, backtrace) = match seen {
            Some(Seen { location, backtrace, .. }) => (location, backtrace),
            None => (None, None),
        };
        let backtrace = backtrace.map(|backtrace| trim(&backtrace.to_string()));
        Failure { kind: FailureKind::Panicked, message, location, backtrace }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED.set(self.outer);
    }
}

fn install_hook() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // A thread that is ending has no thread-locals any more; it runs no tasks either.
            let watched = WATCHED.try_with(Cell::get).ok().flatten();
            if let Some(backtraces) = watched {
                note(info, backtraces);
            }
            // With `panic = "abort"` nobody will ask what was noted.
            if watched.is_none() || cfg!(panic = "abort") {
                previous(info);
            }
        }));
    });
}

fn note(info: &PanicHookInfo<'_>, backtraces: u32) {
    let backtrace = (backtraces > 0).then(Backtrace::force_capture);
    WATCHED.set(Some(backtraces.saturating_sub(1)));
    let seen = Seen {
        message: message_of(info.payload()),
        location: info.location().map(ToString::to_string),
        backtrace,
    };
    // Only a panic while this very cell is written could hold it; then the first one counts.
    SEEN.with(|cell| {
        if let Ok(mut cell) = cell.try_borrow_mut() {
            *cell = Some(seen);
        }
    });
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        String::from("a panic without text")
    }
}

/// What a task panicked with may panic when it is dropped, and what that panicked with as well.
fn drop_quietly(panic: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(another);
    }
}

/// Leaves the frames between the machinery that raises panics and the one that runs tasks.
fn trim(backtrace: &str) -> String {
    let frames = frames(backtrace);
    let is_one_of = |names: &[&str], frame: &str| names.iter().any(|name| frame.contains(name));
    let raised = frames.iter().position(|frame| is_one_of(&RAISING, frame)).unwrap_or(0);
    let frames = frames.get(raised..).unwrap_or_default();
    let start = frames.iter().take_while(|frame| is_one_of(&RAISING, frame)).count();
    let end = frames.iter().position(|frame| is_one_of(&RUNNING, frame)).unwrap_or(frames.len());
    match frames.get(start..end) {
        Some(kept) if !kept.is_empty() => kept.concat(),
        _ => backtrace.to_owned(),
    }
}

/// In the names of the last frames that raise a panic, seen from the task.
const RAISING: [&str; 5] = [
    "rust_begin_unwind",
    "core::panicking::",
    "std::panicking::begin_panic",
    "__rust_end_short_backtrace",
    "std::panic::panic_any",
];

/// In the names of the frames that run a task.
const RUNNING: [&str; 3] =
    ["rdask::task::param::", "rdask::task::submission::", "rdask::function::"];

/// Cuts a printed backtrace into frames: `  12: name`, perhaps followed by `at file:line` on a line
/// of its own.
fn frames(backtrace: &str) -> Vec<&str> {
    let mut starts = Vec::new();
    let mut position = 0;
    for line in backtrace.split_inclusive('\n') {
        let number = line.trim_start().split(':').next().unwrap_or_default();
        if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
            starts.push(position);
        }
        position += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([backtrace.len()]);
    starts.iter().zip(ends).map(|(&start, end)| &backtrace[start..end]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_the_machinery_are_cut_off() {
        let full = "   0: std::backtrace::Backtrace::force_capture\n             at /lib.rs:1:1\n   \
                    1: rdask::panics::note\n   2: rust_begin_unwind\n   2: core::panicking::panic_fmt\n   3: user::square\n             \
                    at ./main.rs:3:5\n   4: user::main::{{closure}}\n   5: <F as rdask::task::param::TaskFn>::call\n   \
                    6: rdask::function::trampoline::run\n";
        let cut = trim(full);
        assert_eq!(
            cut,
            "   3: user::square\n             at ./main.rs:3:5\n   4: user::main::{{closure}}\n"
        );
    }

    #[test]
    fn a_backtrace_without_names_is_left_as_it_is() {
        assert_eq!(
            trim("   0: <unknown>\n   1: <unknown>\n"),
            "   0: <unknown>\n   1: <unknown>\n"
        );
        assert_eq!(trim("disabled backtrace"), "disabled backtrace");
    }
}
