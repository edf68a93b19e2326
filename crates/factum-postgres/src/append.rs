//! The writing half of the log. It stores a group in as few calls of the database as its members
//! need: one, unless members depend on each other.

use std::{collections::HashMap, sync::Arc, time::Duration};

use factum_backend::{
    Commit, CommitDelay, CommitError, Committed, EventIndex, Head, LogEnd, check_clock,
};
use factum_kernel::{
    AppendBatch, AppendError, Appended, Clock, ErasedRange, NewEvent, Position, StoreError,
    StreamBounds, StreamId, StreamVersion, Timestamp,
};
use tokio_postgres::{Row, types::Type};

use crate::{
    documents::no_row,
    known::{Asked, Asking, Known, Missing, Questions, Replies},
    link::get,
    number::{signed, unsigned},
    round::{Pending, Round, RoundNumbers},
    seen::Seen,
    session::Session,
    statement::Statements,
    watch::Signals,
};

/// The time for which a group waits for the callers that were just answered, each time. Without it,
/// the first of them would go alone, and the others would wait for its sync.
const GATHERING: Duration = Duration::from_micros(50);

pub(crate) type Outcome = Result<Appended, AppendError>;

/// The writer's half, owned by the writer's thread.
#[derive(Debug)]
pub(crate) struct Committer {
    pub(crate) session: Session,
    pub(crate) statements: Arc<Statements>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) head: Head,
    /// The end of the log that this session's server answered last.
    pub(crate) seen: Option<Seen>,
    pub(crate) signals: Signals,
    pub(crate) lock_ms: i32,
    pub(crate) idle_timeout: Duration,
    pub(crate) commit_delay: Delay,
}

/// The delay of a commit between planning and storing, for tests.
#[derive(Clone)]
pub(crate) struct Delay(pub(crate) Option<CommitDelay>);

impl std::fmt::Debug for Delay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Delay")
    }
}

impl Commit for Committer {
    fn gathering(&self) -> Duration {
        GATHERING
    }

    fn rest_after(&self) -> Duration {
        self.idle_timeout
    }

    fn rest(&mut self) {
        self.session.leave();
    }

    fn commit(&mut self, batches: &[AppendBatch]) -> Result<Committed, CommitError> {
        let mut outcomes: Vec<Option<Outcome>> = batches.iter().map(|_| None).collect();
        let mut pending = self.begin(batches, &mut outcomes)?;
        // Each round settles its first member: at once, or after a search for it.
        let mut rounds_left = 2 * batches.len() + 2;
        while !pending.is_empty() {
            if rounds_left == 0 {
                let text = "a group of appends does not end, report this";
                self.give_up(
                    &pending,
                    &mut outcomes,
                    CommitError::NotStored(StoreError::internal(text)),
                );
                break;
            }
            rounds_left -= 1;
            pending = match self.round(&pending, &mut outcomes) {
                Ok(left) => left,
                Err(error) => {
                    self.give_up(&pending, &mut outcomes, error);
                    break;
                }
            };
        }
        let outcomes = outcomes.into_iter().map(|it| it.expect("all are settled")).collect();
        Ok(Committed { outcomes, head: self.head.position() })
    }
}

impl Committer {
    /// The members in the form in which they are sent. A batch from a clock that is too far ahead,
    /// or that is repeated after its window, is answered at once.
    fn begin(
        &self,
        batches: &[AppendBatch],
        outcomes: &mut [Option<Outcome>],
    ) -> Result<Vec<Pending>, CommitError> {
        let mut pending = Vec::with_capacity(batches.len());
        for (index, batch) in batches.iter().enumerate() {
            match Pending::new(index, batch.clone(), self.clock.now())? {
                Ok(member) => pending.push(member),
                Err(refused) => outcomes[index] = Some(Err(refused)),
            }
        }
        Ok(pending)
    }

