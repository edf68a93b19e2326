//! Parked events on their way back: one stream, in order, up to where the consumer is.

use factum_core::{ReadFrom, ReadQuery, RecordedEvent, StoreError, StreamId, StreamVersion};

use super::{End, Life, Worker, attempt::Handled};
use crate::{
    letter::Letter,
    progress,
    source::Chunk,
    stored::Release,
    target::{Commits, Save, Target},
    work::Work,
};

impl<W: Work> Worker<W> {
    /// Handles what is parked of a stream, the first event again or not at all. The stream waits
    /// on behind the first event that fails.
    pub(crate) async fn release(
        &mut self,
        life: &mut Life,
        stream: &StreamId,
        release: Release,
    ) -> Result<Result<(), String>, End> {
        let Some(mut letter) = self.letters.get(stream).cloned() else {
            return Ok(Err(format!("nothing of this stream is parked: stream={stream}")));
        };
        let mut is_left_out = release == Release::Discard;
        loop {
            let chunk = match self.next_parked(life, stream, &letter).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return self.put_letter(life, stream, None).await.map(Ok),
                Err(error) => return Ok(Err(error.to_string())),
            };
            let event = &chunk.events()[0];
            let is_taken = self.wants(event) && !std::mem::take(&mut is_left_out);
            letter.version = event.version().next().value();
            if !is_taken {
                self.put_letter(life, stream, Some(&letter)).await?;
                continue;
            }
            match self.handle(&chunk, vec![0]).await? {
                Handled::Done(tx) => {
                    let save = self.letter_save(life, stream, Some(&letter), 1);
                    match self.target.commit(&self.name, tx, save).await {
                        Ok(fence) => self.is_put(life, stream, Some(&letter), fence),
                        Err(error) => return Err(self.target_failed(error).await),
                    }
                }
                Handled::Failed { error, .. } => {
                    return self.stays(life, stream, event, error).await.map(Err);
                }
            }
        }
    }

    /// The next event of the stream that the consumer has passed.
    async fn next_parked(
        &mut self,
        life: &Life,
        stream: &StreamId,
        letter: &Letter,
    ) -> Result<Option<Chunk>, StoreError> {
        let from = ReadFrom::Version(StreamVersion::new(letter.version));
        let query = ReadQuery::stream(stream.clone()).from(from).with_events_max(1);
        let page = self.reading.kernel.events().read(query).await?;
        let through = life.progress.checkpoint.map(|it| it.position);
        let event = page.events.first().map(RecordedEvent::position);
        let is_passed = event.is_some_and(|position| Some(position) <= through);
        Ok(is_passed.then(|| Chunk::of(page)))
    }

    /// An event failed again: the stream waits behind it.
    async fn stays(
        &mut self,
        life: &mut Life,
        stream: &StreamId,
        event: &RecordedEvent,
        error: String,
    ) -> Result<String, End> {
        if W::Target::COMMITS == Commits::Snapshots {
            return Err(End::Reopen);
        }
        let before = self.letters.get(stream).filter(|it| it.version == event.version().value());
        let letter = Letter {
            version: event.version().value(),
            position: event.position().value(),
            event: event.name().into(),
            error: error.clone(),
            attempts: before.map_or(0, |letter| letter.attempts) + 1,
            parked_at: self.reading.kernel.clock().now().as_micros(),
        };
        self.put_letter(life, stream, Some(&letter)).await?;
        Ok(error)
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
        fence: crate::target::Fence,
    ) {
        (life.fence, life.stored) = (fence, life.progress.checkpoint);
        match letter {
            Some(letter) => self.letters.insert(stream.clone(), letter.clone()),
            None => self.letters.remove(stream),
        };
        let parked = self.letters.len();
        self.health.send_modify(|health| health.parked = parked);
    }
}
