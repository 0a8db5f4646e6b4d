//! Typed tasks: which functions can be one, what feeds their parameters, what their results are.
//!
//! Users meet these traits in signatures and in error messages, and implement none of them:
//!
//! - [`TaskFn`]: a function of up to six parameters, each taken by value ([`By`]), by reference
//!   ([`Ref`]) or as a [`Shared`](crate::Shared) ([`Shr`]);
//! - [`Arg`] and [`Args`]: an argument, and a tuple of them;
//! - [`Out`] and [`TryOut`]: what a function returns, now ([`Plain`]) or later ([`Awaited`]);
//!   [`Outputs`]: what one returns that splits.
//!
//! Parameters are wrapped in kinds so that the implementations for `fn(T)` and `fn(&T)` differ in
//! more than a lifetime. Inference stays unique, since a reference is never [`Data`](crate::Data).
//!
//! [`submission`] turns a typed call into what a client sends: a key, inline bytes, dependencies.

mod arg;
mod out;
mod param;
#[doc(hidden)]
pub mod submission;

pub use arg::{Arg, Args};
#[doc(hidden)]
pub use arg::{ArgSink, Dep};
pub use out::{Awaited, Out, Outputs, Plain, TryOut};
pub use param::{By, Param, Ref, Shr, TaskFn};

/// Refuses, when the program is built, functions that capture variables.
///
/// To be used directly in each public method that takes a function: then the compiler's note "the
/// above error was encountered while instantiating" names that method, and the line of the user's
/// that called it.
#[doc(hidden)]
#[macro_export]
macro_rules! assert_captures_nothing {
    ($function:ty) => {
        const {
            ::core::assert!(
                ::core::mem::size_of::<$function>() == 0,
                "rdask: a task function must not capture variables, since only its name travels; pass them as \
                 arguments: `map_with(|x, captured| .., inputs, captured)` or `submit(f, (x, captured))`. A function \
                 pointer is refused for the same reason: name the function itself"
            )
        }
    };
}

#[cfg(test)]
mod tests;
