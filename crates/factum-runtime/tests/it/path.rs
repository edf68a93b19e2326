//! Every way to append loads, decides, encodes and appends in the same way.

mod bench;
mod note;

use factum_kernel::{ErrorKind, RetryPolicy, Timestamp};
use factum_testing::Fault;

use bench::{Bench, sender, tag_key};
use note::{NoteEvent, Notes, NotesRead, OWNER, Take};

use crate::entry::{Entry, Refusal, Target};

impl Entry {
    async fn take(self, bench: &Bench, count: u64, retry: RetryPolicy) -> Result<(), Refusal> {
        let target = Target { kernel: &bench.kernel, retry };
        self.send::<Notes, NotesRead>(&target, "one", Take(count), &sender()).await
    }
}

/// The numbers of the notes in the log, each with a flag for the sender's own.
async fn notes(bench: &Bench) -> Vec<(u64, bool)> {
    let log = bench.log().await;
    let note = log.iter().map(|event| {
        let [NoteEvent::Taken { number, .. }] = event.decode().unwrap()[..] else { panic!() };
        (number, event.metadata().user == sender().user)
    });
    note.collect()
}

#[tokio::test]
async fn a_decision_reads_the_clock_once_and_the_ids_of_its_events_hold_that_moment() {
    for entry in Entry::ALL {
        let bench = Bench::new();
        entry.take(&bench, 3, RetryPolicy::new()).await.unwrap();
        // The bus reads it for the command's id, before the decision.
        let reads = if entry == Entry::Commands { 2 } else { 1 };
        assert_eq!(bench.clock.reads(), reads, "{entry:?}");
        for event in bench.log().await {
            let [NoteEvent::Taken { at, .. }] = event.decode().unwrap()[..] else { panic!() };
            let made_at = event.id().time().map(Timestamp::as_millis);
            assert_eq!(made_at, Some(at), "{entry:?}");
        }
    }
}

#[tokio::test]
async fn events_stand_in_the_log_as_they_were_decided_with_metadata_and_hashed_tags() {
    let hashed = tag_key().hashed("owner", OWNER).unwrap();
    for entry in Entry::ALL {
        let bench = Bench::new();
        for _ in 0..2 {
            entry.take(&bench, 3, RetryPolicy::new()).await.unwrap();
        }
        let numbers: Vec<_> = (0..6).map(|number| (number, true)).collect();
        assert_eq!(notes(&bench).await, numbers, "{entry:?}");
        for (event, nth) in bench.log().await.iter().zip(1..) {
            assert_eq!(event.version().value(), nth, "{entry:?}");
            assert!(event.tags().any(|tag| tag == hashed.as_str()), "{entry:?}");
            assert!(!event.tags().any(|tag| tag.contains(OWNER)), "{entry:?}");
        }
    }
}

#[tokio::test]
async fn who_was_overtaken_decides_again_on_what_came_between() {
    for entry in Entry::ALL {
        let bench = Bench::with_rivals(2);
        entry.take(&bench, 2, RetryPolicy::new()).await.unwrap();
        let expected = [(0, false), (1, false), (2, true), (3, true)];
        assert_eq!(notes(&bench).await, expected, "{entry:?}");
    }
}

#[tokio::test]
async fn who_is_overtaken_more_often_than_allowed_is_told_so_and_stores_nothing() {
    for entry in Entry::ALL {
        let bench = Bench::with_rivals(u64::MAX);
        let retry = RetryPolicy::new().with_conflicts_max(3);
        let refusal = entry.take(&bench, 2, retry).await.unwrap_err();
        assert_eq!(refusal.kind, ErrorKind::Conflict, "{entry:?}: {}", refusal.text);
        let rivals: Vec<_> = (0..4).map(|number| (number, false)).collect();
        assert_eq!(notes(&bench).await, rivals, "{entry:?}: four attempts, four rivals");
    }
}

#[tokio::test]
async fn what_is_unknown_is_repeated_and_stored_once() {
    for entry in Entry::ALL {
        for lost in [Fault::DropReply, Fault::DropRequest, Fault::FailBefore] {
            let bench = Bench::new();
            bench.faulty.next_append(lost);
            bench.faulty.next_append(Fault::DropReply);
            entry.take(&bench, 2, RetryPolicy::new()).await.unwrap();
            assert_eq!(notes(&bench).await, [(0, true), (1, true)], "{entry:?}, {lost:?}");
        }
    }
}

#[tokio::test]
async fn what_stays_unknown_is_told_as_unknown_and_what_was_not_stored_is_not() {
    let retry = RetryPolicy::new().with_repeats_max(2);
    for entry in Entry::ALL {
        let unknown = (ErrorKind::Unknown, 2);
        for (lost, expected) in
            [(Fault::DropReply, unknown), (Fault::FailBefore, (ErrorKind::Unavailable, 0))]
        {
            let bench = Bench::new();
            bench.faulty.next_append(lost);
            // A later outage of the store does not change "unknown" into "nothing was stored".
            bench.faulty.next_append(Fault::FailBefore);
            bench.faulty.next_append(Fault::FailBefore);
            let refusal = entry.take(&bench, 2, retry).await.unwrap_err();
            let stored = notes(&bench).await.len();
            assert_eq!((refusal.kind, stored), expected, "{entry:?}, {lost:?}: {}", refusal.text);
        }
    }
}

#[tokio::test]
async fn a_load_waits_for_a_store_that_is_away_for_a_moment() {
    for entry in Entry::ALL {
        let bench = Bench::new();
        bench.faulty.next_read(Fault::FailBefore);
        bench.faulty.next_read(Fault::FailBefore);
        let impatient = entry.take(&bench, 1, RetryPolicy::new().with_repeats_max(1)).await;
        let refusal = impatient.unwrap_err();
        assert_eq!(refusal.kind, ErrorKind::Unavailable, "{entry:?}: {}", refusal.text);
        bench.faulty.next_read(Fault::FailBefore);
        entry.take(&bench, 1, RetryPolicy::new().with_repeats_max(1)).await.unwrap();
        assert_eq!(notes(&bench).await, [(0, true)], "{entry:?}");
    }
}
