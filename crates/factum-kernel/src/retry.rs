//! The rules for trying an append again, as a state machine. An outcome goes in, and the next step
//! comes out. The caller sleeps and appends.

use std::{future::Future, time::Duration};

use crate::{
    batch::Appended,
    error::{AppendError, StoreError, StoreErrorKind},
    kernel::Kernel,
};

/// The limits and pauses with which an execution tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct RetryPolicy {
    /// The most times that an execution loads and decides again after a conflict.
    pub conflicts_max: u32,
    /// The most times that an execution repeats a batch whose outcome is unknown, or a request that
    /// found the store unavailable.
    pub repeats_max: u32,
    /// The upper bound of the first pause. It doubles with each further attempt.
    pub pause_min: Duration,
    /// The upper bound of every pause.
    pub pause_max: Duration,
}

impl RetryPolicy {
    /// 24 conflicts, 8 repeats, pauses from 4 ms to 1 s: the last repeat comes after about 3 s.
    pub const fn new() -> Self {
        Self {
            conflicts_max: 24,
            repeats_max: 8,
            pause_min: Duration::from_millis(4),
            pause_max: Duration::from_secs(1),
        }
    }

    /// Never tries again. The caller gets conflicts and unknown outcomes.
    pub const fn never() -> Self {
        Self { conflicts_max: 0, repeats_max: 0, ..Self::new() }
    }

    /// Sets the most times that an execution decides again after a conflict.
    pub const fn with_conflicts_max(mut self, conflicts_max: u32) -> Self {
        self.conflicts_max = conflicts_max;
        self
    }

    /// Sets the most times that an unknown outcome or an unavailable store is tried again.
    pub const fn with_repeats_max(mut self, repeats_max: u32) -> Self {
        self.repeats_max = repeats_max;
        self
    }

