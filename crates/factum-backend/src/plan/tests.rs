use std::time::Duration;

use factum_kernel::{
    AppendBatch, AppendCondition, AppendError, Appended, Content, ErasedRange, EventId, EventName,
    ExpectedVersion, NewEvent, Position, Query, RETRY_WINDOW, StoreError, StoreErrorKind,
    StreamBounds, StreamId, StreamVersion, Tag, Timestamp,
};

use super::{LogEnd, plan_group};
use crate::facts::{Facts, FoundEvent, Span};

mod group;

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// A log as planning sees it: it answers as a store, and takes the planned events.
#[derive(Debug, Clone, Default)]
struct Log {
    events: Vec<(StreamId, NewEvent, FoundEvent)>,
    /// The streams with erased events, and the version up to which they are erased.
    erased: Vec<(StreamId, u64)>,
    /// The spans that were searched.
    spans: Vec<Span>,
}

impl Log {
    fn append(&mut self, batches: &[AppendBatch]) -> Vec<Result<Appended, AppendError>> {
        let head = Position::new(self.events.len() as u64);
        let end = LogEnd { head, last_at: Timestamp::EPOCH, now: NOW };
        let mut facts = self.clone();
        let plan = plan_group(batches, end, &mut facts).unwrap();
        self.spans = facts.spans;
        assert_eq!(plan.head.value(), head.value() + plan.events.len() as u64);
        for planned in &plan.events {
            let header = planned.header;
            assert_eq!(header.position.value(), self.events.len() as u64 + 1);
            let found = FoundEvent {
                id: header.id,
                position: header.position,
                version: header.version,
                recorded_at: header.recorded_at,
            };
            self.events.push((planned.stream.clone(), planned.event.clone(), found));
        }
        plan.outcomes
    }

    fn is_kept(&self, stream: &StreamId, version: StreamVersion) -> bool {
        self.erased.iter().all(|(of, through)| of != stream || version.value() > *through)
    }
}

impl Facts for Log {
    fn bounds(&mut self, stream: &StreamId) -> Result<StreamBounds, StoreError> {
        let count = self.events.iter().filter(|(of, ..)| of == stream).count();
        let version = StreamVersion::new(count as u64);
        let erased = self.erased.iter().filter(|(of, _)| of == stream).map(|it| it.1).max();
        let erased_through = StreamVersion::new(erased.unwrap_or(0));
        Ok(StreamBounds { version, erased_through, ..StreamBounds::default() })
    }

    fn first_match(&mut self, condition: &AppendCondition) -> Result<Option<Position>, StoreError> {
        let found = self.events.iter().find(|(_, event, found)| {
            let tags = event.tags.iter().map(Tag::as_str);
            found.position > condition.after
                && condition.fail_if_events_match.matches(event.name.as_str(), tags)
        });
        Ok(found.map(|(_, _, found)| found.position))
    }

    fn find_ids(
        &mut self,
        stream: &StreamId,
        ids: &[EventId],
        span: Span,
    ) -> Result<Vec<FoundEvent>, StoreError> {
        self.spans.push(span);
        let of_stream = self.events.iter().filter(|(of, ..)| of == stream);
        let found = of_stream.map(|(_, _, found)| *found);
        let found = found.filter(|it| ids.contains(&it.id) && self.is_kept(stream, it.version));
        Ok(found.filter(|it| span.contains(it)).collect())
    }

    fn are_erased(&mut self, positions: ErasedRange) -> Result<bool, StoreError> {
        let ErasedRange { first, last } = positions;
        let mut there = self.events.iter().filter(|it| (first..=last).contains(&it.2.position));
        Ok(there.all(|(stream, _, event)| !self.is_kept(stream, event.version)))
    }
}

fn stream(name: u8) -> StreamId {
    StreamId::new("s", &name.to_string()).unwrap()
}

fn tag(value: u8) -> Tag {
    Tag::new("t", value).unwrap()
}

fn event(id: u32) -> NewEvent {
    let name = EventName::from_static("it.happened");
    NewEvent::new(EventId::derived(NOW, &id.to_le_bytes()), name, Content::Cbor, "x")
}

fn write(name: u8, expected: impl Into<ExpectedVersion>, ids: &[u32]) -> AppendBatch {
    AppendBatch::new().write(stream(name), expected, ids.iter().map(|id| event(*id)))
}

fn exact(version: u64) -> ExpectedVersion {
    ExpectedVersion::Exact(StreamVersion::new(version))
}

