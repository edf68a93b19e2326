//! The sender: an order on its way, in the process that wants the change.

use std::{
    fs::File,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use factum_backend::blocking;
use factum_kernel::{
    AppendError, ChangeError, Clock, IdSource, StoreError, SystemClock, WriteError,
};
use tokio::sync::RwLock;
use uuid::Uuid;

use super::{
    ORDER_BYTES_MAX,
    folder::{Folder, Inbox, Part},
    order::Order,
    wire::{Wire, seal, unseal},
};

/// The time between the first two looks for the answer, which doubles up to [`LOOK_MAX`].
const LOOK_MIN: Duration = Duration::from_millis(1);
/// The longest time between two looks for the answer.
const LOOK_MAX: Duration = Duration::from_millis(50);
/// The longest wait for an order to be taken while no receiver is seen.
const TAKEN_MAX: Duration = Duration::from_secs(10);
/// The longest wait for an order to be taken while a receiver is seen, which may have many orders
/// to carry out first. The wait for the answer to a taken order ends after twice this time in all.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// The number of attempts to write an order that is removed before it is locked.
const WRITES_MAX: usize = 8;

/// The reason why an order has no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The order was not taken, and will not be.
    NotTaken(StoreError),
    /// The order was taken, and may have been carried out.
    Unknown(StoreError),
}

impl Unanswered {
    /// The error for an order that may be repeated without harm.
    pub(crate) fn into_store_error(self) -> StoreError {
        match self {
            Self::NotTaken(error) | Self::Unknown(error) => error,
        }
    }
}

impl From<Unanswered> for ChangeError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::NotTaken(error) => Self::Store(error),
            Unanswered::Unknown(error) => Self::Indeterminate(error),
        }
    }
}

impl From<Unanswered> for AppendError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::NotTaken(error) => error.into(),
            Unanswered::Unknown(error) => Self::Indeterminate(error),
        }
    }
}

impl From<Unanswered> for WriteError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::NotTaken(error) => error.into(),
            Unanswered::Unknown(error) => Self::Indeterminate(error),
        }
    }
}

/// Sends orders to the process that has a journal open.
#[derive(Debug)]
pub(crate) struct Sender {
    folder: Folder,
    ids: Arc<dyn IdSource>,
    /// True once the sender is closed. Each order holds a read lock on its way.
    is_closed: RwLock<bool>,
    /// True once a receiver was seen. Before that, a receiver may be about to start; after that, a
    /// free lock means that it has ended.
    was_attended: Arc<AtomicBool>,
}

impl Sender {
    pub(crate) fn new(folder: Folder, ids: Arc<dyn IdSource>) -> Self {
        Self { folder, ids, is_closed: RwLock::default(), was_attended: Arc::default() }
    }

    /// Sends an order and waits for its outcome. If the future is dropped, the order is withdrawn
    /// or is carried out without its sender.
    pub(crate) async fn send<T: Wire>(&self, order: &Order) -> Result<T, Unanswered> {
        let is_closed = self.is_closed.read().await;
        if *is_closed {
            return Err(Unanswered::NotTaken(StoreError::closed()));
        }
        let bytes = seal(order);
        if bytes.len() > ORDER_BYTES_MAX {
            return Err(Unanswered::NotTaken(StoreError::invalid(format!(
                "an order to another process has at most {ORDER_BYTES_MAX} bytes, send less at \
                 once: bytes={}",
                bytes.len()
            ))));
        }
        let folder = self.folder.clone();
        let ids = self.ids.clone();
        let was_attended = self.was_attended.clone();
        // Dropped with this future, which ends the wait of the thread.
        let (_asks, gone) = mpsc::channel();
        let waits = move || {
            let sent = Sent::write(&folder, &*ids, &bytes).map_err(Unanswered::NotTaken)?;
            sent.answer(&was_attended, &gone)
        };
        let answer = blocking(waits).await.map_err(Unanswered::Unknown)??;
        let unreadable = || {
            let text = "the answer can't be read, use the version of the program that has the \
                        journal open";
            Unanswered::Unknown(StoreError::internal(text))
        };
        let outcome = unseal::<Result<T, StoreError>>(&answer).ok_or_else(unreadable)?;
        outcome.map_err(Unanswered::NotTaken)
    }

    /// Sends no more orders, and waits for those on their way.
    pub(crate) async fn close(&self) {
        *self.is_closed.write().await = true;
    }
}

/// An order that waits or is carried out. Its drop withdraws it.
struct Sent {
    folder: Folder,
    inbox: Inbox,
    id: Uuid,
    /// The locked file. While it is locked, the order has a sender.
    _file: File,
}

