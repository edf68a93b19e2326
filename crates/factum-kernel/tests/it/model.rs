//! Decisions over a query: courses and students.

use factum_kernel::{
    Context, DecisionModel, EventStore, ExecuteError, LoadError, Matching, ModelDecision, Position,
    ReadQuery, RetryPolicy, Transaction, TransactionError,
};
use factum_macros::Event;

use crate::bench::{Bench, no_metadata, open};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(crate = factum_kernel, prefix = "enrolment")]
enum EnrolmentEvent {
    Enrolled {
        #[event(tag)]
        student: String,
        #[event(tag)]
        course: String,
    },
}

/// A course takes three students, a student two courses.
#[derive(Debug, Default)]
struct Enrolment {
    pairs: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
struct Enrol {
    student: String,
    course: String,
}

#[derive(Debug, PartialEq, thiserror::Error)]
enum No {
    #[error("the course is full")]
    CourseFull,
    #[error("the student is busy")]
    StudentBusy,
}

impl DecisionModel for Enrolment {
    type Command = Enrol;
    type Event = EnrolmentEvent;
    type Rejection = No;

    fn query(command: &Enrol) -> Matching {
        Matching::tag("student", &command.student).or(Matching::tag("course", &command.course))
    }

    fn evolve(&mut self, event: &EnrolmentEvent, _: &str) {
        let EnrolmentEvent::Enrolled { student, course } = event;
        self.pairs.push((student.clone(), course.clone()));
    }

    fn decide(
        &self,
        command: &Enrol,
        _: &Context<'_>,
    ) -> Result<ModelDecision<EnrolmentEvent>, No> {
        let Enrol { student, course } = command.clone();
        if self.pairs.contains(&(student.clone(), course.clone())) {
            return Ok(ModelDecision::nothing());
        }
        if self.pairs.iter().filter(|(_, other)| *other == course).count() >= 3 {
            return Err(No::CourseFull);
        }
        if self.pairs.iter().filter(|(other, _)| *other == student).count() >= 2 {
            return Err(No::StudentBusy);
        }
        let key = format!("{course}.{student}");
        Ok(ModelDecision::event("enrolment", &key, EnrolmentEvent::Enrolled { student, course }))
    }
}

async fn enrol(
    bench: &Bench,
    student: &str,
    course: &str,
) -> Result<Option<u64>, TransactionError> {
    let command = Enrol { student: student.into(), course: course.into() };
    let patient = RetryPolicy::new().with_conflicts_max(1_000);
    let enrol = Transaction::new(bench.kernel.clone()).with_retry(patient);
    let done = enrol.decide::<Enrolment>(command).commit(&no_metadata()).await?;
    Ok(done.position.map(Position::value))
}

fn rejection(error: &TransactionError) -> Option<&No> {
    let TransactionError::Rejected(step) = error else { return None };
    step.downcast_ref()
}

#[tokio::test]
async fn rules_reach_over_what_the_query_reads() {
    let bench = Bench::new();
    assert_eq!(enrol(&bench, "ada", "rust").await.unwrap(), Some(1));
    assert_eq!(enrol(&bench, "ada", "rust").await.unwrap(), None, "there is nothing to do");
    assert_eq!(enrol(&bench, "ada", "sql").await.unwrap(), Some(2));
    let busy = enrol(&bench, "ada", "chess").await.unwrap_err();
    assert_eq!(rejection(&busy), Some(&No::StudentBusy), "{busy}");
    for student in ["bob", "carl"] {
        enrol(&bench, student, "rust").await.unwrap();
    }
    let full = enrol(&bench, "dora", "rust").await.unwrap_err();
    assert_eq!(rejection(&full), Some(&No::CourseFull), "{full}");
}

#[tokio::test]
async fn a_tag_that_can_not_be_is_an_error_and_no_panic() {
    let bench = Bench::new();
    let refused = enrol(&bench, "", "rust").await.unwrap_err();
    assert!(matches!(refused, TransactionError::Encode(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_students_never_overfill_a_course() {
    let bench = std::sync::Arc::new(Bench::new());
    let students = (0..16).map(|number| {
        let bench = bench.clone();
        tokio::spawn(async move { enrol(&bench, &format!("s{number}"), "rust").await.is_ok() })
    });
    let mut enrolled = 0;
    for student in students.collect::<Vec<_>>() {
        enrolled += usize::from(student.await.unwrap());
    }
    let page = bench.store.read(ReadQuery::log()).await.unwrap();
    assert_eq!((enrolled, page.events.len()), (3, 3));
}

#[tokio::test]
async fn a_log_that_can_not_be_read_is_told_as_a_load_that_failed() {
    let bench = Bench::new();
    let closed = factum_memory::MemoryStore::new();
    closed.close().await.unwrap();
    let kernel = bench.kernel.clone().with_events(std::sync::Arc::new(closed));
    let bench = Bench { kernel, ..bench };
    let refused = enrol(&bench, "ada", "rust").await.unwrap_err();
    assert!(matches!(refused, TransactionError::Load(LoadError::Store(_))), "{refused:?}");
    let refused = bench.accounts().execute("ada", &open("ada")).await.unwrap_err();
    assert!(matches!(refused, ExecuteError::Load(LoadError::Store(_))), "{refused:?}");
}
