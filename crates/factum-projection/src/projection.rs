//! Projections: events in, a read model out.

use std::{fmt, future::Future, ops::Deref, sync::Arc};

use factum_consumer::{
    ConsumerHandle, HandleError, Target,
    part::{EventNames, Failure, Names, Work, decode},
};
use factum_kernel::{Event, RecordedEvent};

/// A consumer that maintains a read model.
///
/// A projection writes to its target and nowhere else: a rebuild hands it the same events again,
/// and any other effect would happen again. Code that sends mails or calls services is a
/// [`Consumer`](factum_consumer::Consumer), which is never rebuilt.
///
/// ```
/// use factum_kernel::{Aggregate, RecordedEvent};
/// use factum_consumer::HandleError;
/// use factum_projection::{Documents, DocumentsTx, Projection};
/// use factum_testing::bank::{Account, AccountEvent};
///
/// /// Money in each account, in cents.
/// struct Balances;
///
/// impl Projection for Balances {
///     const NAME: &'static str = "balances";
///     const CATEGORIES: &[&str] = &[Account::CATEGORY];
///     type Event = AccountEvent;
///     type Target = Documents;
///
///     async fn project(
///         &self,
///         event: AccountEvent,
///         recorded: &RecordedEvent,
///         balances: &mut DocumentsTx,
///     ) -> Result<(), HandleError> {
///         match event {
///             AccountEvent::Deposited { cents } => {
///                 balances.update(recorded.stream().key(), |sum: &mut u64| *sum += cents).await
///             }
///             _ => Ok(()),
///         }
///     }
///
///     async fn forget(
///         &self,
///         deletion: &RecordedEvent,
///         balances: &mut DocumentsTx,
///     ) -> Result<(), HandleError> {
///         balances.remove(deletion.stream().key());
///         Ok(())
///     }
/// }
/// ```
pub trait Projection: Send + Sync + 'static {
    /// The name of the projection: letters, digits, `-`, `_`, `.`.
    const NAME: &'static str;

    /// The version of the projection's code. A changed version is built beside the old one.
    const VERSION: u32 = 1;

    /// The categories of the streams that the read model is about. Events and deletions of other
    /// streams are not passed to the projection.
    const CATEGORIES: &'static [&'static str];

    /// The events that the projection handles. For several aggregates, use an enum of enums
    /// (`#[event(flatten)]`).
    type Event: Event;

    /// The target that holds the read model.
    type Target: Target;

    /// Declares the secondary indexes of the read model on a target. A change of them needs a
    /// larger [`VERSION`](Self::VERSION).
    fn declare(&self, target: Self::Target) -> Self::Target {
        target
    }

    /// Applies one event. Writes to `tx` are stored together with the checkpoint. If that fails,
    /// the same event is projected again.
    fn project(
        &self,
        event: Self::Event,
        recorded: &RecordedEvent,
        tx: &mut <Self::Target as Target>::Tx,
    ) -> impl Future<Output = Result<(), HandleError>> + Send;

    /// Removes what the read model holds of a stream that was deleted: `deletion.stream()`. Writes
    /// to `tx` are stored like those of [`project`](Self::project).
    ///
    /// The stream's events are erased, so a rebuild sees the deletion alone. A read model is the
    /// same after it only if this method takes back every effect of the stream; what it needs for
    /// that, such as the amount that a stream added to a sum, has to be in the read model.
    fn forget(
        &self,
        deletion: &RecordedEvent,
        tx: &mut <Self::Target as Target>::Tx,
    ) -> impl Future<Output = Result<(), HandleError>> + Send;
}

/// A running projection, and the target that holds its read model.
pub struct ProjectionHandle<P: Projection> {
    pub(crate) consumer: ConsumerHandle,
    pub(crate) target: Arc<P::Target>,
}

impl<P: Projection> Clone for ProjectionHandle<P> {
    fn clone(&self) -> Self {
        Self { consumer: self.consumer.clone(), target: self.target.clone() }
    }
}

impl<P: Projection> ProjectionHandle<P> {
    /// The target that holds the read model.
    pub fn target(&self) -> &P::Target {
        &self.target
    }

    /// The consumer that maintains the read model.
    pub fn consumer(&self) -> &ConsumerHandle {
        &self.consumer
    }
}

impl<P: Projection> Deref for ProjectionHandle<P> {
    type Target = ConsumerHandle;

    fn deref(&self) -> &ConsumerHandle {
        &self.consumer
    }
}

impl<P: Projection> fmt::Debug for ProjectionHandle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectionHandle")
            .field("name", self.consumer.name())
            .finish_non_exhaustive()
    }
}

/// The work of a projection's consumer: decodes events and projects them.
pub(crate) struct ProjectionWork<P: Projection> {
    pub(crate) projection: P,
    pub(crate) names: Names<P::Event>,
}

impl<P: Projection> Work for ProjectionWork<P> {
    type Target = P::Target;

    fn wants(&self, event: &RecordedEvent) -> bool {
        (self.names.wants(event.name()) || event.is_deletion())
            && P::CATEGORIES.contains(&event.stream().category())
    }

    fn wants_deletions(&self) -> bool {
        true
    }

    fn names(&self) -> EventNames {
        self.names.to_stored()
    }

    async fn handle(
        &self,
        recorded: &RecordedEvent,
        tx: &mut <P::Target as Target>::Tx,
    ) -> Result<(), Failure> {
        if recorded.is_deletion() {
            return self.projection.forget(recorded, tx).await.map_err(Failure::Handler);
        }
        let (first, rest) = decode::<P::Event>(recorded)?;
        for event in first.into_iter().chain(rest) {
            self.projection.project(event, recorded, tx).await.map_err(Failure::Handler)?;
        }
        Ok(())
    }
}
