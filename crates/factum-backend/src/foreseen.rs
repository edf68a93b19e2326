//! Conditions that were looked at before their batch was queued, so that the writer's thread, for
//! which all other appends wait, looks only at what came since.
//!
//! That nothing matches up to a position stays true: events never change, and erasure only takes
//! matches away. So it doesn't matter how old the knowledge is.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use factum_kernel::{AppendBatch, AppendCondition, Position};

/// So few events are looked at on the writer's thread without ado, and for so few items of queries.
const FORESEEN_NEAR: u64 = 1_024;
/// The most items of the queries of a batch that the writer's thread looks for itself.
const ITEMS_NEAR: usize = 64;

/// Up to where the conditions of batches that are under way are known to have no match.
#[derive(Debug, Default)]
pub struct Foreseen(Mutex<HashMap<usize, Position>>);

/// Keeps what is known of the conditions of a batch until it is dropped. It goes with the batch to
/// the writer's thread: a caller may be gone before its batch is planned.
#[must_use]
pub struct Kept {
    foreseen: Arc<Foreseen>,
    /// As long as it is held, no other condition can be where one of its conditions is.
    batch: AppendBatch,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl Foreseen {
    /// Whether looking at the conditions of a batch is work that the writer's thread should not do,
    /// for a log that ends at `head`.
    pub fn is_worth_it(batch: &AppendBatch, head: Position) -> bool {
        let conditions = batch.conditions();
        let is_far = |it: &AppendCondition| !is_near(it.after, head);
        let items = conditions.iter().map(|it| it.fail_if_events_match.items().len());
        conditions.iter().any(is_far) || items.sum::<usize>() > ITEMS_NEAR
    }

    /// Remembers that the condition at each index has no match up to the position at the same
    /// index, for as long as the answer lives. The batch must be the very one that is appended, or
    /// a clone of it.
    pub fn keep(self: &Arc<Self>, batch: &AppendBatch, through: &[Position]) -> Kept {
        let mut known = self.known();
        for (condition, through) in batch.conditions().iter().zip(through) {
            known.insert(address(condition), *through);
        }
        drop(known);
        Kept { foreseen: self.clone(), batch: batch.clone() }
    }

    /// Behind which position a condition is still to be looked at: its own, or a later one.
    pub fn after(&self, condition: &AppendCondition) -> Position {
        let known = self.known().get(&address(condition)).copied();
        known.map_or(condition.after, |known| known.max(condition.after))
    }

    /// Whether nothing is known of any batch that is under way.
    pub fn is_empty(&self) -> bool {
        self.known().is_empty()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<usize, Position>> {
        // Nothing in here panics in between.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let mut known = self.foreseen.known();
        for condition in self.batch.conditions() {
            known.remove(&address(condition));
        }
    }
}

/// How often conditions are looked at once more, for what came while they were looked at.
const PASSES_MAX: usize = 4;

/// What a look at a condition found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// No match up to the log's end.
    Clear,
    /// A match at this position, and none before.
    Found(Position),
    /// It was enough for one step: no match up to this position, which is behind the beginning.
    Paused(Position),
}

/// The look at the conditions of a batch, step by step, so that nothing is held for long.
#[derive(Debug, Clone)]
#[must_use]
pub struct Outlook {
    through: Vec<Position>,
    next: usize,
    /// Where the log ended when the pass began: one that grows is not chased.
    target: Option<Position>,
    passes: usize,
    is_done: bool,
}

impl Outlook {
    /// Nothing was looked at.
    pub fn new(batch: &AppendBatch) -> Self {
        let through: Vec<Position> = batch.conditions().iter().map(|it| it.after).collect();
        Self { is_done: through.is_empty(), through, next: 0, target: None, passes: 0 }
    }

    /// Whether another step is of no use.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Up to where each condition is known to have no match.
    pub fn through(&self) -> &[Position] {
        &self.through
    }

