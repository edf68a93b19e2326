//! The SQLite store from outside: the conformance suite, and what is SQLite's own.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests as well")]

mod fresh;

mod conformance;
mod damage;
mod erasure;
mod failure;
mod opening;
mod outside;
mod place;
mod process;
mod reading;
mod schema;
