//! Loading: from a stream to a state. Snapshot or summary first, then the later events.

use crate::{
    aggregate::{Aggregate, fold},
    error::StoreError,
    event::{Content, NewEvent},
    id::EventId,
    kernel::Kernel,
    kind::ErrorKind,
    page::{Page, StreamBounds},
    position::{Lineage, Position},
    read::{ReadFrom, ReadQuery},
    recorded::{EventHeader, RecordedEvent},
    schema::{DecodeError, decode_event},
    snapshot::{Found, Since, SnapshotHeader, Snapshots},
    stream::{InvalidStreamId, StreamId},
    time::Timestamp,
    version::StreamVersion,
};

/// The reason why an aggregate can't be loaded.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This program can't read an event.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The key or the aggregate's category is invalid.
    #[error(transparent)]
    Key(#[from] InvalidStreamId),
    /// History was erased, and no summary replaces it. A partial history is never folded.
    #[error(
        "history was erased and no summary replaces it, delete the stream to start again: \
         stream={stream} erased_through={erased_through}"
    )]
    Truncated {
        /// The stream that was loaded.
        stream: StreamId,
        /// Events up to this version are erased.
        erased_through: StreamVersion,
    },
}

impl LoadError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind().into(),
            Self::Decode(error) => error.kind(),
            Self::Key(error) => error.kind(),
            Self::Truncated { .. } => ErrorKind::Corrupt,
        }
    }

    /// The store's error, if this is one.
    pub(crate) fn store_error(&self) -> Option<&StoreError> {
        if let Self::Store(error) = self { Some(error) } else { None }
    }
}

/// The point in the history of an aggregate up to which to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// All events.
    Latest,
    /// The first N events; all events if the stream has fewer.
    Version(StreamVersion),
    /// The events recorded at or before this time.
    Time(Timestamp),
}

impl At {
    fn includes(self, event: &EventHeader) -> bool {
        match self {
            Self::Latest => true,
            Self::Version(version) => event.version <= version,
            Self::Time(time) => event.recorded_at <= time,
        }
    }
}

/// A state, with the version and position that it includes.
#[derive(Clone)]
#[non_exhaustive]
pub struct Loaded<A> {
    /// The folded state; the default state for an aggregate without events.
    pub state: A,
    /// The version of the last event, or of the deletion. 0 if the aggregate never existed.
    pub version: StreamVersion,
    /// The position of the last event, or of the deletion.
    pub position: Position,
    /// The version of the stream's last deletion.
    pub(crate) deleted_at: StreamVersion,
    pub(crate) last: Option<EventHeader>,
    /// The lineage of the log that the state was loaded from.
    pub(crate) lineage: Option<Lineage>,
    pub(crate) since: Since,
}

impl<A: std::fmt::Debug> std::fmt::Debug for Loaded<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Loaded");
        out.field("state", &self.state).field("version", &self.version);
        out.field("position", &self.position).finish()
    }
}

impl<A: Aggregate> Loaded<A> {
    pub(crate) fn nothing() -> Self {
        Self {
            state: A::default(),
            version: StreamVersion::ZERO,
            position: Position::ZERO,
            deleted_at: StreamVersion::ZERO,
            last: None,
            lineage: None,
            since: Since::default(),
        }
    }

    /// Records that the event folded last is stored, at this position.
    pub(crate) fn stored(&mut self, last: Last, position: Position, recorded_at: Timestamp) {
        let Last { id, schema_version, content } = last;
        let version = self.version;
        let header = EventHeader { position, version, recorded_at, id, schema_version, content };
        (self.last, self.position) = (Some(header), position);
        self.since.at = self.since.at.or(Some(recorded_at));
    }

    /// The bounds of the stream at this version, as far as they matter to a writer.
    pub(crate) fn bounds(&self) -> StreamBounds {
        let Self { version, deleted_at, .. } = *self;
        StreamBounds { version, deleted_at, ..StreamBounds::default() }
    }

    /// Starts from the default state after a deletion.
    fn reset(&mut self, version: StreamVersion) {
        *self = Self { version, lineage: self.lineage, ..Self::nothing() };
        self.since.version = version;
    }
}

