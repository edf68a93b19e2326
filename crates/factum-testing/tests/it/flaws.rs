//! A broken store for each law: the suite must fail, and only where it should.

use std::{collections::BTreeSet, sync::Arc};

use factum_testing::conformance::{CASES, Verdict};
use tokio::task::JoinSet;

use crate::toy::{Flaw, ToySubject};

/// The most runs of the suite for a flaw that only races show.
const RUNS_MAX: usize = 5;

/// Runs the whole suite on a toy with this flaw. Returns the failures with their texts.
async fn failures(flaw: Flaw) -> Vec<(&'static str, String)> {
    let mut set = JoinSet::new();
    for case in CASES {
        let make = move || Arc::new(ToySubject::new(flaw)) as _;
        set.spawn(async move { (case.name, case.run(Arc::new(make)).await) });
    }
    let mut failures = vec![];
    while let Some(joined) = set.join_next().await {
        match joined.unwrap() {
            (_, Ok(Verdict::Passed)) => {}
            (name, Ok(Verdict::Skipped(reason))) => panic!("{name} was skipped: {reason}"),
            (name, Err(reason)) => failures.push((name, reason)),
        }
    }
    failures
}

/// Checks that every case in `must` fails, that at least one case fails, and that none fails which
/// is in neither `must` nor `may`.
async fn check(flaw: Flaw, must: &[&str], may: &[&str]) {
    let known: BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
    let unknown: Vec<_> = must.iter().chain(may).filter(|name| !known.contains(*name)).collect();
    assert!(unknown.is_empty(), "the suite has no such cases: {unknown:?}");

    let mut failures = failures(flaw).await;
    // If only races show it, one run on a slow machine may show nothing.
    let mut runs = 1;
    while failures.is_empty() && must.is_empty() && runs < RUNS_MAX {
        failures = self::failures(flaw).await;
        runs += 1;
    }
    let failed: BTreeSet<_> = failures.iter().map(|(name, _)| *name).collect();
    assert!(!failed.is_empty(), "{flaw:?}: no case fails, so none tests this");
    let passed: Vec<_> = must.iter().filter(|name| !failed.contains(*name)).collect();
    assert!(passed.is_empty(), "{flaw:?}: these cases should fail, but pass: {passed:#?}");
    let elsewhere: Vec<_> =
        failures.iter().filter(|(name, _)| !must.contains(name) && !may.contains(name)).collect();
    assert!(elsewhere.is_empty(), "{flaw:?}: these cases should not fail: {elsewhere:#?}");
    for (name, reason) in &failures {
        assert!(reason.contains(name), "{reason:?} does not name its case");
    }
}

/// One test for each flaw. `may_fail`: by chance, because the case is a race.
macro_rules! flaws {
    ($($test:ident: $flaw:ident fails [$($must:ident),*] may_fail [$($may:ident),*];)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let must = [$(stringify!($must)),*];
                let may = [$(stringify!($may)),*];
                check(Flaw::$flaw, &must, &may).await;
            }
        )*

        /// A flaw without a test would not compile.
        #[test]
        fn every_flaw_has_its_test() {
            let flaw = Flaw::None;
            match flaw {
                Flaw::None => {}
                $(Flaw::$flaw => {})*
            }
        }
    };
}

