//! Freezing a consumer while another one is about to take its place: for a while it handles no
//! further event. Its stored progress holds the number of the attempt, and its fence changes.

use std::{future::Future, pin::Pin};

use factum_kernel::Position;

use crate::{
    name::ConsumerName,
    progress::{self, Progress},
    target::{Opened, Save, Target, TargetError, unreadable},
};

/// A boxed future.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The handover in which another consumer takes the place of a frozen one.
pub trait Handover: Send + Sync {
    /// Makes every attempt fail that has begun by now, so that the frozen consumer can continue.
    /// False if that is not possible now.
    fn forbid(&self) -> Answering<'_, bool>;
}

/// Freezes a partition, in whatever process it runs: its stored progress gets the number
/// `frozen_by` of the attempt, and its fence changes. 0 unfreezes it. `may` decides whether an
/// earlier attempt may be replaced. Returns the position of the partition, which does not move
/// while the partition is frozen.
pub async fn set_frozen<T: Target>(
    target: &T,
    part: &ConsumerName,
    frozen_by: u64,
    may: impl Fn(u64) -> bool,
) -> Result<Position, TargetError> {
    loop {
        let Opened { fence, progress, .. } = target.look(part).await?;
        let Some(progress) = progress else { return Ok(Position::ZERO) };
        let mut progress: Progress = progress::decode(&progress).map_err(unreadable)?;
        let position = progress.position();
        if progress.frozen_by == frozen_by || !may(progress.frozen_by) {
            return Ok(position);
        }
        // Store it under an id that is not the worker's, so that the worker notices the change.
        (progress.by, progress.frozen_by) = (progress.by.wrapping_add(1), frozen_by);
        let progress = progress::encode(&progress);
        let letters = Vec::new();
        let events = 0;
        let save = Save { expected: fence, progress, mark: None, letters, events };
        match target.save(part, save).await {
            Ok(stored) => {
                fence.moved_to(stored);
                return Ok(position);
            }
            // The worker has stored progress meanwhile, or the answer was lost.
            Err(TargetError::Fenced | TargetError::Unknown(_)) => tokio::task::yield_now().await,
            Err(error) => return Err(error),
        }
    }
}
