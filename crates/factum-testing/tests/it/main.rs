//! The tests of the test support.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod answers;
mod clock;
mod conformance;
mod faulty;
mod flaws;
mod given;
mod history;
mod pair;
mod process;
mod toy;
