//! The facade, and the promises of the README.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod app;
mod ask;
mod difference;
mod guide;
#[cfg(feature = "postgres")]
#[path = "../../../factum-postgres/tests/it/instance.rs"]
#[expect(dead_code, reason = "the store's tests need more of it")]
mod instance;
#[cfg(feature = "postgres")]
mod on_postgres;
mod order;
mod outage;
mod readme;
mod shutdown;
#[cfg(feature = "projection-sqlite")]
mod sql;
mod stats;
