//! The events of one aggregate that bear a tag.

use crate::{
    aggregate::Aggregate, error::StoreError, query::Query, read::ReadQuery,
    recorded::RecordedEvent, repository::Repository, retry::Attempts, stream::StreamId,
};

impl<A: Aggregate> Repository<A> {
    /// Returns the kept events of a stream that match a query, oldest first. The read uses the
    /// index of tags and skips the events of other streams. While the store is unavailable, it
    /// waits and tries again.
    ///
    /// All matching events that were acknowledged before the call are found.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn tagged(
        &self,
        stream: &StreamId,
        query: Query,
        attempts: &mut Attempts,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let mut found = Vec::new();
        let mut next = Some(ReadQuery::matching(query));
        let kernel = self.kernel();
        while let Some(query) = next {
            let read = || kernel.events().read(query.clone());
            let page = kernel.patiently(attempts, |error| Some(error), read).await?;
            let ours = page.events.iter().filter(|event| event.stream() == *stream);
            found.extend(ours.cloned());
            next = query.next(&page);
        }
        Ok(found)
    }
}
