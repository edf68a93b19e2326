//! Futures without a runtime.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

/// Drives a future to its end on this thread, where there is no runtime, to test what a store
/// answers there.
///
/// ```
/// assert_eq!(factum_testing::drive(async { 6 * 7 }), 42);
/// ```
pub fn drive<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Parked(thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(done) => return done,
            // One that was woken since goes on at once.
            Poll::Pending => thread::park(),
        }
    }
}

struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
