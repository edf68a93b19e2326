//! What `factum-projection` is made of besides: builds are consumers that it starts and holds, and
//! a model in memory has a loop of its own over the same source, orders and health. It promises
//! nothing to anybody else. The methods that go with it are hidden in `consumers.rs`, `handle.rs`
//! and where their types are.

/// What a consumer is started with, and how it is held: builds are consumers.
pub use crate::{
    caught::caught,
    consumers::{Arrives, Launch},
    handle::StoredPart,
    hold::{Answering, Handover, set_held},
    lease::{Bell, ring, said_position},
    name::version_of,
    target::{Checkpoints, checkpoint_key, written},
    work::{Failure, Names, Work, decode},
};

/// What another loop over the log needs.
pub use crate::{
    apart::{Apart, apart},
    handle::Order,
    health::Place,
    letter::Letter,
    pace::{DEATHS_MAX, Pace},
    snapshot::{SnapshotHeader, header_key},
    source::{Chunk, Reading, Source, is_in_scope, next_parked},
    stored::left_orders,
    worker::{ERROR_BYTES_MAX, Ending, ORDERS_EVERY, PANICS_MAX, Patience, next_order, within},
};

/// What is stored of a consumer, and the form in which it is.
pub mod progress {
    pub use crate::progress::{Mark, Progress, decode, encode};
}
