//! A case of the suite, and its execution.

use std::{fmt, future::Future, io::Write, pin::Pin, sync::Arc, time::Duration};

use super::{
    failure::{CaseResult, Stop},
    subject::Subject,
    trial::Bench,
};

/// The longest time of a case before it counts as hung.
pub const CASE_TIME_MAX: Duration = Duration::from_secs(60);

/// The law that a case tests: one of those on [`EventStore`](factum_kernel::EventStore), or those
/// of [`DocumentStore`](factum_kernel::DocumentStore).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Law {
    /// 1: a batch is stored whole or not at all.
    Atomic,
    /// 2: versions are 1, 2, 3, ... and survive deletion.
    Versions,
    /// 3: positions are gapless.
    Gapless,
    /// 4: a page tells the truth about how far it looked.
    HonestScan,
    /// 5: what was read never changes.
    StablePrefix,
    /// 6: one winner, and a group is its members one after another.
    OneWinner,
    /// 7: conditions are exact.
    Conditions,
    /// 8: a retry is recognised.
    Retry,
    /// 9: what was acknowledged is durable.
    Durable,
    /// 10: read your writes.
    ReadYourWrites,
    /// 11: an unknown outcome is reported, and a cancelled append is whole or absent.
    Unknown,
    /// 11: an unknown outcome is reported, and a cancelled append is whole or absent.
    Time,
    /// 13: everything has a limit, and what is refused changes nothing.
    Bounded,
    /// The laws of documents.
    Documents,
}

impl Law {
    /// Its number on `EventStore`; none for the laws of documents.
    pub const fn number(self) -> Option<u8> {
        match self {
            Self::Documents => None,
            law => Some(law as u8 + 1),
        }
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number() {
            Some(number) => write!(f, "law {number} ({self:?})"),
            None => f.write_str("laws of documents"),
        }
    }
}

/// The verdict of a case that found no fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The store keeps the law here.
    Passed,
    /// The store does not claim the guarantee that the case tests; with the reason.
    Skipped(&'static str),
}

/// Makes a subject with an empty store.
pub type MakeSubject = Arc<dyn Fn() -> Arc<dyn Subject> + Send + Sync>;

pub(crate) type CaseFuture = Pin<Box<dyn Future<Output = CaseResult> + Send>>;

/// One case of the suite.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name, a sentence; the name of the generated test.
    pub name: &'static str,
    /// The law that it tests.
    pub law: Law,
    pub(crate) start: fn(Bench) -> CaseFuture,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({}, {})", self.name, self.law)
    }
}

impl Case {
    /// Runs it in the caller's tokio runtime, which must have several threads and time.
    ///
    /// # Errors
    /// The way in which the store broke the law: one sentence, after law and case. A panic, and a
    /// run longer than [`CASE_TIME_MAX`], are failures as well.
    pub async fn run(&self, make: MakeSubject) -> Result<Verdict, String> {
        // In a task of its own, so that a panic in the store fails only this case.
        let task = tokio::spawn((self.start)(Bench::new(make)));
        let abort = task.abort_handle();
        let reason = match tokio::time::timeout(CASE_TIME_MAX, task).await {
            Ok(Ok(Ok(()))) => return Ok(Verdict::Passed),
            Ok(Ok(Err(Stop::Skipped(reason)))) => return Ok(Verdict::Skipped(reason)),
            Ok(Ok(Err(Stop::Failed(reason)))) => reason,
            Ok(Err(panic)) => format!("the store or the case panicked: {panic}"),
            Err(_) => {
                abort.abort();
                format!("no end after {} s: something hangs", CASE_TIME_MAX.as_secs())
            }
        };
        Err(format!("{}: {}: {reason}", self.law, self.name))
    }
}

/// Runs the case with this name in a runtime of its own. The code that
/// [`conformance!`](crate::conformance!) generates calls it.
///
/// # Panics
/// If the store breaks the law; or if no case has this name.
pub fn run_case(name: &str, make: impl Fn() -> Arc<dyn Subject> + Send + Sync + 'static) {
    let case = super::CASES.iter().find(|case| case.name == name);
    let case = case.unwrap_or_else(|| panic!("the suite has no such case: name={name}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("the system gives a test four threads");
    match runtime.block_on(case.run(Arc::new(make))) {
        Ok(Verdict::Passed) => {}
        // Written past the test harness, which hides the output of a passing test.
        Ok(Verdict::Skipped(reason)) => {
            let _ = writeln!(std::io::stderr(), "skipped {name}: {reason}");
        }
        Err(failure) => panic!("{failure}"),
    }
    // A hung store must not hang the test run as well.
    runtime.shutdown_background();
}