fn no_tag(value: u8) -> AppendCondition {
    AppendCondition { fail_if_events_match: Query::tag(tag(value)), after: Position::ZERO }
}

/// `+first..last`, `=first..last` for a replay, `v` for a version conflict, `c` for a condition,
/// `!` for invalid.
fn short(outcome: &Result<Appended, AppendError>) -> String {
    match outcome {
        Ok(done) => {
            let sign = if done.replayed { '=' } else { '+' };
            format!("{sign}{}..{}", done.first, done.last)
        }
        Err(AppendError::Conflict(conflict)) => format!("v{}", conflict.actual),
        Err(AppendError::ConditionFailed { condition, position }) => {
            format!("c{condition}@{position}")
        }
        Err(AppendError::Store(e)) if e.kind() == StoreErrorKind::Invalid => "!".into(),
        Err(other) => format!("{other:?}"),
    }
}

#[track_caller]
fn check(log: &mut Log, group: &[AppendBatch], expect: &str) {
    let outcomes = log.append(group);
    assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>().join(" "), expect);
}

#[test]
fn members_of_a_group_see_one_another() {
    let mut log = Log::default();
    let group = [
        write(1, ExpectedVersion::NoStream, &[1]),
        write(1, exact(1), &[2, 3]),
        write(1, ExpectedVersion::NoStream, &[4]),
        write(1, exact(3), &[5]),
        write(2, ExpectedVersion::Any, &[6]).check(stream(1), exact(4)),
        write(2, ExpectedVersion::Any, &[7]).check(stream(1), exact(3)),
    ];
    check(&mut log, &group, "+1..1 +2..3 v3 +4..4 +5..5 v4");
}

#[test]
fn a_condition_sees_earlier_members_and_not_its_own_batch() {
    let mut log = Log::default();
    let tagged = |name, id| {
        let event = event(id).with_tag(tag(9));
        AppendBatch::new().write(stream(name), ExpectedVersion::Any, [event]).unless(no_tag(9))
    };
    let after = AppendCondition { after: Position::new(1), ..no_tag(9) };
    let group = [
        tagged(1, 1),
        tagged(2, 2),
        write(3, ExpectedVersion::Any, &[3]).unless(no_tag(8)).unless(no_tag(9)),
        write(4, ExpectedVersion::Any, &[4]).unless(after),
    ];
    check(&mut log, &group, "+1..1 c0@1 c1@1 +2..2");
    check(&mut log, &[tagged(5, 5)], "c0@1");
}

#[test]
fn a_retry_is_recognised_before_versions_and_conditions() {
    let mut log = Log::default();
    let batch = write(1, ExpectedVersion::NoStream, &[1, 2]).unless(no_tag(9));
    check(&mut log, &[batch.clone(), batch.clone()], "+1..2 =1..2");
    check(&mut log, std::slice::from_ref(&batch), "=1..2");
    let any = write(2, ExpectedVersion::Any, &[3]);
    check(&mut log, &[any.clone(), any.clone().repeated(), any.repeated()], "+3..3 =3..3 =3..3");
    check(&mut log, &[write(7, exact(0), &[8]).repeated()], "+4..4");
}

#[test]
fn events_that_a_group_holds_twice_are_found_both_times() {
    let any = ExpectedVersion::Any;
    let group = [write(1, any, &[1, 2]), write(1, any, &[1, 2]), write(1, exact(2), &[2, 3])];
    let mut grouped = Log::default();
    check(&mut grouped, &group, "+1..2 +3..4 !");
    let mut single = Log::default();
    check(&mut single, &group[..2], "+1..2 +3..4");
    check(&mut single, &group[2..], "!");
}

#[test]
fn a_retry_over_streams_gets_the_versions_it_got_before() {
    let mut log = Log::default();
    log.append(&[write(1, ExpectedVersion::Any, &[1, 2])]);
    let batch = write(1, exact(2), &[3]).and(write(2, ExpectedVersion::NoStream, &[4, 5]));
    let first = log.append(std::slice::from_ref(&batch)).remove(0).unwrap();
    let again = log.append(&[batch.repeated()]).remove(0).unwrap();
    assert_eq!(first.versions, [StreamVersion::new(3), StreamVersion::new(2)]);
    assert_eq!(again, first.replayed());
}

/// A batch that writes two streams in turn, the first of them three times.
fn returning(expected: impl Into<ExpectedVersion>) -> AppendBatch {
    let any = ExpectedVersion::Any;
    let batch = write(1, expected, &[1, 2]).and(write(2, any, &[3]));
    batch.and(write(1, any, &[4])).and(write(2, any, &[5, 6])).and(write(1, any, &[7]))
}

