//! A deletion, for tests that need one and no more.

use factum_kernel::{AppendBatch, EventId, ExpectedVersion, StreamId, Timestamp};

/// A batch that deletes a stream, at whatever version it is. Deletions of one stream have the same
/// id, without a time of its own.
///
/// ```
/// use factum_kernel::{EventStore, StreamId};
/// use factum_testing::deletion;
///
/// async fn forget(store: &dyn EventStore, stream: StreamId) {
///     let deleted = store.append(deletion(stream.clone())).await.unwrap();
///     let bounds = store.stream_info(&stream).await.unwrap().bounds;
///     assert_eq!(bounds.deleted_at, deleted.versions[0]);
/// }
/// ```
pub fn deletion(stream: StreamId) -> AppendBatch {
    let id = EventId::derived(Timestamp::EPOCH, stream.as_str().as_bytes());
    AppendBatch::new().delete(stream, ExpectedVersion::Any, id)
}
