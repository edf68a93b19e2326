//! The typed layer on the reference store.

mod bench;

mod decoding;
mod execution;
mod loading;
mod model;
mod snapshot;
mod subscription;
mod transaction;
