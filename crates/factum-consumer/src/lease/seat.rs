//! The assignment of one partition, as its worker in this process sees it.

use tokio::sync::watch;

use super::{Membership, Part};

/// The state of an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Another process works on the partition, or none does yet.
    Waiting,
    /// This process works on the partition.
    Mine,
    /// Another process gets the partition: the worker here releases it after the current batch.
    Leave,
}

/// A partition that this process may work on while it is assigned. Dropping it frees the partition
/// for other processes.
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

    /// Waits until the partition is assigned to this process. A partition that is revoked meanwhile
    /// is released at once, because no batch is running.
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
                // No membership assigns partitions any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the partition is revoked or lost.
    pub(crate) async fn until_leaving(&mut self) {
        while self.standing() == Standing::Mine {
            if self.standing.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The current state. Also restarts the membership's task if its runtime has ended.
    fn standing(&mut self) -> Standing {
        let standing = *self.standing.borrow_and_update();
        self.membership.keep_running();
        standing
    }

    /// Gives the partition up for now: other processes may take it.
    fn left(&self) {
        self.membership.left(&self.part);
    }

    /// Reads the leases again, because another process has worked on the partition.
    pub(crate) async fn look_again(&self) {
        self.membership.look_again().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.membership.quit(&self.part);
    }
}
