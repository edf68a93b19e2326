//! The inbox: orders from other processes on this machine to the process that has the journal open.
//!
//! One process writes a journal. Another process that wants to change something, such as the CLI,
//! sends an order: an append, a change of a stream, or a write of documents. A thread of the
//! writer's process, the receiver, carries the order out like one of its own and answers. Orders
//! and answers are files in the folder `inbox` beside the lock, which only the journal's owner may
//! enter. The name of each file begins with the order's id:
//!
//! | file | made by | meaning |
//! |---|---|---|
//! | `ID.writing` | the sender | no order yet |
//! | `ID.order` | the sender, by a rename | an order that waits to be taken |
//! | `ID.answering` | the receiver, before it takes the order | the receiver works on it |
//! | `ID.taken` | the receiver, by a rename of `ID.order` | the sender can't withdraw it any more |
//! | `ID.answer` | the receiver, by a rename of `ID.answering` | the answer |
//!
//! The sender holds a lock on its order until it has the answer. An order whose file is not locked
//! has lost its sender, and is removed instead of carried out: an order that was given up yesterday
//! has no effect today. The receiver holds a lock on the unfinished answer. If that lock is free
//! and there is no answer, the writer's process has ended, and the outcome is unknown. A sender
//! withdraws its order by removing `ID.order`; either this or the receiver's rename succeeds, never
//! both. It withdraws after a long wait, or when no process holds the lock of the file `desk` any
//! more. The receiver holds that lock as long as it works.

mod answer;
mod folder;
mod order;
mod receiver;
mod sender;
mod wire;

pub(crate) use folder::Folder;
pub(crate) use order::Order;
pub(crate) use receiver::{Carry, Receiver};
pub(crate) use sender::{Sender, Unanswered};
pub(crate) use wire::Outcome;

/// The name of the folder inside the journal's.
pub(crate) const INBOX: &str = "inbox";
/// The most bytes of an order. The sender checks it before it writes.
pub(crate) const ORDER_BYTES_MAX: usize = 64 << 20;
