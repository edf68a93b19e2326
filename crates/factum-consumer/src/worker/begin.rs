//! The beginning of a worker's life: reads the stored progress, and finds its place in the log.

use bytes::Bytes;
use factum_kernel::StoreError;
use serde::de::DeserializeOwned;

use super::{End, Life, Worker};
use crate::{
    dead_letter::StoredLetter,
    progress::{self, Mark, Progress},
    source::{PageMax, Source},
    target::{Fence, Save},
    work::Work,
};

impl<W: Work> Worker<W> {
    /// Opens the target, and the source after the stored progress.
    pub(super) async fn begin(&mut self) -> Result<Life, End> {
        self.health.begin(self.machine.has_tried());
        self.check_layout().await?;
        let opened = match self.target.open(&self.name).await {
            Ok(opened) => opened,
            Err(error) => return Err(self.target_failed(error).await),
        };
        let fence = opened.fence;
        let mark = read::<Mark>(opened.mark.as_deref())?;
        let progress = self.progress(opened.progress, fence).await?;
        self.letters.clear();
        for (stream, letter) in opened.letters {
            self.letters.insert(stream, decode(&letter)?);
        }
        let from = progress.checkpoint.ok_or(progress.position());
        let page_max =
            PageMax { events: self.options.batch_events_max, bytes: self.options.batch_bytes_max };
        let scope = self.options.scope_to_read(self.work.wants_deletions());
        let source = Source::new(self.reading.clone(), scope, page_max, from);
        // Verify before the position is published: it may belong to another log.
        if let Err(error) = source.verify().await {
            return Err(self.read_failed(error).await);
        }
        let head = *self.reading.kernel.events().head().borrow();
        let reached = progress.position();
        let at_work = self.machine.begin(mark, reached);
        let stored = progress.checkpoint;
        let mut life = Life { fence, progress, stored, source, pending: None };
        life.fence = match self.save(&life, Some(at_work)).await {
            Ok(fence) => fence,
            Err(error) => return Err(self.target_failed(error).await),
        };
        self.machine.note_begun(false);
        self.check_layout().await?;
        self.machine.note_begun(true);
        if !self.letters.values().any(StoredLetter::is_due) {
            self.machine.note_tried();
        }
        self.tell_letters();
        self.health.change(|health| {
            health.position = reached;
            health.head = head.max(reached);
        });
        Ok(life)
    }

    /// The stored progress; at the first start, the initial one.
    async fn progress(&mut self, stored: Option<Bytes>, fence: Fence) -> Result<Progress, End> {
        let stored: Option<Progress> = stored.map(|bytes| decode(&bytes)).transpose()?;
        self.machine.found(stored.as_ref(), self.id)?;
        let Some(progress) = stored else {
            return match self.beginning().await {
                Ok(progress) => Ok(progress),
                Err(error) => Err(self.read_failed(error.into()).await),
            };
        };
        self.wait_while_frozen(progress.frozen_by).await?;
        let ours = Progress { by: self.id, frozen_by: 0, ..progress };
        match progress.frozen_by {
            0 => Ok(ours),
            _ => Err(self.unfreeze(&ours, fence).await),
        }
    }

    /// Stores that the consumer is not frozen any more, and opens the target again: while it was
    /// frozen, the target left undone what another life had begun.
    async fn unfreeze(&mut self, progress: &Progress, fence: Fence) -> End {
        let save = Save {
            expected: fence,
            progress: progress::encode(progress),
            mark: None,
            letters: Vec::new(),
            events: 0,
        };
        match self.target.save(&self.name, save).await {
            Ok(_) => End::Reopen,
            Err(error) => self.target_failed(error).await,
        }
    }

    /// The initial progress.
    async fn beginning(&self) -> Result<Progress, StoreError> {
        let progress = Progress::beginning(&self.reading.kernel, self.options.from).await?;
        Ok(Progress { by: self.id, ..progress })
    }
}

fn read<T: DeserializeOwned + Default>(bytes: Option<&[u8]>) -> Result<T, End> {
    bytes.map_or_else(|| Ok(T::default()), decode)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, End> {
    progress::decode(bytes).map_err(End::broken)
}
