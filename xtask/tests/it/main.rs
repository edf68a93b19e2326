//! Rules about the whole repository. Each is a function over made-up input, shown to fail there,
//! and then held against the repository itself.

mod arrows;
mod documents;
mod lets;
mod manifests;
mod repository;
mod sizes;
mod words;
