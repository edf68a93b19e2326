//! The suite that every store passes: cases by law, for both traits.
//!
//! A store proves itself with one line, [`conformance!`](crate::conformance!), and the way to open
//! it, [`Subject`]:
//!
//! ```
//! # mod store {
//! #     use factum_kernel::{DocumentStore, EventStore};
//! #     use std::sync::Arc;
//! #     #[derive(Debug)] pub struct MyStore;
//! #     impl MyStore {
//! #         pub async fn open(
//! #             _: &std::path::Path,
//! #             _: Arc<dyn factum_kernel::Clock>,
//! #         ) -> Result<factum_testing::conformance::Stores, std::io::Error> {
//! #             Err(std::io::ErrorKind::Unsupported.into())
//! #         }
//! #     }
//! # }
//! # use store::MyStore;
//! use std::path::PathBuf;
//! use factum_testing::conformance::{OpenError, Setup, Stores, Subject};
//!
//! struct MySubject {
//!     path: PathBuf, // In a test of yours, a `tempfile::TempDir`.
//! }
//!
//! #[async_trait::async_trait]
//! impl Subject for MySubject {
//!     async fn open(&self, setup: &Setup) -> Result<Stores, OpenError> {
//!         Ok(MyStore::open(&self.path, setup.clock.clone()).await?)
//!     }
//! }
//!
//! factum_testing::conformance!(MySubject { path: "a fresh folder".into() });
//! # fn main() {}
//! ```
//!
//! A case that tests a guarantee which the store does not claim in its
//! [`Guarantees`](factum_kernel::Guarantees) is skipped, and prints the reason on stderr. [`CASES`]
//! runs the suite from a program.

mod case;
mod failure;
mod subject;
mod trial;
mod walk;

mod atomic;
mod bounded;
mod condition;
mod deletion;
mod documents;
mod durable;
mod erasure;
mod gapless;
mod model;
mod outside;
mod paging;
mod pause;
mod race;
mod retry;
mod shared;
mod unknown;
mod version;
mod winner;

pub use case::{CASE_TIME_MAX, Case, Law, MakeSubject, Verdict, run_case};
pub use subject::{CommitDelay, OpenError, Setup, Stores, Subject};

