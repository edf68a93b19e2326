//! The parts that authors of Factum stores share: group commit and its planning, pages, wake-ups,
//! URLs.
//!
//! A store with a writer thread implements [`Facts`] and [`Commit`], and gives its [`Commit`] to a
//! [`Writer`]; `factum-memory` is the shortest example. Each store reads in its own way, with
//! [`PageBuilder`] to keep the limits of a page.

mod blocking;
mod facts;
mod group;
mod head;
mod index;
mod name;
mod page;
mod place;
mod plan;
mod posting;
mod precheck;
mod queue;
mod registry;
mod relay;
mod retry;
mod url;
mod writer;

pub use blocking::blocking;
pub use facts::{Facts, FoundEvent, Span};
pub use group::{GROUP_BYTES_MAX, GROUP_EVENTS_MAX, GROUP_NAMES_MAX, Group, Load};
pub use head::Head;
pub use index::EventIndex;
pub use page::{PAGE_SCANNED_MAX, PageBuilder, PageEnd, Pushed, partition_point};
pub use place::{IfAbsent, JOURNAL_MARKER, absent, check_outside};
pub use plan::{GroupPlan, LogEnd, PlannedEvent, ends_group, expectations, plan_group};
pub use posting::{Candidate, Matches, Postings, QueryTerm, Walk};
pub use precheck::{Looked, Precheck, Prechecked, Prechecks};
pub use registry::{OpenContext, OpenStore, Registry, Stores};
pub use retry::check_clock;
pub use url::StoreUrl;
pub use writer::{
    Commit, CommitDelay, CommitError, Committed, GATHERINGS_MAX, QUEUE_BATCHES_MAX,
    QUEUE_BYTES_MAX, RunError, Writer, delay_commit,
};
