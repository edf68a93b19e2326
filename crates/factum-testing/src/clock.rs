//! A clock that a test moves by hand.

use std::time::Duration;

use async_trait::async_trait;
use factum_core::{Clock, Timestamp};
use tokio::sync::watch;

/// A clock that stands still until a test moves it. Clones show the same time.
///
/// By default a sleeper wakes when [`advance`](Self::advance) or [`set`](Self::set) has brought
/// the clock to its moment. A clock made with [`auto_advancing`](Self::auto_advancing) is moved by
/// whoever sleeps: nobody waits, and time passes all the same.
///
/// ```
/// use std::time::Duration;
/// use factum_core::{Clock, Timestamp};
/// use factum_testing::VirtualClock;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let clock = VirtualClock::new("2026-03-01T09:00:00Z".parse().unwrap());
/// let sleeper = tokio::spawn({
///     let clock = clock.clone();
///     async move { clock.sleep(Duration::from_secs(60)).await }
/// });
/// clock.until_sleeping(1).await;
/// clock.advance(Duration::from_secs(60));
/// sleeper.await.unwrap();
/// assert_eq!(clock.now().to_string(), "2026-03-01T09:01:00.000000Z");
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct VirtualClock {
    now: watch::Sender<Timestamp>,
    sleepers: watch::Sender<usize>,
    auto_advancing: bool,
}

impl VirtualClock {
    /// A clock that stands at this time.
    pub fn new(start: Timestamp) -> Self {
        let (now, sleepers) = (watch::Sender::new(start), watch::Sender::new(0));
        Self { now, sleepers, auto_advancing: false }
    }

    /// A clock at this time which every sleep moves on at once.
    pub fn auto_advancing(start: Timestamp) -> Self {
        Self { auto_advancing: true, ..Self::new(start) }
    }

    /// Moves the time on, and wakes whoever's moment has come.
    pub fn advance(&self, by: Duration) {
        self.now.send_modify(|now| *now = now.saturating_add(by));
    }

    /// Sets the time, back also, as real clocks do.
    pub fn set(&self, now: Timestamp) {
        self.now.send_replace(now);
    }

    /// Waits until so many sleep, so that a test does not move the clock too early.
    pub async fn until_sleeping(&self, count: usize) {
        let mut sleepers = self.sleepers.subscribe();
        // The sender lives as long as `self`.
        let _ = sleepers.wait_for(|sleeping| *sleeping >= count).await;
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        let mut now = self.now.subscribe();
        let until = self.now().saturating_add(duration);
        if self.auto_advancing {
            self.now.send_if_modified(|now| {
                let later = until > *now;
                *now = until.max(*now);
                later
            });
            // A loop that only sleeps must let others run, as it does with a real clock.
            tokio::task::yield_now().await;
            return;
        }
        let _sleeping = Sleeping::new(&self.sleepers);
        // The sender lives as long as `self`.
        let _ = now.wait_for(|now| *now >= until).await;
    }
}

/// Counts one sleeper for as long as it sleeps, be it cancelled.
struct Sleeping<'a>(&'a watch::Sender<usize>);

impl<'a> Sleeping<'a> {
    fn new(sleepers: &'a watch::Sender<usize>) -> Self {
        sleepers.send_modify(|count| *count += 1);
        Self(sleepers)
    }
}

impl Drop for Sleeping<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
