//! One store under measurement, of any kind.

use std::marker::PhantomData;

use tokio::runtime::Runtime;

use crate::postgres::{
    bare::{self, Bare},
    clients::Clients,
    framework::{
        Framework, cqrs_es::CqrsEs, disintegrate::Disintegrate, esrs::Esrs, eventcore::Eventcore,
        evento::Evento, factum::Factum,
    },
    process::{Job, serve_writers},
    store::Store,
};

/// The calls on a store under measurement.
pub(crate) trait Subject {
    /// Makes its tables in an empty database.
    fn prepare(&self, runtime: &Runtime, url: &str);
    /// Runs as a process of clients.
    fn serve(&self, runtime: &Runtime, job: &Job);
}

pub(crate) fn subject(store: Store) -> Box<dyn Subject> {
    match store {
        Store::Factum => Of::<Factum>::boxed(),
        Store::Bare => Box::new(OfBare::<true>),
        Store::BareKey => Box::new(OfBare::<false>),
        Store::CqrsEs => Of::<CqrsEs>::boxed(),
        Store::Disintegrate => Of::<Disintegrate<true>>::boxed(),
        Store::DisintegrateUnchecked => Of::<Disintegrate<false>>::boxed(),
        Store::Esrs => Of::<Esrs>::boxed(),
        Store::Eventcore => Of::<Eventcore>::boxed(),
        Store::Evento => Of::<Evento>::boxed(),
    }
}

struct Of<F>(PhantomData<F>);

impl<F: Framework> Of<F> {
    fn boxed() -> Box<dyn Subject> {
        Box::new(Self(PhantomData))
    }
}

impl<F: Framework> Subject for Of<F> {
    fn prepare(&self, runtime: &Runtime, url: &str) {
        runtime.block_on(F::prepare(url));
    }

    fn serve(&self, runtime: &Runtime, job: &Job) {
        serve_writers(runtime, job, runtime.block_on(Clients::<F>::open(job)));
    }
}

struct OfBare<const INDEXED: bool>;

impl<const INDEXED: bool> Subject for OfBare<INDEXED> {
    fn prepare(&self, runtime: &Runtime, url: &str) {
        runtime.block_on(bare::prepare::<INDEXED>(url));
    }

    fn serve(&self, runtime: &Runtime, job: &Job) {
        serve_writers(runtime, job, runtime.block_on(Bare::<INDEXED>::open(job)));
    }
}
