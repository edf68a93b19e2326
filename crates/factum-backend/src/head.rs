//! The head: the last position that the store answered. It wakes the callers that wait for it.

use std::sync::Arc;

use factum_kernel::Position;
use tokio::sync::watch;

/// The last position that the store answered. It wakes the callers that wait for it. It only grows,
/// with one exception: a server whose log is shorter than what was known. Then another server
/// answers, and the events that the former one had beyond are gone.
#[derive(Debug, Clone)]
pub struct Head(Arc<watch::Sender<Position>>);

impl Head {
    /// A head at this position.
    pub fn new(position: Position) -> Self {
        Self(Arc::new(watch::Sender::new(position)))
    }

    /// Records a position; a lower one than the known head changes nothing.
    pub fn advance(&self, position: Position) {
        self.answered(Position::ZERO, position);
    }

    /// Records the position that a server answered, and the head that was known when the question
    /// was sent. Only a shorter log answers with less than that head.
    pub fn answered(&self, known: Position, position: Position) {
        self.0.send_if_modified(|head| {
            // The current head may have been learned from the new server already.
            let is_shorter = position < known && *head == known;
            let is_news = is_shorter || position > *head;
            if is_news {
                *head = position;
            }
            is_news
        });
    }

    /// Wakes the waiting callers without news, so that they see that the store is closed.
    pub fn wake(&self) {
        self.0.send_modify(|_| {});
    }

    /// The last known position.
    pub fn position(&self) -> Position {
        *self.0.borrow()
    }

    /// A view for one reader.
    pub fn subscribe(&self) -> watch::Receiver<Position> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_is_shorter_than_what_was_known_before_lowers_the_head() {
        let at = Position::new;
        let head = Head::new(at(8));
        let mut seen = head.subscribe();
        seen.mark_unchanged();
        head.advance(at(5));
        head.answered(at(3), at(5));
        assert!(!seen.has_changed().unwrap(), "answers that came late");
        head.answered(at(8), at(5));
        assert_eq!((seen.has_changed().unwrap(), head.position()), (true, at(5)));
        head.answered(at(8), at(4));
        assert_eq!(head.position(), at(5), "what is known is of the new server already");
        head.answered(at(8), at(6));
        assert_eq!(head.position(), at(6));
    }
}
