//! Law 2: versions are 1, 2, 3, ..., and the expected versions of a writer.

use factum_kernel::{AppendBatch, ExpectedVersion, ReadFrom, ReadQuery, StreamVersion};

use super::{
    failure::{CaseResult, ensure_eq},
    trial::{Bench, Trial, exact, stream},
};

const ANY: ExpectedVersion = ExpectedVersion::Any;
const NONE: ExpectedVersion = ExpectedVersion::NoStream;
const SOME: ExpectedVersion = ExpectedVersion::StreamExists;

/// `Any`, `NoStream` and `Exact(0)` match a stream that never existed; `StreamExists` and every
/// other version do not.
pub(crate) async fn expectations_of_an_absent_stream(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    for expected in [SOME, exact(1), exact(2)] {
        trial.conflicts(trial.one("account-ada", expected), "account-ada", expected, 0).await?;
    }
    for (key, expected) in [("a", ANY), ("b", NONE), ("c", exact(0))] {
        let appended = trial.append(trial.one(&format!("account-{key}"), expected)).await?;
        ensure_eq!(appended.versions, [StreamVersion::new(1)], "version after {expected}");
    }
    Ok(())
}

/// `Any`, `StreamExists` and the current version match a stream with events; nothing else does.
pub(crate) async fn expectations_of_a_living_stream(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow("account-ada", 3).await?;
    for expected in [NONE, exact(0), exact(2), exact(4)] {
        trial.conflicts(trial.one("account-ada", expected), "account-ada", expected, 3).await?;
    }
    for (expected, version) in [(ANY, 4), (SOME, 5), (exact(5), 6)] {
        let appended = trial.append(trial.one("account-ada", expected)).await?;
        ensure_eq!(appended.versions[0].value(), version, "version after {expected}");
    }
    Ok(())
}

/// `Any` and the version that the deletion took match a deleted stream; nothing else does. The next
/// event gets the version after it.
pub(crate) async fn expectations_of_a_deleted_stream(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    for id in ["account-a", "account-b"] {
        trial.grow(id, 3).await?;
        trial.delete(id).await?;
        // A writer that loaded before the deletion expects 3 and must fail, because the deletion
        // took version 4.
        for expected in [NONE, SOME, exact(0), exact(3), exact(5)] {
            trial.conflicts(trial.one(id, expected), id, expected, 4).await?;
        }
    }
    for (id, expected) in [("account-a", ANY), ("account-b", exact(4))] {
        let appended = trial.append(trial.one(id, expected)).await?;
        ensure_eq!(appended.versions[0].value(), 5, "version of deleted {id} after {expected}");
        let bounds = trial.info(id).await?.bounds;
        let found = (bounds.version.value(), bounds.deleted_at.value());
        ensure_eq!(found, (5, 4), "version and deleted_at of {id}");
        trial.append(trial.one(id, SOME)).await?;
    }
    Ok(())
}

/// A batch of several events raises the version by their number.
pub(crate) async fn streams_count_for_themselves(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let mut counts = [0_u64; 3];
    for round in 0..9_usize {
        let at = round % 3;
        let count = 1 + round % 2;
        let id = format!("account-{at}");
        let batch = AppendBatch::new().write(stream(&id), exact(counts[at]), trial.events(count));
        counts[at] += count as u64;
        let appended = trial.append(batch).await?;
        ensure_eq!(appended.versions[0].value(), counts[at], "version of {id}");
    }
    for (at, count) in counts.iter().enumerate() {
        check_versions(&trial, &format!("account-{at}"), *count).await?;
    }
    Ok(())
}

async fn check_versions(trial: &Trial, id: &str, count: u64) -> CaseResult {
    let events = trial.read(ReadQuery::stream(stream(id))).await?;
    let versions: Vec<_> = events.iter().map(|event| event.version().value()).collect();
    ensure_eq!(versions, (1..=count).collect::<Vec<_>>(), "versions in {id}");
    ensure_eq!(trial.version(id).await?, count, "version of {id} by stream_info");
    Ok(())
}

/// The largest numbers conflict like any other wrong version, and a read from them finds nothing.
pub(crate) async fn the_largest_version_is_only_a_wrong_one(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow("account-ada", 2).await?;
    for version in [StreamVersion::MAX.value(), StreamVersion::MAX.value() + 1, u64::MAX] {
        let expected = exact(version);
        trial.conflicts(trial.one("account-ada", expected), "account-ada", expected, 2).await?;
        trial.conflicts(trial.one("account-bob", expected), "account-bob", expected, 0).await?;
        let checked = trial.one("account-bob", ANY).check(stream("account-ada"), expected);
        trial.conflicts(checked, "account-ada", expected, 2).await?;
        let query = ReadQuery::stream(stream("account-ada"));
        let from = ReadFrom::Version(StreamVersion::new(version));
        ensure_eq!(trial.read(query.clone().from(from)).await?.len(), 0, "events from {version}");
        let back = trial.read(query.from(from).backward()).await?;
        ensure_eq!(back.len(), 2, "events back from version {version}");
    }
    Ok(())
}

/// A stream that never existed: everything is zero, and the page is empty.
pub(crate) async fn an_absent_stream_is_empty(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow("account-ada", 1).await?;
    ensure_eq!(trial.info("account-bob").await?, Default::default(), "stream_info of no stream");
    let walk = trial.walk(ReadQuery::stream(stream("account-bob"))).await?;
    ensure_eq!(walk.events.len(), 0, "events of no stream");
    ensure_eq!(walk.bounds, Some(Default::default()), "bounds of no stream");
    Ok(())
}

/// `stream_info` has the times of the first and the last kept event.
pub(crate) async fn stream_info_tells_version_and_times(bench: Bench) -> CaseResult {
    let (trial, clock) = bench.open_with_clock().await?;
    let mut times = vec![];
    for _ in 0..3 {
        clock.advance(std::time::Duration::from_secs(60));
        times.push(trial.append(trial.one("account-ada", ANY)).await?.recorded_at);
    }
    let info = trial.info("account-ada").await?;
    ensure_eq!(info.bounds.version.value(), 3, "version");
    ensure_eq!(info.first_at, Some(times[0]), "time of the first event");
    ensure_eq!(info.last_at, Some(times[2]), "time of the last event");
    Ok(())
}
