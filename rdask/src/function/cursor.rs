//! A task's arguments, taken one after the other.

use std::any::type_name;
use std::ops::Deref;
use std::sync::Arc;

use super::{Failure, FailureKind, Input, ParamSource, TaskInputs, Value};
use crate::codec::{self, Data, DecodeError, Encoded};
use crate::shared::Shared;

/// Reads the arguments of one task, in the order of its parameters.
#[derive(Debug)]
pub struct Cursor<'i> {
    inline: &'i [u8],
    params: &'i [ParamSource],
    inputs: std::slice::IterMut<'i, Input>,
    taken: usize,
}

/// Why a parameter got no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The bytes are not what the parameter takes.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// The value is not what the parameter takes.
    #[error("expected a {expected}, got a {found}")]
    Mismatch {
        /// The parameter's type.
        expected: &'static str,
        /// The value's type.
        found: &'static str,
    },
    /// The value is shared and could not be copied.
    #[error(
        "a {type_name} that others use too cannot be copied: {reason}; take it as `&T` or `Shared<T>`"
    )]
    NotCopied {
        /// The parameter's type.
        type_name: &'static str,
        /// Why.
        reason: String,
    },
    /// The task has fewer arguments than the function has parameters.
    #[error("the argument is missing")]
    Missing,
    /// The task has more arguments than the function has parameters.
    #[error("{extra} arguments too many")]
    TooMany {
        /// How many.
        extra: usize,
    },
}

/// Where the next argument is.
enum Source<'i> {
    Inline,
    Input(&'i mut Input),
}

impl<'i> Cursor<'i> {
    /// At the first argument.
    #[inline]
    pub fn new(task: TaskInputs<'i>) -> Self {
        let TaskInputs { inline, params, inputs } = task;
        Self { inline, params, inputs: inputs.iter_mut(), taken: 0 }
    }

    /// How many arguments are left.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.params.len() - self.taken
    }

    /// The next argument, for a parameter `T`: moved where nobody else has it, else copied.
    ///
    /// # Errors
    /// If the argument does not fit.
    #[inline]
    pub fn owned<T: Data>(&mut self) -> Result<T, Box<Failure>> {
        let result = match self.advance() {
            Ok(Source::Inline) => codec::unpack(&mut self.inline).map_err(InputError::from),
            Ok(Source::Input(input)) => take_owned(std::mem::replace(input, Input::Taken)),
            Err(error) => Err(error),
        };
        result.map_err(|error| self.failure(&error))
    }

    /// The next argument, for a parameter `&T`: borrowed where this process has it.
    ///
    /// # Errors
    /// If the argument does not fit.
    #[inline]
    pub fn borrowed<T: Data>(&mut self) -> Result<Borrowed<'i, T>, Box<Failure>> {
        let result = match self.advance() {
            Ok(Source::Inline) => {
                codec::unpack(&mut self.inline).map(Borrowed::Own).map_err(InputError::from)
            }
            Ok(Source::Input(input)) => borrow::<T>(input).map(Borrowed::Input),
            Err(error) => Err(error),
        };
        result.map_err(|error| self.failure(&error))
    }

    /// The next argument, for a parameter `Shared<T>`.
    ///
    /// # Errors
    /// If the argument does not fit.
    #[inline]
    pub fn shared<T: Data>(&mut self) -> Result<Shared<T>, Box<Failure>> {
        let result = match self.advance() {
            Ok(Source::Inline) => {
                codec::unpack(&mut self.inline).map(Shared::new).map_err(InputError::from)
            }
            Ok(Source::Input(input)) => share(input),
            Err(error) => Err(error),
        };
        result.map_err(|error| self.failure(&error))
    }

    /// Checks that the arguments are used up.
    ///
    /// # Errors
    /// If they are not.
    #[inline]
    pub fn finish(&self) -> Result<(), Box<Failure>> {
        if self.remaining() == 0 && self.inline.is_empty() {
            return Ok(());
        }
        Err(self.failure(&InputError::TooMany { extra: self.remaining().max(1) }))
    }

    #[inline]
    fn advance(&mut self) -> Result<Source<'i>, InputError> {
        let source = *self.params.get(self.taken).ok_or(InputError::Missing)?;
        self.taken += 1;
        match source {
            ParamSource::Inline => Ok(Source::Inline),
            ParamSource::Input => Ok(Source::Input(self.inputs.next().ok_or(InputError::Missing)?)),
        }
    }

    #[cold]
    fn failure(&self, error: &InputError) -> Box<Failure> {
        Box::new(Failure {
            kind: FailureKind::Arguments,
            message: format!("argument {}: {error}", self.taken.max(1)),
            location: None,
            backtrace: None,
        })
    }
}

/// An argument for a parameter `&T`.
#[derive(Debug)]
pub enum Borrowed<'i, T> {
    /// It belongs to the task's inputs.
    Input(&'i T),
    /// It was among the task's inline bytes.
    Own(T),
}

impl<T> Deref for Borrowed<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Input(value) => value,
            Self::Own(value) => value,
        }
    }
}

fn mismatch<T>(value: &Value) -> InputError {
    InputError::Mismatch { expected: type_name::<T>(), found: value.type_name() }
}

fn take_owned<T: Data>(input: Input) -> Result<T, InputError> {
    match input {
        Input::Typed(value) => value.try_into_inner().or_else(|shared| copy(&shared)),
        Input::Encoded(encoded) => match Arc::try_unwrap(encoded) {
            Ok(encoded) => Ok(encoded.into_owned()?),
            Err(encoded) => match encoded
                .decoded()
                .and_then(Value::downcast_ref::<T>)
                .and_then(codec::duplicate)
            {
                Some(value) => Ok(value),
                None => Ok(codec::decode(&encoded.bytes())?),
            },
        },
        Input::Taken => Err(InputError::Missing),
    }
}

/// A copy through the codec, unless there is a shorter way: `Data` does not ask for `Clone`.
fn copy<T: Data>(shared: &Value) -> Result<T, InputError> {
    let value = shared.downcast_ref::<T>().ok_or_else(|| mismatch::<T>(shared))?;
    if let Some(copy) = codec::duplicate(value) {
        return Ok(copy);
    }
    let not_copied = |reason| InputError::NotCopied { type_name: type_name::<T>(), reason };
    let mut bytes = Vec::new();
    match codec::encode_limited(value, usize::MAX, &mut bytes) {
        Ok(Encoded::Done | Encoded::TooLong) => codec::count_encodings(1),
        Err(error) => return Err(not_copied(error.to_string())),
    }
    codec::decode(&bytes).map_err(|error| not_copied(error.to_string()))
}

fn borrow<T: Data>(input: &Input) -> Result<&T, InputError> {
    let value = match input {
        Input::Typed(value) => value,
        Input::Encoded(encoded) => encoded.decode::<T>()?,
        Input::Taken => return Err(InputError::Missing),
    };
    value.downcast_ref().ok_or_else(|| mismatch::<T>(value))
}

fn share<T: Data>(input: &Input) -> Result<Shared<T>, InputError> {
    let value = match input {
        Input::Typed(value) => value,
        Input::Encoded(encoded) => encoded.decode::<T>()?,
        Input::Taken => return Err(InputError::Missing),
    };
    value.downcast().map(Shared::from).ok_or_else(|| mismatch::<T>(value))
}
