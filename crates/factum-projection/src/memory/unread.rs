//! The streams of a model in memory that wait for a program that can read them.

use factum_consumer::{
    Release, StopCause,
    part::{DEATHS_MAX, StoredLetter, Waiting, decode, next_parked},
};
use factum_kernel::{Event, RecordedEvent, StreamId, StreamVersion};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    folding::{End, Folding, Run},
    order::Redo,
};

impl<M, E, F> Folding<M, E, F>
where
    M: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
    E: Event,
    F: Fn(&mut M, E, &RecordedEvent) + Send + Sync + 'static,
{
    /// Tries the streams that an earlier program could not read, once. A stream whose event this
    /// program can't read either keeps waiting.
    pub(super) async fn try_unread(&mut self, run: &mut Run) -> Result<(), End> {
        while !self.is_restoring()
            && let Some(stream) = self.untried.as_mut().and_then(Vec::pop)
        {
            let tried = self.try_stream(run, &stream).await;
            // If the model is torn meanwhile, the release is repeated.
            if self.redo.is_none() && tried.is_err() {
                self.untried.get_or_insert_default().push(stream);
            }
            tried?;
        }
        let has_tried = self.redo.is_none() && self.untried.as_ref().is_some_and(Vec::is_empty);
        if has_tried && !self.has_tried {
            self.has_tried = true;
            self.tell_letters();
        }
        Ok(())
    }

    async fn try_stream(&mut self, run: &mut Run, stream: &StreamId) -> Result<(), End> {
        let Some(letter) = self.letters.get(stream).cloned() else { return Ok(()) };
        let version = StreamVersion::new(letter.version);
        let kernel = self.reading.kernel.clone();
        let next = match next_parked(&kernel, run.progress.checkpoint, stream, version).await {
            Ok(next) => next,
            Err(error) => return Err(self.unread(error).await),
        };
        let event = next.as_ref().map(|chunk| &chunk.events()[0]).filter(|event| self.wants(event));
        if event.is_some_and(|event| decode::<E>(event).is_err()) {
            return Ok(());
        }
        if letter.deaths >= DEATHS_MAX {
            let error = StopCause::new("the process died while it was folded").to_string();
            let is_unread = Some(false);
            let letter = StoredLetter { error, attempts: 1, is_unread, deaths: 0, ..letter };
            self.health.log_parked(stream, &letter);
            self.letters.insert(stream.clone(), letter);
            return self.store(run).await;
        }
        if self.is_cautious() {
            let deaths = letter.deaths + 1;
            self.letters.insert(stream.clone(), StoredLetter { deaths, ..letter });
            self.store(run).await?;
        }
        let until = self.shown.position();
        let stream = stream.clone();
        self.redo(run, Redo { stream, release: Release::Retry, answer: None, until }).await
    }

    /// Shows in the health which streams wait.
    pub(super) fn tell_letters(&self) {
        let waiting = Waiting::of(&self.letters);
        let has_tried = self.has_tried;
        self.health.change(|health| health.set_waiting(waiting, has_tried));
    }
}
