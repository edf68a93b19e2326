//! A clock that a test moves by hand.

use std::time::Duration;

use async_trait::async_trait;
use factum_kernel::{Clock, Monotonic, Timestamp};
use tokio::sync::watch;

/// A clock that stands still until a test moves it. Clones show the same time.
///
/// By default a sleeper wakes when [`advance`](Self::advance) has moved the clock to its time.
/// [`set`](Self::set) changes only what [`now`](Clock::now) shows, as when a machine's clock is
/// set: no time passes, and no sleeper wakes. A clock made with
/// [`auto_advancing`](Self::auto_advancing) is moved by each sleep: no caller waits, but time
/// passes.
///
/// ```
/// use std::time::Duration;
/// use factum_kernel::{Clock, Timestamp};
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
    time: watch::Sender<Time>,
    sleepers: watch::Sender<usize>,
    auto_advancing: bool,
}

#[derive(Debug, Clone, Copy)]
struct Time {
    now: Timestamp,
    monotonic: Monotonic,
}

impl Time {
    fn pass(&mut self, by: Duration) {
        self.now = self.now.saturating_add(by);
        self.monotonic = self.monotonic.saturating_add(by);
    }
}

impl VirtualClock {
    /// A clock that stands at this time.
    pub fn new(start: Timestamp) -> Self {
        let time = Time { now: start, monotonic: Monotonic::START };
        let time = watch::Sender::new(time);
        let sleepers = watch::Sender::new(0);
        Self { time, sleepers, auto_advancing: false }
    }

    /// A clock at this time that every sleep moves at once.
    pub fn auto_advancing(start: Timestamp) -> Self {
        Self { auto_advancing: true, ..Self::new(start) }
    }

    /// Lets time pass, and wakes the sleepers whose time has come.
    pub fn advance(&self, by: Duration) {
        self.time.send_modify(|time| time.pass(by));
    }

    /// Sets the time that the clock shows, forward or back. No time passes.
    pub fn set(&self, now: Timestamp) {
        self.time.send_modify(|time| time.now = now);
    }

    /// Waits until this many callers sleep, so that a test does not move the clock too early.
    pub async fn until_sleeping(&self, count: usize) {
        let mut sleepers = self.sleepers.subscribe();
        // The sender lives as long as `self`.
        let _ = sleepers.wait_for(|sleeping| *sleeping >= count).await;
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.time.borrow().now
    }

    fn monotonic(&self) -> Monotonic {
        self.time.borrow().monotonic
    }

    async fn sleep(&self, duration: Duration) {
        let mut time = self.time.subscribe();
        let until = self.monotonic().saturating_add(duration);
        if self.auto_advancing {
            self.time.send_if_modified(|time| {
                let left = until.saturating_since(time.monotonic);
                time.pass(left);
                !left.is_zero()
            });
            // A loop that only sleeps must let other tasks run, as it does with a real clock.
            tokio::task::yield_now().await;
            return;
        }
        let _sleeping = Sleeping::new(&self.sleepers);
        // The sender lives as long as `self`.
        let _ = time.wait_for(|time| time.monotonic >= until).await;
    }
}

/// Counts a sleeper for as long as it sleeps, also if it is cancelled.
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