#[test]
fn a_batch_that_returns_to_a_stream_is_planned_in_its_order_and_recognised() {
    let mut log = Log::default();
    let batch = returning(ExpectedVersion::NoStream);
    let first = log.append(std::slice::from_ref(&batch)).remove(0).unwrap();
    assert_eq!(first.versions, [2, 1, 3, 3, 4].map(StreamVersion::new));
    assert_eq!((first.first.value(), first.last.value()), (1, 7));
    assert!(log.events.iter().map(|(_, event, _)| event).eq(batch.events()));
    for again in [batch.clone(), batch.repeated()] {
        let again = log.append(std::slice::from_ref(&again)).remove(0).unwrap();
        assert_eq!(again, first.clone().replayed());
    }
    check(&mut log, &[returning(exact(4)).repeated()], "=1..7");
    check(&mut log, &[write(1, exact(3), &[8])], "v4");
}

#[test]
fn what_is_left_of_a_batch_that_returns_to_a_stream_answers_for_all_its_writes() {
    for expected in [ExpectedVersion::NoStream, ExpectedVersion::Any] {
        for erased in 1..=3 {
            let mut log = Log::default();
            let batch = returning(expected);
            let first = log.append(std::slice::from_ref(&batch)).remove(0).unwrap();
            log.append(&[write(1, ExpectedVersion::Any, &[201])]);
            log.erased.push((stream(1), erased));
            let again = log.append(&[batch.repeated()]).remove(0).unwrap();
            assert_eq!(again, first.replayed(), "{expected} {erased}");
        }
    }
}

/// Facts that answer the search for ids only once per stream.
struct Once(Log, Vec<StreamId>);

impl Facts for Once {
    fn bounds(&mut self, stream: &StreamId) -> Result<StreamBounds, StoreError> {
        self.0.bounds(stream)
    }

    fn first_match(&mut self, condition: &AppendCondition) -> Result<Option<Position>, StoreError> {
        self.0.first_match(condition)
    }

    fn find_ids(
        &mut self,
        stream: &StreamId,
        ids: &[EventId],
        span: Span,
    ) -> Result<Vec<FoundEvent>, StoreError> {
        assert!(!self.1.contains(stream), "{stream} is searched twice");
        self.1.push(stream.clone());
        self.0.find_ids(stream, ids, span)
    }

    fn are_erased(&mut self, positions: ErasedRange) -> Result<bool, StoreError> {
        self.0.are_erased(positions)
    }
}

#[test]
fn a_stream_that_a_batch_writes_several_times_is_searched_once() {
    let batch = returning(ExpectedVersion::Any).repeated();
    let end = LogEnd { head: Position::ZERO, last_at: Timestamp::EPOCH, now: NOW };
    let mut facts = Once(Log::default(), Vec::new());
    let plan = plan_group([&batch], end, &mut facts).unwrap();
    assert_eq!(short(&plan.outcomes[0]), "+1..7");
    assert_eq!(facts.1, [stream(1), stream(2)]);
}

#[test]
fn some_of_the_ids_are_refused() {
    let mut log = Log::default();
    check(&mut log, &[write(1, ExpectedVersion::Any, &[1, 2])], "+1..2");
    check(&mut log, &[write(1, ExpectedVersion::Any, &[1, 3]).repeated()], "!");
    check(&mut log, &[write(1, ExpectedVersion::Any, &[2, 1]).repeated()], "!");
    check(&mut log, &[write(1, ExpectedVersion::Any, &[1]).repeated()], "=1..1");
    check(&mut log, &[write(1, exact(0), &[1, 3])], "!");
    check(&mut log, &[write(1, exact(0), &[4])], "v2");
}

#[test]
fn a_batch_that_was_stored_twice_is_answered_as_the_first_time() {
    let mut log = Log::default();
    let batch = write(1, ExpectedVersion::Any, &[1, 2]);
    check(&mut log, &[batch.clone(), batch.clone()], "+1..2 +3..4");
    check(&mut log, &[batch.clone(), batch.clone().repeated()], "+5..6 =1..2");
    // The first copy was erased.
    log.erased.push((stream(1), 2));
    check(&mut log, &[batch.repeated()], "=3..4");
}

