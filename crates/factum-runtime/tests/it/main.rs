//! Entities from outside: what callers are told, and what is in the log.

mod bench;
mod cancelling;
mod counter;
mod faults;
mod memory;
mod passivation;
mod sharing;
mod shutdown;
mod supervision;
mod telling;
