//! The journal: an embedded log close to the speed of the disk.
//!
//! ```
//! use factum_kernel::{EventStore, ReadQuery};
//! use factum_journal::{JournalOptions, JournalStore};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = JournalStore::open(JournalOptions::new(folder.path().join("data"))).await?;
//! assert!(store.read(ReadQuery::log()).await?.events.is_empty());
//! store.close().await?;
//! # Ok::<(), factum_kernel::StoreError>(()) }).unwrap();
//! ```
//!
//! A group of appends is one frame: one write and one sync, on the writer's thread. Readers see the
//! group after the sync. The modules are listed below in the order in which they are best read. The
//! format is described in `docs/design/0007-journal-format.md`.

mod bloom;
mod buffers;
mod cache;
mod chunk;
mod disk;
mod erased;
mod error;
mod hot;
mod key;
mod number;

mod extent;
mod frame;
mod frames;
mod record;
mod segment;

mod posting;
mod recent;
mod run;
mod tables;

mod log;
mod read;

mod documents;
mod lineage;
mod lock;
mod synced;

mod append;
mod change;
mod facts;
mod keeper;
mod report;
mod seal;
mod tail;

mod follower;
mod index;
mod recovery;
mod replay;
mod walk;

mod reclaim;
mod rewrite;

mod inbox;

mod options;

mod kind;
mod place;
mod prefetch;
mod store;
mod watch;

mod repair;
mod verify;

pub use kind::JournalKind;
pub use lineage::renew_lineage;
pub use options::{Access, JournalOptions, SEGMENT_BYTES_DEFAULT};
pub use repair::{JournalRepair, Loss, Lost, repair};
pub use store::JournalStore;
pub use verify::{DAMAGES_MAX, Damage, JournalReport, Part, Remedy, Torn, verify, verify_watched};

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(test)]
mod simulation;
