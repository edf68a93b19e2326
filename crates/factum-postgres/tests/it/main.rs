//! The public API, on real servers.

mod conformance;
mod failure;
mod fresh;
mod instance;
mod opening;
mod plan;
mod process;
mod reading;
mod server;
