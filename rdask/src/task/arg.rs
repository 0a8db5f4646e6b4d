//! Arguments: what may feed a parameter, and how it gets into a submission.

use crate::codec::{self, Data, EncodeError, Encoded};
use crate::function::{Entry, ParamSource, UnknownFunction, Value};
use crate::remote::{Handle, Handles, Listed, Part, Remote, Remotes};
use crate::task::Param;

/// Arguments up to this size travel with their task; longer ones are scattered first.
pub(crate) const INLINE_ARG_BYTES_MAX: usize = 64 * 1024;

/// What can feed a parameter that takes a `T`: a value, or the result of another task.
///
/// | parameter | fed by |
/// |---|---|
/// | `T`, `&T` or `Shared<T>` | `T`, [`Remote<T>`](crate::Remote), `&Remote<T>`, [`Part<T>`](crate::Part), `&Part<T>` |
/// | `String` or `&String` | `&str`, too |
/// | `Vec<T>`, `&Vec<T>` or `Shared<Vec<T>>` | [`Remotes<T>`](crate::Remotes), `&Remotes<T>`, `&Vec<Remote<T>>`, `&Vec<Part<T>>`, too: all their results |
///
/// ```
/// use rdask::{Remote, task::Arg};
///
/// fn feeds<T>(_: impl Arg<T>) {}
/// feeds::<f64>(1.0);
/// feeds::<String>("text");
/// fn of_another_task(input: &Remote<f64>) {
///     feeds::<f64>(input);
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a parameter of type `{T}` cannot be fed by `{Self}`",
    label = "expected `{T}`, `Remote<{T}>` or `&Remote<{T}>`"
)]
pub trait Arg<T> {
    #[doc(hidden)]
    fn feed(self, sink: &mut ArgSink);
}

impl<T: Data> Arg<T> for T {
    #[inline]
    fn feed(self, sink: &mut ArgSink) {
        sink.value(self);
    }
}

impl<T: Data> Arg<T> for Remote<T> {
    fn feed(self, sink: &mut ArgSink) {
        sink.remote(&self);
    }
}

impl<T: Data> Arg<T> for &Remote<T> {
    fn feed(self, sink: &mut ArgSink) {
        sink.remote(self);
    }
}

impl<T: Data> Arg<Vec<T>> for Remotes<T> {
    fn feed(self, sink: &mut ArgSink) {
        sink.list(&self);
    }
}

impl<T: Data> Arg<Vec<T>> for &Remotes<T> {
    fn feed(self, sink: &mut ArgSink) {
        sink.list(self);
    }
}

// Not for `Vec<Remote<T>>` itself: `vec![]` and `.collect()` would need their types spelt out.
impl<T: Data> Arg<Vec<T>> for &Vec<Remote<T>> {
    fn feed(self, sink: &mut ArgSink) {
        sink.list(self);
    }
}

impl<T: Data> Arg<T> for Part<T> {
    fn feed(self, sink: &mut ArgSink) {
        sink.part(&self);
    }
}

impl<T: Data> Arg<T> for &Part<T> {
    fn feed(self, sink: &mut ArgSink) {
        sink.part(self);
    }
}

impl<T: Data> Arg<Vec<T>> for &Vec<Part<T>> {
    fn feed(self, sink: &mut ArgSink) {
        let handles = self.iter().map(Part::handle).collect();
        sink.dep(Dep::Parts(super::submission::collect::<T>(), handles));
    }
}

impl Arg<String> for &str {
    fn feed(self, sink: &mut ArgSink) {
        sink.value(self.to_owned());
    }
}

