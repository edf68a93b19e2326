//! The facade, and the promises of the README.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod app;
mod difference;
mod guide;
mod ids;
#[cfg(feature = "postgres")]
#[path = "../../../factum-postgres/tests/it/instance.rs"]
#[expect(dead_code, reason = "the store's tests need more of it")]
mod instance;
mod named;
#[cfg(feature = "postgres")]
mod on_postgres;
mod order;
mod outage;
mod place;
mod racing;
mod readme;

mod seen;
mod send;
mod shutdown;
#[cfg(feature = "projection-sqlite")]
mod sql;
mod stats;
mod tally;
mod together;