#[test]
fn an_id_that_another_stream_of_the_group_holds_hides_no_retry() {
    let mut log = Log::default();
    let [one, two] = [1, 2].map(|name| write(name, ExpectedVersion::Any, &[7]));
    check(&mut log, &[one, two.clone(), two.repeated()], "+1..1 +2..2 =2..2");
}

/// A log that holds a batch, and the batch's answer.
struct Stored {
    log: Log,
    batch: AppendBatch,
    first: Appended,
}

/// A batch over two streams, each of which has grown since, and its answer.
fn stored_over_two_streams(second: ExpectedVersion) -> Stored {
    let mut log = Log::default();
    log.append(&[write(2, ExpectedVersion::Any, &[100])]);
    let batch = write(1, exact(0), &[1, 2]).and(write(2, second, &[3, 4]));
    let first = log.append(std::slice::from_ref(&batch)).remove(0).unwrap();
    for name in [1, 2] {
        log.append(&[write(name, ExpectedVersion::Any, &[200 + u32::from(name)])]);
    }
    Stored { log, batch, first }
}

#[test]
fn what_is_left_of_a_batch_answers_for_it() {
    for second in [exact(1), ExpectedVersion::Any] {
        let Stored { log: whole, batch, first } = stored_over_two_streams(second);
        for erased in [[1, 0], [0, 2], [1, 2], [2, 2], [1, 3], [2, 0]] {
            let mut log = whole.clone();
            log.erased = [1, 2].map(stream).into_iter().zip(erased).collect();
            for again in [batch.clone().repeated(), batch.clone()] {
                let again = log.append(&[again]).remove(0).unwrap();
                assert_eq!(again, first.clone().replayed(), "{second} {erased:?}");
            }
        }
        let mut log = whole;
        log.erased = vec![(stream(1), 2), (stream(2), 3)];
        check(&mut log, &[batch.clone().repeated()], "!");
        check(&mut log, &[batch], "v3");
    }
}

#[test]
fn the_version_of_a_write_of_which_nothing_is_left_is_one_that_conflicts() {
    let Stored { mut log, batch, .. } = stored_over_two_streams(ExpectedVersion::Any);
    log.append(&[write(2, ExpectedVersion::Any, &[300])]);
    log.erased.push((stream(2), 4));
    let again = log.append(&[batch.repeated()]).remove(0).unwrap();
    // The version was 3; it is only known to be none of the remaining ones.
    assert_eq!(again.versions, [2, 4].map(StreamVersion::new));
    check(&mut log, &[write(2, exact(4), &[400])], "v5");
}

#[test]
fn a_part_of_a_batch_whose_rest_was_never_stored_is_refused() {
    let mut log = Log::default();
    log.append(&[write(2, ExpectedVersion::Any, &[8, 9]), write(1, exact(0), &[1, 2])]);
    log.append(&[write(1, ExpectedVersion::Any, &[3])]);
    log.erased = vec![(stream(2), 1), (stream(1), 1)];
    // Nothing was erased at the place of its second event, nor at that of this one's first.
    let longer = write(1, exact(0), &[1, 2]).and(write(2, ExpectedVersion::Any, &[4]));
    check(&mut log, &[longer.clone().repeated(), longer], "! !");
    let earlier = write(2, ExpectedVersion::Any, &[5]).and(write(1, exact(2), &[3]));
    check(&mut log, &[earlier.clone().repeated(), earlier], "! !");
    // There is no position before the first.
    let before = write(2, ExpectedVersion::Any, &[6, 7, 5, 9]);
    check(&mut log, &[before.repeated()], "!");
}

/// A stream of many events, and the spans in which the planning of a batch looked for its ids.
fn spans(batch: AppendBatch, expect: &str) -> Vec<Span> {
    let mut log = Log::default();
    for id in 1_000..1_020 {
        log.append(&[AppendBatch::new().write(
            stream(1),
            ExpectedVersion::Any,
            [event(id).with_tag(tag(9))],
        )]);
    }
    check(&mut log, &[batch], expect);
    log.spans
}

#[test]
fn an_ordinary_conflict_looks_right_after_the_version_that_it_expected() {
    let since = NOW.saturating_sub(RETRY_WINDOW);
    let span = |first: u64, last: u64| Span {
        first: StreamVersion::new(first),
        last: StreamVersion::new(last),
        ..Span::since(since)
    };
    assert_eq!(spans(write(1, exact(7), &[1, 2]), "v20"), [span(8, 9)]);
    assert_eq!(spans(write(1, ExpectedVersion::NoStream, &[1]), "v20"), [span(1, 1)]);
    // It is not in this stream, so the other stream need not be asked.
    let both = write(2, ExpectedVersion::Any, &[2]).and(write(1, exact(7), &[1]));
    assert_eq!(spans(both, "v20"), [span(8, 8)]);
    let marked = write(1, exact(7), &[1]).repeated();
    assert_eq!(spans(marked, "v20"), [Span::since(since)], "a repeated one is looked for all over");
}

