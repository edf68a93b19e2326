//! Law 11: an append whose caller went away is stored whole or not at all, and its repetition is
//! recognised.

use std::{future::Future, pin::pin, task::Poll};

use factum_kernel::{AppendBatch, AppendError, ExpectedVersion};

use super::{
    failure::{CaseResult, ensure, ensure_eq},
    trial::{Bench, Trial, exact, stream},
};

/// Polls a future this many times, then drops it. Returns its output if it was done before.
async fn cancelled_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let polled = future.as_mut().poll(cx).map(Some);
        if polled.is_pending() {
            // Polled again at once, whether or not there is news.
            cx.waker().wake_by_ref();
        }
        polled
    })
    .await
}

/// Cancelled after 0, 1, 2, ... polls, then repeated with the mark: stored once, and whole.
pub(crate) async fn a_cancelled_append_can_be_repeated(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(111).await?;
    let mut stored = vec![];
    for polls in 0..24 {
        let batch = AppendBatch::new()
            .write(stream("account-ada"), ExpectedVersion::Any, trial.events(2))
            .write(stream(&format!("account-{polls}")), exact(0), trial.events(2));
        cancelled_after(polls, trial.log().append(batch.clone())).await;
        let appended = trial.log().append(batch.clone().repeated()).await?;
        let first = polls as u64 * 4 + 1;
        ensure_eq!(appended.first.value(), first, "position after {polls} polls and a repetition");
        stored.extend(batch.events().cloned());
    }
    trial.holds(&stored).await
}

/// As before, but recognised by the failing version, without the mark.
pub(crate) async fn a_cancelled_append_is_recognised_by_its_version(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(112).await?;
    let mut stored = vec![];
    for polls in 0..12 {
        let batch =
            AppendBatch::new().write(stream("account-ada"), exact(polls * 2), trial.events(2));
        cancelled_after(polls as usize, trial.log().append(batch.clone())).await;
        let appended = trial.log().append(batch.clone()).await?;
        ensure_eq!(appended.first.value(), polls * 2 + 1, "position after {polls} polls");
        stored.extend(batch.events().cloned());
    }
    trial.holds(&stored).await
}

/// Never repeated: each is whole or absent, and the next append goes on.
pub(crate) async fn a_cancelled_append_is_whole_or_absent(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(113).await?;
    let mut batches = vec![];
    for polls in 0..24 {
        let batch = AppendBatch::new()
            .write(stream("account-ada"), ExpectedVersion::Any, trial.events(2))
            .write(stream("account-bob"), ExpectedVersion::Any, trial.events(3));
        cancelled_after(polls, trial.log().append(batch.clone())).await;
        batches.push(batch);
        if polls % 4 == 3 {
            trial.grow("account-eve", 1).await?;
            check_whole(&trial, &batches).await?;
        }
    }
    Ok(())
}

async fn check_whole(trial: &Trial, batches: &[AppendBatch]) -> CaseResult {
    let log = trial.read_log().await?;
    for (polls, batch) in batches.iter().enumerate() {
        let there = log.iter().filter(|found| batch.events().any(|event| event.id == found.id()));
        let positions: Vec<_> = there.map(|event| event.position().value()).collect();
        let whole =
            positions.is_empty() || (positions.len() == 5 && positions[4] - positions[0] == 4);
        ensure!(whole, "a batch of 5, cancelled after {polls} polls, stands at {positions:?}");
    }
    Ok(())
}

/// Appends of many callers that all go away leave a log that works.
pub(crate) async fn cancelled_rivals_leave_one_winner(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(114).await?;
    for round in 0..6_u64 {
        let rivals: Vec<_> = (0..16).map(|_| trial.one("account-ada", exact(round))).collect();
        let tasks = rivals.iter().cloned().enumerate().map(|(polls, batch)| {
            let log = trial.log().clone();
            async move {
                cancelled_after(polls % 8, log.append(batch)).await;
                Ok(())
            }
        });
        super::race::all(tasks).await?;
        let mut winners = 0;
        for batch in rivals {
            match trial.log().append(batch.repeated()).await {
                Ok(_) => winners += 1,
                Err(AppendError::Conflict(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
        ensure_eq!(winners, 1, "winners among 16 cancelled and repeated appends");
    }
    ensure_eq!(trial.version("account-ada").await?, 6, "version after 6 rounds");
    Ok(())
}
