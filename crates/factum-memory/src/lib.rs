//! The reference store of Factum: both traits in memory, as short and correct as possible. It is
//! for tests and examples, and is worth reading before you write a store.
//!
//! ```
//! use factum_kernel::{EventStore, ReadQuery};
//! use factum_memory::MemoryStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), factum_kernel::StoreError> {
//! let store = MemoryStore::new();
//! let page = store.read(ReadQuery::log()).await?;
//! assert!(page.events.is_empty());
//! # Ok(()) }
//! ```

mod append;
mod change;
mod documents;
mod log;
mod options;
mod read;
mod store;

pub use options::MemoryOptions;
pub use store::{MemoryKind, MemoryStore};
