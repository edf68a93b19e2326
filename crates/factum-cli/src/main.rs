//! The command line of Factum.

fn main() {}
