//! The recent failures of an entity: the pause before the next attempt, and the limit on deaths.

use std::time::Duration;

use factum_kernel::Monotonic;

/// The restart policy for an entity or a worker that died: pauses, and a limit on deaths.
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
    /// The pause after the first failure. Each further failure in a row doubles it. Half of a pause
    /// is random, so that entities that failed together don't restart together.
    pub pause_min: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// The number of deaths within `window` after which an entity is quarantined or a worker is
    /// given up, at least 1. A failure during an outage is not a death.
    pub deaths_max: u32,
    /// The time within which deaths are counted.
    pub window: Duration,
}

impl Restart {
    /// The defaults: pauses from 10 ms to 10 s, and quarantine at the fifth death within a minute.
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

    /// Sets the limit on deaths, and the window in which they are counted.
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

/// The party at fault for a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The entity: its rules panicked, or its events can't be folded. Counts as a death.
    Entity,
    /// The store, or another service that is unavailable. The entity or the worker may succeed when
    /// the outage is over.
    Store,
    /// The message. The next message is not affected.
    Request,
}

/// The recent failures.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// The number of failures since the last success.
    in_a_row: u32,
    last: Monotonic,
    /// The deaths within the window, at most `deaths_max`.
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

    /// The number of failures since the last success.
    pub(crate) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    pub(crate) fn is_dead(&self, restart: &Restart) -> bool {
        self.deaths.len() >= restart.deaths_max.max(1) as usize
    }

    /// The pause that is left before the next load.
    pub(crate) fn pause(&self, restart: &Restart, now: Monotonic) -> Option<Duration> {
        let doublings = self.in_a_row.checked_sub(1)?;
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let pause = restart.pause_min.saturating_mul(factor).min(restart.pause_max);
        let left = pause.saturating_sub(now.saturating_since(self.last));
        (!left.is_zero()).then_some(left)
    }

    /// True if the failures are old enough to be forgotten.
    pub(crate) fn is_past(&self, restart: &Restart, now: Monotonic) -> bool {
        now.saturating_since(self.last) >= restart.window.max(restart.pause_max)
    }
}
