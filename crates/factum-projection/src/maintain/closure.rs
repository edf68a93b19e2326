//! Projections that are closures.

use std::{fmt, marker::PhantomData};

use factum_consumer::{
    HandleError, Target, Unknown,
    part::{EventNames, Failure, Names, Work, decode},
};
use factum_kernel::{Event, RecordedEvent};

/// A projection that is a closure, for small read models.
///
/// The closure is synchronous, so it fits documents that are written without being read. To read
/// documents, implement [`Projection`](crate::Projection); for a value in memory, use a
/// [`Fold`](crate::Fold).
///
/// It gets no deletions, and keeps what it has written of a deleted stream, unless its event is
/// [`OrDeleted`](factum_kernel::OrDeleted).
///
/// ```
/// use factum_projection::{Documents, ProjectionFn};
/// use factum_testing::bank::AccountEvent;
///
/// // Who owns which account, as documents.
/// let owners = ProjectionFn::<_, Documents, _>::new("owners", 1, |event, recorded, documents| {
///     match event {
///         AccountEvent::Opened { owner, .. } => documents.put(recorded.stream().key(), &owner),
///         _ => Ok(()),
///     }
/// });
/// # let _ = owners;
/// ```
#[must_use]
pub struct ProjectionFn<E, T, H> {
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) handler: H,
    kind: PhantomData<fn() -> (E, T)>,
}

impl<E, T, H> ProjectionFn<E, T, H>
where
    E: Event,
    T: Target,
    H: Fn(E, &RecordedEvent, &mut T::Tx) -> Result<(), HandleError> + Send + Sync + 'static,
{
    /// A projection with this name and version. A changed closure needs a larger version.
    pub fn new(name: &str, version: u32, handler: H) -> Self {
        Self { name: name.into(), version, handler, kind: PhantomData }
    }
}

impl<E, T, H> fmt::Debug for ProjectionFn<E, T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectionFn")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The work of the closure's consumer: decodes events and calls the closure.
pub(super) struct ClosureWork<E, T, H> {
    handler: H,
    names: Names<E>,
    target: PhantomData<fn() -> T>,
}

impl<E: Event, T, H> ClosureWork<E, T, H> {
    pub(super) fn new(handler: H, unknown: Unknown) -> Self {
        Self { handler, names: Names::new(unknown), target: PhantomData }
    }
}

impl<E, T, H> Work for ClosureWork<E, T, H>
where
    E: Event,
    T: Target,
    H: Fn(E, &RecordedEvent, &mut T::Tx) -> Result<(), HandleError> + Send + Sync + 'static,
{
    type Target = T;

    fn wants(&self, event: &RecordedEvent) -> bool {
        self.names.wants(event.name())
    }

    fn wants_deletions(&self) -> bool {
        self.names.want_deletions()
    }

    fn names(&self) -> EventNames {
        self.names.to_stored()
    }

    async fn handle(&self, recorded: &RecordedEvent, tx: &mut T::Tx) -> Result<(), Failure> {
        let (first, rest) = decode::<E>(recorded)?;
        for event in first.into_iter().chain(rest) {
            (self.handler)(event, recorded, tx).map_err(Failure::Handler)?;
        }
        Ok(())
    }
}
