//! What a worker holds of the leases: a place at one partition, which is its own or not.

use tokio::sync::watch;

use super::{Membership, Part};

/// Whether the partition is this process's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Another process works on it, or nobody yet.
    Waiting,
    /// This one.
    Mine,
    /// Another process is to have it: after the batch at hand this one lets go.
    Leave,
}

/// A place at a partition. Dropped, the partition is free for others.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(super) membership: Membership,
    pub(super) part: Part,
    pub(super) standing: watch::Receiver<Standing>,
}

impl Seat {
    pub(crate) fn is_mine(&self) -> bool {
        *self.standing.borrow() == Standing::Mine
    }

    /// Waits until it is this process's. Meanwhile it is not worked on, so it is let go where
    /// another process is to have it.
    pub(crate) async fn mine(&mut self) {
        loop {
            let standing = self.standing();
            match standing {
                Standing::Mine => return,
                Standing::Waiting => {}
                Standing::Leave => {
                    self.left();
                    continue;
                }
            }
            if self.standing.changed().await.is_err() {
                // Nobody gives any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until it is to be let go, or is lost.
    pub(crate) async fn until_leaving(&mut self) {
        while self.standing() == Standing::Mine {
            if self.standing.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// What is known, by a membership that runs: also told where its task has ended.
    fn standing(&mut self) -> Standing {
        let standing = *self.standing.borrow_and_update();
        self.membership.keep_running();
        standing
    }

    /// It is not worked on for now, and free for others.
    fn left(&self) {
        self.membership.left(&self.part);
    }

    /// Looks again whose it is: somebody has worked on it meanwhile.
    pub(crate) async fn look_again(&self) {
        self.membership.look_again().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.membership.quit(&self.part);
    }
}
