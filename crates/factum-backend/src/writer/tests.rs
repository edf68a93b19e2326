use std::sync::{Mutex, mpsc as std_mpsc};

use factum_kernel::{
    Clock, Content, ErasedRange, EventId, EventName, ExpectedVersion, NewEvent, StoreErrorKind,
    StreamBounds, StreamId, SystemClock, Timestamp,
};

use super::*;
use crate::{
    facts::{Facts, FoundEvent, Span},
    plan::{LogEnd, plan_group},
};

/// A store that waits before each commit until the test opens the gate, and records its groups.
struct Gated {
    gate: std_mpsc::Receiver<Result<(), CommitError>>,
    groups: Arc<Mutex<Vec<usize>>>,
    head: Position,
    gathering: Duration,
    rest_after: Duration,
    /// The number of its rests.
    rests: watch::Sender<usize>,
}

struct Nothing;

impl Facts for Nothing {
    fn bounds(&mut self, _: &StreamId) -> Result<StreamBounds, StoreError> {
        Ok(StreamBounds::default())
    }

    fn first_match(
        &mut self,
        _: &factum_kernel::AppendCondition,
    ) -> Result<Option<Position>, StoreError> {
        Ok(None)
    }

    fn find_ids(
        &mut self,
        _: &StreamId,
        _: &[EventId],
        _: Span,
    ) -> Result<Vec<FoundEvent>, StoreError> {
        Ok(Vec::new())
    }

    fn are_erased(&mut self, _: ErasedRange) -> Result<bool, StoreError> {
        Ok(false)
    }
}

impl Commit for Gated {
    fn commit(&mut self, batches: &[AppendBatch]) -> Result<Committed, CommitError> {
        self.gate.recv().expect("the test holds the gate")?;
        self.groups.lock().unwrap().push(batches.len());
        let end = LogEnd { head: self.head, last_at: Timestamp::EPOCH, now: Timestamp::EPOCH };
        let plan = plan_group(batches, end, &mut Nothing)?;
        self.head = plan.head;
        Ok(Committed { outcomes: plan.outcomes, head: plan.head })
    }

    fn gathering(&self) -> Duration {
        self.gathering
    }

    fn rest_after(&self) -> Duration {
        self.rest_after
    }

    fn rest(&mut self) {
        self.rests.send_modify(|rests| *rests += 1);
    }
}

struct Bench {
    writer: Arc<Writer<Gated>>,
    gate: std_mpsc::Sender<Result<(), CommitError>>,
    groups: Arc<Mutex<Vec<usize>>>,
    rests: watch::Receiver<usize>,
}

fn bench() -> Bench {
    bench_that_gathers(Duration::ZERO)
}

fn bench_that_gathers(gathering: Duration) -> Bench {
    bench_that_rests(gathering, Duration::MAX)
}

fn bench_that_rests(gathering: Duration, rest_after: Duration) -> Bench {
    let (rests, rested) = watch::channel(0);
    let (gate, waiting) = std_mpsc::channel();
    let groups = Arc::new(Mutex::new(Vec::new()));
    let head = Position::ZERO;
    let store = Gated { gate: waiting, groups: groups.clone(), head, gathering, rest_after, rests };
    let writer = Writer::spawn("test", store, Head::new(Position::ZERO), Limits::default());
    Bench { writer: Arc::new(writer.unwrap()), gate, groups, rests: rested }
}

fn batch(number: u64, bytes: usize) -> AppendBatch {
    let id = EventId::derived(Timestamp::EPOCH, &number.to_le_bytes());
    let name = EventName::from_static("it.happened");
    let event = NewEvent::new(id, name, Content::Cbor, vec![0; bytes]);
    AppendBatch::new().write(StreamId::new("s", "1").unwrap(), ExpectedVersion::Any, [event])
}

type Append = tokio::task::JoinHandle<Result<Appended, AppendError>>;

impl Bench {
    fn append(&self, number: u64, bytes: usize) -> Append {
        let writer = self.writer.clone();
        tokio::spawn(async move { writer.append(batch(number, bytes)).await })
    }

    fn open_gate(&self, times: usize) {
        for _ in 0..times {
            // Fewer groups may be enough, and the thread may have ended after them.
            let _ = self.gate.send(Ok(()));
        }
    }

