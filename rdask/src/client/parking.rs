//! Blocking: a thread parks until a future is ready.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use crate::context;

/// Waits for a future on the user's thread. In a task, the slot is given back meanwhile.
///
/// # Panics
/// Inside an async runtime, whose thread would do nothing else meanwhile.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    if context::try_context().is_some() {
        return context::park_while(|| park_on(future));
    }
    assert!(
        tokio::runtime::Handle::try_current().is_err(),
        "this call blocks its thread, which belongs to an async runtime: \
         use rdask::aio there, or `.await` the handle"
    );
    park_on(future)
}

/// Polls a future on this thread and parks in between.
pub(crate) fn park_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
