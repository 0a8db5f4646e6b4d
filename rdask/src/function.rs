//! The functions of this program that tasks can run, and what running them takes.
//!
//! A function is named by a key, never sent: both ends run the same program, and every place that
//! submits a function has put it into a table when the program was linked. [`register`] is the
//! client's side: it makes sure that the function is in the table and returns its entry. [`entry`]
//! is the worker's side: an unknown key gives `None`, never a jump.
//!
//! What an entry runs is a [`Chunk`]: as many tasks of this function as a slot takes at once. The
//! loop over them is compiled together with the user's function, so a tiny task costs nanoseconds.
//!
//! Nothing here knows of networks, schedulers or handles.

use std::fmt;

mod chunk;
mod cursor;
mod table;
mod trampoline;
mod value;

pub use chunk::{
    Chunk, Failure, FailureKind, INLINE_RESULT_BYTES_MAX, Outcome, Outcomes, ParamSource, Parts,
    Same, Special, TaskInputs, TaskSource, Yield,
};
pub use cursor::{Borrowed, Cursor, InputError};
pub use table::{entries, entry, register};
pub use value::{EncodedInput, Input, Value};

/// A way to call a function as a task: what its inputs are and what becomes of its result.
///
/// The implementing type names the function's type and all other types involved. It is never
/// constructed: its type id is what the key in the table is made from.
pub trait Call: 'static {
    /// The function. Its values have no size.
    type Function: Copy + Send + Sync + 'static;
    /// What a task of it results in.
    type Value: Yield;

    /// Runs one task.
    ///
    /// # Errors
    /// If an input does not arrive, or if the function returned an error that fails the task.
    fn call(function: Self::Function, task: &mut Cursor<'_>) -> Result<Self::Value, Box<Failure>>;
}

/// One function in the table.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Names the function among those of this program, in all processes of it. Other builds of the
    /// same source have other keys.
    pub key: u64,
    /// Runs a chunk of its tasks.
    pub call: fn(&mut Chunk<'_>),
    /// The function's path, to be shown. Closures of one function share it: it is no id.
    pub name: fn() -> &'static str,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &format_args!("{:016x}", self.key))
            .field("name", &(self.name)())
            .finish()
    }
}

/// A function that is submitted, but not in this program's table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} is missing from this program's table of task functions: the linker dropped it, or the code that submits \
     it is in a shared library (crate-type `dylib`); link with the default linker, bfd, gold or mold, and make that \
     crate an `rlib`"
)]
pub struct UnknownFunction {
    /// The function's path.
    pub name: &'static str,
}

#[cfg(test)]
pub(crate) mod tests;