/// The single list of cases. [`CASES`] holds the same cases, and so does the code that
/// `conformance!` generates. A case that is missing here is dead code, which the compiler reports.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ($($then:tt)*) => {
        $($then)* {
            Versions model random_steps_end_as_in_a_model;
            Atomic atomic a_batch_is_stored_over_all_its_streams;
            Atomic atomic a_batch_keeps_its_order_where_it_returns_to_a_stream;
            Atomic atomic a_wrong_version_stores_nothing_of_the_batch;
            Atomic atomic a_failed_check_stores_nothing;
            Atomic atomic a_check_that_holds_writes_nothing_itself;
            Atomic atomic a_failed_condition_stores_nothing;
            Atomic atomic racing_batches_stay_whole;
            Versions version expectations_of_an_absent_stream;
            Versions version expectations_of_a_living_stream;
            Versions version expectations_of_a_deleted_stream;
            Versions version streams_count_for_themselves;
            Versions version the_largest_version_is_only_a_wrong_one;
            Versions version an_absent_stream_is_empty;
            Versions version stream_info_tells_version_and_times;
            Gapless gapless positions_begin_at_one;
            Gapless gapless failures_take_no_position;
            Gapless gapless racing_conflicts_leave_no_hole;
            HonestScan erasure bounds_and_rows_are_of_one_moment;
            HonestScan race a_live_log_reader_misses_nothing;
            HonestScan race a_live_category_reader_misses_nothing;
            HonestScan race a_live_tag_reader_misses_nothing;
            HonestScan race a_live_stream_reader_misses_nothing;
            HonestScan race a_live_origin_reader_misses_nothing;
            OneWinner winner one_of_sixteen_rivals_wins;
            OneWinner winner one_of_sixteen_creates_a_stream;
            OneWinner winner checks_prevent_write_skew;
            OneWinner winner a_group_is_its_members_one_after_another;
            Conditions condition a_condition_fails_on_each_matching_event;
            Conditions condition a_condition_never_fails_without_a_match;
            Conditions condition the_failed_condition_is_named;
            Conditions condition a_condition_does_not_see_its_own_batch;
            Conditions condition one_of_sixteen_claims_a_tag;
            Conditions condition one_of_sixteen_claims_a_tag_of_a_long_log;
            Conditions condition unrelated_tags_never_fail;
            Retry retry a_repeated_batch_is_answered_as_the_first_time;
            Retry retry a_repeated_batch_that_returns_to_a_stream_is_answered_as_the_first_time;
            Retry retry a_repeated_batch_that_expects_nothing_is_recognised;
            Retry retry a_retry_is_recognised_when_its_version_fails;
            Retry retry a_retry_is_recognised_when_its_condition_fails;
            Retry retry a_repeated_batch_that_was_never_stored_is_appended;
            Retry retry some_of_the_ids_but_not_all_is_invalid;
            Retry retry a_failed_batch_is_not_remembered;
            Retry retry copies_at_the_same_moment_are_stored_once;
            Retry retry a_retry_is_recognised_until_the_window_ends;
            Retry retry a_retry_after_the_window_is_refused;
            Retry retry a_retry_from_a_clock_that_is_ahead_is_recognised;
            Retry retry a_batch_from_a_clock_too_far_ahead_is_refused;
            Retry retry a_batch_stored_twice_is_answered_as_the_first_time;
            Retry retry a_retry_is_recognised_at_every_place_of_a_stream;
            Retry retry what_is_left_of_a_batch_answers_for_it;
            Retry retry some_of_the_ids_are_invalid_beside_erased_events;
            HonestScan paging every_scope_reads_alike_in_pages_of_any_size;
            HonestScan paging reads_begin_at_every_position;
            HonestScan paging streams_are_read_from_every_version;
            HonestScan paging reads_begin_at_every_time;
            HonestScan paging reads_from_the_wrong_end_are_empty;
            Bounded paging pages_are_bounded_in_bytes;
            Bounded paging impossible_reads_are_invalid;
            HonestScan paging an_empty_log_reads_as_empty;
            HonestScan pause a_page_pauses_where_its_first_item_does;
            Gapless deletion a_deleted_stream_is_gone_from_every_read;
            Gapless deletion a_deletion_is_an_event;
            Versions deletion a_deletion_needs_something_to_delete;
            Versions deletion a_deletion_can_expect_a_version;
            Versions deletion a_conflict_after_a_deletion_names_it;
            Atomic deletion a_batch_deletes_and_begins_again;
            Bounded deletion a_deletion_comes_first_and_is_whole;
            Conditions deletion a_deletion_is_stored_under_its_conditions;
            OneWinner deletion one_of_sixteen_deletes;
            OneWinner deletion a_deletion_among_others_is_one_of_them;
            Retry deletion a_repeated_deletion_is_answered_as_the_first_time;
            StablePrefix deletion a_page_shows_a_deletion_or_what_it_erased;
            Durable deletion a_deletion_is_kept_after_reopening;
            Gapless erasure a_long_beginning_is_erased_whole;
            Gapless erasure truncation_erases_the_beginning;
            Bounded erasure impossible_changes_are_invalid;
            Gapless erasure numbers_are_never_given_again;
            Durable erasure numbers_are_never_given_again_after_reopening;
            Conditions erasure conditions_do_not_match_what_is_erased;
            HonestScan erasure a_tag_comes_again_after_all_its_events_were_erased;
            Gapless erasure retention_keeps_the_last_events;
            Gapless erasure retention_keeps_the_last_event_of_a_batch;
            Gapless erasure retention_by_age_keeps_the_last_event;
            Gapless erasure retention_by_age_finds_the_first_young_event_among_many;
            Durable erasure retention_is_kept_after_reopening;
            Durable durable everything_is_there_after_reopening;
            Durable durable the_head_is_known_after_reopening;
            Durable durable documents_are_there_after_reopening;
            Retry durable a_retry_is_recognised_after_reopening;
            Durable durable close_finishes_what_was_accepted;
            Durable durable a_closed_store_refuses;
            Durable durable closing_ends_subscriptions;
            ReadYourWrites durable an_acknowledged_event_is_read_at_once;
            ReadYourWrites durable the_head_wakes_readers;
            StablePrefix durable each_log_has_a_lineage_of_its_own;
            Time durable time_never_goes_back;
            Time durable time_never_goes_back_after_reopening;
            Unknown unknown a_cancelled_append_can_be_repeated;
            Unknown unknown a_cancelled_append_is_recognised_by_its_version;
            Unknown unknown a_cancelled_append_is_whole_or_absent;
            Unknown unknown cancelled_rivals_leave_one_winner;
            Bounded bounded nonsense_is_invalid;
            Bounded bounded the_largest_event_fits_and_one_byte_more_does_not;
            Bounded bounded the_longest_batch_fits_and_one_event_more_does_not;
            Bounded bounded the_largest_batch_fits_and_one_byte_more_does_not;
            Bounded bounded checks_and_conditions_are_limited;
            Bounded bounded odd_texts_come_back_as_they_were;
            Bounded bounded extreme_events_come_back_as_they_were;
            Bounded outside outside_of_a_runtime_a_store_works_or_says_so;
            Durable shared many_that_open_a_new_log_at_once_make_one;
            ReadYourWrites shared two_handles_share_one_log;
            ReadYourWrites shared a_reader_sees_what_is_stored_and_changes_nothing;
            ReadYourWrites shared the_head_follows_other_handles;
            Retry shared a_retry_is_recognised_by_another_handle;
            OneWinner shared rivals_on_two_handles_have_one_winner;
            Gapless shared erasure_reaches_other_handles;
            Documents shared documents_are_shared_by_handles;
            Documents documents a_written_document_is_read_at_once;
            Documents documents every_expected_revision;
            Documents documents an_absent_document_is_at_revision_zero;
            Documents documents a_write_is_whole_or_not_at_all;
            Documents documents one_of_sixteen_writers_wins;
            Documents documents revisions_are_never_given_again;
            Documents documents an_empty_write_does_nothing;
            Documents documents scans_are_in_key_order_at_every_boundary;
            Documents documents clear_takes_its_range_only;
            Documents documents a_large_range_is_cleared_whole;
            Documents documents documents_have_limits;
            Documents documents impossible_scans_are_invalid;
            Documents documents a_scan_is_one_snapshot;
        }
    };
}

