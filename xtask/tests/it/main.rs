//! Rules about the whole repository. Each is a function over made-up input that is shown to fail
//! there, and is then applied to the repository itself.

mod arrows;
mod documents;
mod facade;
mod glossary;
mod lets;
mod manifests;
mod prose;
mod repository;
mod sizes;
mod tuples;
mod words;
