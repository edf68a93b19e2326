//! The bank's clock: it leaps through the month, and its pauses are real.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use factum::{Clock, Monotonic, SystemClock, Timestamp};

/// A clock that stands where it was put; it goes forward only.
#[derive(Debug)]
pub(crate) struct BankClock(AtomicU64);

impl BankClock {
    /// Stands at this time.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self(AtomicU64::new(now.as_micros()))
    }

    /// Moves on, unless it is past that already.
    pub(crate) fn advance_to(&self, time: Timestamp) {
        self.0.fetch_max(time.as_micros(), Ordering::Relaxed);
    }
}

#[async_trait]
impl Clock for BankClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Monotonic {
        SystemClock.monotonic()
    }

    // Who pauses waits for another writer, and that one works in real time.
    async fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let clock = BankClock::new(Timestamp::from_micros(10));
        clock.advance_to(Timestamp::from_micros(20));
        clock.advance_to(Timestamp::from_micros(15));
        assert_eq!(clock.now(), Timestamp::from_micros(20));
    }
}
