//! Waiting for a consumer or projection by its name, whoever runs it.

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use factum_kernel::Position;

use crate::{
    build::StoredBuilds,
    consumers::Consumers,
    error::WaitError,
    handle::ConsumerHandle,
    health::StopReason,
    maintain::Maintained,
    model::{ReadModel, Stale},
    name::{ConsumerName, version_of},
    target::{Documents, Target},
};

type Arriving<'a> = Pin<Box<dyn Future<Output = Result<(), WaitError>> + Send + 'a>>;

/// A projection that is maintained here, of whatever target: through its serving build, whichever
/// that is by then.
pub(crate) trait Arrives: fmt::Debug + Send + Sync {
    fn arrive(&self, position: Position, timeout: Duration) -> Arriving<'_>;
}

impl<T: Target> Arrives for Maintained<T> {
    fn arrive(&self, position: Position, timeout: Duration) -> Arriving<'_> {
        Box::pin(self.wait_for(position, timeout))
    }
}

/// What has a name.
enum Named {
    Maintained(Arc<dyn Arrives>),
    Started(ConsumerHandle),
    /// Documents that another process maintains.
    Stored(ReadModel<()>),
}

impl Consumers {
    /// Waits until the consumer or projection of this name has come to a position: one that was
    /// maintained or started in this program, or else a projection whose documents another process
    /// maintains in the store.
    ///
    /// Of a maintained projection it is what readers see, over rebuilds and new versions, as
    /// [`Maintained::wait_for`] does; of one elsewhere what is stored, as
    /// [`ReadModel::wait_for`](crate::ReadModel::wait_for) does.
    ///
    /// ```
    /// use std::time::Duration;
    /// use factum_projection::{Consumer, Consumers, WaitError};
    /// use factum_testing::bank::AccountEvent;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
    /// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
    /// let consumers = Consumers::new(kernel);
    /// consumers.start(Consumer::new("mails", |_: AccountEvent, _| async { Ok(()) }))?;
    /// let (head, wait) = (factum_kernel::Position::ZERO, Duration::from_secs(5));
    /// consumers.wait_for("mails", head, wait).await?;
    ///
    /// let misspelt = consumers.wait_for("males", head, wait).await;
    /// assert!(matches!(misspelt, Err(WaitError::Unknown(name)) if name == "males"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WaitError::Unknown`] at once, [`WaitError::Behind`] when the time is over,
    /// [`WaitError::Stopped`] if it will never come.
    pub async fn wait_for(
        &self,
        name: &str,
        position: Position,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        let clock = self.kernel().clock();
        let begun = clock.monotonic();
        let named = tokio::select! {
            biased;
            named = self.named(name) => named?,
            () = clock.sleep(timeout) => return Err(WaitError::Behind {
                // A text that is no name is found to be unknown at once.
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

    /// Whether there is anything of this name to [wait for](Self::wait_for): asked before a
    /// command is sent, so that a mistake is not found when it has taken effect.
    ///
    /// # Errors
    /// [`WaitError::Unknown`], and [`WaitError::Store`] where the store has to be asked.
    pub async fn can_wait_for(&self, name: &str) -> Result<(), WaitError> {
        self.named(name).await.map(|_| ())
    }

    async fn named(&self, text: &str) -> Result<Named, WaitError> {
        let unknown = || WaitError::Unknown(text.into());
        let name = ConsumerName::new(text);
        if let Ok(name) = &name
            && let Some(maintained) = self.maintained(name)
        {
            return Ok(Named::Maintained(maintained));
        }
        if let Some(handle) = of_name(text, self.list()) {
            return Ok(Named::Started(handle));
        }
        let consumer = name.map_err(|_| unknown())?;
        if self.is_closed() {
            return Err(WaitError::Stopped { consumer, reason: StopReason::Asked });
        }
        let stored = StoredBuilds::new(self.kernel().clone(), consumer);
        let builds = stored.read().await?.ok_or_else(unknown)?;
        // A model in memory or in a database of its own leaves no progress among the documents:
        // how far that has come in another process can't be seen from here.
        let serving = builds.serving.consumer(stored.name());
        match Documents::has_begun(self.kernel().documents(), &serving).await? {
            true => Ok(Named::Stored(ReadModel::elsewhere(stored))),
            false => Err(unknown()),
        }
    }
}

/// The consumer that is called so; or else the projection, of its largest version.
fn of_name(text: &str, handles: Vec<ConsumerHandle>) -> Option<ConsumerHandle> {
    if let Some(exact) = handles.iter().find(|it| it.name().as_str() == text) {
        return Some(exact.clone());
    }
    let version = |handle: &ConsumerHandle| version_of(text, handle.name().as_str());
    handles.into_iter().filter(|it| version(it).is_some()).max_by_key(version)
}
