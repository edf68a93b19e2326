//! The events of the log that bear certain tags.

use crate::{
    error::StoreError, kernel::Kernel, position::Position, query::Query, read::ReadQuery,
    recorded::RecordedEvent, retry::Attempts,
};

impl Kernel {
    /// Returns the kept events of the log that match a query, oldest first. While the store is
    /// unavailable, waits and tries again.
    ///
    /// All matching events that were acknowledged before the call are found.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn tagged(
        &self,
        query: Query,
        attempts: &mut Attempts,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let (found, _) = self.tagged_through(query, attempts).await?;
        Ok(found)
    }

    /// The same events, and the position up to which every matching event is among them.
    pub(crate) async fn tagged_through(
        &self,
        query: Query,
        attempts: &mut Attempts,
    ) -> Result<(Vec<RecordedEvent>, Position), StoreError> {
        let mut found = Vec::new();
        let mut query = ReadQuery::matching(query);
        loop {
            let read = || self.events().read(query.clone());
            let page = self.patiently(attempts, |error| Some(error), read).await?;
            let through = page.scanned_through;
            let next = query.next(&page);
            found.extend(page.events);
            match next {
                Some(next) => query = next,
                None => return Ok((found, through)),
            }
        }
    }
}
