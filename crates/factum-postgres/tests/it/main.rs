//! The PostgreSQL store from outside, on real servers: the conformance suite, and the store's own
//! tests.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests as well")]

mod fresh;
mod instance;
mod role;
mod server;

mod condition;
mod conformance;
mod documents;
mod encryption;
mod failure;
mod hint;
mod hostile;
mod limit;
mod migration;
mod opening;
mod plan;
mod pooler;
mod process;
mod reading;
mod runtimes;
mod standby;
mod transaction;