    /// Goes on, on a log that ends at `head`; `look` looks for the first match of a condition
    /// behind a position.
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
                    // It has looked up to the log's end of now.
                    Looked::Clear => *through = head,
                    Looked::Paused(at) => {
                        *through = at;
                        return Ok(());
                    }
                    Looked::Found(position) => {
                        // The batch fails by it, or was stored before it: that decides the writer.
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

/// Whether what is behind a position is soon looked at; that may be beyond every end.
fn is_near(position: Position, head: Position) -> bool {
    head.value().saturating_sub(position.value()) <= FORESEEN_NEAR
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
        let foreseen = Arc::<Foreseen>::default();
        let asked = batch(2);
        let equal = batch(2);
        let kept = foreseen.keep(&asked, &[Position::new(9), Position::new(1)]);
        let after = |batch: &AppendBatch| {
            batch.conditions().iter().map(|it| foreseen.after(it).value()).collect::<Vec<_>>()
        };
        assert_eq!(after(&asked.clone()), [9, 3]);
        assert_eq!(after(&equal), [3, 3], "an equal condition of another batch");
        drop(asked);
        assert!(!foreseen.is_empty(), "it is held as long as what is known of it");
        drop(kept);
        assert!(foreseen.is_empty());
    }

    #[test]
    fn an_outlook_goes_on_where_it_paused_and_once_more_over_what_came_meanwhile() {
        let batch = batch(2);
        let mut outlook = Outlook::new(&batch);
        let mut asked = Vec::new();
        let mut head = 10_000;
        while !outlook.is_done() {
            // The log grows meanwhile, by less than a step looks at.
            head += 400;
            let look = |_: &AppendCondition, after: Position| {
                asked.push(after.value());
                let through = after.plus(2_500);
                let is_paused = through < Position::new(head);
                Ok::<_, ()>(if is_paused { Looked::Paused(through) } else { Looked::Clear })
            };
            outlook.step(&batch, Position::new(head), look).unwrap();
        }
        assert!(outlook.through().iter().all(|it| it.value() + FORESEEN_NEAR >= head));
        assert!(asked.windows(2).filter(|two| two[0] + 2_500 == two[1]).count() > 4, "{asked:?}");
        assert!(asked.len() > 11, "the first was looked at once more: {asked:?}");

        let mut outlook = Outlook::new(&batch);
        let clear = |_: &AppendCondition, _| Ok::<_, ()>(Looked::Clear);
        outlook.step(&batch, Position::new(9), clear).unwrap();
        assert!(outlook.is_done());
        assert_eq!(outlook.through(), [Position::new(9); 2], "and of the next nothing is known");

        let mut outlook = Outlook::new(&batch);
        let found = |_: &AppendCondition, _| Ok::<_, ()>(Looked::Found(Position::new(8)));
        outlook.step(&batch, Position::new(9), found).unwrap();
        assert!(outlook.is_done(), "there is no use in looking on");
        assert_eq!(outlook.through(), [Position::new(7), Position::new(3)]);
    }

    #[test]
    fn few_conditions_on_what_came_lately_are_the_writers_own() {
        let is_worth_it = |batch, head| Foreseen::is_worth_it(&batch, Position::new(head));
        assert!(!is_worth_it(batch(0), 1 << 40));
        assert!(!is_worth_it(batch(1), 3 + FORESEEN_NEAR));
        let beyond = AppendCondition {
            fail_if_events_match: Query::default(),
            after: Position::new(u64::MAX),
        };
        assert!(!is_worth_it(AppendBatch::new().unless(beyond), 1 << 40));
        assert!(is_worth_it(batch(1), 4 + FORESEEN_NEAR));
        let item = || factum_kernel::QueryItem::default();
        let query = Query::new((0..=ITEMS_NEAR).map(|_| item()));
        let many = AppendCondition { fail_if_events_match: query, after: Position::new(3) };
        assert!(is_worth_it(AppendBatch::new().unless(many), 4));
    }

    /// Others append as fast as it looks.
    #[test]
    fn an_outlook_does_not_chase_the_end_of_a_log_that_grows() {
        let batch = batch(2);
        let mut outlook = Outlook::new(&batch);
        let mut head = Position::new(5_000);
        let mut steps = 0;
        while !outlook.is_done() {
            let look = |_: &AppendCondition, through: Position| {
                Ok::<_, ()>(Looked::Paused(through.next()))
            };
            outlook.step(&batch, head, look).unwrap();
            (head, steps) = (head.next(), steps + 1);
            assert!(steps < 1_000_000, "it chases the end");
        }
    }
}
