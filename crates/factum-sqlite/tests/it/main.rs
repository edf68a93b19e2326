//! The SQLite store from outside: the conformance suite, and the store's own tests.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests as well")]

mod fresh;

mod conformance;
mod damage;
mod erasure;
mod failure;
mod opening;
mod place;
mod process;
mod reading;
mod schema;