/// A position that no event had yet, perhaps of another log.
#[test]
fn a_condition_after_the_end_of_the_log_hides_no_retry() {
    let mut log = Log::default();
    let condition = AppendCondition { after: Position::new(1_000_000), ..no_tag(9) };
    let batch = write(1, exact(0), &[1]).unless(condition);
    check(
        &mut log,
        &[batch.clone(), write(1, ExpectedVersion::Any, &[2]), batch],
        "+1..1 +2..2 =1..1",
    );
}

#[test]
fn a_failed_condition_looks_after_the_position_that_it_names() {
    let condition = AppendCondition { after: Position::new(18), ..no_tag(9) };
    let batch = write(1, ExpectedVersion::Any, &[1]).unless(condition);
    let since = Span::since(NOW.saturating_sub(RETRY_WINDOW));
    let expect = [Span { after: Position::new(18), ..since }];
    assert_eq!(spans(batch, "c0@19"), expect);
    let check = write(2, ExpectedVersion::Any, &[1]).check(stream(1), exact(3));
    assert_eq!(spans(check, "v20"), [since]);
}

#[test]
fn after_the_window_a_repeated_batch_is_refused_and_a_fresh_one_is_not() {
    let made_at = NOW.saturating_sub(RETRY_WINDOW + Duration::from_millis(1));
    let mut old = event(1);
    old.id = EventId::derived(made_at, b"old");
    let batch = AppendBatch::new().write(stream(1), ExpectedVersion::Any, [old]);
    let mut log = Log::default();
    check(&mut log, &[batch.clone().repeated()], "!");
    check(&mut log, &[batch], "+1..1");
}

#[test]
fn a_clock_that_is_far_ahead_is_refused_and_not_stored_twice() {
    let ahead = |by: Duration| {
        let mut early = event(1);
        early.id = EventId::derived(NOW.saturating_add(by), b"ahead");
        AppendBatch::new().write(stream(1), ExpectedVersion::Any, [early])
    };
    let mut log = Log::default();
    let near = ahead(RETRY_WINDOW);
    check(&mut log, &[near.clone(), near.repeated()], "+1..1 =1..1");
    let far = ahead(RETRY_WINDOW + Duration::from_millis(1));
    check(&mut log, &[far.clone(), far.repeated()], "! !");
}

/// Facts of a stream whose first three events were deleted after a summary.
struct Truncated(Log);

impl Facts for Truncated {
    fn bounds(&mut self, stream: &StreamId) -> Result<StreamBounds, StoreError> {
        let version = StreamVersion::new(4);
        let erased_through = StreamVersion::new(3);
        Ok(StreamBounds { version, erased_through, ..self.0.bounds(stream)? })
    }

    fn first_match(&mut self, condition: &AppendCondition) -> Result<Option<Position>, StoreError> {
        self.0.first_match(condition)
    }

    fn find_ids(
        &mut self,
        stream: &StreamId,
        ids: &[EventId],
        span: Span,
    ) -> Result<Vec<FoundEvent>, StoreError> {
        self.0.find_ids(stream, ids, span)
    }

    fn are_erased(&mut self, positions: ErasedRange) -> Result<bool, StoreError> {
        self.0.are_erased(positions)
    }
}

#[test]
fn a_repeated_batch_whose_events_may_be_erased_is_refused() {
    let end = LogEnd { head: Position::new(4), last_at: Timestamp::EPOCH, now: NOW };
    let outcome = |batch: AppendBatch| {
        let plan = plan_group([&batch], end, &mut Truncated(Log::default())).unwrap();
        short(&plan.outcomes[0])
    };
    assert_eq!(outcome(write(1, exact(2), &[1]).repeated()), "!", "it may have been stored");
    assert_eq!(outcome(write(1, exact(2), &[1])), "v4", "a first attempt conflicts");
    assert_eq!(outcome(write(1, exact(3), &[1]).repeated()), "v4", "version 4 is there to see");
    assert_eq!(outcome(write(1, exact(4), &[1]).repeated()), "+5..5");
}