/// The fields of the last event of a batch that its header will hold.
#[derive(Clone, Copy)]
pub(crate) struct Last {
    id: EventId,
    schema_version: u32,
    content: Content,
}

impl Last {
    pub(crate) fn of(event: &NewEvent) -> Self {
        Self { id: event.id, schema_version: event.schema_version, content: event.content }
    }
}

/// Loads the state of a stream up to a point in its history.
pub(crate) async fn load<A: Aggregate>(
    kernel: &Kernel,
    snapshots: Option<&Snapshots<A>>,
    stream: &StreamId,
    at: At,
) -> Result<Loaded<A>, LoadError> {
    if let Some(snapshots) = snapshots
        && let Some(loaded) = load_from_snapshot(kernel, snapshots, stream, at).await?
    {
        return Ok(loaded);
    }
    let page = kernel.events().read(ReadQuery::stream(stream.clone())).await?;
    Folding::new(stream, at, Loaded::nothing()).run(kernel, page).await
}

/// Loads from the newest snapshot that fits the log; `None` if there is none.
async fn load_from_snapshot<A: Aggregate>(
    kernel: &Kernel,
    snapshots: &Snapshots<A>,
    stream: &StreamId,
    at: At,
) -> Result<Option<Loaded<A>>, LoadError> {
    let is_wanted = |header: &SnapshotHeader| match at {
        At::Latest => true,
        At::Version(version) => header.version <= version,
        At::Time(time) => header.recorded_at <= time,
    };
    let mut walk = snapshots.newest_first(stream);
    while let Some(found) = walk.next(is_wanted).await {
        let query = ReadQuery::stream(stream.clone()).from(ReadFrom::Version(found.header.version));
        let page = kernel.events().read(query).await?;
        if !fits(&found.header, &page) {
            // The snapshot is from a log that no longer exists. If it stayed, every load would find
            // it before the snapshots of this log.
            snapshots.discard(&found).await;
        } else if stands_without_snapshot::<A>(kernel, stream, &page).await? {
            snapshots.stats().count_used();
            return resume(kernel, stream, at, found, page).await.map(Some);
        } else {
            snapshots.stats().count_ignored();
            return Ok(None);
        }
    }
    Ok(None)
}

/// Folds the events after a snapshot. The page begins with the last event in the snapshot.
async fn resume<A: Aggregate>(
    kernel: &Kernel,
    stream: &StreamId,
    at: At,
    found: Found<A>,
    mut page: Page,
) -> Result<Loaded<A>, LoadError> {
    let Found { header, state, .. } = found;
    let mut loaded = Loaded::nothing();
    loaded.state = state;
    (loaded.version, loaded.position) = (header.version, header.position);
    loaded.last = Some(*page.events.remove(0).header());
    let version = header.version;
    let taken_at = Some(header.taken_at);
    loaded.since = Since { version, at: taken_at, taken_at };
    Folding::new(stream, at, loaded).run(kernel, page).await
}

/// True if the page, read from the snapshot's version on, begins with the last event in the
/// snapshot. A restored or failed-over log may hold another event there, or none.
fn fits(header: &SnapshotHeader, page: &Page) -> bool {
    let is_last = |e: &RecordedEvent| e.version() == header.version && e.id() == header.event_id;
    page.lineage == header.lineage && page.events.first().is_some_and(is_last)
}

/// True if the stream loads without the snapshot too. With all snapshots deleted, every outcome
/// must be the same.
async fn stands_without_snapshot<A: Aggregate>(
    kernel: &Kernel,
    stream: &StreamId,
    page: &Page,
) -> Result<bool, LoadError> {
    if page.bounds.is_none_or(|bounds| !bounds.is_truncated()) {
        return Ok(true);
    }
    let first = ReadQuery::stream(stream.clone()).with_events_max(1);
    let page = kernel.events().read(first).await?;
    page.events.first().map_or(Ok(false), is_summary::<A>)
}

fn is_summary<A: Aggregate>(recorded: &RecordedEvent) -> Result<bool, LoadError> {
    let mut found = false;
    decode_event(recorded, &mut |event: A::Event| {
        found |= crate::schema::Event::is_summary(&event);
    })?;
    Ok(found)
}

