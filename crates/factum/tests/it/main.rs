//! The facade, and the promises of the README.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod app;
mod ask;
mod guide;
#[cfg(feature = "postgres")]
mod on_postgres;
mod readme;
mod stats;