#[test]
fn time_does_not_go_back_with_the_clock() {
    let last_at = NOW.saturating_add(Duration::from_secs(60));
    let end = LogEnd { head: Position::ZERO, last_at, now: NOW };
    let batches = [write(1, ExpectedVersion::Any, &[1])];
    let plan = plan_group(&batches, end, &mut Log::default()).unwrap();
    assert_eq!(plan.events[0].header.recorded_at, last_at);
}

#[test]
fn positions_end_at_the_largest_and_a_batch_that_does_not_fit_takes_none() {
    let outcomes = |left: u64| {
        let head = Position::new(Position::MAX.value() - left);
        let end = LogEnd { head, last_at: Timestamp::EPOCH, now: NOW };
        let group = [&[1, 2][..], &[3]].map(|ids| write(1, ExpectedVersion::Any, ids));
        let plan = plan_group(&group, end, &mut Log::default()).unwrap();
        assert!(plan.events.iter().all(|it| it.header.position <= Position::MAX));
        plan.outcomes.iter().map(Result::is_ok).collect::<Vec<_>>()
    };
    // The last position itself is never given.
    assert_eq!(outcomes(1), [false, false]);
    assert_eq!(outcomes(2), [false, true]);
    assert_eq!(outcomes(3), [true, false]);
    assert_eq!(outcomes(4), [true, true]);
}

/// Like [`Log`], for conditions that need no look at stored events.
struct Unasked(Log);

impl Facts for Unasked {
    fn bounds(&mut self, stream: &StreamId) -> Result<StreamBounds, StoreError> {
        self.0.bounds(stream)
    }

    fn first_match(&mut self, _: &AppendCondition) -> Result<Option<Position>, StoreError> {
        panic!("nothing that is stored is after the condition")
    }

    fn find_ids(
        &mut self,
        stream: &StreamId,
        ids: &[EventId],
        span: Span,
    ) -> Result<Vec<FoundEvent>, StoreError> {
        self.0.find_ids(stream, ids, span)
    }

    fn are_erased(&mut self, positions: ErasedRange) -> Result<bool, StoreError> {
        self.0.are_erased(positions)
    }
}

#[test]
fn a_condition_after_the_head_asks_nothing_of_the_store() {
    let head = Position::new(4);
    let end = LogEnd { head, last_at: Timestamp::EPOCH, now: NOW };
    let condition = AppendCondition { after: head, ..no_tag(1) };
    let batch = write(1, ExpectedVersion::Any, &[1]).unless(condition);
    let plan = plan_group([&batch], end, &mut Unasked(Log::default())).unwrap();
    assert_eq!(short(&plan.outcomes[0]), "+5..5");
}

#[test]
fn a_deletion_needs_events_before_it_and_takes_the_next_version() {
    let mut log = Log::default();
    let delete = |expected, id| AppendBatch::new().delete(stream(1), expected, event(id).id);
    let [refused] = &log.append(&[delete(ExpectedVersion::Any, 1)])[..] else { panic!("one") };
    let Err(AppendError::Conflict(conflict)) = refused else { panic!("{refused:?}") };
    assert_eq!(conflict.expected, ExpectedVersion::StreamExists);
    // The member before it in the group writes what it deletes.
    let begins = delete(exact(1), 3).write(stream(1), ExpectedVersion::Any, [event(4)]);
    let group = [write(1, ExpectedVersion::NoStream, &[2]), begins];
    let end = LogEnd { head: Position::ZERO, last_at: Timestamp::EPOCH, now: NOW };
    let plan = plan_group(&group, end, &mut log).unwrap();
    let deletions: Vec<_> = plan.deletions().map(|it| it.header.version.value()).collect();
    assert_eq!((plan.events.len(), deletions), (3, vec![2]));
    let versions = &plan.outcomes[1].as_ref().unwrap().versions;
    assert_eq!(versions, &[2, 3].map(StreamVersion::new));
}

/// The facts about the log do not say what an earlier member of the group has erased.
#[test]
#[should_panic(expected = "the last of its group")]
fn a_batch_after_a_deletion_belongs_to_the_next_group() {
    let deletion = AppendBatch::new().delete(stream(1), ExpectedVersion::Any, event(1).id);
    let group = [deletion, write(2, ExpectedVersion::Any, &[2])];
    let end = LogEnd { head: Position::ZERO, last_at: Timestamp::EPOCH, now: NOW };
    let _ = plan_group(&group, end, &mut Log::default());
}
