//! The precheck of a batch's conditions, before the batch is queued. The writer's thread, for which
//! all other appends wait, then checks only the events that came since.
//!
//! The knowledge never becomes false: events never change, and erasure only removes matches. So its
//! age does not matter.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use factum_kernel::{AppendBatch, AppendCondition, Position};

/// The writer's thread checks this many events itself, without a precheck.
const EVENTS_NEAR: u64 = 1_024;
/// The most query items of a batch that the writer's thread checks itself.
const ITEMS_NEAR: usize = 64;

/// The prechecked conditions of all batches under way, each with the position up to which it has no
/// match.
#[derive(Debug, Default)]
pub struct Prechecks(Mutex<HashMap<usize, Position>>);

/// The prechecked conditions of one batch, which are forgotten on its drop. It goes with the batch
/// to the writer's thread, because the caller may be gone before the batch is planned.
#[must_use]
pub struct Prechecked {
    prechecks: Arc<Prechecks>,
    /// Held so that no other condition can get the address of one of its conditions.
    batch: AppendBatch,
}

impl fmt::Debug for Prechecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prechecked").finish_non_exhaustive()
    }
}

impl Prechecks {
    /// Returns whether the conditions of a batch need a precheck, for a log that ends at `head`.
    pub fn is_worth_it(batch: &AppendBatch, head: Position) -> bool {
        let conditions = batch.conditions();
        let is_far = |it: &AppendCondition| !is_near(it.after, head);
        let items = conditions.iter().map(|it| it.fail_if_events_match.items().len());
        conditions.iter().any(is_far) || items.sum::<usize>() > ITEMS_NEAR
    }

    /// Remembers that the condition at each index has no match up to the position at the same
    /// index, until the result is dropped. The batch must be the one that is appended, or a clone
    /// of it.
    pub fn keep(self: &Arc<Self>, batch: &AppendBatch, through: &[Position]) -> Prechecked {
        let mut known = self.known();
        for (condition, through) in batch.conditions().iter().zip(through) {
            known.insert(address(condition), *through);
        }
        drop(known);
        Prechecked { prechecks: self.clone(), batch: batch.clone() }
    }

    /// The position after which a condition must still be checked: its own, or a later one.
    pub fn after(&self, condition: &AppendCondition) -> Position {
        let known = self.known().get(&address(condition)).copied();
        known.map_or(condition.after, |known| known.max(condition.after))
    }

    /// Returns whether no batch under way has prechecked conditions.
    pub fn is_empty(&self) -> bool {
        self.known().is_empty()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<usize, Position>> {
        // No code panics while it holds this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Prechecked {
    fn drop(&mut self) {
        let mut known = self.prechecks.known();
        for condition in self.batch.conditions() {
            known.remove(&address(condition));
        }
    }
}

/// The most passes over the conditions. A further pass covers events that were appended during the
/// one before.
const PASSES_MAX: usize = 4;

/// The result of one look at a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// No match up to the log's end.
    Clear,
    /// A match at this position, and none before.
    Found(Position),
    /// The step had enough: no match up to this position, which is after the position where the
    /// look began.
    Paused(Position),
}

/// The precheck of a batch's conditions, in steps, so that no lock is held for long.
#[derive(Debug, Clone)]
#[must_use]
pub struct Precheck {
    through: Vec<Position>,
    next: usize,
    /// The end of the log when the pass began; a pass does not follow a log that grows.
    target: Option<Position>,
    passes: usize,
    is_done: bool,
}

impl Precheck {
    /// A precheck that has not looked at anything yet.
    pub fn new(batch: &AppendBatch) -> Self {
        let through: Vec<Position> = batch.conditions().iter().map(|it| it.after).collect();
        Self { is_done: through.is_empty(), through, next: 0, target: None, passes: 0 }
    }

    /// Returns whether further steps are of no use.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// The position up to which each condition has no match.
    pub fn through(&self) -> &[Position] {
        &self.through
    }

    /// Takes a step, on a log that ends at `head`. `look` finds the first match of a condition
    /// after a position.
    ///
    /// # Errors
    /// Those of `look`.
    pub fn step<E>(
        &mut self,
        batch: &AppendBatch,
        head: Position,
        mut look: impl FnMut(&AppendCondition, Position) -> Result<Looked, E>,
    ) -> Result<(), E> {
        let target = *self.target.get_or_insert(head);
        while let Some(through) = self.through.get_mut(self.next) {
            if *through < target {
                match look(&batch.conditions()[self.next], *through)? {
                    // The look reached the current end of the log.
                    Looked::Clear => *through = head,
                    Looked::Paused(at) => {
                        *through = at;
                        return Ok(());
                    }
                    Looked::Found(position) => {
                        // The batch will fail because of it, or was stored before it; the writer
                        // decides that.
                        (*through, self.is_done) = (position.previous(), true);
                        return Ok(());
                    }
                }
            }
            self.next += 1;
        }
        (self.next, self.target, self.passes) = (0, None, self.passes + 1);
        let is_near = |through: &Position| is_near(*through, head);
        self.is_done = self.passes == PASSES_MAX || self.through.iter().all(is_near);
        Ok(())
    }
}

/// Returns whether few events follow a position, which may be after every end.
fn is_near(position: Position, head: Position) -> bool {
    head.value().saturating_sub(position.value()) <= EVENTS_NEAR
}

fn address(condition: &AppendCondition) -> usize {
    std::ptr::from_ref(condition).addr()
}

#[cfg(test)]
mod tests {
    use factum_kernel::Query;

