//! The typed layer on the reference store.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bench;
mod meddled;

mod booking;
mod changing;
mod decoding;
mod draft;
mod execution;
mod faults;
mod loading;
mod model;
mod read_back;
mod restored;
mod snapshot;
mod subscription;
mod transaction;