macro_rules! list {
    ($($law:ident $module:ident $name:ident;)*) => {
        /// Every case of the suite, by law.
        pub const CASES: &[Case] = &[$(Case {
            name: stringify!($name),
            law: Law::$law,
            start: |bench| Box::pin($module::$name(bench)),
        }),*];
    };
}

__conformance_cases!(list!);

/// Generates a module `conformance` with one `#[test]` per case of the suite.
///
/// The expression makes a [`Subject`](crate::conformance::Subject) with an empty store; each case
/// evaluates it again. With a name before it, the module gets that name, for a second configuration
/// of one store: `conformance!(read_write: MySubject::new(true))`.
#[macro_export]
macro_rules! conformance {
    ($module:ident : $subject:expr) => {
        #[cfg(test)]
        mod $module {
            // Brings the names around the macro's call into scope.
            #[allow(unused_imports, reason = "a path from the crate's root needs nothing of it")]
            use super::*;

            fn subject() -> ::std::sync::Arc<dyn $crate::conformance::Subject> {
                ::std::sync::Arc::new($subject)
            }

            $crate::__conformance_cases!($crate::__conformance_tests!);
        }
    };
    ($subject:expr) => {
        $crate::conformance!(conformance: $subject);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($($law:ident $module:ident $name:ident;)*) => {
        $(
            #[test]
            fn $name() {
                $crate::conformance::run_case(stringify!($name), subject);
            }
        )*
    };
}
