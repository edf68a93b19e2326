//! Waiting for a consumer or projection by its name, in this process or another.

use std::{sync::Arc, time::Duration};

use factum_consumer::{
    ConsumerHandle, ConsumerName, Consumers, StopReason, Target, WaitError,
    part::{Answering, Arrives, version_of},
};
use factum_kernel::Position;

use crate::{
    documents::Documents,
    maintain::Maintained,
    model::{ReadModel, Stale},
    model_build::StoredBuilds,
};

impl<T: Target> Arrives for Maintained<T> {
    fn arrive(
        &self,
        position: Position,
        timeout: Duration,
    ) -> Answering<'_, Result<(), WaitError>> {
        Box::pin(self.wait_for(position, timeout))
    }
}

/// The bearer of a name: the value that a caller waits for.
enum Named {
    /// A maintained projection of this program.
    Maintained(Arc<dyn Arrives>),
    /// A consumer or projection that this program started.
    Started(ConsumerHandle),
    /// Documents that another process maintains.
    Stored(ReadModel<()>),
}

/// Waits until the consumer or projection of this name has reached a position.
pub(crate) async fn wait_for(
    consumers: &Consumers,
    name: &str,
    position: Position,
    timeout: Duration,
) -> Result<(), WaitError> {
    let clock = consumers.kernel().clock();
    let begun = clock.monotonic();
    let named = tokio::select! {
        biased;
        named = named(consumers, name) => named?,
        () = clock.sleep(timeout) => return Err(WaitError::Behind {
            // An invalid name is reported as unknown.
            consumer: ConsumerName::new(name).map_err(|_| WaitError::Unknown(name.into()))?,
            position,
            reached: Position::ZERO,
            waited: timeout,
        }),
    };
    let left = || timeout.saturating_sub(clock.monotonic().saturating_since(begun));
    match named {
        Named::Maintained(maintained) => maintained.arrive(position, left()).await,
        Named::Started(handle) => handle.wait_for(position, left()).await,
        Named::Stored(model) => model.wait_for(position, left(), Stale::Fail).await.map(|_| ()),
    }
}

/// Checks that a consumer or projection of this name exists.
pub(crate) async fn can_wait_for(consumers: &Consumers, name: &str) -> Result<(), WaitError> {
    named(consumers, name).await.map(|_| ())
}

async fn named(consumers: &Consumers, text: &str) -> Result<Named, WaitError> {
    let unknown = || WaitError::Unknown(text.into());
    let name = ConsumerName::new(text);
    if let Ok(name) = &name
        && let Some(entered) = consumers.entered(name)
    {
        return Ok(Named::Maintained(entered));
    }
    if let Some(handle) = of_name(text, consumers.list()) {
        return Ok(Named::Started(handle));
    }
    let consumer = name.map_err(|_| unknown())?;
    if consumers.is_closed() {
        return Err(WaitError::Stopped { consumer, reason: StopReason::Asked });
    }
    let stored = StoredBuilds::new(consumers.kernel().clone(), consumer);
    let builds = stored.read().await?.ok_or_else(unknown)?;
    // A model in memory or in another database leaves no progress among the documents: its position
    // in another process can't be read here.
    let serving = builds.serving.consumer(stored.name());
    match Documents::has_begun(consumers.kernel().documents(), &serving).await? {
        true => Ok(Named::Stored(ReadModel::elsewhere(stored))),
        false => Err(unknown()),
    }
}

/// The consumer with this name, or else the projection with this name in its largest version.
fn of_name(text: &str, handles: Vec<ConsumerHandle>) -> Option<ConsumerHandle> {
    if let Some(exact) = handles.iter().find(|it| it.name().as_str() == text) {
        return Some(exact.clone());
    }
    let version = |handle: &ConsumerHandle| version_of(text, handle.name().as_str());
    handles.into_iter().filter(|it| version(it).is_some()).max_by_key(version)
}
