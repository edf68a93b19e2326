//! Law 13: everything has a limit, and what is refused changes nothing.

use factum_kernel::{
    AppendBatch, AppendCondition, AppendError, Content, EventName, ExpectedVersion, Metadata,
    NewEvent, Position, QUERY_ITEMS_MAX, Query, QueryItem, ReadQuery, RecordedEvent, TAGS_MAX, Tag,
    Timestamp,
};

use super::{
    failure::{CaseResult, Stop, ensure, ensure_eq},
    trial::{Bench, Trial, exact, stream, tag},
};

const ADA: &str = "account-ada";
const ANY: ExpectedVersion = ExpectedVersion::Any;

async fn nothing_was_stored(trial: &Trial) -> CaseResult {
    ensure_eq!(trial.head().await?, Position::ZERO, "head after refused batches");
    ensure!(trial.read_log().await?.is_empty(), "a refused batch left events");
    Ok(())
}

/// Each of these is invalid: a batch or a write without events; a stream that is written and
/// checked; an expectation of a stream that the batch has already written; an event id twice; a
/// condition that no event can fail.
pub(crate) async fn nonsense_is_invalid(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let event = trial.event();
    let write = |event: &NewEvent| AppendBatch::new().write(stream(ADA), ANY, [event.clone()]);
    let other = |batch: AppendBatch| batch.write(stream("account-bob"), ANY, [trial.event()]);
    let unless = |query: Query, after: u64| {
        let after = Position::new(after);
        write(&event).unless(AppendCondition { fail_if_events_match: query, after })
    };
    let everything = || Query::new([QueryItem::default()]);
    let refused = [
        ("no events", AppendBatch::new()),
        ("a check only", AppendBatch::new().check(stream(ADA), ANY)),
        ("a write without events", other(AppendBatch::new().write(stream(ADA), ANY, []))),
        (
            "a later write that expects a version",
            write(&event).write(stream(ADA), exact(1), [trial.event()]),
        ),
        (
            "a later write that expects events",
            other(write(&event)).write(stream(ADA), ExpectedVersion::StreamExists, [trial.event()]),
        ),
        (
            "a stream written again and checked",
            other(write(&event)).write(stream(ADA), ANY, [trial.event()]).check(stream(ADA), ANY),
        ),
        ("a stream written and checked", write(&event).check(stream(ADA), ANY)),
        (
            "a stream checked twice",
            other(AppendBatch::new()).check(stream(ADA), ANY).check(stream(ADA), ANY),
        ),
        (
            "an event id twice",
            AppendBatch::new().write(stream(ADA), ANY, [event.clone(), event.clone()]),
        ),
        (
            "an event id in two streams",
            write(&event).write(stream("account-bob"), ANY, [event.clone()]),
        ),
        ("a condition without an item", unless(Query::default(), 0)),
        ("a condition after the last position", unless(everything(), Position::MAX.value() + 1)),
        ("a condition after the last number", unless(everything(), u64::MAX)),
    ];
    for (what, batch) in refused {
        trial.refuses(what, batch.clone()).await?;
        trial.refuses(what, batch.repeated()).await?;
    }
    nothing_was_stored(&trial).await
}

/// An event of exactly this size, by its payload.
fn sized(trial: &Trial, size: usize) -> NewEvent {
    let mut event = trial.event();
    event.payload = bytes::Bytes::new();
    let payload = size.saturating_sub(event.size());
    event.payload = vec![b'x'; payload].into();
    event
}

/// The largest event is stored and read back; one byte more is refused.
pub(crate) async fn the_largest_event_fits_and_one_byte_more_does_not(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let limits = trial.guarantees().limits;
    let largest = limits.event_bytes_max.min(limits.batch_bytes_max - ADA.len());
    let write = |event: NewEvent| AppendBatch::new().write(stream(ADA), ANY, [event]);
    trial.refuses("an event that is a byte too large", write(sized(&trial, largest + 1))).await?;
    nothing_was_stored(&trial).await?;
    let event = sized(&trial, largest);
    trial.append(write(event.clone())).await?;
    let log = trial.read(ReadQuery::log().with_bytes_max(1)).await?;
    ensure!(log[0].payload() == &event.payload[..], "the largest event reads back otherwise");
    Ok(())
}

