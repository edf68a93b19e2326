//! How an entity has fared lately: when it may try again, and when it is given up.

use std::time::Duration;

use factum_kernel::Monotonic;

/// How an entity or a worker that died is started again.
///
/// ```
/// use std::time::Duration;
/// use factum_runtime::Restart;
///
/// let restart = Restart::new().with_deaths_max(3, Duration::from_secs(10));
/// assert_eq!(restart.deaths_max, 3);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Restart {
    /// The pause after the first failure; each further one in a row doubles it. Half of a pause is
    /// random, so that those that died together don't come back together.
    pub pause_min: Duration,
    /// No pause is longer.
    pub pause_max: Duration,
    /// After so many deaths within `window` an entity is quarantined, and a worker given up; at
    /// least 1. A failure in an outage is none.
    pub deaths_max: u32,
    /// The time within which deaths are counted.
    pub window: Duration,
}

impl Restart {
    /// Pauses from 10 ms to 10 s, quarantine at the fifth death within a minute.
    pub const fn new() -> Self {
        Self {
            pause_min: Duration::from_millis(10),
            pause_max: Duration::from_secs(10),
            deaths_max: 5,
            window: Duration::from_secs(60),
        }
    }

    /// Sets the shortest and the longest pause.
    pub const fn with_pauses(mut self, min: Duration, max: Duration) -> Self {
        (self.pause_min, self.pause_max) = (min, max);
        self
    }

    /// Sets how many deaths within which time are too many.
    pub const fn with_deaths_max(mut self, deaths: u32, window: Duration) -> Self {
        (self.deaths_max, self.window) = (deaths, window);
        self
    }
}

impl Default for Restart {
    fn default() -> Self {
        Self::new()
    }
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The entity's: its rules panicked, or its events can't be folded. Counts as a death.
    Entity,
    /// The store's, or of something else that is away: it may be well again soon, and then so is
    /// the entity or the worker.
    Store,
    /// The message's: the next one has nothing to do with it.
    Request,
}

/// What went wrong lately.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Failures since something last went well.
    in_a_row: u32,
    last: Monotonic,
    /// Within the window, at most `deaths_max`.
    deaths: Vec<Monotonic>,
}

impl Health {
    pub(crate) fn stumbled(&mut self, blame: Blame, restart: &Restart, now: Monotonic) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.last = now;
        if blame == Blame::Entity {
            self.deaths.retain(|death| now.saturating_since(*death) < restart.window);
            self.deaths.push(now);
        }
    }

    pub(crate) fn recovered(&mut self) {
        self.in_a_row = 0;
    }

    pub(crate) fn is_dead(&self, restart: &Restart) -> bool {
        self.deaths.len() >= restart.deaths_max.max(1) as usize
    }

    /// How long to wait before the next load.
    pub(crate) fn pause(&self, restart: &Restart, now: Monotonic) -> Option<Duration> {
        let doublings = self.in_a_row.checked_sub(1)?;
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let pause = restart.pause_min.saturating_mul(factor).min(restart.pause_max);
        let left = pause.saturating_sub(now.saturating_since(self.last));
        (!left.is_zero()).then_some(left)
    }

    /// Whether it can be forgotten.
    pub(crate) fn is_past(&self, restart: &Restart, now: Monotonic) -> bool {
        now.saturating_since(self.last) >= restart.window.max(restart.pause_max)
    }
}
