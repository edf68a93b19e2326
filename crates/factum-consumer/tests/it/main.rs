//! Tests of consumers without read models, through the public API.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bench;
mod bus;
mod misbehaving;
mod outage;
mod retry;
mod stop;
mod supervision;
