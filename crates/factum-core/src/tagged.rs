//! The events of one aggregate that bear a tag.

use crate::{
    aggregate::Aggregate, error::StoreError, query::Query, read::ReadQuery,
    recorded::RecordedEvent, repository::Repository, retry::Attempts, stream::StreamId,
};

impl<A: Aggregate> Repository<A> {
    /// The kept events of a stream that match a query, oldest first. Reads from the index of tags
    /// and passes over the events of other streams; waits and tries again while the store is
    /// unavailable.
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
        let (mut found, mut next) = (Vec::new(), Some(ReadQuery::matching(query)));
        while let Some(query) = next {
            match self.kernel().events().read(query.clone()).await {
                Ok(page) => {
                    let ours = page.events.iter().filter(|event| event.stream() == *stream);
                    found.extend(ours.cloned());
                    next = query.next(&page);
                }
                Err(error) => match attempts.after_failed_load(&error) {
                    Some(pause) => {
                        self.kernel().pause(pause).await;
                        next = Some(query);
                    }
                    None => return Err(error),
                },
            }
        }
        Ok(found)
    }
}
