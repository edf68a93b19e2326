//! Consumers without read models, as their users see them.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bench;
mod bus;
mod outage;
