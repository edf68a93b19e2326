//! One random history on several stores: each answer must be the same on all of them.
//!
//! The suite of `factum-testing` tests known cases; this test finds differences between stores in
//! cases that no author thought of. The answers leave out everything that no law promises: the
//! lineage of a log, the end of a page, the choice among several events that match a failed
//! condition, the counting of revisions.

mod answer;
mod history;

use std::{sync::Arc, time::Duration};

use factum::{
    event::Timestamp,
    store::{Clock, Monotonic, OpenContext, OpenStore, StoreUrl, Stores, SystemClock},
};
use factum_testing::{SeededIds, VirtualClock};

use answer::Subject;
use history::{Known, Step};

/// The time at which a history begins.
const START: Timestamp = Timestamp::from_micros(1_772_355_600_000_000);
const STEPS: usize = 120;
/// The number of steps that are shown before the first different answer.
const SHOWN: usize = 6;

/// A clock that shows the history's time, and sleeps in real time.
#[derive(Debug)]
struct SteppedClock(VirtualClock);

#[async_trait::async_trait]
impl Clock for SteppedClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Monotonic {
        SystemClock.monotonic()
    }

    async fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration).await;
    }
}

/// A kind of store and the place of its data.
pub(crate) type Place = (Box<dyn OpenStore>, String);

async fn open((kind, url): &Place, clock: &VirtualClock) -> Stores {
    let ids = Arc::new(SeededIds::new(1));
    let context = OpenContext::new(Arc::new(SteppedClock(clock.clone())), ids);
    kind.open(&StoreUrl::parse(url).unwrap(), &context).await.unwrap()
}

/// Runs the history of a seed on empty stores. The first store's answers are expected of the
/// others, and later steps use them. Returns these answers.
pub(crate) async fn every_answer_is_the_same(seed: u64, places: &[Place]) -> String {
    let clock = VirtualClock::new(START);
    let mut subjects = Vec::new();
    for place in places {
        subjects.push((place.0.scheme(), Subject::new(open(place, &clock).await)));
    }
    let mut known = Known::new(seed, clock);
    let mut steps: Vec<Step> = Vec::new();
    let mut said = String::new();
    for number in 0..STEPS {
        steps.push(known.next_step());
        let step = steps.last().unwrap();
        let mut answers = Vec::new();
        for (scheme, subject) in &mut subjects {
            answers.push((*scheme, subject.answer(step).await));
        }
        let (_, first) = &answers[0];
        said.push_str(first);
        for (scheme, answer) in &answers {
            let shown = || steps[steps.len().saturating_sub(SHOWN)..].iter();
            assert!(
                answer == first,
                "step {number} of seed {seed} is answered differently:\n{}\n{} answers {first}\n\
                 and {scheme} answers {answer}",
                shown().map(|step| format!("{step:?}\n")).collect::<String>(),
                answers[0].0,
            );
        }
        known.learn(&subjects[0].1).await;
    }
    for (_, subject) in subjects {
        subject.close().await;
    }
    said
}

/// Refuses a history without conflicts, which would compare little.
pub(crate) fn of_every_kind(said: &str) {
    let kinds = ["replayed: true", "VersionConflict", "condition 0 failed", "invalid", "conflicts"];
    for kind in kinds {
        assert!(said.contains(kind), "no step was answered with {kind}");
    }
}

#[cfg(all(feature = "journal", feature = "sqlite"))]
#[tokio::test(flavor = "multi_thread")]
async fn embedded_stores_give_the_same_answers() {
    use factum::{journal::JournalKind, memory::MemoryKind, sqlite::SqliteKind};

    let mut said = String::new();
    for seed in 0..12 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let places: [Place; 3] = [
            (Box::new(MemoryKind), "memory:".into()),
            (Box::new(JournalKind), format!("journal:{path}/journal")),
            (Box::new(SqliteKind), format!("sqlite:{path}/events.db")),
        ];
        said.push_str(&every_answer_is_the_same(seed, &places).await);
    }
    of_every_kind(&said);
}
