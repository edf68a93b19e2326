//! Entities from outside: the answers to callers, and the events in the log.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod answers;
mod bench;
mod benchmark;
mod bus;
mod cancelling;
mod counter;
mod driving;
mod entry;
mod faults;
mod memory;
mod misuse;
mod once;
mod passivation;
mod path;
mod polling;
mod runtimes;
mod schedules;
mod sharing;
mod shutdown;
mod supervision;
mod telemetry;
mod telling;
mod unreadable;
mod workers;
