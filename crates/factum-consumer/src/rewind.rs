//! Moving the checkpoint of a consumer that does not run.

use factum_kernel::{Checkpoint, ErrorKind, Position, ReadFrom, ReadQuery, StoreError};

use crate::{
    checkpoints::{Checkpoints, layout_key},
    consumers::Consumers,
    dead_letter::StoredLetter,
    name::ConsumerName,
    progress::{self, Progress},
    snapshot::empty_snapshot,
    target::{Opened, Save, Target, TargetError, unreadable},
};

/// The reason why a checkpoint was not moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewindError {
    /// The consumer runs in this program. Stop it first.
    #[error("the consumer runs in this program, stop it first: consumer={0}")]
    Running(ConsumerName),
    /// No progress is stored under this name: the name is wrong, or the progress is in another
    /// target.
    #[error("nothing is stored of the consumer, check its name and target: consumer={0}")]
    Unknown(ConsumerName),
    /// The log ends before the position.
    #[error("the log ends before this position: position={position} head={head}")]
    Beyond {
        /// The position to which the checkpoint should move.
        position: Position,
        /// The end of the log.
        head: Position,
    },
    /// The log can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The target could not store the new checkpoint.
    #[error(transparent)]
    Target(#[from] TargetError),
}

impl RewindError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Running(_) | Self::Unknown(_) | Self::Beyond { .. } => ErrorKind::Invalid,
            Self::Store(error) => error.kind().into(),
            Self::Target(error) => error.kind(),
        }
    }
}

impl Consumers {
    /// Moves the checkpoint of a stopped consumer, or of a projection into documents or memory, to
    /// a position. It is the remedy for [`StopReason::Diverged`](crate::StopReason::Diverged):
    /// choose a position that both logs share.
    ///
    /// Events after the position are handled again. Documents keep their content, so rebuild a
    /// projection that adds up. An in-memory model is built from the start, whatever the position.
    /// Events parked after the position are no longer parked. If the consumer runs in another
    /// process, that process can't store any more.
    ///
    /// # Errors
    /// See [`RewindError`]; no checkpoint was moved.
    pub async fn rewind(&self, name: &ConsumerName, to: Position) -> Result<(), RewindError> {
        self.check_stopped(name)?;
        let documents = self.reading.kernel.documents();
        if empty_snapshot(&**documents, name).await? {
            return Ok(());
        }
        self.rewind_in(&Checkpoints::new(documents.clone()), name, to).await
    }

    /// Like [`rewind`](Self::rewind), for a consumer with its progress in this target.
    ///
    /// # Errors
    /// See [`RewindError`]; no checkpoint was moved.
    pub async fn rewind_in<T: Target>(
        &self,
        target: &T,
        name: &ConsumerName,
        to: Position,
    ) -> Result<(), RewindError> {
        self.check_stopped(name)?;
        let stored = target.look(name).await?;
        if stored.progress.is_none() {
            return self.rewind_partitions(target, name, to).await;
        }
        self.rewind_one(target, name, stored, to).await
    }

    /// Rewinds the partitions of a consumer, one after another. After an error, call it again.
    async fn rewind_partitions<T: Target>(
        &self,
        target: &T,
        name: &ConsumerName,
        to: Position,
    ) -> Result<(), RewindError> {
        let documents = self.reading.kernel.documents();
        let parts = match documents.get(&layout_key(name)).await? {
            Some(layout) => {
                let count = progress::decode::<usize>(&layout.value).map_err(unreadable)?;
                (0..count).map(|at| name.part(at, count)).collect()
            }
            // A build in documents has no layout key.
            None => Checkpoints::new(documents.clone()).partitions(name).await?,
        };
        let mut is_there = false;
        for part in parts.iter().filter(|part| *part != name) {
            let stored = target.look(part).await?;
            if stored.progress.is_some() {
                is_there = true;
                self.rewind_one(target, part, stored, to).await?;
            }
        }
        if is_there { Ok(()) } else { Err(RewindError::Unknown(name.clone())) }
    }

    async fn rewind_one<T: Target>(
        &self,
        target: &T,
        name: &ConsumerName,
        stored: Opened,
        to: Position,
    ) -> Result<(), RewindError> {
        let Opened { fence, progress: Some(before), letters, .. } = stored else {
            return Err(RewindError::Unknown(name.clone()));
        };
        let before: Progress = progress::decode(&before).map_err(unreadable)?;
        let checkpoint = self.checkpoint(to).await?;
        let began_after = Some(checkpoint.map_or(to, |_| before.began_after.unwrap_or(to)));
        let mut gone = Vec::new();
        for (stream, letter) in letters {
            let letter: StoredLetter = progress::decode(&letter).map_err(unreadable)?;
            if letter.position > to.value() {
                gone.push((stream, None));
            }
        }
        let next = Progress { checkpoint, began_after, by: 0, frozen_by: 0 };
        let progress = progress::encode(&next);
        let save = Save { expected: fence, progress, mark: None, letters: gone, events: 0 };
        fence.moved_to(target.save(name, save).await?);
        Ok(())
    }

    fn check_stopped(&self, name: &ConsumerName) -> Result<(), RewindError> {
        if self.is_running(name) { Err(RewindError::Running(name.clone())) } else { Ok(()) }
    }

    /// The checkpoint at the event of a position, unless that event was deleted.
    async fn checkpoint(&self, to: Position) -> Result<Option<Checkpoint>, RewindError> {
        let query = ReadQuery::log().from(ReadFrom::Position(to)).with_events_max(1);
        let page = self.reading.kernel.events().read(query).await?;
        if to > page.head {
            return Err(RewindError::Beyond { position: to, head: page.head });
        }
        let event = page.events.first().filter(|event| event.position() == to);
        Ok(event.map(|event| Checkpoint::of(page.lineage, event)))
    }
}
