//! The last known position, and the waking of who waits for it.

use std::sync::Arc;

use factum_core::Position;
use tokio::sync::watch;

/// The last known position, and the waking of who waits for it. Only ever goes up.
#[derive(Debug, Clone)]
pub struct Head(Arc<watch::Sender<Position>>);

impl Head {
    /// A head at this position.
    pub fn new(position: Position) -> Self {
        Self(Arc::new(watch::Sender::new(position)))
    }

    /// Tells of a position; an older one than known changes nothing.
    pub fn advance(&self, position: Position) {
        self.0.send_if_modified(|head| {
            let is_news = position > *head;
            *head = position.max(*head);
            is_news
        });
    }

    /// Wakes who waits although nothing came, to see that the store is closed.
    pub fn wake(&self) {
        self.0.send_modify(|_| {});
    }

    /// The last known position.
    pub fn position(&self) -> Position {
        *self.0.borrow()
    }

    /// A view for a reader.
    pub fn subscribe(&self) -> watch::Receiver<Position> {
        self.0.subscribe()
    }
}
