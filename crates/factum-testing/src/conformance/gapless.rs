//! Law 3: positions are 1, 2, 3, ... whatever fails between.

use factum_kernel::{AppendBatch, AppendCondition, AppendError, Position, Query, QueryItem};

use super::{
    failure::{CaseResult, ensure_eq},
    race,
    trial::{Bench, Trial, exact, stream},
};

/// Conflicts, failed conditions and refused batches between successes take no position.
pub(crate) async fn failures_take_no_position(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    for round in 1..=5 {
        let appended = trial.append(trial.one("account-ada", exact(round - 1))).await?;
        ensure_eq!(appended.first, Position::new(round), "position after {} failures", round - 1);
        fail_in_every_way(&trial, round).await?;
    }
    ensure_eq!(trial.head().await?, Position::new(5), "head");
    ensure_eq!(trial.read_log().await?.len(), 5, "events in the log");
    Ok(())
}

async fn fail_in_every_way(trial: &Trial, version: u64) -> CaseResult {
    let stale = trial.one("account-ada", exact(version - 1));
    trial.conflicts(stale, "account-ada", exact(version - 1), version).await?;
    let checked = trial.one("account-bob", exact(0)).check(stream("account-ada"), exact(0));
    trial.conflicts(checked, "account-ada", exact(0), version).await?;
    trial.refuses("a batch without events", AppendBatch::new()).await?;
    let everything = Query::new([QueryItem::default()]);
    let condition = AppendCondition { fail_if_events_match: everything, after: Position::ZERO };
    let failed = trial.log().append(trial.one("account-bob", exact(0)).unless(condition)).await;
    let as_wanted = matches!(failed, Err(AppendError::ConditionFailed { condition: 0, .. }));
    ensure_eq!(as_wanted, true, "a condition that matches everything was answered {failed:?}");
    Ok(())
}

/// 16 writers, most of whose appends conflict, leave a log without gaps.
pub(crate) async fn racing_conflicts_leave_no_hole(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(31).await?;
    let writers = (0..16_u64).map(|writer| {
        let trial = trial.clone();
        async move {
            let id = format!("account-{}", writer % 3);
            let mut stored = 0_u64;
            for _ in 0..6 {
                let version = trial.version(&id).await?;
                match trial.log().append(trial.one(&id, exact(version))).await {
                    Ok(_) => stored += 1,
                    Err(AppendError::Conflict(_)) => {}
                    Err(other) => return Err(other.into()),
                }
            }
            Ok(stored)
        }
    });
    let stored: u64 = race::all(writers).await?.into_iter().sum();
    // The walk itself fails on a gap.
    ensure_eq!(trial.read_log().await?.len() as u64, stored, "events of {stored} successes");
    ensure_eq!(trial.head().await?, Position::new(stored), "head after {stored} successes");
    Ok(())
}

/// The first event of an empty log has position 1, and an empty log has head 0.
pub(crate) async fn positions_begin_at_one(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    ensure_eq!(trial.head().await?, Position::ZERO, "head of an empty log");
    ensure_eq!(*trial.log().head().borrow(), Position::ZERO, "watched head of an empty log");
    let appended = trial.append(trial.one("account-ada", exact(0))).await?;
    ensure_eq!(appended.first, Position::new(1), "first position");
    Ok(())
}
