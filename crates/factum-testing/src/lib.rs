//! Test support for Factum: rules by given, when, then; stores by a conformance suite; failures,
//! time and histories under a test's control.
//!
//! | to test | use |
//! |---|---|
//! | the rules of an aggregate | [`given()`], `when`, `then` |
//! | a store | [`conformance!`], one line for every law of both traits |
//! | code on a store that fails | [`FaultyStore`], [`FaultyDocuments`] |
//! | code on a store that differs from another in one method | [`Forwarding`] |
//! | that nothing was lost, invented, doubled or reordered | [`History`], [`RecordingStore`] |
//! | that callers got right answers | [`Answers`], [`Answer`] |
//! | that acknowledged events survive SIGKILL | [`ChildTest`], [`PairWriter`], [`Pairs`] |
//! | code that depends on time or chance | [`VirtualClock`], [`SeededIds`] |
//! | answers without a runtime | [`drive`](drive()) |
//! | what needs some events, no matter which | [`batch`] |
//! | errors and their kinds | [`assert_kinds!`], [`Hidden`] |
//! | the options of a benchmark | [`Arguments`] |
//!
//! All examples use one sample domain, the [`bank`].
//!
//! ```
//! use factum_testing::{bank::{Account, AccountCommand, AccountEvent, AccountRejection}, given};
//!
//! let opened = AccountEvent::Opened { owner: "Ada".into(), email: "ada@example.org".into() };
//! given::<Account>([opened])
//!     .when(AccountCommand::Deposit { cents: 500 })
//!     .then([AccountEvent::Deposited { cents: 500 }])
//!     .when(AccountCommand::Withdraw { cents: 700 })
//!     .rejected(AccountRejection::InsufficientFunds { balance_cents: 500 });
//! ```

mod arguments;
mod random;

mod clock;
mod deletion;
mod drive;
mod id;

mod diff;
mod given;

mod scope;

mod answer;
mod faulty;
mod forward;
mod history;
mod kinds;

mod pair;
mod precheck;
mod process;
mod scan;

pub mod bank;
pub mod batch;
#[cfg(feature = "conformance")]
pub mod conformance;

pub use answer::{Answer, AnswerSummary, Answers, Call, Contradiction};
pub use arguments::Arguments;
pub use clock::VirtualClock;
pub use deletion::deletion;
pub use drive::drive;
pub use faulty::{Fault, FaultRates, FaultyDocuments, FaultyStore};
pub use forward::{ForwardDocuments, ForwardEvents, Forwarding};
pub use given::{Given, Then, When, given};
pub use history::{
    Attempt, Delivery, History, Reader, Recipient, RecordingStore, Summary, Violation,
};
pub use id::SeededIds;
pub use kinds::{Hidden, assert_said_once};
pub use pair::{PairWriter, Pairs};
pub use precheck::assert_prechecks;
pub use process::{ChildProcess, ChildTest, Told, tell};
pub use scan::{check_log, pages, positions};