    /// Makes one call of the database, and handles its answer. Returns the members that are left.
    fn round(
        &mut self,
        pending: &[Pending],
        outcomes: &mut [Option<Outcome>],
    ) -> Result<Vec<Pending>, CommitError> {
        let round = Round::gather(pending);
        let delay = self.commit_delay.0.as_ref().map_or(0, |delay| delay().as_micros());
        let hold_us = i64::try_from(delay).unwrap_or(i64::MAX);
        let now = self.clock.now();
        let known = self.head.position();
        let rows = match self.store(&round, now, hold_us) {
            Ok(rows) => rows,
            Err(error) => {
                // Nothing of the waiting members was sent.
                for member in &round.waiting {
                    outcomes[member.index] = Some(Err(AppendError::Store(of(&error))));
                }
                return Err(error);
            }
        };
        let answer = Answer::read(&rows).map_err(CommitError::Unknown)?;
        let stored = answer.settle(&round, outcomes);
        self.heard(known, &stored);
        let end = LogEnd { head: stored.head, last_at: answer.recorded_at, now };
        let doubts = doubts(&round, &answer, &stored);
        // Stored members are settled; from here on no outcome is unknown.
        self.judge(doubts, end, outcomes).or_else(|error| {
            for member in pending {
                let outcome = &mut outcomes[member.index];
                *outcome = outcome.take().or_else(|| Some(Err(error.clone().into())));
            }
            Ok(Vec::new())
        })
    }

    /// Sends a round to the server whose head it names.
    fn store(
        &mut self,
        round: &Round<'_>,
        now: Timestamp,
        hold_us: i64,
    ) -> Result<Vec<Row>, CommitError> {
        let seen = self.seen()?;
        let numbers = RoundNumbers {
            lock_ms: self.lock_ms,
            hold_us,
            now: signed(now.as_micros()),
            known: signed(seen.head.value()),
        };
        let mut parameters = round.parameters(&numbers);
        parameters.push((&seen.server, Type::BYTEA));
        let rows = self.session.ask(&self.statements.append, &parameters)?;
        if rows.is_empty() {
            // A pooler did this. What this connection knows is about another server.
            self.session.leave();
            return Err(CommitError::Unknown(StoreError::unavailable(format!(
                "another server answered than before, try again: {}",
                self.session.place()
            ))));
        }
        Ok(rows)
    }

    /// The end of the log that this session's server answered last. Anything that is appended
    /// later, except by earlier statements, comes after it.
    fn seen(&mut self) -> Result<Seen, CommitError> {
        if self.session.connect()? {
            self.seen = None;
        }
        let mut seen = match self.seen.take() {
            Some(seen) => seen,
            None => {
                // Nothing of the group was sent yet, whatever happens to this question.
                let rows = self.session.ask(&self.statements.log_end, &[]);
                Seen::of(&rows.map_err(crate::error::of_read)?)?
            }
        };
        if let Some(looked) = &*self.signals.looked.borrow() {
            seen.learn(looked);
        }
        Ok(self.seen.insert(seen).clone())
    }

    /// Takes the answer to a round: the current head.
    fn heard(&mut self, known: Position, stored: &Stored<'_>) {
        self.head.answered(known, stored.head);
        if let Some(seen) = &mut self.seen {
            seen.head = seen.head.max(stored.head);
        }
        if !stored.events.is_empty() {
            self.signals.appended.notify_one();
        }
    }

    /// Settles the members that something stands against. The others are left for another round.
    fn judge(
        &mut self,
        doubts: Vec<Doubt<'_>>,
        end: LogEnd,
        outcomes: &mut [Option<Outcome>],
    ) -> Result<Vec<Pending>, StoreError> {
        let mut replies = Replies::default();
        let mut asked: Vec<_> = doubts.iter().map(|_| Questions::default()).collect();
        let judged = loop {
            let judge = |doubt: &Doubt<'_>| doubt.known.judge(&doubt.batch, end, &replies);
            let judged = doubts.iter().map(judge).collect::<Result<Vec<_>, _>>()?;
            let mut open = Questions::default();
            for (asked, judged) in asked.iter_mut().zip(&judged) {
                open.extend(asked.take_new(&judged.asked));
            }
            if open.is_empty() {
                break judged;
            }
            self.find(&open.ids, &mut replies)?;
            replies.erased.extend(self.find_erased(&open.missing)?);
        };
        let mut left = Vec::new();
        for (Doubt { member, is_suspect, .. }, judged) in doubts.iter().zip(judged) {
            // Outside of the window no retry can have overtaken it. The next round does not look at
            // what came after the head known before, so it does not suspect the member again.
            let is_cleared = *is_suspect && judged.asked.ids.is_empty();
            match judged.outcome.filter(|_| !is_cleared) {
                Some(outcome) => outcomes[member.index] = Some(outcome),
                None => left.push((*member).clone()),
            }
        }
        Ok(left)
    }