impl Sent {
    fn write(folder: &Folder, ids: &dyn IdSource, bytes: &[u8]) -> Result<Self, StoreError> {
        let inbox = folder.open().map_err(|e| at_write(folder, e))?;
        for _ in 0..WRITES_MAX {
            let id = ids.uuid(SystemClock.now());
            match write(&inbox, id, bytes) {
                Ok(file) => return Ok(Self { folder: folder.clone(), inbox, id, _file: file }),
                // The receiver found it before it was locked, or the folder was removed.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    // Nothing of it stays, if it can be removed.
                    let _ = inbox.remove(id, Part::Writing);
                    return Err(at_write(folder, e));
                }
            }
        }
        Err(nobody(folder))
    }

    /// Waits for the answer until the caller has gone.
    fn answer(
        self,
        was_attended: &AtomicBool,
        gone: &mpsc::Receiver<()>,
    ) -> Result<Vec<u8>, Unanswered> {
        let start = SystemClock.monotonic();
        let mut pause = LOOK_MIN;
        loop {
            let unknown = |e| Unanswered::Unknown(at_read(&self.folder, e));
            if let Some(answer) = self.inbox.read(self.id, Part::Answer).map_err(unknown)? {
                return Ok(answer);
            }
            let waited = SystemClock.monotonic().saturating_since(start);
            if self.inbox.has(self.id, Part::Order).map_err(unknown)? {
                let is_attended = self.inbox.is_attended().map_err(unknown)?;
                let is_left = was_attended.fetch_or(is_attended, Ordering::Relaxed) && !is_attended;
                let most = if is_attended { ANSWER_MAX } else { TAKEN_MAX };
                if (is_left || waited >= most) && self.withdraw().map_err(unknown)? {
                    return Err(Unanswered::NotTaken(nobody(&self.folder)));
                }
            } else if self.is_given_up().map_err(unknown)? {
                return self.last_look();
            } else if waited >= 2 * ANSWER_MAX {
                let text = "the process that has the journal open has taken the order and does \
                            not answer, check whether it took effect";
                return Err(Unanswered::Unknown(self.unavailable(text)));
            }
            if gone.recv_timeout(pause) != Err(mpsc::RecvTimeoutError::Timeout) {
                return Err(Unanswered::Unknown(StoreError::closed()));
            }
            pause = (2 * pause).min(LOOK_MAX);
        }
    }

    /// Looks for the answer once more: it may have come between the look for it and the look at its
    /// lock.
    fn last_look(&self) -> Result<Vec<u8>, Unanswered> {
        let text = "the process that has the journal open ended while it carried the order out, \
                    check whether it took effect";
        match self.inbox.read(self.id, Part::Answer) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Unanswered::Unknown(self.unavailable(text))),
            Err(e) => Err(Unanswered::Unknown(at_read(&self.folder, e))),
        }
    }

    /// Returns whether the receiver has taken the order but no longer works on it.
    fn is_given_up(&self) -> io::Result<bool> {
        let is_held = self.inbox.is_held(self.id, Part::Answering)?;
        // Without the file there is an answer.
        Ok(is_held == Some(false) || (is_held.is_none() && !self.has_answer()?))
    }

    fn has_answer(&self) -> io::Result<bool> {
        self.inbox.has(self.id, Part::Answer)
    }

    /// Withdraws the order. Returns true if it certainly won't be carried out.
    fn withdraw(&self) -> io::Result<bool> {
        self.inbox.remove(self.id, Part::Order)
    }

    fn unavailable(&self, text: &str) -> StoreError {
        StoreError::unavailable(format!("{text}: path={}", self.folder.path().display()))
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        // A file that can't be removed here has no sender from now on, and the receiver removes it.
        for part in [Part::Order, Part::Answer, Part::Taken] {
            let _ = self.inbox.remove(self.id, part);
        }
    }
}

fn write(inbox: &Inbox, id: Uuid, bytes: &[u8]) -> io::Result<File> {
    let mut file = inbox.create(id, Part::Writing)?;
    file.write_all(bytes)?;
    inbox.rename(id, Part::Writing, Part::Order)?;
    Ok(file)
}

fn at_write(folder: &Folder, error: io::Error) -> StoreError {
    let text = match error.kind() {
        io::ErrorKind::NotFound => return nobody(folder),
        io::ErrorKind::PermissionDenied => {
            "the journal is open in another process, and only its user may send it orders"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full, make room and try again"
        }
        _ => "an order can't be written",
    };
    StoreError::unavailable(format!("{text}: path={}", folder.path().display())).with_source(error)
}

fn at_read(folder: &Folder, error: io::Error) -> StoreError {
    let text = "the inbox can't be read, check whether the order took effect";
    StoreError::unavailable(format!("{text}: path={}", folder.path().display())).with_source(error)
}

/// The error for an order that no process takes.
fn nobody(folder: &Folder) -> StoreError {
    StoreError::unavailable(format!(
        "the process that has the journal open takes no orders, it may hang, have ended, or be \
        of an older version: path={}",
        folder.path().display()
    ))
}