    fn pause(&self, attempt: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.pause_min.saturating_mul(factor).min(self.pause_max)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// The next step after an outcome. A pause is an upper bound: the caller waits a random part of it.
#[derive(Debug)]
pub(crate) enum Next {
    /// The batch is stored.
    Done(Appended),
    /// Append the same batch, marked repeated, after a pause.
    Repeat(Duration),
    /// Load and decide again, after a pause.
    Reload(Duration),
    /// Give up with this error.
    Fail(AppendError),
}

/// The attempts of one execution, counted against a [`RetryPolicy`].
#[derive(Debug)]
pub struct Attempts {
    policy: RetryPolicy,
    conflicts: u32,
    repeats: u32,
    /// True if an earlier attempt with the current batch has an unknown outcome. Until the store
    /// answers the question, no error may claim that nothing was stored.
    is_unknown: bool,
}

impl Attempts {
    /// No attempts yet.
    pub fn new(policy: RetryPolicy) -> Self {
        Self { policy, conflicts: 0, repeats: 0, is_unknown: false }
    }

    /// Decides the next step after an outcome. `is_overtaken` is true for a conflict, or a failed
    /// condition, that loading and deciding again can solve.
    pub(crate) fn after(
        &mut self,
        outcome: Result<Appended, AppendError>,
        is_overtaken: impl Fn(&AppendError) -> bool,
    ) -> Next {
        match outcome {
            Ok(appended) => Next::Done(appended),
            Err(AppendError::Indeterminate(error)) => {
                self.is_unknown = true;
                self.repeat(error)
            }
            Err(AppendError::Store(error)) if error.kind() == StoreErrorKind::Unavailable => {
                self.repeat(error)
            }
            Err(AppendError::Store(error)) => self.give_up(error),
            // The store looked for the ids before anything else. So these two errors prove that
            // nothing is stored, even if an earlier outcome was unknown.
            Err(error @ (AppendError::Conflict(_) | AppendError::ConditionFailed { .. })) => {
                self.is_unknown = false;
                if is_overtaken(&error) { self.reload(error) } else { Next::Fail(error) }
            }
        }
    }

    /// Returns the pause before a failed load is tried again; `None` to give up.
    pub(crate) fn after_failed_load(&mut self, error: &StoreError) -> Option<Duration> {
        if error.kind() != StoreErrorKind::Unavailable || self.repeats >= self.policy.repeats_max {
            return None;
        }
        self.repeats += 1;
        Some(self.policy.pause(self.repeats))
    }

    fn repeat(&mut self, error: StoreError) -> Next {
        if self.repeats >= self.policy.repeats_max {
            return self.give_up(error);
        }
        self.repeats += 1;
        Next::Repeat(self.policy.pause(self.repeats))
    }

    fn reload(&mut self, error: AppendError) -> Next {
        if self.conflicts >= self.policy.conflicts_max {
            return Next::Fail(error);
        }
        self.conflicts += 1;
        Next::Reload(self.policy.pause(self.conflicts))
    }

    fn give_up(&self, error: StoreError) -> Next {
        Next::Fail(if self.is_unknown {
            AppendError::Indeterminate(error)
        } else {
            AppendError::Store(error)
        })
    }
}

impl Kernel {
    /// Loads, and tries again while the store is unavailable. `store_error` extracts the store's
    /// error from an error of the load.
    pub(crate) async fn patiently<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        attempts: &mut Attempts,
        store_error: impl Fn(&E) -> Option<&StoreError>,
        load: impl Fn() -> F,
    ) -> Result<T, E> {
        loop {
            let loaded = load().await;
            let Some(error) = loaded.as_ref().err().and_then(&store_error) else { return loaded };
            let Some(pause) = attempts.after_failed_load(error) else { return loaded };
            self.pause(pause).await;
        }
    }

    /// Waits a random part of a pause, so that writers that collided don't collide again.
    pub(crate) async fn pause(&self, up_to: Duration) {
        self.clock().sleep(self.ids().jitter(up_to)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::VersionConflict, position::Position, stream::StreamId, version::*};

    fn conflict() -> AppendError {
        let stream = StreamId::new("a", "b").unwrap();
        let expected = ExpectedVersion::NoStream;
        let actual = StreamVersion::new(2);
        VersionConflict { stream, expected, actual, deleted_at: None }.into()
    }

    fn unknown() -> AppendError {
        AppendError::Indeterminate(StoreError::unavailable("the connection is lost"))
    }

    /// The outcome of an append that expected the version that the writer had loaded.
    fn after(attempts: &mut Attempts, error: impl Into<AppendError>) -> Next {
        attempts.after(Err(error.into()), |error| matches!(error, AppendError::Conflict(_)))
    }

    #[test]
    fn an_unknown_outcome_is_repeated_and_never_decided_again() {
        let mut attempts = Attempts::new(RetryPolicy::new());
        for _ in 0..8 {
            assert!(matches!(after(&mut attempts, unknown()), Next::Repeat(_)));
        }
        let last = after(&mut attempts, unknown());
        assert!(matches!(last, Next::Fail(AppendError::Indeterminate(_))));
    }

    #[test]
    fn once_unknown_no_error_claims_that_nothing_was_stored() {
        let mut attempts = Attempts::new(RetryPolicy::new());
        after(&mut attempts, unknown());
        let down = StoreError::unavailable("the store is down");
        assert!(matches!(after(&mut attempts, down), Next::Repeat(_)));
        let closed = after(&mut attempts, StoreError::closed());
        assert!(matches!(closed, Next::Fail(AppendError::Indeterminate(_))), "{closed:?}");
    }

    #[test]
    fn a_conflict_settles_what_was_unknown() {
        let mut attempts = Attempts::new(RetryPolicy::new());
        after(&mut attempts, unknown());
        assert!(matches!(after(&mut attempts, conflict()), Next::Reload(_)));
        let closed = after(&mut attempts, StoreError::closed());
        assert!(matches!(closed, Next::Fail(AppendError::Store(_))), "{closed:?}");
    }

    #[test]
    fn conflicts_are_bounded_and_what_deciding_again_does_not_mend_is_final() {
        let mut attempts = Attempts::new(RetryPolicy::new().with_conflicts_max(2));
        assert!(matches!(after(&mut attempts, conflict()), Next::Reload(_)));
        assert!(matches!(after(&mut attempts, conflict()), Next::Reload(_)));
        let third = after(&mut attempts, conflict());
        assert!(matches!(third, Next::Fail(AppendError::Conflict(_))));
        let mut attempts = Attempts::new(RetryPolicy::new());
        let failed = AppendError::ConditionFailed { condition: 0, position: Position::new(1) };
        assert!(matches!(after(&mut attempts, failed), Next::Fail(_)));
        let others = attempts.after(Err(conflict()), |_| false);
        assert!(matches!(others, Next::Fail(AppendError::Conflict(_))), "{others:?}");
    }

    #[test]
    fn pauses_double_up_to_their_bound() {
        let policy = RetryPolicy::new();
        let pauses: Vec<_> = (1..=10).map(|n| policy.pause(n).as_millis()).collect();
        assert_eq!(pauses, [4, 8, 16, 32, 64, 128, 256, 512, 1_000, 1_000]);
        assert_eq!(policy.pause(u32::MAX), policy.pause_max);
    }
}
