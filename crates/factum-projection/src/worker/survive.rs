//! A panic in the loop itself, of a target or a store: the next life begins.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
};

use super::{End, Worker, broken};
use crate::work::Work;

/// After so many panics in a row it stops.
const PANICS_MAX: u32 = 10;

impl<W: Work> Worker<W> {
    /// A life, with what is to be done about a panic in it. What is stored is looked at again then,
    /// as after any error whose outcome is not known.
    pub(super) async fn survive(&mut self) -> End {
        match caught(self.live()).await {
            Ok(end) => end,
            Err(told) => {
                self.panics += 1;
                let told = format!("the target or the store panicked: {told}");
                if self.panics > PANICS_MAX {
                    return broken(told);
                }
                self.away(told).await
            }
        }
    }
}

/// What a future comes to, or what it said when it panicked.
async fn caught<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => std::task::Poll::Ready(Err(said(&*panic))),
    })
    .await
}

/// What a panic said.
pub(super) fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it said nothing").to_owned()
}
