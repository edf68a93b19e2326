//! The task of a process that writes its heartbeat, scans the other members, and acquires and
//! releases leases.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use factum_kernel::{
    DocumentStore, ExpectedRevision, Kernel, Position, Revision, WriteBatch, WriteError, sentence,
};
use tokio::sync::{Notify, watch};

use super::{
    Assignment, AssignmentState, Bell, LeaseStep, Leases, MISSED_HEARTBEATS_MAX, MemberId,
    PartitionId, Runs, Seen, host,
    stored::{self, Lease, Member, member_key, part_key},
};
use crate::{caught::caught, health::Place, name::ConsumerName, progress};

/// The most rounds in a row without a pause. A further round follows only if the one before has
/// freed partitions.
const ROUNDS_MAX: usize = 3;
/// The most leases of an expired member that one write removes.
const EXPIRED_LEASES_MAX: usize = 500;

/// This process's part in the leases: its heartbeat and its assignments. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Membership(Arc<Shared>);

struct Shared {
    kernel: Kernel,
    me: MemberId,
    /// The time without a heartbeat after which a process has expired.
    lease: Duration,
    inner: Mutex<Inner>,
    wake: Notify,
    /// The number of rounds so far, for callers that wait for one.
    rounds: watch::Sender<u64>,
    bell: watch::Sender<Revision>,
}

struct Inner {
    leases: Leases,
    assignments: HashMap<PartitionId, (watch::Sender<AssignmentState>, Place)>,
    /// The leases to remove.
    released: Vec<(PartitionId, Revision)>,
    seen: Seen,
    is_running: bool,
}

impl Membership {
    pub(crate) fn new(kernel: Kernel, lease: Duration) -> Self {
        let (high, low) = kernel.ids().uuid(kernel.clock().now()).as_u64_pair();
        let me = MemberId(high, low);
        let inner = Mutex::new(Inner {
            leases: Leases::new(me),
            assignments: HashMap::new(),
            released: Vec::new(),
            seen: Seen::default(),
            is_running: false,
        });
        let wake = Notify::new();
        let rounds = watch::Sender::new(0);
        let bell = watch::Sender::new(Revision::default());
        Self(Arc::new(Shared { kernel, me, lease, inner, wake, rounds, bell }))
    }

    /// Joins the members that run a consumer. Returns the assignments of its partitions, by number.
    pub(crate) fn join(&self, group: &ConsumerName, places: &[Place]) -> Vec<Assignment> {
        let mut inner = self.inner();
        inner.leases.join(group.clone(), places.len());
        let assignments = places.iter().enumerate().map(|(at, place)| {
            let part = (group.clone(), at);
            let (sender, state) = watch::channel(AssignmentState::Waiting);
            inner.assignments.insert(part.clone(), (sender, place.clone()));
            Assignment { membership: self.clone(), part, state }
        });
        let assignments = assignments.collect();
        drop(inner);
        self.keep_running();
        self.0.wake.notify_one();
        assignments
    }

    /// Starts the task if it is needed and does not run. It runs on the caller's runtime, because
    /// the runtime of an earlier task may have ended.
    pub(super) fn keep_running(&self) {
        let is_new = {
            let mut inner = self.inner();
            let is_new = !inner.is_running && !inner.is_idle();
            inner.is_running |= is_new;
            is_new
        };
        if is_new {
            // Spawn without the lock: a runtime that is ending drops the task at once.
            let ending = Ending { membership: self.clone(), is_over: false };
            tokio::spawn(self.clone().run(ending));
        }
    }

    pub(super) fn release(&self, part: &PartitionId) {
        let mut inner = self.inner();
        let held = inner.leases.release(part);
        inner.release(part, held);
        inner.set_state(part, AssignmentState::Waiting);
        self.0.wake.notify_one();
    }

    pub(super) fn quit(&self, part: &PartitionId) {
        let mut inner = self.inner();
        let held = inner.leases.quit(part);
        inner.release(part, held);
        inner.assignments.remove(part);
        self.0.wake.notify_one();
    }

    /// Waits for a complete round that begins after the call.
    pub(super) async fn refresh(&self) {
        let mut rounds = self.0.rounds.subscribe();
        // A round that is under way may have read the store too early; wait for the next one.
        let enough = *rounds.borrow_and_update() + 2;
        while *rounds.borrow_and_update() < enough {
            self.keep_running();
            self.0.wake.notify_one();
            let _ = rounds.changed().await;
        }
    }

