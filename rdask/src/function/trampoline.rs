//! The loop that runs a chunk of tasks, compiled once per function.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::{Call, Chunk, Cursor, Yield};
use crate::panics::Watch;

/// Runs all tasks of the chunk. Each has an outcome afterwards.
///
/// A panic costs an unwinding; tasks that don't panic cost nothing for those that might, since the
/// one `catch_unwind` is around the loop, and the loop is entered again behind the task that
/// panicked.
///
/// # Panics
/// If the source does.
pub(super) fn run<C: Call>(function: C::Function, chunk: &mut Chunk<'_>) {
    let mut watch = Watch::new();
    let mut in_task = false;
    loop {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            while let Some(task) = chunk.tasks.next(chunk.out) {
                in_task = true;
                match C::call(function, &mut Cursor::new(task)) {
                    Ok(value) => value.put(chunk.out),
                    Err(failure) => chunk.out.push_failure(failure),
                }
                in_task = false;
            }
        }));
        match caught {
            Ok(()) => break,
            Err(panic) if in_task => {
                chunk.out.push_failure(Box::new(watch.failure(panic)));
                in_task = false;
            }
            Err(panic) => {
                chunk.out.finish();
                resume_unwind(panic);
            }
        }
    }
    chunk.out.finish();
}