/// The arguments of one task, as a tuple: `(a, b)`, or `(a,)` if there is but one.
///
/// ```
/// use rdask::task::{Args, By, Ref};
///
/// fn feed<P>(_: impl Args<P>) {}
/// feed::<(By<f64>, Ref<String>)>((1.0, "text"));
/// ```
#[diagnostic::on_unimplemented(
    message = "the arguments `{Self}` do not fit the parameters `{P}`",
    label = "expected a tuple with one argument for each of `{P}`",
    note = "a single argument is written `(x,)`, with a comma; no argument is `()`"
)]
pub trait Args<P> {
    #[doc(hidden)]
    fn feed(self, sink: &mut ArgSink);
}

macro_rules! args {
    ($($X:ident $P:ident $x:ident),*) => {
        impl<$($X, $P),*> Args<($($P,)*)> for ($($X,)*)
        where
            $($P: Param, $X: Arg<$P::Value>,)*
        {
            #[inline]
            fn feed(self, sink: &mut ArgSink) {
                let _ = &sink;
                let ($($x,)*) = self;
                $($x.feed(sink);)*
            }
        }
    };
}

args!();
args!(X1 P1 x1);
args!(X1 P1 x1, X2 P2 x2);
args!(X1 P1 x1, X2 P2 x2, X3 P3 x3);
args!(X1 P1 x1, X2 P2 x2, X3 P3 x3, X4 P4 x4);
args!(X1 P1 x1, X2 P2 x2, X3 P3 x3, X4 P4 x4, X5 P5 x5);
args!(X1 P1 x1, X2 P2 x2, X3 P3 x3, X4 P4 x4, X5 P5 x5, X6 P6 x6);

/// Something a task needs that does not travel with it.
#[derive(Debug, Clone)]
pub enum Dep {
    /// The result of another task.
    Remote(Handle),
    /// A value of the client's that is too long to travel with the task.
    Value(Value),
    /// The results of many tasks as one vector, which a task of this function makes of them.
    List(Result<&'static Entry, UnknownFunction>, Listed),
    /// The same of single outputs.
    Parts(Result<&'static Entry, UnknownFunction>, Vec<Handle>),
}

/// Takes arguments in, in the order of the parameters.
#[derive(Debug, Default)]
pub struct ArgSink {
    /// The short values, packed.
    pub(crate) inline: Vec<u8>,
    /// Where each argument went.
    pub(crate) params: Vec<ParamSource>,
    /// The other arguments.
    pub(crate) deps: Vec<Dep>,
    /// The first value that could not be encoded.
    pub(crate) error: Option<EncodeError>,
    /// How many values were encoded.
    pub(crate) encoded: u64,
    /// Whether values stay values, however short: they are for many tasks.
    sharing: bool,
}

impl ArgSink {
    /// For an argument that many tasks share: it becomes a dependency, never inline.
    pub(crate) fn sharing() -> Self {
        Self { sharing: true, ..Self::default() }
    }

    /// Takes a value: inline if it is short.
    #[inline]
    pub(crate) fn value<T: Data>(&mut self, value: T) {
        if self.sharing {
            return self.dep(Dep::Value(Value::new(value)));
        }
        match codec::pack_limited(&value, INLINE_ARG_BYTES_MAX, &mut self.inline) {
            Ok(Encoded::Done) => {
                self.encoded += 1;
                self.params.push(ParamSource::Inline);
            }
            Ok(Encoded::TooLong) => self.dep(Dep::Value(Value::new(value))),
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }

    /// Takes the result of another task.
    pub(crate) fn remote<T>(&mut self, remote: &Remote<T>) {
        self.dep(Dep::Remote(remote.handle()));
    }

    /// Takes one output of another task.
    fn part<T>(&mut self, part: &Part<T>) {
        self.dep(Dep::Remote(part.handle()));
    }

    /// Takes the results of many tasks as one vector.
    fn list<T: Data>(&mut self, remotes: &impl Handles<T>) {
        self.dep(Dep::List(super::submission::collect::<T>(), remotes.list()));
    }

    fn dep(&mut self, dep: Dep) {
        self.params.push(ParamSource::Input);
        self.deps.push(dep);
    }
}
