//! The assignment of one partition, as its worker in this process sees it.

use tokio::sync::watch;

use super::{Membership, PartitionId};

/// The state of an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AssignmentState {
    /// Another process works on the partition, or none does yet.
    Waiting,
    /// This process works on the partition.
    Assigned,
    /// Another process gets the partition: the worker here releases it after the current event.
    Revoked,
}

/// A partition that this process may work on while it is assigned. Dropping it frees the partition
/// for other processes.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(super) membership: Membership,
    pub(super) part: PartitionId,
    pub(super) state: watch::Receiver<AssignmentState>,
}

impl Assignment {
    pub(crate) fn is_assigned(&self) -> bool {
        *self.state.borrow() == AssignmentState::Assigned
    }

    /// Waits until the partition is assigned to this process. A partition that is revoked meanwhile
    /// is released at once, because no batch is running.
    pub(crate) async fn assigned(&mut self) {
        loop {
            match self.state() {
                AssignmentState::Assigned => return,
                AssignmentState::Waiting => {}
                AssignmentState::Revoked => {
                    self.release();
                    continue;
                }
            }
            if self.state.changed().await.is_err() {
                // No membership assigns partitions any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the partition is revoked or lost.
    pub(crate) async fn revoked(&mut self) {
        while self.state() == AssignmentState::Assigned {
            if self.state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The current state. Also restarts the membership's task if its runtime has ended.
    fn state(&mut self) -> AssignmentState {
        let state = *self.state.borrow_and_update();
        self.membership.keep_running();
        state
    }

    /// Gives the partition up for now: other processes may take it.
    fn release(&self) {
        self.membership.release(&self.part);
    }

    /// Reads the leases again, because another process has worked on the partition.
    pub(crate) async fn refresh(&self) {
        self.membership.refresh().await;
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        self.membership.quit(&self.part);
    }
}