/// A fold in progress.
pub(crate) struct Folding<'s, A> {
    stream: &'s StreamId,
    at: At,
    loaded: Loaded<A>,
    /// False while history is missing and no summary was found yet.
    is_whole: bool,
    bounds: StreamBounds,
}

impl<'s, A: Aggregate> Folding<'s, A> {
    pub(crate) fn new(stream: &'s StreamId, at: At, loaded: Loaded<A>) -> Self {
        Self { stream, at, loaded, is_whole: true, bounds: StreamBounds::default() }
    }

    /// Folds this page and the pages after it.
    pub(crate) async fn run(
        mut self,
        kernel: &Kernel,
        mut page: Page,
    ) -> Result<Loaded<A>, LoadError> {
        let query = ReadQuery::stream(self.stream.clone());
        self.loaded.lineage = Some(page.lineage);
        loop {
            self.bounds = page.bounds.ok_or_else(|| {
                StoreError::internal("the store gave no bounds with a page of a stream")
            })?;
            let mut is_over = false;
            for recorded in &page.events {
                if recorded.version() != self.loaded.version.next() {
                    self.jump(recorded.version().previous())?;
                }
                is_over = !self.at.includes(recorded.header());
                if is_over {
                    break;
                }
                self.take(recorded)?;
            }
            match query.next(&page).filter(|_| !is_over) {
                Some(next) => page = kernel.events().read(next).await?,
                None => return self.finish(is_over),
            }
        }
    }

    fn take(&mut self, recorded: &RecordedEvent) -> Result<(), LoadError> {
        if recorded.is_deletion() {
            self.loaded.reset(recorded.version());
            self.loaded.position = recorded.position();
            self.is_whole = true;
            return Ok(());
        }
        let Self { loaded, is_whole, .. } = self;
        let since = &mut loaded.since;
        since.at = since.at.or(Some(recorded.recorded_at()));
        let state = &mut loaded.state;
        decode_event(recorded, &mut |event: A::Event| {
            *is_whole |= crate::schema::Event::is_summary(&event);
            if *is_whole {
                fold(state, &event);
            }
        })?;
        (loaded.version, loaded.position) = (recorded.version(), recorded.position());
        loaded.last = Some(*recorded.header());
        Ok(())
    }

    /// Continues after a version that is not the one folded last. The versions between them were
    /// erased before the load began or during it.
    fn jump(&mut self, to: StreamVersion) -> Result<(), LoadError> {
        let StreamBounds { erased_through, deleted_at, .. } = self.bounds;
        if erased_through < to {
            let message = format!(
                "events of a stream are missing, restore the store from a backup: \
                 stream={} after={} before={}",
                self.stream,
                self.loaded.version,
                to.next()
            );
            return Err(StoreError::corrupt(message).into());
        }
        self.loaded.reset(to);
        self.is_whole = deleted_at == to;
        Ok(())
    }

    fn finish(mut self, is_over: bool) -> Result<Loaded<A>, LoadError> {
        let StreamBounds { version, erased_through, deleted_at } = self.bounds;
        if !is_over && self.loaded.version < version {
            // Every event after the one folded last is erased, so the stream ends with a deletion
            // that appended no event.
            self.jump(version)?;
        }
        self.loaded.deleted_at = deleted_at;
        let is_before_deletion = match self.at {
            At::Latest => false,
            // Version 0 is the default state, whatever came later.
            At::Version(StreamVersion::ZERO) => {
                self.loaded.reset(StreamVersion::ZERO);
                return Ok(self.loaded);
            }
            At::Version(wanted) => wanted < deleted_at,
            // The time of a deletion without an event is unknown, so a time before the new
            // beginning has no answer.
            At::Time(_) => {
                deleted_at > StreamVersion::ZERO && self.loaded.position == Position::ZERO
            }
        };
        if !self.is_whole || is_before_deletion {
            let stream = self.stream.clone();
            return Err(LoadError::Truncated { stream, erased_through });
        }
        Ok(self.loaded)
    }
}
