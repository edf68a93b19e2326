use std::sync::Arc;

use factum_kernel::{Checkpoint, Diverged, DivergedReason, Lineage, StoreError, Uuid};

use super::*;
use crate::progress::Attempt;

const RETRIES: u32 = 2;
const BATCH: usize = 100;

fn at(position: u64) -> Position {
    Position::new(position)
}

fn failure() -> FailurePolicy {
    FailurePolicy::new().with_retries_max(RETRIES).with_parked_max(3)
}

fn machine(failure: FailurePolicy, is_shared: bool) -> Machine {
    let mut machine = Machine::new(Rules { failure, batch_events_max: BATCH, is_shared });
    machine.begin(Mark::default(), at(0));
    machine.note_begun(true);
    machine
}

fn alone() -> Machine {
    machine(failure(), false)
}

/// A batch that wants all of these positions.
fn batch(first: u64, last: u64) -> Batch {
    let events = (last - first + 1) as usize;
    Batch { first: at(first), last: at(last), wanted: events, events }
}

fn take(machine: &Machine, first: u64) -> usize {
    machine.take((first..first + 1_000).map(at))
}

fn source() -> Arc<StoreError> {
    Arc::new(StoreError::unavailable("away"))
}

fn away(trouble: Trouble) -> u32 {
    match trouble {
        Trouble::Outage { attempts, .. } => attempts,
        Trouble::End(end) => panic!("{end:?}"),
    }
}

