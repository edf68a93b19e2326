//! The earlier build after a deletion. No program maintains it, so it can't forget a stream; it is
//! dropped.

use factum_consumer::{TargetError, part::Work};
use factum_kernel::{EventName, Position, Query, QueryItem, ReadQuery};

use super::{handover::stored_reach, keeper::Keeper};

use crate::model_build::{Build, Builds, Refusal};

/// The position up to which no deletion is missing in an earlier build.
#[derive(Debug, Clone, Copy)]
pub(super) struct Current {
    build: Build,
    through: Position,
}

impl<W: Work> Keeper<W> {
    /// Drops the earlier build if the serving one has forgotten a stream that the earlier one may
    /// still hold. After an error the next round tries it again.
    pub(super) async fn drop_outdated(&mut self) -> Result<(), TargetError> {
        let local = self.local.borrow().clone();
        let Some(previous) = local.builds.previous else { return Ok(()) };
        let Some(serving) = local.serving.filter(|it| it.build == local.builds.serving) else {
            return Ok(());
        };
        let kernel = self.stored.kernel().clone();
        let seen = serving.consumer.health().position;
        let from = match self.current.filter(|it| it.build == previous) {
            Some(current) => current.through,
            None => {
                let name = previous.consumer(self.stored.name());
                let partitions = local.builds.partitions(previous);
                stored_reach(&kernel, &self.plan.targets, &name, partitions).await?.position
            }
        };
        let deletions = QueryItem { types: vec![EventName::STREAM_DELETED], tags: vec![] };
        let mut next =
            (from < seen).then(|| ReadQuery::matching(Query::new([deletions])).after(from));
        while let Some(query) = next {
            let page = kernel.events().read(query.clone()).await?;
            let is_missing = page.events.iter().any(|event| {
                let is_meant = self.plan.options.is_in_scope(event);
                event.position() <= seen && is_meant && self.plan.work.wants(event)
            });
            if is_missing {
                let discard = |builds: &mut Builds| match builds.previous == Some(previous) {
                    true => builds.discard_old(),
                    false => Err(Refusal::NothingKept),
                };
                // If this fails, the next round does it.
                let _ = self.change(discard).await;
                return Ok(());
            }
            next = query.next(&page).filter(|_| page.scanned_through < seen);
        }
        self.current = Some(Current { build: previous, through: seen.max(from) });
        Ok(())
    }
}
