//! The public API, on real servers.
#![cfg(not(target_os = "windows"))]

mod conformance;
mod server;
