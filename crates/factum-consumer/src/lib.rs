//! Consumers: named loops that miss no event of the log.
//!
//! A *consumer* reads the log in order, gives each event to a handler, and stores its progress.
//! Every event is delivered at least once. Where the effect and the checkpoint share one write,
//! each event takes effect exactly once.
//!
//! | to | look at |
//! |---|---|
//! | do something for each event | [`Consumer`] |
//! | run consumers | [`Consumers`] |
//! | listen to new events |  [`EventBus`] |
//! | choose what happens when an event fails |  [`ConsumerOptions`], [`FailurePolicy`] |
//! | handle events in parallel | [`Partitions`] |
//! | see how consumers are doing, wait for them |  [`ConsumerHandle`], [`ConsumerHealth`] |
//! | inspect and order consumers from another process |  [`stored_consumers`], [`order_release`] |
//! | move a checkpoint | [`Consumers::rewind`] |
//! | store effects and progress in one write |  [`Target`] |
//!
//! ```
//! use std::{sync::mpsc, time::Duration};
//! use factum_consumer::{Consumer, Consumers};
//! use factum_testing::bank::{Account, AccountCommand, AccountEvent};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
//! # let kernel = factum_kernel::Kernel::new(store.clone(), store);
//! # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
//! # let accounts = factum_kernel::Repository::<Account>::new(kernel.clone());
//! let (sender, mails) = mpsc::channel();
//! let greeter = Consumer::new("greeter", move |event: AccountEvent, _| {
//!     if let AccountEvent::Opened { owner, .. } = event {
//!         let _ = sender.send(format!("welcome, {owner}"));
//!     }
//!     async { Ok(()) }
//! });
//! let greeter = Consumers::new(kernel).start(greeter).await?;
//!
//! let email = "ada@example.org".to_owned();
//! let open = AccountCommand::Open { owner: "Ada".into(), email };
//! let position = accounts.execute("ada", &open).await?.position.expect("it is an event");
//! greeter.wait_for(position, Duration::from_secs(5)).await?;
//! assert_eq!(mails.recv()?, "welcome, Ada");
//! # Ok(()) }
//! ```

mod error;
mod name;
mod option;
mod partition;

mod consumer;
mod consumers;
mod handle;
mod health;
mod orders;
mod work;

mod bus;
mod source;
mod tail;

mod checkpoints;
mod dead_letter;
mod freeze;
mod lag;
mod progress;
mod rewind;
mod snapshot;
mod stored;
mod target;

mod apart;
mod caught;
mod outage;
mod pace;
mod supervision;
mod worker;

mod lease;

#[doc(hidden)]
pub mod part;

pub use bus::{BusError, EventBus};
pub use consumer::Consumer;
pub use consumers::{CATCHING_UP_MAX, CONSUMER_LEASE, Consumers};
pub use dead_letter::{DeadLetter, UnreadEvent};
pub use error::{HandleError, ReleaseError, StartError, WaitError};
pub use handle::ConsumerHandle;
pub use health::{ConsumerHealth, ConsumerState, StopCause, StopReason, describe_consumer_metrics};
pub use lag::{StoredLag, stored_lag};
pub use name::{CONSUMER_NAME_BYTES_MAX, ConsumerName, InvalidConsumerName};
pub use option::{
    BATCH_BYTES_DEFAULT, BATCH_EVENTS_DEFAULT, ConsumerOptions, FailurePolicy, StartFrom, Then,
    Unknown,
};
pub use outage::TellsOutage;
pub use partition::{PARTITIONS_MAX, Partitions};
pub use rewind::RewindError;
pub use stored::{Release, StoredConsumer, order_release, stored_consumers};
pub use target::{Fence, Opened, Save, Target, TargetError};