    /// Looks for the events that have one of these ids. No lock is needed: events stored before are
    /// found, and a caller that stores one later has the same batch.
    fn find(&mut self, asked: &[Asked], replies: &mut Replies) -> Result<(), StoreError> {
        if asked.is_empty() {
            return Ok(());
        }
        let asking = Asking::of(asked);
        let rows = self.session.ask(&self.statements.find_ids, &asking.parameters());
        Asking::answer(asked, &rows.map_err(crate::error::of_read)?, replies)
    }

    /// Those of the ranges whose events are all erased; erased events stay erased.
    fn find_erased(&mut self, missing: &[ErasedRange]) -> Result<Vec<ErasedRange>, StoreError> {
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let asking = Missing::of(missing);
        let rows = self.session.ask(&self.statements.are_erased, &asking.parameters());
        Missing::erased(&rows.map_err(crate::error::of_read)?)
    }

    /// Answers every member without an outcome with the error.
    fn give_up(&self, pending: &[Pending], outcomes: &mut [Option<Outcome>], error: CommitError) {
        for member in pending {
            let outcome = &mut outcomes[member.index];
            if outcome.is_none() {
                *outcome = Some(Err(error.clone().into()));
            }
        }
    }
}

impl Pending {
    /// A member in the form in which it is sent. The inner error: it is refused whatever the log
    /// holds.
    pub(crate) fn new(
        index: usize,
        batch: AppendBatch,
        now: Timestamp,
    ) -> Result<Result<Self, AppendError>, StoreError> {
        if let Err(refused) = check_clock(&batch, now) {
            return Ok(Err(refused.into()));
        }
        let mut since = Timestamp::EPOCH;
        if batch.is_repeated() {
            let end = LogEnd { head: Position::ZERO, last_at: Timestamp::EPOCH, now };
            let judged = Known::default().judge(&batch, end, &Replies::default())?;
            match (judged.asked.ids.first(), judged.outcome) {
                (Some(asked), _) => since = asked.span.since,
                (None, Some(Err(refused))) => return Ok(Err(refused)),
                (None, _) => {}
            }
        }
        Ok(Ok(Self { index, batch, since }))
    }
}

fn of(error: &CommitError) -> StoreError {
    match error {
        CommitError::NotStored(error) | CommitError::Unknown(error) => error.clone(),
    }
}

/// The database's answer to a round.
#[derive(Debug)]
pub(crate) struct Answer {
    head: Position,
    pub(crate) recorded_at: Timestamp,
    /// The bounds of each stream before the round.
    bounds: Vec<StreamBounds>,
    refusals: Vec<Refusal>,
}

/// A member that was not stored: its index in the round, the reason, and the position of an event.
#[derive(Debug)]
struct Refusal {
    member: usize,
    code: i32,
    at: usize,
    value: u64,
}

/// The database's numbers for two reasons: an event matches a condition, and the batch may be
/// stored already.
const CONDITION: i32 = 2;
const LOOK: i32 = 3;

impl Answer {
    pub(crate) fn read(rows: &[Row]) -> Result<Self, StoreError> {
        let row = rows.first().ok_or_else(no_row)?;
        let numbers = |column| get::<Option<Vec<i64>>>(row, column).map(Option::unwrap_or_default);
        let versions = numbers(2)?;
        let erased = numbers(3)?;
        let deleted = numbers(4)?;
        let version = |number: i64| StreamVersion::new(unsigned(number));
        // Without a list nothing was ever erased.
        let at = |numbers: &[i64], place: usize| numbers.get(place).copied().unwrap_or(0);
        let bounds = versions.into_iter().enumerate().map(|(place, last)| StreamBounds {
            version: version(last),
            erased_through: version(at(&erased, place)),
            deleted_at: version(at(&deleted, place)),
        });
        let members: Vec<i32> = get(row, 5)?;
        let codes: Vec<i32> = get(row, 6)?;
        let at: Vec<i32> = get(row, 7)?;
        let values: Vec<i64> = get(row, 8)?;
        let place = |number: i32| usize::try_from(number).unwrap_or(0).saturating_sub(1);
        let refusals = members.into_iter().zip(codes).zip(at.into_iter().zip(values));
        let refusals = refusals.map(|((member, code), (at, value))| Refusal {
            member: place(member),
            code,
            at: place(at),
            value: unsigned(value),
        });
        Ok(Self {
            head: Position::new(unsigned(get(row, 0)?)),
            recorded_at: Timestamp::from_micros(unsigned(get(row, 1)?)),
            bounds: bounds.collect(),
            refusals: refusals.collect(),
        })
    }