flaws! {
    splits_batches: SplitsBatches
        fails [random_steps_end_as_in_a_model, a_wrong_version_stores_nothing_of_the_batch,
            a_failed_check_stores_nothing, a_failed_condition_stores_nothing,
            the_largest_version_is_only_a_wrong_one, failures_take_no_position,
            a_condition_fails_on_each_matching_event, the_failed_condition_is_named,
            conditions_do_not_match_what_is_erased, one_of_sixteen_claims_a_tag_of_a_long_log,
            a_deletion_needs_something_to_delete, a_deletion_is_stored_under_its_conditions]
        may_fail [racing_batches_stay_whole, a_group_is_its_members_one_after_another,
            rivals_on_two_handles_have_one_winner, one_of_sixteen_deletes];
    gathers_streams: GathersStreams
        fails [random_steps_end_as_in_a_model, a_batch_keeps_its_order_where_it_returns_to_a_stream,
            a_repeated_batch_that_returns_to_a_stream_is_answered_as_the_first_time]
        may_fail [];
    versions_of_the_end: VersionsOfTheEnd
        fails [random_steps_end_as_in_a_model, a_batch_keeps_its_order_where_it_returns_to_a_stream,
            a_repeated_batch_that_returns_to_a_stream_is_answered_as_the_first_time,
            a_batch_deletes_and_begins_again]
        may_fail [];
    restarts_versions: RestartsVersions
        fails [random_steps_end_as_in_a_model, expectations_of_a_deleted_stream,
            a_deleted_stream_is_gone_from_every_read, a_deletion_needs_something_to_delete,
            impossible_changes_are_invalid, numbers_are_never_given_again,
            numbers_are_never_given_again_after_reopening, erasure_reaches_other_handles,
            a_repeated_deletion_is_answered_as_the_first_time,
            a_conflict_after_a_deletion_names_it, a_batch_deletes_and_begins_again,
            a_deletion_is_kept_after_reopening, every_scope_reads_alike_in_pages_of_any_size,
            reads_begin_at_every_position, streams_are_read_from_every_version,
            reads_begin_at_every_time]
        may_fail [bounds_and_rows_are_of_one_moment, a_page_shows_a_deletion_or_what_it_erased,
            a_deletion_among_others_is_one_of_them, one_of_sixteen_deletes];
    deletes_uncounted: DeletesUncounted
        fails [random_steps_end_as_in_a_model, expectations_of_a_deleted_stream,
            a_deleted_stream_is_gone_from_every_read, a_deletion_needs_something_to_delete,
            numbers_are_never_given_again, numbers_are_never_given_again_after_reopening,
            erasure_reaches_other_handles, a_repeated_deletion_is_answered_as_the_first_time,
            every_scope_reads_alike_in_pages_of_any_size, reads_begin_at_every_position,
            streams_are_read_from_every_version, reads_begin_at_every_time,
            a_conflict_after_a_deletion_names_it, a_batch_deletes_and_begins_again,
            a_deletion_is_kept_after_reopening]
        may_fail [bounds_and_rows_are_of_one_moment, one_of_sixteen_deletes,
            a_deletion_among_others_is_one_of_them];
    forgets_deletion: ForgetsDeletion
        fails [random_steps_end_as_in_a_model, expectations_of_a_deleted_stream,
            numbers_are_never_given_again, numbers_are_never_given_again_after_reopening,
            erasure_reaches_other_handles, a_deletion_is_kept_after_reopening,
            a_conflict_after_a_deletion_names_it, a_deletion_needs_something_to_delete]
        may_fail [];
    deletes_late: DeletesLate
        fails [random_steps_end_as_in_a_model, a_batch_deletes_and_begins_again]
        may_fail [];
    deletes_nothing: DeletesNothing
        fails [random_steps_end_as_in_a_model, a_deletion_needs_something_to_delete,
            a_repeated_deletion_is_answered_as_the_first_time]
        may_fail [one_of_sixteen_deletes];
    hides_deletion: HidesDeletion
        fails [a_conflict_after_a_deletion_names_it]
        may_fail [random_steps_end_as_in_a_model, one_of_sixteen_deletes];
    deletes_silently: DeletesSilently
        fails [random_steps_end_as_in_a_model, a_deleted_stream_is_gone_from_every_read,
            a_deletion_is_an_event, a_batch_deletes_and_begins_again,
            a_deletion_is_kept_after_reopening, erasure_reaches_other_handles,
            a_deletion_can_expect_a_version, a_repeated_deletion_is_answered_as_the_first_time,
            numbers_are_never_given_again, numbers_are_never_given_again_after_reopening,
            a_deletion_is_stored_under_its_conditions, every_scope_reads_alike_in_pages_of_any_size]
        may_fail [a_deletion_among_others_is_one_of_them];
    erases_later: ErasesLater
        fails []
        may_fail [a_page_shows_a_deletion_or_what_it_erased, bounds_and_rows_are_of_one_moment];
    burns_positions: BurnsPositions
        fails [random_steps_end_as_in_a_model, a_wrong_version_stores_nothing_of_the_batch,
            a_failed_check_stores_nothing, a_failed_condition_stores_nothing,
            failures_take_no_position, a_failed_batch_is_not_remembered,
            numbers_are_never_given_again, numbers_are_never_given_again_after_reopening,
            two_handles_share_one_log, erasure_reaches_other_handles,
            a_batch_deletes_and_begins_again, a_deletion_needs_something_to_delete,
            a_deletion_can_expect_a_version, a_deletion_is_stored_under_its_conditions]
        may_fail [racing_batches_stay_whole, racing_conflicts_leave_no_hole,
            one_of_sixteen_rivals_wins, a_group_is_its_members_one_after_another,
            rivals_on_two_handles_have_one_winner, a_deletion_among_others_is_one_of_them];
    hides_erased: HidesErased
        fails [random_steps_end_as_in_a_model, every_scope_reads_alike_in_pages_of_any_size,
            reads_begin_at_every_position, streams_are_read_from_every_version,
            reads_begin_at_every_time, a_deleted_stream_is_gone_from_every_read,
            a_deletion_can_expect_a_version, truncation_erases_the_beginning,
            numbers_are_never_given_again, numbers_are_never_given_again_after_reopening,
            retention_keeps_the_last_events, retention_keeps_the_last_event_of_a_batch,
            retention_by_age_keeps_the_last_event, retention_is_kept_after_reopening,
            erasure_reaches_other_handles, some_of_the_ids_are_invalid_beside_erased_events,
            a_deletion_is_kept_after_reopening, a_deletion_is_an_event,
            a_deletion_is_stored_under_its_conditions, a_long_beginning_is_erased_whole,
            retention_by_age_finds_the_first_young_event_among_many]
        may_fail [a_deletion_among_others_is_one_of_them];
    head_after_rows: HeadAfterRows
        fails []
        may_fail [a_live_log_reader_misses_nothing, a_live_category_reader_misses_nothing,
            a_live_tag_reader_misses_nothing, a_live_stream_reader_misses_nothing,
            a_live_origin_reader_misses_nothing];
    bounds_after_rows: BoundsAfterRows
        fails []
        may_fail [bounds_and_rows_are_of_one_moment];
    index_lags: IndexLags
        fails []
        may_fail [a_live_category_reader_misses_nothing, a_live_tag_reader_misses_nothing];
    scans_too_far: ScansTooFar
        fails [random_steps_end_as_in_a_model, every_scope_reads_alike_in_pages_of_any_size,
            reads_begin_at_every_position, streams_are_read_from_every_version,
            reads_begin_at_every_time, pages_are_bounded_in_bytes,
            a_deleted_stream_is_gone_from_every_read, truncation_erases_the_beginning,
            retention_keeps_the_last_events, retention_is_kept_after_reopening,
            retention_by_age_keeps_the_last_event]
        may_fail [a_live_log_reader_misses_nothing, a_live_category_reader_misses_nothing,
            a_live_tag_reader_misses_nothing, a_live_stream_reader_misses_nothing,
            a_live_origin_reader_misses_nothing];
    forgets_items: ForgetsItems
        fails [a_page_pauses_where_its_first_item_does]
        may_fail [];
    shows_uncommitted: ShowsUncommitted
        fails []
        may_fail [a_live_log_reader_misses_nothing, a_live_category_reader_misses_nothing,
            a_live_tag_reader_misses_nothing, a_live_stream_reader_misses_nothing,
            a_live_origin_reader_misses_nothing];
    answers_from_before: AnswersFromBefore
        fails [random_steps_end_as_in_a_model, a_repeated_batch_is_answered_as_the_first_time,
            a_repeated_batch_that_returns_to_a_stream_is_answered_as_the_first_time,
            a_repeated_batch_that_expects_nothing_is_recognised,
            a_retry_is_recognised_when_its_version_fails,
            a_retry_is_recognised_when_its_condition_fails, a_failed_batch_is_not_remembered,
            a_retry_is_recognised_until_the_window_ends, a_retry_is_recognised_after_reopening,
            a_retry_is_recognised_by_another_handle, a_batch_from_a_clock_too_far_ahead_is_refused,
            a_batch_stored_twice_is_answered_as_the_first_time,
            a_retry_from_a_clock_that_is_ahead_is_recognised,
            a_retry_is_recognised_at_every_place_of_a_stream,
            what_is_left_of_a_batch_answers_for_it,
            a_repeated_deletion_is_answered_as_the_first_time]
        may_fail [one_of_sixteen_rivals_wins, one_of_sixteen_creates_a_stream,
            checks_prevent_write_skew, a_group_is_its_members_one_after_another,
            one_of_sixteen_claims_a_tag, copies_at_the_same_moment_are_stored_once,
            a_cancelled_append_can_be_repeated, a_cancelled_append_is_recognised_by_its_version,
            cancelled_rivals_leave_one_winner, rivals_on_two_handles_have_one_winner,
            one_of_sixteen_claims_a_tag_of_a_long_log, one_of_sixteen_deletes];
    conditions_from_before: ConditionsFromBefore
        fails []
        may_fail [a_deletion_among_others_is_one_of_them,
            one_of_sixteen_claims_a_tag, rivals_on_two_handles_have_one_winner,
            one_of_sixteen_claims_a_tag_of_a_long_log];
    false_conflicts: FalseConflicts
        fails [random_steps_end_as_in_a_model, a_condition_never_fails_without_a_match,
            conditions_do_not_match_what_is_erased, one_of_sixteen_claims_a_tag_of_a_long_log,
            a_deletion_is_stored_under_its_conditions]
        may_fail [a_group_is_its_members_one_after_another, one_of_sixteen_claims_a_tag,
            unrelated_tags_never_fail, rivals_on_two_handles_have_one_winner];
    ignores_after: IgnoresAfter
        fails [random_steps_end_as_in_a_model, a_condition_fails_on_each_matching_event,
            a_condition_never_fails_without_a_match]
        may_fail [];
    matches_erased: MatchesErased
        fails [random_steps_end_as_in_a_model, conditions_do_not_match_what_is_erased,
            one_of_sixteen_claims_a_tag_of_a_long_log, a_deletion_is_stored_under_its_conditions]
        may_fail [];
    forgets_retries: ForgetsRetries
        fails [random_steps_end_as_in_a_model, a_repeated_batch_is_answered_as_the_first_time,
            a_repeated_batch_that_returns_to_a_stream_is_answered_as_the_first_time,
            a_repeated_batch_that_expects_nothing_is_recognised,
            a_retry_is_recognised_when_its_version_fails,
            a_retry_is_recognised_when_its_condition_fails, some_of_the_ids_but_not_all_is_invalid,
            a_failed_batch_is_not_remembered, a_retry_is_recognised_until_the_window_ends,
            a_retry_after_the_window_is_refused, a_retry_is_recognised_after_reopening,
            a_retry_is_recognised_by_another_handle,
            a_batch_stored_twice_is_answered_as_the_first_time,
            a_retry_from_a_clock_that_is_ahead_is_recognised,
            a_retry_is_recognised_at_every_place_of_a_stream,
            some_of_the_ids_are_invalid_beside_erased_events,
            what_is_left_of_a_batch_answers_for_it,
            a_repeated_deletion_is_answered_as_the_first_time]
        may_fail [copies_at_the_same_moment_are_stored_once, a_cancelled_append_can_be_repeated,
            a_cancelled_append_is_recognised_by_its_version, cancelled_rivals_leave_one_winner];
    ignores_mark: IgnoresMark
        fails [random_steps_end_as_in_a_model, a_repeated_batch_that_expects_nothing_is_recognised,
            some_of_the_ids_but_not_all_is_invalid, a_retry_is_recognised_until_the_window_ends,
            a_retry_after_the_window_is_refused, a_retry_is_recognised_after_reopening,
            a_retry_is_recognised_by_another_handle,
            a_batch_stored_twice_is_answered_as_the_first_time,
            a_retry_from_a_clock_that_is_ahead_is_recognised,
            some_of_the_ids_are_invalid_beside_erased_events,
            a_repeated_deletion_is_answered_as_the_first_time]
        may_fail [];
    looks_at_first_id: LooksAtFirstId
        fails [some_of_the_ids_but_not_all_is_invalid,
            some_of_the_ids_are_invalid_beside_erased_events]
        may_fail [];
    retry_without_end: RetryWithoutEnd
        fails [a_retry_after_the_window_is_refused]
        may_fail [];
    trusts_clocks: TrustsClocks
        fails [a_retry_from_a_clock_that_is_ahead_is_recognised]
        may_fail [];
    takes_any_time: TakesAnyTime
        fails [a_batch_from_a_clock_too_far_ahead_is_refused]
        may_fail [];
    answers_last_copy: AnswersLastCopy
        fails [a_batch_stored_twice_is_answered_as_the_first_time]
        may_fail [];
    looks_at_the_end: LooksAtTheEnd
        fails [random_steps_end_as_in_a_model, a_retry_is_recognised_at_every_place_of_a_stream,
            a_retry_is_recognised_until_the_window_ends]
        may_fail [];
    needs_the_whole: NeedsTheWhole
        fails [random_steps_end_as_in_a_model, what_is_left_of_a_batch_answers_for_it]
        may_fail [];
    takes_erased_for_new: TakesErasedForNew
        fails [what_is_left_of_a_batch_answers_for_it]
        may_fail [];
    blames_erasure: BlamesErasure
        fails [some_of_the_ids_are_invalid_beside_erased_events]
        may_fail [];
    forgets_on_reopen: ForgetsOnReopen
        fails [numbers_are_never_given_again_after_reopening, retention_is_kept_after_reopening,
            everything_is_there_after_reopening, a_retry_is_recognised_after_reopening,
            time_never_goes_back_after_reopening, a_deletion_is_kept_after_reopening,
            outside_of_a_runtime_a_store_works_or_says_so, a_long_beginning_is_erased_whole]
        may_fail [close_finishes_what_was_accepted, many_that_open_a_new_log_at_once_make_one];
    changes_lineage: ChangesLineage
        fails [everything_is_there_after_reopening]
        may_fail [];
    loses_acknowledged: LosesAcknowledged
        fails []
        may_fail [racing_conflicts_leave_no_hole, bounds_and_rows_are_of_one_moment,
            a_live_log_reader_misses_nothing, a_live_category_reader_misses_nothing,
            a_live_tag_reader_misses_nothing, a_live_stream_reader_misses_nothing,
            a_live_origin_reader_misses_nothing, one_of_sixteen_rivals_wins,
            one_of_sixteen_creates_a_stream, checks_prevent_write_skew,
            a_group_is_its_members_one_after_another, one_of_sixteen_claims_a_tag,
            copies_at_the_same_moment_are_stored_once, close_finishes_what_was_accepted,
            a_cancelled_append_can_be_repeated, a_cancelled_append_is_recognised_by_its_version,
            cancelled_rivals_leave_one_winner, rivals_on_two_handles_have_one_winner,
            one_of_sixteen_claims_a_tag_of_a_long_log, many_that_open_a_new_log_at_once_make_one,
            a_page_shows_a_deletion_or_what_it_erased, a_deletion_among_others_is_one_of_them,
            one_of_sixteen_deletes];
    never_wakes: NeverWakes
        fails [the_head_is_known_after_reopening, the_head_wakes_readers,
            the_head_follows_other_handles, a_reader_sees_what_is_stored_and_changes_nothing]
        may_fail [];
    fails_after_storing: FailsAfterStoring
        fails []
        may_fail [racing_batches_stay_whole, racing_conflicts_leave_no_hole,
            bounds_and_rows_are_of_one_moment, a_live_log_reader_misses_nothing,
            a_live_category_reader_misses_nothing, a_live_tag_reader_misses_nothing,
            a_live_stream_reader_misses_nothing, a_live_origin_reader_misses_nothing,
            one_of_sixteen_rivals_wins, one_of_sixteen_creates_a_stream, checks_prevent_write_skew,
            a_group_is_its_members_one_after_another, one_of_sixteen_claims_a_tag,
            unrelated_tags_never_fail, copies_at_the_same_moment_are_stored_once,
            close_finishes_what_was_accepted, a_cancelled_append_can_be_repeated,
            a_cancelled_append_is_recognised_by_its_version, a_cancelled_append_is_whole_or_absent,
            cancelled_rivals_leave_one_winner, rivals_on_two_handles_have_one_winner,
            one_of_sixteen_claims_a_tag_of_a_long_log, many_that_open_a_new_log_at_once_make_one,
            a_page_shows_a_deletion_or_what_it_erased, a_deletion_among_others_is_one_of_them,
            one_of_sixteen_deletes];
    halves_cancelled: HalvesCancelled
        fails []
        may_fail [a_cancelled_append_can_be_repeated, a_cancelled_append_is_whole_or_absent];
    time_goes_back: TimeGoesBack
        fails [time_never_goes_back, time_never_goes_back_after_reopening]
        may_fail [];
    unbounded_pages: UnboundedPages
        fails [random_steps_end_as_in_a_model, every_scope_reads_alike_in_pages_of_any_size,
            reads_begin_at_every_position, streams_are_read_from_every_version,
            reads_begin_at_every_time, pages_are_bounded_in_bytes,
            a_deleted_stream_is_gone_from_every_read, truncation_erases_the_beginning,
            retention_keeps_the_last_events, retention_is_kept_after_reopening,
            retention_by_age_keeps_the_last_event]
        may_fail [a_live_log_reader_misses_nothing, a_live_category_reader_misses_nothing,
            a_live_stream_reader_misses_nothing, a_live_tag_reader_misses_nothing,
            a_live_origin_reader_misses_nothing];
    stuck_pages: StuckPages
        fails [pages_are_bounded_in_bytes, the_largest_event_fits_and_one_byte_more_does_not,
            every_scope_reads_alike_in_pages_of_any_size]
        may_fail [];
    takes_anything: TakesAnything
        fails [failures_take_no_position, nonsense_is_invalid,
            the_largest_event_fits_and_one_byte_more_does_not,
            the_longest_batch_fits_and_one_event_more_does_not,
            the_largest_batch_fits_and_one_byte_more_does_not, checks_and_conditions_are_limited,
            a_deletion_comes_first_and_is_whole]
        may_fail [];
    closes_too_early: ClosesTooEarly
        fails []
        may_fail [close_finishes_what_was_accepted];
    closes_unheard: ClosesUnheard
        fails [closing_ends_subscriptions]
        may_fail [];
    shares_nothing: SharesNothing
        fails [numbers_are_never_given_again_after_reopening, retention_is_kept_after_reopening,
            everything_is_there_after_reopening, the_head_is_known_after_reopening,
            documents_are_there_after_reopening, a_retry_is_recognised_after_reopening,
            time_never_goes_back_after_reopening, two_handles_share_one_log,
            the_head_follows_other_handles, a_retry_is_recognised_by_another_handle,
            erasure_reaches_other_handles, documents_are_shared_by_handles,
            many_that_open_a_new_log_at_once_make_one, a_deletion_is_kept_after_reopening,
            outside_of_a_runtime_a_store_works_or_says_so, a_long_beginning_is_erased_whole,
            a_reader_sees_what_is_stored_and_changes_nothing]
        may_fail [close_finishes_what_was_accepted, rivals_on_two_handles_have_one_winner];
    reader_writes: ReaderWrites
        fails [a_reader_sees_what_is_stored_and_changes_nothing]
        may_fail [];
    needs_runtime: NeedsRuntime
        fails [outside_of_a_runtime_a_store_works_or_says_so]
        may_fail [];
    erases_one_step: ErasesOneStep
        fails [a_long_beginning_is_erased_whole,
            retention_by_age_finds_the_first_young_event_among_many]
        may_fail [];
    backward_from_end: BackwardFromEnd
        fails [random_steps_end_as_in_a_model, every_scope_reads_alike_in_pages_of_any_size,
            reads_begin_at_every_position, streams_are_read_from_every_version,
            reads_begin_at_every_time, reads_from_the_wrong_end_are_empty,
            pages_are_bounded_in_bytes, a_deleted_stream_is_gone_from_every_read,
            truncation_erases_the_beginning, retention_keeps_the_last_events]
        may_fail [];
    prefix_streams: PrefixStreams
        fails [every_scope_reads_alike_in_pages_of_any_size, reads_begin_at_every_position,
            streams_are_read_from_every_version, reads_begin_at_every_time]
        may_fail [a_deletion_among_others_is_one_of_them];
    forgets_retention: ForgetsRetention
        fails [random_steps_end_as_in_a_model, retention_keeps_the_last_events,
            retention_keeps_the_last_event_of_a_batch, retention_by_age_keeps_the_last_event,
            retention_is_kept_after_reopening, a_tag_comes_again_after_all_its_events_were_erased,
            retention_by_age_finds_the_first_young_event_among_many]
        may_fail [];
    reuses_revisions: ReusesRevisions
        fails [documents_are_there_after_reopening, revisions_are_never_given_again,
            an_empty_write_does_nothing, a_large_range_is_cleared_whole]
        may_fail [];
    zero_is_nowhere: ZeroIsNowhere
        fails [documents_are_shared_by_handles, an_absent_document_is_at_revision_zero]
        may_fail [];
    counts_empty_writes: CountsEmptyWrites
        fails [an_empty_write_does_nothing]
        may_fail [];
    splits_writes: SplitsWrites
        fails [a_write_is_whole_or_not_at_all]
        may_fail [];
    two_revision_winners: TwoRevisionWinners
        fails []
        may_fail [one_of_sixteen_writers_wins];
    scans_out_of_order: ScansOutOfOrder
        fails [scans_are_in_key_order_at_every_boundary, clear_takes_its_range_only]
        may_fail [];
    ends_scans_early: EndsScansEarly
        fails [scans_are_in_key_order_at_every_boundary]
        may_fail [];
    clears_too_much: ClearsTooMuch
        fails [clear_takes_its_range_only, a_large_range_is_cleared_whole]
        may_fail [];
    forgets_documents: ForgetsDocuments
        fails [documents_are_there_after_reopening]
        may_fail [];
    any_tag: AnyTag
        fails [every_scope_reads_alike_in_pages_of_any_size, reads_begin_at_every_position,
            reads_begin_at_every_time, a_page_pauses_where_its_first_item_does]
        may_fail [];
    tags_stay_gone: TagsStayGone
        fails [a_tag_comes_again_after_all_its_events_were_erased]
        may_fail [];
    wraps_numbers: WrapsNumbers
        fails [reads_begin_at_every_position, streams_are_read_from_every_version,
            retention_by_age_keeps_the_last_event, the_largest_version_is_only_a_wrong_one]
        may_fail [];
    prechecks_only: PrechecksOnly
        fails []
        may_fail [one_of_sixteen_claims_a_tag_of_a_long_log];
    judges_few_items: JudgesFewItems
        fails [checks_and_conditions_are_limited]
        may_fail [];
    makes_twice: MakesTwice
        fails []
        may_fail [many_that_open_a_new_log_at_once_make_one];
    clears_one_step: ClearsOneStep
        fails [a_large_range_is_cleared_whole]
        may_fail [];
}
