//! Plain consumers: a handler runs for each event.

use std::{fmt, future::Future, marker::PhantomData};

use factum_kernel::{Event, RecordedEvent};

use crate::{
    checkpoints::Checkpoints,
    error::HandleError,
    option::ConsumerOptions,
    work::{EventNames, Failure, Names, Work, decode},
};

/// A consumer with effects outside the store: it sends mails, calls services, fills caches.
///
/// Each event is handled at least once. After a crash, the events since the last checkpoint are
/// handled again. A repeated event has the same [`RecordedEvent::id`], so that a receiver can
/// recognise it. It gets no deletions, unless its event is
/// [`OrDeleted`](factum_kernel::OrDeleted).
///
/// ```
/// use factum_kernel::RecordedEvent;
/// use factum_consumer::{Consumer, HandleError};
/// use factum_testing::bank::AccountEvent;
///
/// let greeter = Consumer::new("greeter", |event: AccountEvent, _: RecordedEvent| async move {
///     if let AccountEvent::Opened { owner, .. } = event {
///         println!("welcome, {owner}");
///     }
///     Ok::<(), HandleError>(())
/// });
/// ```
#[must_use]
pub struct Consumer<E, H> {
    pub(crate) name: String,
    pub(crate) options: ConsumerOptions,
    pub(crate) handler: H,
    event: PhantomData<fn() -> E>,
}

impl<E: Event, H> Consumer<E, H> {
    /// A consumer of the events of an enum, from the log's start.
    pub fn new<F>(name: &str, handler: H) -> Self
    where
        H: Fn(E, RecordedEvent) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), HandleError>> + Send,
    {
        let options = ConsumerOptions::new();
        Self { name: name.into(), options, handler, event: PhantomData }
    }

    /// Sets the options.
    pub fn with_options(mut self, options: ConsumerOptions) -> Self {
        self.options = options;
        self
    }
}

impl<E, H> fmt::Debug for Consumer<E, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The handler of a plain consumer, as the worker runs it.
pub(crate) struct Handling<E, H> {
    pub(crate) handler: H,
    pub(crate) names: Names<E>,
}

impl<E, H, F> Work for Handling<E, H>
where
    E: Event,
    H: Fn(E, RecordedEvent) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), HandleError>> + Send,
{
    type Target = Checkpoints;

    fn wants(&self, event: &RecordedEvent) -> bool {
        self.names.wants(event.name())
    }

    fn wants_deletions(&self) -> bool {
        self.names.want_deletions()
    }

    fn names(&self) -> EventNames {
        self.names.to_stored()
    }

    async fn handle(&self, recorded: &RecordedEvent, (): &mut ()) -> Result<(), Failure> {
        let (first, rest) = decode::<E>(recorded)?;
        for event in first.into_iter().chain(rest) {
            (self.handler)(event, recorded.clone()).await.map_err(Failure::Handler)?;
        }
        Ok(())
    }
}
