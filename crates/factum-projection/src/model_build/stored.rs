//! The stored document of a projection's builds, and the copy that this process has read.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use factum_consumer::{
    ConsumerName,
    part::{Answering, Handover, progress, ring},
};
use factum_kernel::{
    Clock, ExpectedRevision, Kernel, Monotonic, Revision, StoreError, StoreErrorKind, Timestamp,
    WriteBatch, WriteError,
};

use super::{Build, Builds};

/// The time for which a copy of the builds is used; an older copy is read again.
pub(crate) const REFRESH: Duration = Duration::from_secs(1);
/// The time after which a dropped build is cleared. It is longer than any reader uses a copy of the
/// builds.
pub(crate) const CLEAR_AFTER: Duration = Duration::from_secs(3);
/// The number of attempts at a change, if other processes change the builds first.
const CHANGES_MAX: usize = 32;

/// The document that names the serving build, with a copy in memory.
pub(crate) struct StoredBuilds {
    kernel: Kernel,
    name: ConsumerName,
    seen: Mutex<Option<Seen>>,
    /// The number of the next read or write, so that an older copy does not replace a newer one.
    turn: AtomicU64,
}

#[derive(Debug, Clone)]
struct Seen {
    builds: Arc<Builds>,
    at: At,
    turn: u64,
}

/// The moment of a read, by both clocks: the monotonic clock may stop while the machine sleeps, and
/// another process may clear a dropped build in that time.
#[derive(Debug, Clone, Copy)]
struct At {
    monotonic: Monotonic,
    time: Timestamp,
}

impl At {
    fn of(clock: &dyn Clock) -> Self {
        Self { monotonic: clock.monotonic(), time: clock.now() }
    }

    fn is_fresh(self, now: Self) -> bool {
        now.monotonic.saturating_since(self.monotonic) < REFRESH
            && now.time >= self.time
            && now.time < self.time.saturating_add(REFRESH)
    }
}

impl StoredBuilds {
    pub(crate) fn new(kernel: Kernel, name: ConsumerName) -> Self {
        Self { kernel, name, seen: Mutex::default(), turn: AtomicU64::new(0) }
    }

    pub(crate) fn name(&self) -> &ConsumerName {
        &self.name
    }

    pub(crate) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The builds, from a copy that is at most [`REFRESH`] old. `None`: the projection never
    /// started.
    pub(crate) async fn current(&self) -> Result<Option<Arc<Builds>>, StoreError> {
        let now = At::of(&**self.kernel.clock());
        let seen = self.seen().clone();
        match seen {
            Some(seen) if seen.at.is_fresh(now) => Ok(Some(seen.builds)),
            _ => self.read().await,
        }
    }

    /// Reads the builds. `None`: the projection never started.
    pub(crate) async fn read(&self) -> Result<Option<Arc<Builds>>, StoreError> {
        Ok(self.read_revision().await?.map(|(builds, _)| builds))
    }

    async fn read_revision(&self) -> Result<Option<(Arc<Builds>, Revision)>, StoreError> {
        // The moment before the read, because the answer may be older than the end of the read.
        let at = At::of(&**self.kernel.clock());
        let turn = self.turn();
        let Some(found) = self.kernel.documents().get(&self.key()).await? else {
            return Ok(None);
        };
        let builds = progress::decode::<Builds>(&found.value).map_err(|error| {
            let key = String::from_utf8_lossy(&self.key()).into_owned();
            let text = format!("the builds of a projection can't be read, remove {key}: {error}");
            StoreError::corrupt(text)
        })?;
        let builds = Arc::new(builds);
        self.saw(builds.clone(), at, turn);
        Ok(Some((builds, found.revision)))
    }

    /// Changes the stored builds, or creates them. Tries again if another process changed them
    /// first.
    pub(crate) async fn change<T, E: From<StoreError>>(
        &self,
        change: impl Fn(Option<Builds>) -> Result<(Builds, T), E>,
    ) -> Result<(Arc<Builds>, T), E> {
        for _ in 0..CHANGES_MAX {
            let found = self.read_revision().await?;
            let (before, expected) = match found {
                Some((builds, revision)) => (Some(builds), ExpectedRevision::Exact(revision)),
                None => (None, ExpectedRevision::Absent),
            };
            let (mut builds, answer) = change(before.as_deref().cloned())?;
            if let Some(before) = before.filter(|it| **it == builds) {
                return Ok((before, answer));
            }
            builds.change = self.change_id();
            if self.write(&builds, expected).await? {
                return Ok((Arc::new(builds), answer));
            }
        }
        Err(StoreError::unavailable(format!(
            "other processes keep changing the builds of the projection, try again: projection={}",
            self.name
        ))
        .into())
    }