    use super::*;

    fn batch(conditions: usize) -> AppendBatch {
        let condition =
            || AppendCondition { fail_if_events_match: Query::default(), after: Position::new(3) };
        (0..conditions).fold(AppendBatch::new(), |batch, _| batch.unless(condition()))
    }

    #[test]
    fn what_is_known_of_a_condition_is_of_no_other_and_ends_with_its_batch() {
        let prechecks = Arc::<Prechecks>::default();
        let asked = batch(2);
        let equal = batch(2);
        let kept = prechecks.keep(&asked, &[Position::new(9), Position::new(1)]);
        let after = |batch: &AppendBatch| {
            batch.conditions().iter().map(|it| prechecks.after(it).value()).collect::<Vec<_>>()
        };
        assert_eq!(after(&asked.clone()), [9, 3]);
        assert_eq!(after(&equal), [3, 3], "an equal condition of another batch");
        drop(asked);
        assert!(!prechecks.is_empty(), "it is held as long as what is known of it");
        drop(kept);
        assert!(prechecks.is_empty());
    }

    #[test]
    fn a_precheck_continues_where_it_paused_and_covers_events_appended_meanwhile() {
        let batch = batch(2);
        let mut precheck = Precheck::new(&batch);
        let mut asked = Vec::new();
        let mut head = 10_000;
        while !precheck.is_done() {
            // The log grows in the meantime, by less than a step looks at.
            head += 400;
            let look = |_: &AppendCondition, after: Position| {
                asked.push(after.value());
                let through = after.plus(2_500);
                let is_paused = through < Position::new(head);
                Ok::<_, ()>(if is_paused { Looked::Paused(through) } else { Looked::Clear })
            };
            precheck.step(&batch, Position::new(head), look).unwrap();
        }
        assert!(precheck.through().iter().all(|it| it.value() + EVENTS_NEAR >= head));
        assert!(asked.windows(2).filter(|two| two[0] + 2_500 == two[1]).count() > 4, "{asked:?}");
        assert!(asked.len() > 11, "the first was looked at once more: {asked:?}");

        let mut precheck = Precheck::new(&batch);
        let clear = |_: &AppendCondition, _| Ok::<_, ()>(Looked::Clear);
        precheck.step(&batch, Position::new(9), clear).unwrap();
        assert!(precheck.is_done());
        assert_eq!(precheck.through(), [Position::new(9); 2], "and of the next nothing is known");

        let mut precheck = Precheck::new(&batch);
        let found = |_: &AppendCondition, _| Ok::<_, ()>(Looked::Found(Position::new(8)));
        precheck.step(&batch, Position::new(9), found).unwrap();
        assert!(precheck.is_done(), "there is no use in looking on");
        assert_eq!(precheck.through(), [Position::new(7), Position::new(3)]);
    }

    #[test]
    fn few_conditions_on_what_came_lately_are_the_writers_own() {
        let is_worth_it = |batch, head| Prechecks::is_worth_it(&batch, Position::new(head));
        assert!(!is_worth_it(batch(0), 1 << 40));
        assert!(!is_worth_it(batch(1), 3 + EVENTS_NEAR));
        let beyond = AppendCondition {
            fail_if_events_match: Query::default(),
            after: Position::new(u64::MAX),
        };
        assert!(!is_worth_it(AppendBatch::new().unless(beyond), 1 << 40));
        assert!(is_worth_it(batch(1), 4 + EVENTS_NEAR));
        let item = || factum_kernel::QueryItem::default();
        let query = Query::new((0..=ITEMS_NEAR).map(|_| item()));
        let many = AppendCondition { fail_if_events_match: query, after: Position::new(3) };
        assert!(is_worth_it(AppendBatch::new().unless(many), 4));
    }

    /// Other callers append as fast as the precheck looks.
    #[test]
    fn a_precheck_does_not_chase_the_end_of_a_log_that_grows() {
        let batch = batch(2);
        let mut precheck = Precheck::new(&batch);
        let mut head = Position::new(5_000);
        let mut steps = 0;
        while !precheck.is_done() {
            let look = |_: &AppendCondition, through: Position| {
                Ok::<_, ()>(Looked::Paused(through.next()))
            };
            precheck.step(&batch, head, look).unwrap();
            (head, steps) = (head.next(), steps + 1);
            assert!(steps < 1_000_000, "it chases the end");
        }
    }
}
