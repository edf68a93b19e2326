//! Parked events on their way back: one stream, in order, up to where the consumer is.

use factum_core::{
    Diverged, DivergedReason, ReadError, ReadFrom, ReadQuery, RecordedEvent, StreamId,
    StreamVersion,
};
use tokio::sync::oneshot;

use super::{End, Life, Worker, attempt::Handled};
use crate::{
    letter::Letter,
    progress,
    source::Chunk,
    stored::Release,
    target::{Commits, Fence, Save, Target, TargetError},
    work::Work,
};

type Answer = oneshot::Sender<Result<(), String>>;

/// A release that tore the model in memory: what came before the event that failed is handled
/// again, when the model has been made again.
#[derive(Debug)]
pub(crate) struct Redo {
    stream: StreamId,
    release: Release,
    letter: Letter,
    answer: Answer,
}

/// How far a release came.
enum Released {
    /// Nothing of the stream waits any more.
    All,
    /// It waits behind an event that failed.
    Stays(Letter),
    /// The stream could not be read on.
    Unread(Letter, String),
    /// It does not wait.
    Nothing,
}

impl<W: Work> Worker<W> {
    /// Handles what is parked of a stream, the first event again or not at all. The stream waits
    /// on behind the first event that fails.
    pub(crate) async fn release(
        &mut self,
        life: &mut Life,
        stream: &StreamId,
        release: Release,
        answer: Answer,
    ) -> Result<(), End> {
        let error = match self.go_through(life, stream, release, None).await {
            Ok(Released::All) => {
                let _ = answer.send(Ok(()));
                return Ok(());
            }
            Ok(Released::Stays(letter)) if W::Target::COMMITS == Commits::Snapshots => {
                self.redo = Some(Redo { stream: stream.clone(), release, letter, answer });
                return Err(End::Reopen);
            }
            Ok(Released::Stays(letter)) => {
                let error = letter.error.clone();
                self.put_letter(life, stream, Some(&letter)).await.map(|()| error)
            }
            Ok(Released::Unread(letter, error)) => {
                self.put_letter(life, stream, Some(&letter)).await.map(|()| error)
            }
            Ok(Released::Nothing) => {
                Ok(format!("nothing of this stream is parked: stream={stream}"))
            }
            Err(end) => Err(end),
        };
        let interrupted = "it was interrupted, see what is parked still";
        let _ = answer.send(Err(error.as_ref().map_or(interrupted.into(), Clone::clone)));
        error.map(drop)
    }

    /// Does a release again that failed, up to where it did.
    pub(crate) async fn redo(&mut self, life: &mut Life) -> Result<(), End> {
        let Some(Redo { stream, release, letter, answer }) = self.redo.take() else {
            return Ok(());
        };
        let outcome = self.go_through(life, &stream, release, Some(&letter)).await;
        let _ = answer.send(Err(letter.error.clone()));
        match outcome? {
            Released::Stays(letter) | Released::Unread(letter, _) => {
                self.put_letter(life, &stream, Some(&letter)).await
            }
            Released::All | Released::Nothing => Ok(()),
        }
    }

