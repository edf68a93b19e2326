//! The internals that `factum-projection` uses: builds are consumers that it starts and freezes,
//! and an in-memory model has a loop of its own over the same source, orders and health. No other
//! crate may rely on them. The methods that belong to it are hidden in `consumers.rs`, `handle.rs`
//! and the files of their types.

/// Starting and freezing a consumer, as builds need it.
pub use crate::{
    caught::caught,
    checkpoints::{Checkpoints, checkpoint_key, written},
    consumers::{Arrives, Launch, can_run},
    freeze::{Answering, Handover, set_frozen},
    handle::StoredPart,
    lag::{Wanted, diverged},
    lease::{Bell, ring, said_position},
    name::version_of,
    work::{EventNames, Failure, Names, Work, decode},
};

/// The parts of another loop over the log.
pub use crate::{
    apart::{Apart, apart},
    dead_letter::{StoredLetter, Waiting},
    health::Place,
    orders::{Order, Orders},
    pace::{DEATHS_MAX, Pace},
    snapshot::{NO_PIECES, SnapshotHeader, header_key},
    source::{Chunk, PageMax, Reading, Source, next_parked},
    stored::left_orders,
    supervision::EventLoop,
    worker::{ORDERS_EVERY, Patience},
};

/// The stored progress of a consumer, and its encoding.
pub mod progress {
    pub use crate::progress::{Mark, Progress, decode, encode, encode_mark};
}
