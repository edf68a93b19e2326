//! The journal from outside: the conformance suite, and the journal's own tests.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests as well")]

mod fresh;

mod conformance;
mod damage;
mod documents;
mod golden;
mod joining;
mod lineage;
mod opening;
mod place;
mod process;
mod reading;
mod repairing;
mod rewritten;
mod space;
mod steps;
mod verifying;
