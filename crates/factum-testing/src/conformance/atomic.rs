//! Law 1: a batch is stored whole or not at all, over all its streams.

use factum_kernel::{
    AppendBatch, AppendCondition, AppendError, ExpectedVersion, Position, Query, ReadQuery,
    RecordedEvent,
};

use super::{
    failure::{CaseResult, Stop, ensure, ensure_eq},
    trial::{Bench, Trial, exact, stream, tag},
};

/// Events get consecutive positions in the order in which they were added, each stream has its own
/// versions, and the answer reports both.
pub(crate) async fn a_batch_is_stored_over_all_its_streams(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow("account-bob", 2).await?;
    let ada = trial.events(2);
    let bob = trial.events(3);
    let batch = AppendBatch::new()
        .write(stream("account-ada"), ExpectedVersion::NoStream, ada.clone())
        .write(stream("account-bob"), exact(2), bob.clone());
    let appended = trial.append(batch).await?;
    ensure_eq!(appended.first, Position::new(3), "first position of the batch");
    ensure_eq!(appended.last, Position::new(7), "last position of the batch");
    let versions: Vec<_> = appended.versions.iter().map(|v| v.value()).collect();
    ensure_eq!(versions, [2, 5], "new versions of account-ada, account-bob");

    let log = trial.read_log().await?;
    ensure_eq!(log.len(), 7, "events in the log");
    for (recorded, new) in log[2..].iter().zip(ada.iter().chain(&bob)) {
        ensure_eq!(recorded.id(), new.id, "id at position {}", recorded.position());
        ensure_eq!(recorded.payload(), &new.payload[..], "payload at {}", recorded.position());
        ensure_eq!(recorded.recorded_at(), appended.recorded_at, "time at {}", recorded.position());
    }
    let streams: Vec<_> = log.iter().map(|e| (e.stream().key(), e.version().value())).collect();
    let wanted =
        [("bob", 1), ("bob", 2), ("ada", 1), ("ada", 2), ("bob", 3), ("bob", 4), ("bob", 5)];
    ensure_eq!(streams, wanted, "streams and versions in the order of the log");
    Ok(())
}

/// A batch that writes a stream, another stream and the first again is stored in this order, and
/// the answer has the version after each write.
pub(crate) async fn a_batch_keeps_its_order_where_it_returns_to_a_stream(
    bench: Bench,
) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow("account-bob", 2).await?;
    let ada = stream("account-ada");
    let bob = stream("account-bob");
    let batch = AppendBatch::new()
        .write(ada.clone(), ExpectedVersion::NoStream, trial.events(1))
        .write(bob.clone(), exact(2), trial.events(2))
        .write(ada.clone(), ExpectedVersion::Any, trial.events(2))
        .write(bob.clone(), ExpectedVersion::Any, trial.events(1))
        .write(ada, ExpectedVersion::Any, trial.events(1));
    let appended = trial.append(batch.clone()).await?;
    let versions: Vec<_> = appended.versions.iter().map(|v| v.value()).collect();
    ensure_eq!(versions, [1, 4, 3, 5, 4], "versions after each write");

    let log = trial.read_log().await?;
    ensure_eq!(log.len(), 9, "events in the log");
    for (recorded, new) in log[2..].iter().zip(batch.events()) {
        ensure_eq!(recorded.id(), new.id, "id at position {}", recorded.position());
    }
    let places: Vec<_> = log[2..].iter().map(|e| (e.stream().key(), e.version().value())).collect();
    let wanted =
        [("ada", 1), ("bob", 3), ("bob", 4), ("ada", 2), ("ada", 3), ("bob", 5), ("ada", 4)];
    ensure_eq!(places, wanted, "streams and versions in the order of the log");
    let positions = |events: Vec<RecordedEvent>| -> Vec<u64> {
        events.iter().map(|event| event.position().value()).collect()
    };
    let of_bob = positions(trial.read(ReadQuery::stream(bob)).await?);
    ensure_eq!(of_bob, [1, 2, 4, 5, 8], "positions of account-bob");
    Ok(())
}

/// Whichever of three streams has another version, nothing is written.
pub(crate) async fn a_wrong_version_stores_nothing_of_the_batch(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    for wrong in 0..3 {
        let names = ["account-a", "account-b", "account-c"];
        let mut batch = AppendBatch::new();
        for (at, name) in names.into_iter().enumerate() {
            let expected = if at == wrong { exact(9) } else { ExpectedVersion::NoStream };
            batch = batch.write(stream(name), expected, trial.events(2));
        }
        trial.conflicts(batch, names[wrong], exact(9), 0).await?;
        stored_nothing(&trial, &names).await?;
    }
    Ok(())
}