    /// Answers the stored members: positions and versions follow from the order of the members.
    pub(crate) fn settle<'g>(
        &self,
        round: &Round<'g>,
        outcomes: &mut [Option<Outcome>],
    ) -> Stored<'g> {
        let bounds = round.streams.iter().copied().zip(self.bounds.iter().copied());
        let mut stored = Stored { head: self.head, bounds: bounds.collect(), events: Vec::new() };
        for (place, member) in round.members.iter().enumerate() {
            if self.refusals.iter().any(|refusal| refusal.member == place) {
                continue;
            }
            let first = stored.head.next();
            let mut versions = Vec::new();
            for write in member.batch.writes() {
                let bounds = stored.bounds.entry(&write.stream).or_default();
                for event in &write.events {
                    let version = bounds.version.next();
                    let next = StreamBounds { version, ..*bounds };
                    *bounds = if event.is_deletion() { bounds.deleted() } else { next };
                }
                versions.push(bounds.version);
            }
            for event in member.batch.events() {
                stored.head = stored.head.next();
                stored.events.push((stored.head, event));
            }
            let appended = Appended::new(first, versions.into(), self.recorded_at);
            outcomes[member.index] = Some(Ok(appended.with_events(member.batch.event_count())));
        }
        stored
    }
}

/// The log after a round, as far as the round knows it.
pub(crate) struct Stored<'g> {
    pub(crate) head: Position,
    bounds: HashMap<&'g StreamId, StreamBounds>,
    events: Vec<(Position, &'g NewEvent)>,
}

/// A member without an outcome, and the facts known about it.
pub(crate) struct Doubt<'k> {
    member: &'k Pending,
    pub(crate) batch: AppendBatch,
    pub(crate) known: Known<'k>,
    /// True if it is searched for although it is not marked as repeated.
    is_suspect: bool,
}

pub(crate) fn doubts<'k>(
    round: &Round<'k>,
    answer: &Answer,
    stored: &Stored<'k>,
) -> Vec<Doubt<'k>> {
    let mut doubts = Vec::new();
    for refusal in &answer.refusals {
        let member = round.members[refusal.member];
        // A member that was not stored was judged by the state before the round.
        let bounds = round.streams.iter().copied().zip(answer.bounds.iter().copied());
        let mut known = Known { bounds: bounds.collect(), ..Known::default() };
        let mut batch = member.batch.clone();
        let is_suspect = refusal.code == LOOK && !batch.is_repeated();
        if refusal.code == CONDITION {
            known.hits.push((round.conditions[refusal.at].1, Position::new(refusal.value)));
        } else if refusal.code == LOOK {
            batch = batch.repeated();
        }
        doubts.push(Doubt { member, batch, known, is_suspect });
    }
    let mut index = EventIndex::default();
    if round.waiting.iter().any(|member| !member.batch.conditions().is_empty()) {
        stored.events.iter().for_each(|(position, event)| index.push(*position, event));
    }
    for member in &round.waiting {
        let mut known = Known { bounds: stored.bounds.clone(), ..Known::default() };
        for (place, condition) in member.batch.conditions().iter().enumerate() {
            let hit = index.first_match(&condition.fail_if_events_match, condition.after);
            known.hits.extend(hit.map(|position| (place, position)));
        }
        doubts.push(Doubt { member, batch: member.batch.clone(), known, is_suspect: false });
    }
    doubts.sort_by_key(|doubt| doubt.member.index);
    doubts
}