    /// Handles the parked events of a stream until one fails, or up to one that has.
    async fn go_through(
        &mut self,
        life: &mut Life,
        stream: &StreamId,
        release: Release,
        until: Option<&Letter>,
    ) -> Result<Released, End> {
        let Some(mut letter) = self.letters.get(stream).cloned() else {
            return Ok(Released::Nothing);
        };
        // What is gone by now can't be left out: the next one is another event.
        let left_out = (release == Release::Discard).then_some(letter.version);
        loop {
            self.glance("another stream is being released, try again")?;
            let chunk = match self.next_parked(life, stream, &letter).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => {
                    return self.put_letter(life, stream, None).await.map(|()| Released::All);
                }
                Err(error) => return Ok(Released::Unread(letter, error.to_string())),
            };
            let event = &chunk.events()[0];
            if let Some(until) = until.filter(|until| until.version <= event.version().value()) {
                return Ok(Released::Stays(until.clone()));
            }
            let behind = self.letter_behind(event);
            if !self.wants(event) || left_out == Some(event.version().value()) {
                // Nothing was done; it is stored with what is done next.
                letter = behind;
                continue;
            }
            let error = match self.handle(&chunk, &[0]).await? {
                Handled::Done(tx) => {
                    let save = self.letter_save(life, stream, Some(&behind), 1);
                    match self.target.commit(&self.name, tx, save).await {
                        Ok(fence) => {
                            self.is_put(life, stream, Some(&behind), fence);
                            letter = behind;
                            continue;
                        }
                        Err(TargetError::TooLarge(error) | TargetError::Refused(error)) => {
                            error.to_string()
                        }
                        Err(error) => return Err(self.target_failed(error).await),
                    }
                }
                Handled::Failed { error, .. } => error,
                Handled::Away(error) => return Err(self.away(error.to_string()).await),
            };
            return Ok(Released::Stays(self.letter_again(&letter, event, error)));
        }
    }

    /// The next event of the stream that the consumer has passed.
    async fn next_parked(
        &self,
        life: &Life,
        stream: &StreamId,
        letter: &Letter,
    ) -> Result<Option<Chunk>, ReadError> {
        let Some(checkpoint) = life.progress.checkpoint else { return Ok(None) };
        let from = ReadFrom::Version(StreamVersion::new(letter.version));
        let query = ReadQuery::stream(stream.clone()).from(from).with_events_max(1);
        let page = self.reading.kernel.events().read(query).await?;
        if page.lineage != checkpoint.lineage {
            let reason = DivergedReason::Lineage(page.lineage);
            return Err(Diverged { checkpoint, reason }.into());
        }
        let event = page.events.first().map(RecordedEvent::position);
        let is_passed = event.is_some_and(|position| position <= checkpoint.position);
        Ok(is_passed.then(|| Chunk::of(page)))
    }

    /// The stream waits behind this event, which has failed.
    fn letter_again(&self, before: &Letter, event: &RecordedEvent, error: String) -> Letter {
        let is_same = before.version == event.version().value();
        Letter {
            version: event.version().value(),
            position: event.position().value(),
            event: event.name().into(),
            error,
            attempts: if is_same { before.attempts + 1 } else { 1 },
            parked_at: self.reading.kernel.clock().now().as_micros(),
        }
    }

    /// The stream waits for what comes behind this event, which is done with.
    fn letter_behind(&self, event: &RecordedEvent) -> Letter {
        Letter {
            version: event.version().next().value(),
            position: event.position().value(),
            event: event.name().into(),
            error: "its release was interrupted behind this event".into(),
            attempts: 0,
            parked_at: self.reading.kernel.clock().now().as_micros(),
        }
    }

    async fn put_letter(
        &mut self,
        life: &mut Life,
        stream: &StreamId,
        letter: Option<&Letter>,
    ) -> Result<(), End> {
        let save = self.letter_save(life, stream, letter, 0);
        match self.target.save(&self.name, save).await {
            Ok(fence) => {
                self.is_put(life, stream, letter, fence);
                Ok(())
            }
            Err(error) => Err(self.target_failed(error).await),
        }
    }

    fn letter_save(
        &self,
        life: &Life,
        stream: &StreamId,
        letter: Option<&Letter>,
        events: usize,
    ) -> Save {
        Save {
            expected: life.fence,
            progress: progress::encode(&life.progress),
            mark: None,
            letters: vec![(stream.clone(), letter.map(progress::encode))],
            events,
        }
    }

    fn is_put(
        &mut self,
        life: &mut Life,
        stream: &StreamId,
        letter: Option<&Letter>,
        fence: Fence,
    ) {
        (life.fence, life.stored) = (fence, life.progress.checkpoint);
        match letter {
            Some(letter) => self.letters.insert(stream.clone(), letter.clone()),
            None => self.letters.remove(stream),
        };
        let parked = self.letters.len();
        self.health.change(|health| health.parked = parked);
    }
}