    /// Waits until everything that was spawned has gone as far as it can.
    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn what_gathers_while_a_group_commits_is_the_next_group() {
    let bench = bench();
    let first = bench.append(0, 1);
    bench.settle().await;
    // The thread may not have taken the first yet; a later job must be in the queue by then.
    let rest: Vec<_> = (1..=9).map(|number| bench.append(number, 1)).collect();
    bench.settle().await;
    bench.open_gate(10);
    let mut positions = vec![first.await.unwrap().unwrap().first.value()];
    for append in rest {
        positions.push(append.await.unwrap().unwrap().first.value());
    }
    positions.sort_unstable();
    assert_eq!(positions, (1..=10).collect::<Vec<_>>());
    let groups = bench.groups.lock().unwrap().clone();
    assert!(groups.len() <= 2, "ten appends made these groups: {groups:?}");
    assert_eq!(bench.writer.head().position(), Position::new(10));
}

#[tokio::test]
async fn a_store_rests_once_when_it_had_nothing_to_do_and_works_on() {
    let mut bench = bench_that_rests(Duration::ZERO, Duration::from_millis(1));
    bench.open_gate(3);
    for number in 0..3 {
        bench.append(number, 1).await.unwrap().unwrap();
        let rests = usize::try_from(number).unwrap() + 1;
        bench.rests.wait_for(|rested| *rested >= rests).await.unwrap();
    }
    bench.writer.close().await;
    assert_eq!(*bench.rests.borrow(), 3, "once after each append");
}

#[tokio::test]
async fn a_smaller_group_waits_for_those_who_were_answered_but_not_for_those_who_stay_away() {
    let bench = bench_that_gathers(Duration::from_millis(100));
    let first = bench.append(0, 1);
    bench.settle().await;
    let three: Vec<_> = (1..=3).map(|number| bench.append(number, 1)).collect();
    bench.settle().await;
    bench.open_gate(9);
    first.await.unwrap().unwrap();
    for append in three {
        append.await.unwrap().unwrap();
    }
    bench.groups.lock().unwrap().clear();
    // The thread has taken the first before the others come.
    let first = bench.append(4, 1);
    bench.settle().await;
    SystemClock.sleep(Duration::from_millis(20)).await;
    let others: Vec<_> = (5..=6).map(|number| bench.append(number, 1)).collect();
    for append in others.into_iter().chain([first]) {
        append.await.unwrap().unwrap();
    }
    bench.append(7, 1).await.unwrap().unwrap();
    assert_eq!(*bench.groups.lock().unwrap(), [3, 1]);
}

#[tokio::test]
async fn a_cancelled_caller_cancels_no_append() {
    let bench = bench();
    let append = bench.append(0, 1);
    bench.settle().await;
    append.abort();
    assert!(append.await.unwrap_err().is_cancelled());
    bench.open_gate(2);
    let next = bench.append(1, 1).await.unwrap().unwrap();
    assert_eq!(next.first, Position::new(2), "the cancelled one is at 1");
}

#[tokio::test]
async fn a_group_that_fails_answers_all_its_members_and_the_next_goes_on() {
    let bench = bench();
    let unavailable = StoreError::unavailable("the disk is full");
    bench.gate.send(Err(CommitError::NotStored(unavailable.clone()))).unwrap();
    let error = bench.append(0, 1).await.unwrap().unwrap_err();
    assert_eq!(error.store_kind(), Some(StoreErrorKind::Unavailable));
    bench.gate.send(Err(CommitError::Unknown(unavailable))).unwrap();
    let error = bench.append(1, 1).await.unwrap().unwrap_err();
    assert!(matches!(error, AppendError::Indeterminate(_)), "{error:?}");
    bench.open_gate(1);
    assert_eq!(bench.append(2, 1).await.unwrap().unwrap().first, Position::new(1));
}

#[tokio::test]
async fn closing_finishes_what_was_accepted_and_refuses_what_comes() {
    let bench = bench();
    let accepted: Vec<_> = (0..5).map(|number| bench.append(number, 1)).collect();
    bench.settle().await;
    let writer = bench.writer.clone();
    let closing = tokio::spawn(async move { writer.close().await });
    bench.settle().await;
    let late = bench.append(9, 1).await.unwrap().unwrap_err();
    assert_eq!(late.store_kind(), Some(StoreErrorKind::Closed));
    let writer = bench.writer.clone();
    let second = tokio::spawn(async move { writer.close().await });
    bench.settle().await;
    assert!(!second.is_finished(), "the second waits for what the first waits for");
    bench.open_gate(5);
    for append in accepted {
        append.await.unwrap().unwrap();
    }
    closing.await.unwrap();
    second.await.unwrap();
    bench.writer.close().await;
}

#[tokio::test]
async fn a_full_queue_makes_callers_wait() {
    let bench = bench();
    let size = 1 << 19;
    let most = QUEUE_BYTES_MAX / size;
    let appends: Vec<_> = (0..2 * most as u64).map(|n| bench.append(n, size)).collect();
    bench.settle().await;
    let room = bench.writer.room.available_permits() * ROOM_UNIT;
    assert!(room < 2 * size, "the queue holds what fits into it, not more: room={room}");
    assert!(appends.iter().all(|append| !append.is_finished()));
    bench.open_gate(appends.len());
    for append in appends {
        append.await.unwrap().unwrap();
    }
    bench.writer.close().await;
    assert_eq!(bench.writer.room.available_permits() * ROOM_UNIT, QUEUE_BYTES_MAX);
    let events: usize = bench.groups.lock().unwrap().iter().sum();
    let largest = *bench.groups.lock().unwrap().iter().max().unwrap();
    assert_eq!(events, 2 * most);
    assert!(largest * size <= crate::group::GROUP_BYTES_MAX, "a group holds {largest} batches");
}

#[tokio::test]
async fn a_dead_writer_leaves_outcomes_unknown_and_says_so_afterwards() {
    let bench = bench();
    let append = bench.append(0, 1);
    bench.settle().await;
    // Without the gate, the store's own `expect` panics in the thread.
    let Bench { writer, gate, .. } = bench;
    drop(gate);
    let error = append.await.unwrap().unwrap_err();
    assert!(matches!(error, AppendError::Indeterminate(_)), "{error:?}");
    // Until the thread has dropped its queue, an append may still get into it, and be lost there.
    let mut error = writer.append(batch(1, 1)).await.unwrap_err();
    while matches!(error, AppendError::Indeterminate(_)) {
        error = writer.append(batch(1, 1)).await.unwrap_err();
    }
    assert_eq!(error.store_kind(), Some(StoreErrorKind::Internal));
}

#[tokio::test]
async fn other_work_runs_between_groups() {
    let bench = bench();
    bench.open_gate(1);
    bench.append(0, 1).await.unwrap().unwrap();
    let head = bench.writer.run(0, |store| store.head).await.unwrap();
    assert_eq!(head, Position::new(1));
}

/// Work other than appends once took no room, so a queue of document writes had no limit.
#[tokio::test]
async fn other_work_waits_for_room_as_well() {
    let bench = bench();
    let append = bench.append(0, 1);
    bench.settle().await;
    let size = 1 << 20;
    let most = QUEUE_BYTES_MAX / size;
    let works: Vec<_> = (0..2 * most)
        .map(|_| {
            let writer = bench.writer.clone();
            let held = [7_u8; 16];
            tokio::spawn(async move { writer.run(size, move |_| held.len()).await })
        })
        .collect();
    bench.settle().await;
    let room = bench.writer.room.available_permits() * ROOM_UNIT;
    assert!(room < 2 * size, "the queue holds what fits into it, not more: room={room}");
    bench.open_gate(1);
    append.await.unwrap().unwrap();
    for work in works {
        assert_eq!(work.await.unwrap().unwrap(), 16);
    }
    bench.writer.close().await;
    assert_eq!(bench.writer.room.available_permits() * ROOM_UNIT, QUEUE_BYTES_MAX);
}

/// If a caller that gave up waiting took them along, the writer's thread would check all
/// conditions.
#[tokio::test]
async fn prechecks_are_kept_until_its_batch_is_planned_though_the_caller_is_gone() {
    let bench = bench();
    let prechecks = Arc::<crate::precheck::Prechecks>::default();
    let tag = factum_kernel::Tag::new("email", "ada@example.org").unwrap();
    let fail_if_events_match = factum_kernel::Query::tag(tag);
    let condition = factum_kernel::AppendCondition { fail_if_events_match, after: Position::ZERO };
    let asked = batch(0, 1).unless(condition);
    let kept = prechecks.keep(&asked, &[Position::ZERO]);
    let writer = bench.writer.clone();
    let append = tokio::spawn(async move { writer.append_prechecked(asked, Some(kept)).await });
    bench.settle().await;
    append.abort();
    assert!(append.await.unwrap_err().is_cancelled());
    assert!(!prechecks.is_empty(), "the batch is still to be planned");
    bench.open_gate(1);
    bench.writer.close().await;
    assert!(prechecks.is_empty());
}

/// Answers each append with this many positions and versions.
struct Liar(usize, u64);

impl Commit for Liar {
    fn commit(&mut self, batches: &[AppendBatch]) -> Result<Committed, CommitError> {
        let versions = (0..self.1).map(factum_kernel::StreamVersion::new).collect();
        let answer = Appended::new(Position::new(1), versions, Timestamp::EPOCH);
        let answer = answer.with_events(self.0);
        let outcomes = batches.iter().map(|_| Ok(answer.clone())).collect();
        Ok(Committed { outcomes, head: answer.last })
    }
}

#[tokio::test]
async fn an_answer_that_is_not_of_its_batch_is_told_as_unknown() {
    for (events, writes, is_of_it) in [(1, 1, true), (2, 1, false), (1, 2, false)] {
        let head = Head::new(Position::ZERO);
        let writer = Writer::spawn("test", Liar(events, writes), head, Limits::default()).unwrap();
        let told = writer.append(batch(0, 1)).await;
        let is_unknown = matches!(told, Err(AppendError::Indeterminate(_)));
        assert_eq!((told.is_ok(), is_unknown), (is_of_it, !is_of_it), "{told:?}");
    }
}
