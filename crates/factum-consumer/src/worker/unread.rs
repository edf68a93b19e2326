//! The streams that wait for a program that can read them: each new owner of the progress tries
//! them first, and resumes the releases that were interrupted.

use factum_kernel::{Position, StreamId};

use super::{
    End, Life, Worker,
    machine::Fault,
    release::{Released, Stays},
};
use crate::{
    dead_letter::StoredLetter,
    health::{StopCause, StopReason},
    option::Then,
    pace::DEATHS_MAX,
    stored::Release,
    work::Work,
};

impl<W: Work> Worker<W> {
    /// Tries the streams that wait for a reader, once for each owner. A stream whose event this
    /// program can't read either keeps waiting.
    pub(super) async fn try_unread(&mut self, life: &mut Life) -> Result<(), End> {
        if self.machine.has_tried() {
            return Ok(());
        }
        let due = self.letters.iter().filter(|(_, letter)| letter.is_due());
        let due: Vec<StreamId> = due.map(|(stream, _)| stream.clone()).collect();
        for stream in due {
            self.try_stream(life, &stream).await?;
        }
        self.machine.note_tried();
        self.tell_letters();
        Ok(())
    }

    /// Handles the events of a stream that waits. An event that fails is tried again as the policy
    /// says.
    async fn try_stream(&mut self, life: &mut Life, stream: &StreamId) -> Result<(), End> {
        let mut failed: Option<StoredLetter> = None;
        loop {
            if self.has_killed(life, stream).await? {
                return Ok(());
            }
            self.note_death(life, stream, 1).await?;
            let released = self.release_events(life, stream, Release::Retry).await;
            if !matches!(released, Ok(Released::All)) {
                // The process is alive. If this can't be stored, one death too many may be counted.
                let _ = self.note_death(life, stream, 0).await;
            }
            let Stays { mut letter, error, fault } = match released? {
                Released::All | Released::Nothing => return Ok(()),
                Released::NotNow(letter, error) => {
                    self.store_letter(life, stream, Some(&letter)).await?;
                    return Err(self.read_failed(error).await);
                }
                Released::Stays(stays) => stays,
            };
            if fault == Fault::Unread {
                return self.keep_waiting(life, stream, letter).await;
            }
            self.health.count_failure();
            let before = failed.filter(|before| before.version == letter.version);
            letter.attempts = before.map_or(0, |before| before.attempts) + 1;
            let position = Position::new(letter.position);
            let policy = self.options.failure;
            if fault == Fault::Passing && letter.attempts <= policy.retries_max {
                self.pause_after(&letter.error, Some(position), letter.attempts).await?;
                failed = Some(letter);
                continue;
            }
            if policy.then == Then::Stop {
                return Err(End::Stop(StopReason::Failed { position, error }));
            }
            self.health.log_parked(stream, &letter);
            return self.store_letter(life, stream, Some(&letter)).await;
        }
    }

    /// Keeps a stream waiting at an event that this program can't read.
    async fn keep_waiting(
        &mut self,
        life: &mut Life,
        stream: &StreamId,
        letter: StoredLetter,
    ) -> Result<(), End> {
        // Most starts find the letter as it is, and store nothing.
        if self.letters.get(stream).is_some_and(|stored| stored.says(&letter)) {
            return Ok(());
        }
        self.health.log_parked(stream, &letter);
        self.store_letter(life, stream, Some(&letter)).await
    }

    /// Parks the event of a stream during which the process has died too often.
    async fn has_killed(&mut self, life: &mut Life, stream: &StreamId) -> Result<bool, End> {
        let Some(letter) = self.letters.get(stream).filter(|it| it.deaths >= DEATHS_MAX) else {
            return Ok(false);
        };
        let error = StopCause::new("the process died while the event was handled").to_string();
        let attempts = letter.deaths;
        let is_unread = Some(false);
        let letter = StoredLetter { error, attempts, is_unread, deaths: 0, ..letter.clone() };
        self.health.log_parked(stream, &letter);
        self.store_letter(life, stream, Some(&letter)).await.map(|()| true)
    }

    /// After an unclean stop: adds to the noted deaths of the first event of a stream, which is
    /// about to be handled; 0 removes the note.
    async fn note_death(
        &mut self,
        life: &mut Life,
        stream: &StreamId,
        more: u32,
    ) -> Result<(), End> {
        let Some(letter) = self.letters.get(stream) else { return Ok(()) };
        let deaths = if more == 0 { 0 } else { letter.deaths + more };
        if !self.machine.is_cautious() || deaths == letter.deaths {
            return Ok(());
        }
        let letter = StoredLetter { deaths, ..letter.clone() };
        self.store_letter(life, stream, Some(&letter)).await
    }
}
