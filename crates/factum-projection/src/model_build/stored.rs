//! The builds of a projection as they are stored, and as they were seen last.

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

/// What was read so long ago is read again before it is relied on.
pub(crate) const REFRESH: Duration = Duration::from_secs(1);
/// So long after a build was dropped it is cleared. Longer than any reader relies on what it read.
pub(crate) const CLEAR_AFTER: Duration = Duration::from_secs(3);
/// So often a change is tried again after others were first.
const CHANGES_MAX: usize = 32;

/// The document that says which build readers see.
pub(crate) struct StoredBuilds {
    kernel: Kernel,
    name: ConsumerName,
    seen: Mutex<Option<Seen>>,
    /// Numbers reads and writes, so that an older one does not hide a newer one.
    turn: AtomicU64,
}

#[derive(Debug, Clone)]
struct Seen {
    builds: Arc<Builds>,
    at: At,
    turn: u64,
}

/// When they were read. By both readings: the monotonic one may stand still while the machine
/// sleeps, and meanwhile another process clears what it dropped.
#[derive(Debug, Clone, Copy)]
struct At {
    reading: Monotonic,
    shown: Timestamp,
}

impl At {
    fn of(clock: &dyn Clock) -> Self {
        Self { reading: clock.monotonic(), shown: clock.now() }
    }

    fn is_fresh(self, now: Self) -> bool {
        now.reading.saturating_since(self.reading) < REFRESH
            && now.shown >= self.shown
            && now.shown < self.shown.saturating_add(REFRESH)
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

    /// As they are, or were not longer than [`REFRESH`] ago. None: the projection never started.
    pub(crate) async fn current(&self) -> Result<Option<Arc<Builds>>, StoreError> {
        let now = At::of(&**self.kernel.clock());
        let seen = self.seen().clone();
        match seen {
            Some(seen) if seen.at.is_fresh(now) => Ok(Some(seen.builds)),
            _ => self.read().await,
        }
    }

    /// As they are.
    pub(crate) async fn read(&self) -> Result<Option<Arc<Builds>>, StoreError> {
        Ok(self.read_revision().await?.map(|(builds, _)| builds))
    }

    async fn read_revision(&self) -> Result<Option<(Arc<Builds>, Revision)>, StoreError> {
        // Before the read: what is in it may be older than its end.
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

    /// Changes them, from what they are or from nothing; tried again where others were first.
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
            "others change the builds of the projection all the time, try again: projection={}",
            self.name
        ))
        .into())
    }

    /// Takes note that nothing is left of a build that was dropped.
    pub(crate) async fn cleared(&self, build: Build) -> Result<(), StoreError> {
        let cleared = |found: Option<Builds>| {
            let mut builds = found.ok_or_else(|| StoreError::invalid("nothing is built"))?;
            builds.cleared(build);
            Ok::<_, StoreError>((builds, ()))
        };
        self.change(cleared).await.map(drop)
    }

    /// As they are, and the revision that they have.
    pub(crate) async fn read_at(&self) -> Result<Option<(Arc<Builds>, Revision)>, StoreError> {
        self.read_revision().await
    }

    /// Writes them where they have this revision still. `None`: they have not; or else nobody
    /// knows, and [`settled`](Self::settled) tells.
    pub(crate) async fn write_at(
        &self,
        mut builds: Builds,
        revision: Revision,
    ) -> Result<Option<Arc<Builds>>, StoreError> {
        builds.change = self.change_id();
        let is_written = self.write(&builds, ExpectedRevision::Exact(revision)).await?;
        Ok(is_written.then(|| Arc::new(builds)))
    }

    /// As they are behind every change whose outcome is not known: what was on its way either is
    /// in them or comes to nothing. Asks until the store answers.
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

    /// Whether it is written now; if not, others were first.
    async fn write(&self, builds: &Builds, expected: ExpectedRevision) -> Result<bool, StoreError> {
        let at = At::of(&**self.kernel.clock());
        let batch = WriteBatch::new().put(self.key(), expected, progress::encode(builds));
        match self.kernel.documents().write(ring(batch)).await {
            Ok(_) => {
                self.saw(Arc::new(builds.clone()), at, self.turn());
                Ok(true)
            }
            Err(WriteError::Conflict { .. }) => Ok(false),
            // It is there, or it will be told by the revision when it is tried again.
            Err(WriteError::Indeterminate(_)) => {
                let found = self.read().await?;
                Ok(found.is_some_and(|found| found.change == builds.change))
            }
            Err(WriteError::Store(error)) => Err(error),
            Err(other) => Err(StoreError::internal(other.to_string())),
        }
    }

    /// Changes nothing, but that every change fails which has read them before.
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
