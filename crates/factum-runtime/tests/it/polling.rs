//! A caller that leaves at one of its await points.

use std::{future::Future, pin::pin, task::Poll};

/// Polls a future n times, letting all other tasks run in between, and drops it. Returns true if it
/// ended.
pub(crate) async fn poll_times<T>(future: impl Future<Output = T>, times: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..times {
        let polled = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if polled.is_ready() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}
