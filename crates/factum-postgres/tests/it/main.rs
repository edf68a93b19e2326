//! The public API, on real servers.

mod conformance;
mod fresh;
mod instance;
mod process;
mod reading;
mod server;