fn stops(trouble: Trouble) -> StopReason {
    match trouble {
        Trouble::End(End::Stop(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn stored_by(by: u64) -> Progress {
    Progress { by, ..Progress::default() }
}

#[test]
fn an_event_that_fails_is_tried_again_after_pauses_and_then_parked() {
    let mut machine = alone();
    let event = batch(7, 7);
    assert_eq!(machine.next(&event, 0), Next::Handle(None));
    for retry in 1..=RETRIES {
        machine.failed(&event, at(7), StopCause::new(format!("failure {retry}")), Fault::Passing);
        let error = format!("failure {retry}");
        assert_eq!(machine.next(&event, 0), Next::Wait { attempts: retry, error });
        assert_eq!(machine.next(&event, 0), Next::Handle(None), "the pause is over");
    }
    machine.failed(&event, at(7), StopCause::new("thirteen"), Fault::Passing);
    let Next::Park(failing) = machine.next(&event, 0) else { panic!("its attempts are used up") };
    assert_eq!((failing.attempts, failing.error.to_string()), (RETRIES + 1, "thirteen".into()));
    machine.passed(1, at(7));
    assert_eq!(machine.next(&batch(8, 8), 1), Next::Handle(None));
}

#[test]
fn an_event_that_cannot_be_decoded_is_not_tried_again() {
    let mut machine = alone();
    machine.failed(&batch(7, 7), at(7), StopCause::new("no such event"), Fault::Lasting);
    assert!(matches!(machine.next(&batch(7, 7), 0), Next::Park(_)));
}

#[test]
fn only_the_event_that_has_failed_is_parked() {
    let mut machine = alone();
    machine.failed(&batch(7, 7), at(7), StopCause::new("no such event"), Fault::Lasting);
    assert_eq!(machine.next(&batch(6, 6), 0), Next::Handle(None), "another event has failed");
    assert_eq!(machine.next(&batch(7, 9), 0), Next::Handle(None), "the batch holds other events");
}

#[test]
fn attempts_are_counted_from_the_start_after_an_event_was_handled() {
    let mut machine = alone();
    let event = batch(7, 7);
    let fails = |machine: &mut Machine| {
        machine.failed(&event, at(7), StopCause::new("thirteen"), Fault::Passing);
        machine.next(&event, 0)
    };
    assert!(matches!(fails(&mut machine), Next::Wait { attempts: 1, .. }));
    machine.passed(1, at(6));
    assert!(matches!(fails(&mut machine), Next::Wait { attempts: 2, .. }));
    machine.passed(1, at(7));
    assert!(matches!(fails(&mut machine), Next::Wait { attempts: 1, .. }));
}

#[test]
fn the_text_of_an_error_is_kept_up_to_a_limit() {
    let mut machine = alone();
    machine.failed(&batch(7, 7), at(7), StopCause::new("ä".repeat(4 << 10)), Fault::Lasting);
    let Next::Park(failing) = machine.next(&batch(7, 7), 0) else { panic!("it is final") };
    assert_eq!(failing.error.to_string().len(), 4 << 10);
}

#[test]
fn it_stops_if_the_policy_says_so_or_too_many_streams_are_parked() {
    let position = at(7);
    let error = || StopCause::new("thirteen");
    for (policy, parked, expected) in [
        (failure().then_stop(), 0, StopReason::Failed { position, error: error() }),
        (failure(), 3, StopReason::TooManyParked { position, error: error() }),
    ] {
        let mut machine = machine(policy, false);
        machine.failed(&batch(7, 7), position, error(), Fault::Lasting);
        assert_eq!(machine.next(&batch(7, 7), parked), Next::Stop(expected));
    }
}

#[test]
fn the_event_at_fault_of_a_failed_batch_is_tried_alone() {
    let mut machine = alone();
    machine.failed(&batch(1, 100), at(40), StopCause::new("thirteen"), Fault::Passing);
    assert_eq!(take(&machine, 1), 39, "the events before it are taken together");
    assert_eq!(machine.next(&batch(1, 39), 0), Next::Handle(None), "none of them has failed");
    machine.passed(39, at(39));
    assert_eq!(take(&machine, 40), 1);
    assert!(matches!(machine.next(&batch(40, 40), 0), Next::Wait { attempts: 1, .. }));
}

#[test]
fn skipped_events_do_not_count_in_a_batch_of_one_wanted_event() {
    let mut machine = alone();
    let one_of_many = Batch { wanted: 1, events: 50, ..batch(7, 7) };
    machine.failed(&one_of_many, at(7), StopCause::new("thirteen"), Fault::Lasting);
    assert!(matches!(machine.next(&one_of_many, 0), Next::Park(_)));
}

#[test]
fn a_batch_that_the_target_refuses_is_made_smaller_and_counts_against_no_event() {
    for (error, then) in [
        (TargetError::TooLarge(source()), 50),
        (TargetError::Refused(source()), 1),
        (TargetError::Overtaken, 50),
    ] {
        let mut machine = alone();
        let outcome = machine.unstored(&batch(1, 100), error);
        assert!(matches!(outcome, Unstored::Again), "{outcome:?}");
        assert_eq!(take(&machine, 1), then);
        assert_eq!(machine.next(&batch(1, 1), 0), Next::Handle(None));
    }
}

#[test]
fn a_single_event_that_the_target_refuses_has_failed() {
    let mut machine = alone();
    let outcome = machine.unstored(&batch(7, 7), TargetError::TooLarge(source()));
    assert!(matches!(outcome, Unstored::Failed), "{outcome:?}");
    assert!(matches!(machine.next(&batch(7, 7), 0), Next::Park(_)), "it will not fit");
    let mut machine = alone();
    let outcome = machine.unstored(&batch(7, 7), TargetError::Refused(source()));
    assert!(matches!(outcome, Unstored::Failed), "{outcome:?}");
    assert!(matches!(machine.next(&batch(7, 7), 0), Next::Wait { attempts: 1, .. }));
}

#[test]
fn a_batch_that_is_overtaken_too_often_waits() {
    let mut machine = alone();
    for _ in 0..OVERTAKEN_MAX {
        let outcome = machine.unstored(&batch(7, 7), TargetError::Overtaken);
        assert!(matches!(outcome, Unstored::Again), "{outcome:?}");
    }
    let Unstored::Trouble(trouble) = machine.unstored(&batch(7, 7), TargetError::Overtaken) else {
        panic!("the repeats have no limit")
    };
    assert_eq!(away(trouble), 1);
    machine.passed(1, at(7));
    let outcome = machine.unstored(&batch(8, 8), TargetError::Overtaken);
    assert!(matches!(outcome, Unstored::Again), "{outcome:?}");
}

#[test]
fn a_batch_whose_target_went_away_is_made_smaller() {
    let mut machine = alone();
    let outcome = machine.unstored(&batch(1, 100), TargetError::Unavailable(source()));
    let Unstored::Trouble(trouble) = outcome else { panic!("{outcome:?}") };
    assert_eq!(away(trouble), 1);
    assert_eq!(take(&machine, 1), 50, "a batch that takes too long may fit two");
}

#[test]
fn care_after_an_unclean_stop_ends_after_a_batch_of_handled_events() {
    let rules = Rules { failure: failure(), batch_events_max: BATCH, is_shared: false };
    let mut machine = Machine::new(rules);
    machine.begin(Mark { at_work: Some(3), attempt: None }, at(0));
    let note = Attempt { first: at(1), last: at(1), count: 1 };
    assert_eq!(machine.next(&batch(1, 1), 0), Next::Handle(Some(note)));
    machine.passed(3, at(3));
    assert!(!machine.is_cautious());
    assert_eq!(machine.next(&batch(4, 9), 0), Next::Handle(None));
}

#[test]
fn an_outage_counts_attempts_until_a_batch_is_done() {
    let mut machine = alone();
    machine.blameless(&batch(1, 100));
    assert_eq!(away(machine.outage("away".into())), 1);
    assert_eq!(take(&machine, 1), 1, "one by one, more of them succeed");
    assert_eq!(away(machine.target_failed(TargetError::Unavailable(source()))), 2);
    assert_eq!(away(machine.target_failed(TargetError::Unknown(source()))), 3);
    assert_eq!(away(machine.read_failed(StoreError::unavailable("away").into())), 4);
    assert_eq!(machine.next(&batch(1, 1), 0), Next::Handle(None), "no event is at fault");
    machine.passed(1, at(1));
    assert_eq!(away(machine.outage("away".into())), 1);
}

#[test]
fn only_a_permanent_error_stops_it() {
    let closed = || Arc::new(StoreError::closed());
    for error in [TargetError::Refused(closed()), TargetError::Broken(closed())] {
        let reason = stops(alone().target_failed(error));
        assert!(matches!(reason, StopReason::Broken(_)), "{reason:?}");
    }
    let reason = stops(alone().read_failed(StoreError::corrupt("damaged").into()));
    assert!(matches!(reason, StopReason::Broken(_)), "{reason:?}");
    let lineage = Lineage::new(Uuid::nil());
    let checkpoint = Checkpoint { lineage, position: at(7), event_id: Default::default() };
    let reason = DivergedReason::Short(at(3));
    let reason = stops(alone().read_failed(Diverged { checkpoint, reason }.into()));
    assert!(matches!(reason, StopReason::Diverged(_)), "{reason:?}");
}

#[test]
fn failures_to_read_the_log_are_counted_within_a_life_until_it_is_read() {
    let mut machine = alone();
    assert_eq!((machine.read_delayed(), machine.read_delayed()), (1, 2));
    machine.read_succeeded();
    assert_eq!(machine.read_delayed(), 1);
    machine.begin(Mark::default(), at(0));
    assert_eq!(machine.read_delayed(), 1, "it is another life");
}

#[test]
fn a_late_write_of_its_own_is_read_again_and_another_start_takes_over() {
    let mut owner = alone();
    let trouble = owner.target_failed(TargetError::Fenced);
    assert!(matches!(trouble, Trouble::End(End::Reopen)), "{trouble:?}");
    assert_eq!(owner.ended(End::Reopen), After::Begin);
    assert_eq!(owner.found(Some(&stored_by(1)), 1), Ok(()));
    assert_eq!(owner.found(Some(&stored_by(2)), 1), Err(End::Fenced));
    assert_eq!(owner.found(None, 1), Err(End::Stop(StopReason::Fenced)), "it was removed");
}

#[test]
fn it_takes_over_from_an_earlier_start_before_it_has_begun() {
    let rules = Rules { failure: failure(), batch_events_max: BATCH, is_shared: false };
    let mut machine = Machine::new(rules);
    assert_eq!(machine.found(None, 1), Ok(()));
    assert_eq!(machine.found(Some(&stored_by(2)), 1), Ok(()));
    assert_eq!(away(machine.target_failed(TargetError::Fenced)), 1);
}

#[test]
fn a_fenced_worker_stops_or_reads_its_assignment_again_if_shared() {
    assert_eq!(alone().ended(End::Fenced), After::Stop(StopReason::Fenced));
    let mut shared = machine(failure(), true);
    assert_eq!(shared.ended(End::Fenced), After::Refresh);
    assert_eq!(shared.found(Some(&stored_by(2)), 1), Ok(()), "it takes over again");
}

#[test]
fn a_lost_partition_begins_again_as_after_a_start() {
    let mut machine = machine(failure(), true);
    machine.failed(&batch(7, 7), at(7), StopCause::new("thirteen"), Fault::Lasting);
    assert_eq!(machine.ended(End::Unassigned), After::Begin);
    assert!(!machine.is_layout_checked());
    assert_eq!(machine.found(Some(&stored_by(2)), 1), Ok(()), "another process has worked on it");
    machine.begin(Mark::default(), at(6));
    assert_eq!(machine.next(&batch(7, 7), 0), Next::Handle(None), "its attempts are forgotten");
}

#[test]
fn its_state_is_kept_if_only_the_target_is_opened_again() {
    let mut machine = alone();
    machine.failed(&batch(7, 7), at(7), StopCause::new("thirteen"), Fault::Passing);
    assert_eq!(machine.ended(End::Reopen), After::Begin);
    machine.begin(Mark::default(), at(6));
    assert!(matches!(machine.next(&batch(7, 7), 0), Next::Wait { attempts: 1, .. }));
    assert!(machine.is_layout_checked());
}

#[test]
fn an_event_during_which_the_process_died_often_is_given_up() {
    let noted = |count| Some(Attempt { first: at(7), last: at(7), count });
    let mark = Mark { at_work: Some(BATCH), attempt: noted(DEATHS_MAX - 1) };
    let rules = Rules { failure: failure(), batch_events_max: BATCH, is_shared: false };
    let mut machine = Machine::new(rules);
    assert_eq!(machine.begin(mark, at(6)), mark, "it stays noted");
    assert_eq!(machine.next(&batch(7, 7), 0), Next::Handle(noted(DEATHS_MAX)));
    // A note of this process's own has not killed it.
    let mark = Mark { attempt: noted(DEATHS_MAX), ..mark };
    assert_eq!(machine.begin(mark, at(6)).attempt, None);
    assert_eq!(machine.next(&batch(7, 7), 0), Next::Handle(noted(DEATHS_MAX)));

    let mut next = Machine::new(rules);
    next.begin(mark, at(6));
    let Next::Park(failing) = next.next(&batch(7, 7), 0) else {
        panic!("the event kills the process")
    };
    assert_eq!(failing.attempts, DEATHS_MAX);
}

#[test]
fn a_frozen_worker_waits_for_a_while_and_then_makes_the_attempt_fail() {
    let mut machine = machine(failure(), true);
    assert_eq!(machine.frozen(0), Frozen::No);
    for _ in 0..FROZEN_MAX {
        assert_eq!(machine.frozen(5), Frozen::Wait);
    }
    assert_eq!(machine.frozen(5), Frozen::Forbid);
    assert_eq!(machine.frozen(6), Frozen::Wait, "it is another attempt");
    assert_eq!(alone().frozen(5), Frozen::No, "the process that freezes it stops it too");
}
