//! Holding a consumer: another is about to take its place, so for a while it comes no further than
//! it is. Its stored progress names the try, and its fence moves.

use std::{future::Future, pin::Pin};

use factum_kernel::Position;

use crate::{
    name::ConsumerName,
    progress::{self, Progress},
    target::{Opened, Save, Target, TargetError, unreadable},
};

/// An answer that takes a while.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Whoever lets another consumer take the place of one that is held.
pub trait Handover: Send + Sync {
    /// Lets every try fail that has begun by now: the consumer that is held wants to go on. False:
    /// that can't be done for now.
    fn forbid(&self) -> Answering<'_, bool>;
}

/// Takes a partition away from whoever works on it, in any process, where `may` says so of the try
/// that holds it: its fence moves. Held, it comes no further for a while than what this answers.
pub async fn set_held<T: Target>(
    target: &T,
    part: &ConsumerName,
    held_by: u64,
    may: impl Fn(u64) -> bool,
) -> Result<Position, TargetError> {
    loop {
        let Opened { fence, progress, .. } = target.look(part).await?;
        let Some(progress) = progress else { return Ok(Position::ZERO) };
        let mut progress: Progress = progress::decode(&progress).map_err(unreadable)?;
        let position = progress.position();
        if progress.frozen_by == held_by || !may(progress.frozen_by) {
            return Ok(position);
        }
        // By another than whoever works on it: that one notices when it sees this.
        (progress.by, progress.frozen_by) = (progress.by.wrapping_add(1), held_by);
        let progress = progress::encode(&progress);
        let letters = Vec::new();
        let events = 0;
        let save = Save { expected: fence, progress, mark: None, letters, events };
        match target.save(part, save).await {
            Ok(_) => return Ok(position),
            // It has come further meanwhile, or the answer was lost.
            Err(TargetError::Fenced | TargetError::Unknown(_)) => tokio::task::yield_now().await,
            Err(error) => return Err(error),
        }
    }
}