    /// The bell as the scans of the leases read it, while this process runs a shared consumer.
    pub(crate) fn bell(&self) -> Bell {
        Bell(self.0.bell.subscribe())
    }

    /// The position of a partition from its owner's last seen heartbeat.
    pub(crate) fn position(&self, part: &PartitionId) -> Option<Position> {
        self.inner().seen.position(part)
    }

    /// Waits until the store holds no lease and no heartbeat of this process. All its assignments
    /// must have ended.
    pub(crate) async fn ended(&self) {
        let mut rounds = self.0.rounds.subscribe();
        loop {
            self.keep_running();
            if !self.inner().is_running {
                return;
            }
            self.0.wake.notify_one();
            let _ = rounds.changed().await;
        }
    }

    async fn run(self, mut ending: Ending) {
        loop {
            let is_regular = tokio::select! {
                biased;
                () = self.0.wake.notified() => false,
                () = self.0.kernel.clock().sleep(self.0.lease / MISSED_HEARTBEATS_MAX) => true,
            };
            for round in 0..ROUNDS_MAX {
                let reason = match caught(self.round(is_regular && round == 0)).await {
                    Ok(Ok(is_room)) => {
                        self.inner().note_heartbeat(None);
                        if is_room {
                            continue;
                        }
                        break;
                    }
                    Ok(Err(error)) => sentence(&error),
                    Err(panic) => panic,
                };
                // The store failed or panicked: try again after a pause.
                tracing::warn!(reason, "this process can't renew its leases");
                self.inner().note_heartbeat(Some(&reason));
                self.0.kernel.clock().sleep(self.0.lease / MISSED_HEARTBEATS_MAX / 4).await;
                break;
            }
            if self.is_idle() {
                let removal =
                    WriteBatch::new().remove(member_key(self.0.me), ExpectedRevision::Any);
                let _ = caught(self.documents().write(removal)).await;
                let mut inner = self.inner();
                // A consumer may have started meanwhile.
                ending.is_over = inner.is_idle();
                inner.is_running = !ending.is_over;
            }
            self.0.rounds.send_modify(|rounds| *rounds += 1);
            if ending.is_over {
                return;
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.inner().is_idle()
    }

    /// One round: writes the heartbeat, scans the leases, and performs the steps that follow. True
    /// if it freed partitions, so that another round may find more to do.
    async fn round(&self, is_regular: bool) -> Result<bool, WriteError> {
        self.remove_released().await?;
        let member = {
            let inner = self.inner();
            if inner.leases.is_idle() {
                return Ok(false);
            }
            let machine = host::here().map(Into::into);
            Member { process: std::process::id(), machine, runs: inner.runs() }
        };
        let key = member_key(self.0.me);
        let heartbeat =
            WriteBatch::new().put(key, ExpectedRevision::Any, progress::encode(&member));
        self.documents().write(heartbeat).await?;
        let seen = stored::read(&**self.documents()).await?;
        self.0.bell.send_if_modified(|bell| std::mem::replace(bell, seen.bell) != seen.bell);
        let steps = {
            let mut inner = self.inner();
            inner.adopt(seen, is_regular)
        };
        let mut outcome = Ok(false);
        for step in steps {
            // Perform the other steps in any case: the next scan finds the failed one again.
            match (self.perform(step).await, &mut outcome) {
                (Ok(is_room), Ok(was_room)) => *was_room |= is_room,
                (Err(error), _) => outcome = Err(error),
                (Ok(_), Err(_)) => {}
            }
        }
        outcome
    }

    async fn perform(&self, step: LeaseStep) -> Result<bool, WriteError> {
        match step {
            LeaseStep::Expire(member, revision, leases) => {
                let mut removal = WriteBatch::new();
                if let Some(revision) = revision {
                    removal = removal.remove(member_key(member), ExpectedRevision::Exact(revision));
                }
                for (part, revision) in leases.iter().take(EXPIRED_LEASES_MAX) {
                    removal = removal.remove(part_key(part), ExpectedRevision::Exact(*revision));
                }
                self.write(removal).await.map(|revision| revision.is_some())
            }
            LeaseStep::Acquire(part) => {
                let lease = progress::encode(&Lease { owner: self.0.me });
                let acquire =
                    WriteBatch::new().put(part_key(&part), ExpectedRevision::Absent, lease);
                let acquired = self.write(acquire).await?;
                let mut inner = self.inner();
                match acquired {
                    Some(revision) if inner.leases.acquired(&part, revision) => {
                        inner.set_state(&part, AssignmentState::Assigned);
                    }
                    Some(revision) => inner.release(&part, Some(revision)),
                    None => {}
                }
                Ok(false)
            }
            // `adopt` has done these already.
            LeaseStep::Own(_)
            | LeaseStep::Revoke(_)
            | LeaseStep::Lost(_)
            | LeaseStep::Release(..) => Ok(false),
        }
    }

    /// Removes the leases that were released.
    async fn remove_released(&self) -> Result<(), WriteError> {
        loop {
            let Some((part, revision)) = self.inner().released.first().cloned() else {
                return Ok(());
            };
            let removal =
                WriteBatch::new().remove(part_key(&part), ExpectedRevision::Exact(revision));
            // On a conflict the lease is gone already, or belongs to another process.
            self.write(removal).await?;
            self.inner().released.retain(|it| *it != (part.clone(), revision));
        }
    }

    /// Writes a batch. `None`: another process has changed one of the documents before.
    async fn write(&self, batch: WriteBatch) -> Result<Option<Revision>, WriteError> {
        match self.documents().write(batch).await {
            Ok(revision) => Ok(Some(revision)),
            Err(WriteError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn documents(&self) -> &Arc<dyn DocumentStore> {
        self.0.kernel.documents()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_idle(&self) -> bool {
        self.leases.is_idle() && self.released.is_empty()
    }

    /// Adopts a scan and informs the workers at once, under one lock: nothing may happen between.
    /// Returns the steps; those that need a write are still to be performed.
    fn adopt(&mut self, mut seen: Seen, is_regular: bool) -> Vec<LeaseStep> {
        // A lease that is about to be removed counts as free.
        for (part, revision) in &self.released {
            if seen.leases.get(part).is_some_and(|(stored, _)| stored == revision) {
                seen.leases.remove(part);
            }
        }
        let steps = self.leases.rebalance(&seen, is_regular);
        for step in &steps {
            match step {
                LeaseStep::Own(part) => self.set_state(part, AssignmentState::Assigned),
                LeaseStep::Revoke(part) => self.set_state(part, AssignmentState::Revoked),
                LeaseStep::Lost(part) => self.set_state(part, AssignmentState::Waiting),
                LeaseStep::Release(part, revision) => self.release(part, Some(*revision)),
                LeaseStep::Acquire(_) | LeaseStep::Expire(..) => {}
            }
        }
        self.seen = seen;
        steps
    }

    fn set_state(&self, part: &PartitionId, state: AssignmentState) {
        if let Some((sender, _)) = self.assignments.get(part) {
            sender.send_replace(state);
        }
    }

    fn release(&mut self, part: &PartitionId, held: Option<Revision>) {
        self.released.extend(held.map(|revision| (part.clone(), revision)));
    }

    /// Reports the outcome of a round in the health of each consumer.
    fn note_heartbeat(&self, error: Option<&str>) {
        self.assignments.values().for_each(|(_, place)| place.note_heartbeat(error));
    }

    /// The content of the heartbeat: this process's consumers and positions.
    fn runs(&self) -> Runs {
        let runs = self.leases.held().map(|(group, held)| {
            let position = |at: usize| {
                let (_, place) = self.assignments.get(&(group.clone(), at))?;
                Some((at, place.position().value()))
            };
            (group.to_string(), held.into_iter().filter_map(position).collect())
        });
        runs.collect()
    }
}

/// Handles the end of the runtime while the task runs: wakes the assignments on other runtimes, and
/// they start another task.
struct Ending {
    membership: Membership,
    is_over: bool,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.is_over {
            let mut inner = self.membership.inner();
            inner.is_running = false;
            inner.assignments.values().for_each(|(sender, _)| sender.send_modify(|_| {}));
            self.membership.0.rounds.send_modify(|_| {});
        }
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("me", &self.0.me).finish_non_exhaustive()
    }
}
