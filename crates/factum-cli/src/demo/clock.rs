//! The bank's clock: its time leaps through the month, and its pauses take real time.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use factum::{
    event::Timestamp,
    store::{Clock, Monotonic, SystemClock},
};

/// A clock that stands still until it is advanced. It never goes back.
#[derive(Debug)]
pub(crate) struct BankClock(AtomicU64);

impl BankClock {
    /// A clock that stands at this time.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self(AtomicU64::new(now.as_micros()))
    }

    /// Advances the clock to this time, unless it is past that time already.
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

    // A pause waits for another writer, which works in real time.
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
