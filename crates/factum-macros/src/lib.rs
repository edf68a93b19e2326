//! Derive macros for Factum.