/// A stream that is only checked takes part in the outcome, and is not written.
pub(crate) async fn a_failed_check_stores_nothing(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let checked =
        |expected| trial.one("account-ada", exact(0)).check(stream("bank-main"), expected);
    let none = ExpectedVersion::NoStream;
    let some = ExpectedVersion::StreamExists;
    for expected in [some, exact(1)] {
        trial.conflicts(checked(expected), "bank-main", expected, 0).await?;
    }
    stored_nothing(&trial, &["account-ada", "bank-main"]).await?;

    trial.grow("bank-main", 2).await?;
    for expected in [none, exact(1), exact(3)] {
        trial.conflicts(checked(expected), "bank-main", expected, 2).await?;
    }
    ensure_eq!(trial.version("account-ada").await?, 0, "version of account-ada");
    Ok(())
}

/// Checks that hold let the batch succeed, and leave their stream unchanged.
pub(crate) async fn a_check_that_holds_writes_nothing_itself(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow("bank-main", 2).await?;
    let mut version = 0;
    for expected in [ExpectedVersion::Any, ExpectedVersion::StreamExists, exact(2)] {
        let batch = trial.one("account-ada", exact(version)).check(stream("bank-main"), expected);
        let appended = trial.append(batch).await?;
        version += 1;
        ensure_eq!(appended.versions[0].value(), version, "version after check of {expected}");
    }
    let absent = trial.one("account-ada", exact(3)).check(stream("bank-other"), exact(0));
    trial.append(absent).await?;
    ensure_eq!(trial.version("bank-main").await?, 2, "version of the checked stream");
    ensure_eq!(trial.version("bank-other").await?, 0, "version of the absent checked stream");
    Ok(())
}

/// A condition that fails leaves every stream of the batch unchanged.
pub(crate) async fn a_failed_condition_stores_nothing(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let taken = trial.tagged(&["email:ada"]);
    trial.append(AppendBatch::new().write(stream("account-ada"), exact(0), [taken])).await?;
    let query = Query::tag(tag("email:ada"));
    let batch = AppendBatch::new()
        .write(stream("account-b"), exact(0), trial.events(2))
        .write(stream("account-c"), exact(0), trial.events(1))
        .unless(AppendCondition { fail_if_events_match: query, after: Position::ZERO });
    match trial.log().append(batch).await {
        Err(AppendError::ConditionFailed { condition: 0, position }) => {
            ensure_eq!(position, Position::new(1), "position that the failed condition names");
        }
        other => return Err(Stop::failed(format!("a taken tag was answered with {other:?}"))),
    }
    ensure_eq!(trial.read_log().await?.len(), 1, "events in the log");
    ensure_eq!(trial.version("account-b").await?, 0, "version of account-b");
    Ok(())
}

/// Batches over two streams race. In the end both streams have the same number of events, and each
/// batch's events are neighbours.
pub(crate) async fn racing_batches_stay_whole(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(11).await?;
    let writers = (0..16).map(|writer| {
        let trial = trial.clone();
        async move {
            for _ in 0..4 {
                transfer(&trial, writer).await?;
            }
            Ok(())
        }
    });
    super::race::all(writers).await?;
    let log = trial.read_log().await?;
    ensure!(!log.is_empty(), "not one of 64 batches was stored");
    for pair in log.chunks(2) {
        ensure_eq!(pair.len(), 2, "events of the batch at position {}", pair[0].position());
        let keys = (pair[0].stream().category(), pair[1].stream().category());
        ensure_eq!(keys, ("out", "in"), "streams of the batch at {}", pair[0].position());
        ensure_eq!(pair[0].payload(), pair[1].payload(), "batch at {}", pair[0].position());
    }
    Ok(())
}

/// One attempt to write to two of four streams at the versions that they seem to have.
async fn transfer(trial: &Trial, writer: u32) -> CaseResult {
    let from = format!("out-{}", writer % 4);
    let to = format!("in-{}", writer / 4);
    let out = trial.event();
    let mut into = trial.event();
    into.payload.clone_from(&out.payload);
    let batch = AppendBatch::new()
        .write(stream(&from), exact(trial.version(&from).await?), [out])
        .write(stream(&to), exact(trial.version(&to).await?), [into]);
    match trial.log().append(batch).await {
        Ok(_) | Err(AppendError::Conflict(_)) => Ok(()),
        Err(other) => Err(other.into()),
    }
}

async fn stored_nothing(trial: &Trial, streams: &[&str]) -> CaseResult {
    ensure!(trial.read_log().await?.is_empty(), "a refused batch left events in the log");
    ensure_eq!(trial.head().await?, Position::ZERO, "head after a refused batch");
    for id in streams {
        ensure_eq!(trial.version(id).await?, 0, "version of {id} after a refused batch");
    }
    Ok(())
}