/// A batch of the most events is stored, and one with an event more is refused.
pub(crate) async fn the_longest_batch_fits_and_one_event_more_does_not(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let most = trial.guarantees().limits.batch_events_max;
    let tiny = |_| NewEvent { payload: bytes::Bytes::new(), ..trial.event() };
    let batch = |count: usize| {
        AppendBatch::new().write(stream(ADA), exact(0), (0..count).map(tiny).collect::<Vec<_>>())
    };
    trial.refuses("a batch with an event too many", batch(most + 1)).await?;
    nothing_was_stored(&trial).await?;
    let appended = trial.append(batch(most)).await?;
    ensure_eq!(appended.versions[0].value(), most as u64, "version after the longest batch");
    ensure_eq!(trial.read_log().await?.len(), most, "events of the longest batch");
    Ok(())
}

/// A batch of the most bytes is stored, and one with a byte more is refused.
pub(crate) async fn the_largest_batch_fits_and_one_byte_more_does_not(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let limits = trial.guarantees().limits;
    let batch = |bytes: usize| {
        let mut events = vec![];
        let mut left = bytes;
        while left > 0 {
            // The last two share the rest, so that neither is smaller than an event can be.
            let most = limits.event_bytes_max + ADA.len();
            let next = if left > most && left < most + 1_000 { left / 2 } else { left.min(most) };
            events.push(sized(&trial, next - ADA.len()));
            left -= next;
        }
        AppendBatch::new().write(stream(ADA), exact(0), events)
    };
    let largest = batch(limits.batch_bytes_max);
    let larger = batch(limits.batch_bytes_max + 1);
    ensure_eq!(larger.size(), limits.batch_bytes_max + 1, "the case's own arithmetic");
    if largest.event_count() > limits.batch_events_max {
        return Err(Stop::Skipped("a batch is full of events before it is of bytes"));
    }
    trial.refuses("a batch that is a byte too large", larger).await?;
    nothing_was_stored(&trial).await?;
    let count = largest.event_count();
    trial.append(largest).await?;
    ensure_eq!(trial.read_log().await?.len(), count, "events of the largest batch");
    Ok(())
}

/// The most checks, conditions and names in conditions are allowed, and one more of each is
/// refused.
pub(crate) async fn checks_and_conditions_are_limited(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let most = trial.guarantees().limits.batch_conditions_max;
    let checks = |count: usize| {
        (0..count).fold(trial.one(ADA, ANY), |batch, at| {
            batch.check(stream(&format!("other-{at}")), exact(0))
        })
    };
    let conditions = |count: usize| {
        (0..count).fold(trial.one(ADA, ANY), |batch, at| {
            let query = Query::tag(tag(&format!("free:{at}")));
            batch.unless(AppendCondition { fail_if_events_match: query, after: Position::ZERO })
        })
    };
    trial.refuses("a check too many", checks(most + 1)).await?;
    trial.refuses("a condition too many", conditions(most + 1)).await?;
    let names = trial.guarantees().limits.batch_names_max;
    let named = |count: usize| {
        let name = |at| EventName::parse(&format!("free.{at}")).expect("a valid name");
        let types: Vec<_> = (0..count).map(name).collect();
        types.chunks(QUERY_ITEMS_MAX * QUERY_ITEMS_MAX).fold(trial.one(ADA, ANY), |batch, types| {
            let items = types.chunks(QUERY_ITEMS_MAX);
            let items = items.map(|types| QueryItem { types: types.to_vec(), tags: vec![] });
            let fail_if_events_match = Query::new(items);
            batch.unless(AppendCondition { fail_if_events_match, after: Position::ZERO })
        })
    };
    trial.refuses("a name too many", named(names + 1)).await?;
    let large = Query::new(vec![QueryItem::default(); QUERY_ITEMS_MAX + 1]);
    let condition = AppendCondition { fail_if_events_match: large, after: Position::ZERO };
    trial.refuses("a query of too many items", trial.one(ADA, ANY).unless(condition)).await?;
    nothing_was_stored(&trial).await?;
    trial.append(checks(most)).await?;
    trial.append(conditions(most)).await?;
    trial.append(named(names)).await?;
    // The last of all the names counts like the first.
    let last = EventName::parse(&format!("free.{}", names - 1)).expect("a valid name");
    let event = NewEvent { name: last, ..trial.event() };
    let stored = trial.append(AppendBatch::new().write(stream(ADA), ANY, [event])).await?;
    match trial.log().append(named(names)).await {
        Err(AppendError::ConditionFailed { position, .. }) if position == stored.first => Ok(()),
        other => Err(Stop::failed(format!("a match of the last name: answered with {other:?}"))),
    }
}

