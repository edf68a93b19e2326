//! Random sequences of appends, changes and reads, compared with a model made of a `Vec`. A failing
//! sequence is shrunk. The sequences are the same in every run.

mod reference;
mod step;

use factum_kernel::{AppendBatch, AppendError, Appended, ChangeError, ReadQuery, StreamChange};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use tokio::runtime::Handle;

use self::{
    reference::{Obstacle, Reference},
    step::{STREAMS, Step, steps},
};
use super::{
    failure::{CaseResult, Stop, ensure, ensure_eq},
    trial::{Bench, Trial, stream},
};

/// The number of sequences.
const SEQUENCES: u32 = 32;
/// The most attempts to shrink a failing sequence; each opens a fresh store.
const SHRINKS_MAX: u32 = 200;

/// Every outcome and every page equals the model's.
pub(crate) async fn random_steps_end_as_in_a_model(bench: Bench) -> CaseResult {
    // The runner is not async, so it blocks a thread of its own.
    let handle = Handle::current();
    let run = tokio::task::spawn_blocking(move || run(&bench, &handle));
    run.await.map_err(|e| Stop::failed(format!("the model test panicked: {e}")))?
}

fn run(bench: &Bench, handle: &Handle) -> CaseResult {
    let config = Config {
        cases: SEQUENCES,
        max_shrink_iters: SHRINKS_MAX,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let outcome = TestRunner::new_with_rng(config, rng).run(&steps(), |steps| {
        match handle.block_on(play(bench, &steps)) {
            Ok(()) => Ok(()),
            Err(Stop::Failed(reason)) => Err(TestCaseError::fail(reason)),
            Err(Stop::Skipped(reason)) => Err(TestCaseError::reject(reason)),
        }
    });
    match outcome {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, steps)) => {
            Err(Stop::failed(format!("{reason}; the smallest steps that show it: {steps:#?}")))
        }
        Err(TestError::Abort(reason)) => Err(Stop::failed(format!("gave up: {reason}"))),
    }
}

async fn play(bench: &Bench, steps: &[Step]) -> CaseResult {
    let trial = bench.open().await?;
    let mut model = Reference::default();
    let mut batches: Vec<AppendBatch> = vec![];
    for (at, step) in steps.iter().enumerate() {
        play_one(&trial, &mut model, &mut batches, step)
            .await
            .map_err(|stop| stop.within(format!("step {at}, {step:?}")))?;
    }
    compare(&trial, &model).await.map_err(|stop| stop.within("after the last step"))
}

async fn play_one(
    trial: &Trial,
    model: &mut Reference,
    batches: &mut Vec<AppendBatch>,
    step: &Step,
) -> CaseResult {
    match step {
        Step::Append(draft) => {
            let batch = draft.batch(trial, model);
            batches.push(batch.clone());
            let outcome = trial.log().append(batch.clone()).await;
            first_attempt(model, &batch, outcome)
        }
        Step::Repeat { which, marked } if !batches.is_empty() => {
            let batch = &batches[which % batches.len()];
            repeat(trial, model, batch, *marked).await
        }
        Step::Repeat { .. } => Ok(()),
        Step::Change(at, change) => change_stream(trial, model, STREAMS[*at], *change).await,
        Step::Read(query) => {
            let found = trial.read(query.clone()).await?;
            ensure!(
                found.iter().eq(model.read(query)),
                "read {:?}, should be {:?}",
                found.iter().map(|e| e.position().value()).collect::<Vec<_>>(),
                model.read(query).map(|e| e.position().value()).collect::<Vec<_>>()
            );
            Ok(())
        }
    }
}

type Outcome = Result<Appended, AppendError>;

fn first_attempt(model: &mut Reference, batch: &AppendBatch, outcome: Outcome) -> CaseResult {
    let obstacles = model.obstacles(batch);
    match outcome {
        Ok(answer) if obstacles.is_empty() => {
            ensure!(!answer.replayed, "said to be stored before, but was not");
            let wanted = model.store(batch, answer.recorded_at);
            ensure_eq!(answer, wanted, "answer to an append");
            Ok(())
        }
        Err(error) if obstacles.iter().any(|obstacle| obstacle.explains(&error)) => Ok(()),
        other => Err(Stop::failed(format!("ended as {other:?}, with obstacles {obstacles:?}"))),
    }
}

async fn repeat(
    trial: &Trial,
    model: &mut Reference,
    batch: &AppendBatch,
    marked: bool,
) -> CaseResult {
    let obstacles: Vec<Obstacle> = model.obstacles(batch);
    let asked = if marked { batch.clone().repeated() } else { batch.clone() };
    let stored = model.answer(batch);
    // Undefined: a batch whose events were erased since, or may have been, and an unmarked batch
    // without an obstacle.
    let may_be_erased = stored.is_none() && marked && model.may_be_erased(batch);
    if model.is_erased(batch)
        || may_be_erased
        || (stored.is_some() && !marked && obstacles.is_empty())
    {
        return Ok(());
    }
    let outcome = trial.log().append(asked).await;
    let Some(mut answer) = stored else { return first_attempt(model, batch, outcome) };
    match outcome {
        Ok(again) => {
            answer.versions = model.versions_left(batch, &answer.versions, &again.versions);
            ensure_eq!(again, answer.replayed(), "answer to a repeated batch");
        }
        Err(error) => ensure!(false, "a stored batch repeated ended as {error:?}"),
    }
    Ok(())
}

async fn change_stream(
    trial: &Trial,
    model: &mut Reference,
    id: &str,
    change: StreamChange,
) -> CaseResult {
    let bounds = model.info(id).bounds;
    let outcome = trial.log().change(&stream(id), change).await;
    match (outcome, change.check(bounds.version)) {
        (Err(ChangeError::Store(_)), Err(_)) => Ok(()),
        (Ok(info), Ok(())) => {
            model.change(id, change);
            ensure_eq!(info, model.info(id), "answer to {change:?} of {id}");
            Ok(())
        }
        (outcome, ..) => Err(Stop::failed(format!("{id} with {bounds:?}: {outcome:?}"))),
    }
}

/// The whole log and each stream.
async fn compare(trial: &Trial, model: &Reference) -> CaseResult {
    let log = trial.walk(ReadQuery::log().with_events_max(7)).await?;
    ensure!(log.events.iter().eq(model.read(&ReadQuery::log())), "the log is another one");
    ensure_eq!(log.head, model.head(), "head");
    for id in STREAMS {
        ensure_eq!(trial.info(id).await?, model.info(id), "stream_info of {id}");
    }
    Ok(())
}
