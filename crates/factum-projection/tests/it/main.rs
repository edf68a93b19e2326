//! Consumers and projections, as their users see them.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "a second process tells the test how far it is")]

mod arrival;
mod bench;
mod clock;
mod competing;
mod disk;

mod deletion;
mod delivery;
mod failure;
mod handover;
mod health;
mod index;
#[cfg(feature = "postgres")]
#[path = "../../../factum-postgres/tests/it/instance.rs"]
#[expect(dead_code, reason = "the store's tests need more of it")]
mod instance;
mod killed;
mod large;
mod lease;
mod ledger;
mod live;
mod log;
mod memory;
#[cfg(feature = "postgres")]
mod on_postgres;
mod orders;
mod outage;
mod partition;
mod process;
mod query;
mod reader;
mod rebuild;
mod restored;
mod rough;
mod runtimes;
mod simulation;
mod snapshot;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stored;