/// Names, keys, tags and metadata with every allowed character come back unchanged, and are found.
pub(crate) async fn odd_texts_come_back_as_they_were(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    for key in odd_texts() {
        let id = stream(&format!("конто-{key}"));
        let event = odd_event(&trial, &key);
        let label = event.tags[0].clone();
        let batch = AppendBatch::new().write(id.clone(), exact(0), [event.clone()]);
        trial.append(batch).await?;
        for query in [ReadQuery::stream(id.clone()), ReadQuery::matching(Query::tag(label.clone()))]
        {
            let found = trial.read(query.clone()).await?;
            ensure_eq!(found.len(), 1, "events found by {query:?}");
            check_same(&found[0], &event)?;
            ensure!(found[0].stream() == id, "{} reads back as {}", id, found[0].stream());
        }
        let condition =
            AppendCondition { fail_if_events_match: Query::tag(label), after: Position::ZERO };
        let blocked = trial.log().append(trial.one("other-1", ANY).unless(condition)).await;
        ensure!(blocked.is_err(), "a condition on a tag with {key:?} did not see it");
    }
    Ok(())
}

fn odd_texts() -> Vec<String> {
    let texts = [
        "'; drop table events; --",
        "\"quoted\" \\ back % under_score",
        "a-b-c--",
        " leading and trailing ",
        "zoë",        // One character, or
        "zoe\u{308}", // two: ids are compared byte by byte.
        "ZOË",
        "🐢北\u{200d}\u{202e}rtl",
        "{\"json\":[1]}",
        "*?[a-z]$1",
        "NULL",
    ];
    texts.iter().map(|text| (*text).to_owned()).chain(["x".repeat(512 - 11)]).collect()
}

fn odd_event(trial: &Trial, text: &str) -> NewEvent {
    let short: String = text.chars().take(60).collect();
    let mut event = NewEvent {
        name: EventName::parse(&format!("тип.{short}")).expect("a valid name"),
        schema_version: u32::MAX,
        content: Content::Other(u16::MAX),
        payload: bytes::Bytes::from_static(&[0, 255, 10, 39, 0]),
        ..trial.event()
    };
    event.tags = vec![Tag::new("имя", &short).expect("a valid tag"), tag("k:a:b:c")];
    event.metadata = Metadata::new()
        .with_correlation_id(uuid::Uuid::max())
        .with_causation_id(uuid::Uuid::nil())
        .with_user(text)
        .with_tenant("")
        .with_origin("\0\n\t")
        .with_occurred_at(Timestamp::MAX)
        .with(text, "значение")
        .with("", "");
    event
}

fn check_same(found: &RecordedEvent, event: &NewEvent) -> CaseResult {
    ensure_eq!(found.id(), event.id, "id");
    ensure_eq!(found.name(), event.name.as_str(), "name");
    ensure_eq!(found.schema_version(), event.schema_version, "schema version");
    ensure_eq!(found.content(), event.content, "content");
    ensure_eq!(found.payload(), &event.payload[..], "payload");
    let tags: Vec<_> = event.tags.iter().map(Tag::as_str).collect();
    ensure_eq!(found.tags().collect::<Vec<_>>(), tags, "tags");
    ensure_eq!(found.metadata(), event.metadata, "metadata");
    Ok(())
}

/// The most and the longest tags, the longest names, and no payload at all.
pub(crate) async fn extreme_events_come_back_as_they_were(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let mut full = trial.event();
    full.name = EventName::parse(&"n".repeat(256)).expect("a valid name");
    full.tags = (0..TAGS_MAX).map(|at| tag(&format!("{at:03}:{}", "v".repeat(252)))).collect();
    let mut empty = trial.event();
    empty.payload = bytes::Bytes::new();
    // A UUID of another version is an id as well.
    empty.id = factum_kernel::EventId::new(uuid::Uuid::from_u128(7));
    let id = format!("{}-{}", "c".repeat(64), "k".repeat(512));
    let batch = AppendBatch::new().write(stream(&id), exact(0), [full.clone(), empty.clone()]);
    trial.append(batch).await?;
    let found = trial.read(ReadQuery::stream(stream(&id))).await?;
    ensure_eq!(found.len(), 2, "events in a stream with the longest name");
    check_same(&found[0], &full)?;
    check_same(&found[1], &empty)?;
    for label in [&full.tags[0], &full.tags[TAGS_MAX - 1]] {
        let tagged = trial.read(ReadQuery::matching(Query::tag(label.clone()))).await?;
        ensure_eq!(tagged.len(), 1, "events with the tag {label}");
    }
    Ok(())
}
