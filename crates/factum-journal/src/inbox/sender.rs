//! The sender: an order on its way, from the process that wants something changed.

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
use factum_kernel::{AppendError, Clock, IdSource, StoreError, SystemClock, WriteError};
use tokio::sync::RwLock;
use uuid::Uuid;

use super::{
    ORDER_BYTES_MAX,
    folder::{Folder, Inbox, Part},
    order::Order,
    wire::{Wire, seal, unseal},
};

/// The time between two looks for the answer.
const LOOK_MIN: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_millis(50);
/// The longest that an order waits to be taken, where no desk looks.
const TAKEN_MAX: Duration = Duration::from_secs(10);
/// The same where one looks: it may have many orders to carry out before. And the longest that the
/// answer to an order that was taken is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How often an order is written when it is removed before it is locked.
const WRITES_MAX: usize = 8;

/// The reason why an order has no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// It was not taken, and won't be.
    NotTaken(StoreError),
    /// It was taken, and may have been carried out.
    Unknown(StoreError),
}

impl Unanswered {
    /// For an order that may be repeated without harm.
    pub(crate) fn into_store_error(self) -> StoreError {
        match self {
            Self::NotTaken(error) | Self::Unknown(error) => error,
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
    /// Read by each order on its way; whether it was closed.
    is_closed: RwLock<bool>,
    /// Whether a desk was seen to look. Without one that has ended, one may be about to begin.
    was_attended: Arc<AtomicBool>,
}

impl Sender {
    pub(crate) fn new(folder: Folder, ids: Arc<dyn IdSource>) -> Self {
        Self { folder, ids, is_closed: RwLock::default(), was_attended: Arc::default() }
    }

    /// Sends an order and waits for its outcome. An order whose future is dropped is withdrawn, or
    /// is carried out without its sender.
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
        // Dropped with this future, which tells the thread that waits.
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

/// An order that waits or is carried out. Dropped, it is withdrawn.
struct Sent {
    folder: Folder,
    inbox: Inbox,
    id: Uuid,
    /// Locked: as long as it is, the order has a sender.
    _file: File,
}

impl Sent {
    fn write(folder: &Folder, ids: &dyn IdSource, bytes: &[u8]) -> Result<Self, StoreError> {
        let inbox = folder.open().map_err(|e| at_write(folder, e))?;
        for _ in 0..WRITES_MAX {
            let id = ids.uuid(SystemClock.now());
            match write(&inbox, id, bytes) {
                Ok(file) => return Ok(Self { folder: folder.clone(), inbox, id, _file: file }),
                // The desk has found it before it was locked, or the folder was removed.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    // Nothing of it is left, as far as it can be removed.
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
                            not answer, look whether it took effect";
                return Err(Unanswered::Unknown(self.unavailable(text)));
            }
            if gone.recv_timeout(pause) != Err(mpsc::RecvTimeoutError::Timeout) {
                return Err(Unanswered::Unknown(StoreError::closed()));
            }
            pause = (2 * pause).min(LOOK_MAX);
        }
    }

    /// The answer may have come between the look for it and the look at its lock.
    fn last_look(&self) -> Result<Vec<u8>, Unanswered> {
        let text = "the process that has the journal open ended while it carried the order out, \
                    look whether it took effect";
        match self.inbox.read(self.id, Part::Answer) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Unanswered::Unknown(self.unavailable(text))),
            Err(e) => Err(Unanswered::Unknown(at_read(&self.folder, e))),
        }
    }

    /// Whether the desk that has taken it works on it no more.
    fn is_given_up(&self) -> io::Result<bool> {
        let is_held = self.inbox.is_held(self.id, Part::Answering)?;
        // Without the file there is an answer.
        Ok(is_held == Some(false) || (is_held.is_none() && !self.has_answer()?))
    }

    fn has_answer(&self) -> io::Result<bool> {
        self.inbox.has(self.id, Part::Answer)
    }

    /// Takes an order back. The answer: whether it is certain that it won't be carried out.
    fn withdraw(&self) -> io::Result<bool> {
        self.inbox.remove(self.id, Part::Order)
    }

    fn unavailable(&self, text: &str) -> StoreError {
        StoreError::unavailable(format!("{text}: path={}", self.folder.path().display()))
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        // What can't be removed here has no sender from now on, and the desk removes it.
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
    let text = "the inbox can't be read, look whether the order took effect";
    StoreError::unavailable(format!("{text}: path={}", folder.path().display())).with_source(error)
}

/// Where nobody takes an order.
fn nobody(folder: &Folder) -> StoreError {
    StoreError::unavailable(format!(
        "the process that has the journal open takes no orders, it may stand still, have ended, or \
         be of an older version: path={}",
        folder.path().display()
    ))
}
