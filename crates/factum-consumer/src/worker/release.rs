//! The release of parked events: one stream, in order, up to the consumer's position.

use factum_kernel::{ReadError, StreamId, StreamVersion, sentence};
use tokio::sync::oneshot;

use super::{End, Life, Worker, attempt::Handled, machine::Fault};
use crate::{
    dead_letter::{StoredLetter, Waiting},
    error::ReleaseError,
    health::StopCause,
    progress,
    source::next_parked,
    stored::Release,
    target::{Fence, Save, TargetError},
    work::Work,
};

type Answer = oneshot::Sender<Result<(), ReleaseError>>;

/// The outcome of a release.
pub(super) enum Released {
    /// All events of the stream up to the consumer's position are done.
    All,
    /// The stream waits for an event that failed.
    Stays(Stays),
    /// The rest of the stream can't be read now.
    NotNow(StoredLetter, ReadError),
    /// The stream is not parked.
    Nothing,
}

/// The event at which a release has ended.
pub(super) struct Stays {
    pub(super) letter: StoredLetter,
    pub(super) error: StopCause,
    pub(super) fault: Fault,
}

impl<W: Work> Worker<W> {
    /// Releases a parked stream: handles or discards its first event, then handles the later ones.
    /// The stream stays parked at the first event that fails.
    pub(crate) async fn release(
        &mut self,
        life: &mut Life,
        stream: &StreamId,
        release: Release,
        answer: Answer,
    ) -> Result<(), End> {
        let error = match self.release_events(life, stream, release).await {
            Ok(Released::All) => {
                let _ = answer.send(Ok(()));
                return Ok(());
            }
            Ok(Released::Stays(Stays { letter, .. })) => {
                let error = ReleaseError::Failed(letter.error.clone());
                self.store_letter(life, stream, Some(&letter)).await.map(|()| error)
            }
            Ok(Released::NotNow(letter, error)) => {
                let error = ReleaseError::NotNow(sentence(&error));
                self.store_letter(life, stream, Some(&letter)).await.map(|()| error)
            }
            Ok(Released::Nothing) => Ok(ReleaseError::NothingParked(stream.clone())),
            Err(end) => Err(end),
        };
        let answered = error.as_ref().map_or_else(|_| ReleaseError::interrupted(), Clone::clone);
        let _ = answer.send(Err(answered));
        error.map(drop)
    }

    /// Handles the parked events of a stream until one fails.
    pub(super) async fn release_events(
        &mut self,
        life: &mut Life,
        stream: &StreamId,
        release: Release,
    ) -> Result<Released, End> {
        let Some(mut letter) = self.letters.get(stream).cloned() else {
            return Ok(Released::Nothing);
        };
        // Discard by version: if the parked event was deleted meanwhile, the next event must not be
        // discarded in its place.
        let discarded = (release == Release::Discard).then_some(letter.version);
        loop {
            self.take_waiting_orders("another stream is being released, try again")?;
            if self.assignment.as_ref().is_some_and(|assignment| !assignment.is_assigned()) {
                return Err(End::Unassigned);
            }
            let kernel = &self.reading.kernel;
            let version = StreamVersion::new(letter.version);
            let chunk = match next_parked(kernel, life.progress.checkpoint, stream, version).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => {
                    return self.store_letter(life, stream, None).await.map(|()| Released::All);
                }
                Err(error) => return Ok(Released::NotNow(letter, error)),
            };
            let event = &chunk.events()[0];
            assert!(event.version() >= version, "the events of a stream are released in order");
            let next = StoredLetter::after(event, kernel.clock().now());
            if !self.wants(event) || discarded == Some(event.version().value()) {
                // Nothing to store yet: the next save includes this step.
                letter = next;
                continue;
            }
            let failed = match self.handle(&chunk, &[0]).await? {
                Handled::Done { tx, .. } => {
                    let save = self.letter_save(life, stream, Some(&next), 1);
                    match self.target.commit(&self.name, tx, save).await {
                        Ok(fence) => {
                            self.note_stored(life, stream, Some(&next), fence);
                            letter = next;
                            continue;
                        }
                        Err(TargetError::TooLarge(error)) => (StopCause::of(error), Fault::Lasting),
                        Err(TargetError::Refused(error)) => (StopCause::of(error), Fault::Passing),
                        Err(error) => return Err(self.target_failed(error).await),
                    }
                }
                Handled::Failed { error, fault, .. } => (error, fault),
                Handled::Outage { error, .. } => return Err(self.outage(sentence(&*error)).await),
            };
            let now = self.reading.kernel.clock().now();
            let (error, fault) = failed;
            let letter = match fault {
                Fault::Unread => StoredLetter::unread(event, &error, now),
                _ => letter.again(event, &error, now),
            };
            return Ok(Released::Stays(Stays { letter, error, fault }));
        }
    }

    pub(super) async fn store_letter(
        &mut self,
        life: &mut Life,
        stream: &StreamId,
        letter: Option<&StoredLetter>,
    ) -> Result<(), End> {
        let save = self.letter_save(life, stream, letter, 0);
        match self.target.save(&self.name, save).await {
            Ok(fence) => {
                self.note_stored(life, stream, letter, fence);
                Ok(())
            }
            Err(error) => Err(self.target_failed(error).await),
        }
    }

    fn letter_save(
        &self,
        life: &Life,
        stream: &StreamId,
        letter: Option<&StoredLetter>,
        events: usize,
    ) -> Save {
        let letters = vec![(stream.clone(), letter.map(progress::encode))];
        Save { letters, events, ..life.saving(&life.progress) }
    }

    fn note_stored(
        &mut self,
        life: &mut Life,
        stream: &StreamId,
        letter: Option<&StoredLetter>,
        fence: Fence,
    ) {
        life.saved(life.progress, fence);
        match letter {
            Some(letter) => self.letters.insert(stream.clone(), letter.clone()),
            None => self.letters.remove(stream),
        };
        self.tell_letters();
    }

    /// Shows in the health which streams wait.
    pub(super) fn tell_letters(&self) {
        let waiting = Waiting::of(&self.letters);
        let has_tried = self.machine.has_tried();
        self.health.change(|health| health.set_waiting(waiting, has_tried));
    }
}
