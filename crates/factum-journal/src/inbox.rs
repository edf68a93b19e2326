//! Orders to the process that has the journal open, from other processes on this machine.
//!
//! One process writes a journal. Another one that wants to change something, such as the CLI, sends
//! an order: an append, a change of a stream, a write of documents. The writer's process carries it
//! out as one of its own and answers. Orders and answers are files in the folder `inbox` beside the
//! lock, which only the journal's owner may enter. The name of each begins with the order's id:
//!
//! | file | made by | says |
//! |---|---|---|
//! | `ID.writing` | the sender | no order yet |
//! | `ID.order` | the sender, by a rename | an order that waits |
//! | `ID.answering` | the desk, before it takes the order | the desk works on it |
//! | `ID.taken` | the desk, by a rename of `ID.order` | the sender can't withdraw it any more |
//! | `ID.answer` | the desk, by a rename of `ID.answering` | the answer |
//!
//! The sender holds a lock on its order until it has the answer. An order whose file is not locked
//! has lost its sender, and is removed instead of carried out: an order that was given up yesterday
//! has no effect today. The desk holds a lock on the unfinished answer. Where that lock has gone
//! and there is no answer, the writer's process has ended, and the outcome is unknown. A sender
//! withdraws by removing `ID.order`; this and the desk's rename exclude one another. It does so
//! when it has waited for long, or when nobody holds the lock of the file `desk` any more, which
//! the desk holds as long as it looks.

mod answer;
mod desk;
mod folder;
mod order;
mod sender;
mod wire;

pub(crate) use desk::{Carry, Desk};
pub(crate) use folder::Folder;
pub(crate) use order::Order;
pub(crate) use sender::{Sender, Unanswered};
pub(crate) use wire::Outcome;

/// The folder inside the journal's.
pub(crate) const INBOX: &str = "inbox";
/// The most bytes of an order. The sender checks it before it writes.
pub(crate) const ORDER_BYTES_MAX: usize = 64 << 20;