    /// Removes a dropped build from the stored list, because its data is cleared.
    pub(crate) async fn remove_cleared(&self, build: Build) -> Result<(), StoreError> {
        let removed = |found: Option<Builds>| {
            let mut builds = found.ok_or_else(|| StoreError::invalid("nothing is built"))?;
            builds.remove_cleared(build);
            Ok::<_, StoreError>((builds, ()))
        };
        self.change(removed).await.map(drop)
    }

    /// Reads the builds and their revision.
    pub(crate) async fn read_at(&self) -> Result<Option<(Arc<Builds>, Revision)>, StoreError> {
        self.read_revision().await
    }

    /// Writes the builds if the stored document has this revision. `None`: it has another revision.
    /// After an error the outcome may be unknown: call [`settled`](Self::settled).
    pub(crate) async fn write_at(
        &self,
        mut builds: Builds,
        revision: Revision,
    ) -> Result<Option<Arc<Builds>>, StoreError> {
        builds.change = self.change_id();
        let is_written = self.write(&builds, ExpectedRevision::Exact(revision)).await?;
        Ok(is_written.then(|| Arc::new(builds)))
    }

    /// Reads the builds after settling every write with an unknown outcome: it writes the document
    /// once more, so a late write takes effect before this one or fails. Asks until the store
    /// answers.
    pub(crate) async fn settled(&self) -> Option<Arc<Builds>> {
        loop {
            match self.read_revision().await {
                Ok(found) => {
                    let (builds, revision) = found?;
                    let again = Builds { change: self.change_id(), ..Builds::clone(&builds) };
                    if let Ok(true) = self.write(&again, ExpectedRevision::Exact(revision)).await {
                        return Some(Arc::new(again));
                    }
                }
                Err(error) if error.kind() == StoreErrorKind::Closed => return None,
                Err(_) => {}
            }
            self.kernel.clock().sleep(REFRESH).await;
        }
    }

    /// Writes the builds. Returns false if another process changed them first.
    async fn write(&self, builds: &Builds, expected: ExpectedRevision) -> Result<bool, StoreError> {
        let at = At::of(&**self.kernel.clock());
        let batch = WriteBatch::new().put(self.key(), expected, progress::encode(builds));
        match self.kernel.documents().write(ring(batch)).await {
            Ok(_) => {
                self.saw(Arc::new(builds.clone()), at, self.turn());
                Ok(true)
            }
            Err(WriteError::Conflict { .. }) => Ok(false),
            // If the read does not show the change, the caller tries again: the revision tells
            // whether the change has arrived by then.
            Err(WriteError::Indeterminate(_)) => {
                let found = self.read().await?;
                Ok(found.is_some_and(|found| found.change == builds.change))
            }
            Err(WriteError::Store(error)) => Err(error),
            Err(other) => Err(StoreError::internal(other.to_string())),
        }
    }

    /// Writes the builds unchanged: the new revision makes every change fail that was based on an
    /// earlier read.
    async fn touch(&self) -> Result<(), StoreError> {
        let same = |found: Option<Builds>| {
            let builds = found.ok_or_else(|| StoreError::invalid("nothing is built"))?;
            Ok::<_, StoreError>((Builds { change: self.change_id(), ..builds }, ()))
        };
        self.change(same).await.map(drop)
    }

    fn change_id(&self) -> (u64, u64) {
        let kernel = &self.kernel;
        kernel.ids().uuid(kernel.clock().now()).as_u64_pair()
    }

    fn key(&self) -> Bytes {
        format!("$projection/{}", self.name).into()
    }

    fn saw(&self, builds: Arc<Builds>, at: At, turn: u64) {
        let mut seen = self.seen();
        if seen.as_ref().is_none_or(|seen| seen.turn < turn) {
            *seen = Some(Seen { builds, at, turn });
        }
    }

    fn turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Option<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handover for StoredBuilds {
    fn forbid(&self) -> Answering<'_, bool> {
        Box::pin(async move { self.touch().await.is_ok() })
    }
}

impl fmt::Debug for StoredBuilds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredBuilds").field("name", &self.name).finish_non_exhaustive()
    }
}
