//! The program as people and scripts use it: command lines in, output and exit codes out.

mod program;

mod bench;
mod consumers;
mod demo;
#[cfg(unix)]
mod kill;
#[cfg(all(unix, feature = "postgres"))]
mod on_postgres;
mod read;
mod stats;
mod store;
mod usage;
#[cfg(all(unix, feature = "journal"))]
mod verify;
