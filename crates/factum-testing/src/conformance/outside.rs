//! Callers outside of a tokio runtime.

use factum_kernel::{
    AppendError, Durability, ExpectedRevision, ExpectedVersion, KeyRange, PAGE_EVENTS_DEFAULT,
    ReadQuery, ScanQuery, StoreError, StoreErrorKind, WriteBatch, WriteError,
};

use super::{
    failure::{CaseResult, Stop, ensure, ensure_eq},
    trial::{Bench, Trial, stream},
};
use crate::drive;

const ADA: &str = "account-ada";

/// Runs this on a thread without a runtime.
async fn outside<T: Send + 'static>(
    future: impl Future<Output = CaseResult<T>> + Send + 'static,
) -> CaseResult<T> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || answer.send(drive(future)));
    answered.await.unwrap_or_else(|_| Err(Stop::failed("the store panicked outside of a runtime")))
}

/// Outside of a runtime a call works; or it says that the store needs one, by the kind `Invalid`,
/// and changes nothing.
pub(crate) async fn outside_of_a_runtime_a_store_works_or_says_so(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow(ADA, 1).await?;
    let worked = outside(use_all(trial.clone())).await?;
    ensure_eq!(trial.read_log().await?.len(), 1 + usize::from(worked.append), "events after that");
    if worked.all {
        // Where calls work, opening does as well.
        outside(async move {
            if let Some(reader) = trial.reader().await? {
                ensure_eq!(reader.read_log().await?.len(), 2, "events that a reader finds");
                reader.log().close().await?;
            }
            if trial.guarantees().durability != Durability::Volatile {
                ensure_eq!(trial.reopen().await?.read_log().await?.len(), 2, "events found again");
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// The answer to a call: whether it worked, or the text of an error that is not a refusal.
type Answer = Result<bool, String>;

/// The calls that worked.
struct Worked {
    append: bool,
    all: bool,
}

/// Calls everything once.
async fn use_all(trial: Trial) -> CaseResult<Worked> {
    let log = trial.log();
    let documents = &trial.stores.documents;
    let larger = ReadQuery::log().with_events_max(PAGE_EVENTS_DEFAULT + 1);
    let put = WriteBatch::new().put("key", ExpectedRevision::Any, "value");
    let answers = [
        ("append", appended(log.append(trial.one(ADA, ExpectedVersion::Any)).await)),
        ("read", answer(log.read(ReadQuery::log()).await)),
        ("read of a larger page", answer(log.read(larger).await)),
        ("stream_info", answer(log.stream_info(&stream(ADA)).await)),
        ("write", written(documents.write(put).await)),
        ("get", answer(documents.get(b"key").await)),
        ("scan", answer(documents.scan(ScanQuery::new(KeyRange::all())).await)),
        ("clear", answer(documents.clear(KeyRange::all()).await)),
    ];
    for (call, answer) in &answers {
        ensure!(answer.is_ok(), "{call} outside of a runtime: {answer:?}");
    }
    let append = answers[0].1 == Ok(true);
    Ok(Worked { append, all: answers.iter().all(|(_, answer)| *answer == Ok(true)) })
}

fn answer<T>(answer: Result<T, StoreError>) -> Answer {
    match answer {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == StoreErrorKind::Invalid => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

fn appended<T>(appended: Result<T, AppendError>) -> Answer {
    match appended {
        Err(AppendError::Store(error)) => answer::<T>(Err(error)),
        other => other.map(|_| true).map_err(|error| error.to_string()),
    }
}

fn written<T>(written: Result<T, WriteError>) -> Answer {
    match written {
        Err(WriteError::Store(error)) => answer::<T>(Err(error)),
        other => other.map(|_| true).map_err(|error| error.to_string()),
    }
}
