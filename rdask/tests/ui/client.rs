// The signatures of a client's methods, for the cases in this folder.

#![allow(dead_code)]

use rdask::task::{Arg, Args, Out, TaskFn, TryOut, submission};
use rdask::{Data, Remote};

pub struct Client;

impl Client {
    pub fn submit<F, P, X, K>(&self, function: F, args: X) -> Remote<<F::Ret as Out<K>>::Value>
    where
        F: TaskFn<P>,
        X: Args<P>,
        F::Ret: Out<K>,
        P: 'static,
        K: 'static,
    {
        rdask::assert_captures_nothing!(F);
        panic!("{:?}", submission::submit(function, args));
    }

    pub fn try_submit<F, P, X, K>(&self, function: F, args: X) -> Remote<<F::Ret as TryOut<K>>::Value>
    where
        F: TaskFn<P>,
        X: Args<P>,
        F::Ret: TryOut<K>,
        P: 'static,
        K: 'static,
    {
        rdask::assert_captures_nothing!(F);
        panic!("{:?}", submission::try_submit(function, args));
    }

    pub fn map<F, A, R, K, X, I>(&self, function: F, items: I) -> Vec<Remote<R::Value>>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Data,
        R: Out<K> + 'static,
        K: 'static,
        X: Arg<A>,
        I: IntoIterator<Item = X>,
    {
        rdask::assert_captures_nothing!(F);
        panic!("{:?}", submission::map(function, items));
    }
}
