//! The task of a process that writes its heartbeat, scans the other members, and acquires and
//! releases leases.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use factum_kernel::{
    DocumentStore, ExpectedRevision, Kernel, Position, Revision, WriteBatch, WriteError,
};
use tokio::sync::{Notify, watch};

use super::{
    Bell, Effect, Leases, MemberId, Part, Runs, SILENCE_MAX, Seat, Seen, Standing, machine,
    stored::{self, Lease, Member, member_key, part_key},
};
use crate::{caught::caught, health::Place, name::ConsumerName, progress};

/// The most rounds in a row without a pause. A further round follows only if the one before has
/// freed partitions.
const ROUNDS_MAX: usize = 3;
/// The most leases of an expired member that one write removes.
const BURIED_MAX: usize = 500;

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
    looks: watch::Sender<u64>,
    bell: watch::Sender<Revision>,
}

struct Inner {
    leases: Leases,
    seats: HashMap<Part, (watch::Sender<Standing>, Place)>,
    /// The leases to remove.
    released: Vec<(Part, Revision)>,
    seen: Seen,
    is_running: bool,
}

impl Membership {
    pub(crate) fn new(kernel: Kernel, lease: Duration) -> Self {
        let (high, low) = kernel.ids().uuid(kernel.clock().now()).as_u64_pair();
        let me = MemberId(high, low);
        let inner = Mutex::new(Inner {
            leases: Leases::new(me),
            seats: HashMap::new(),
            released: Vec::new(),
            seen: Seen::default(),
            is_running: false,
        });
        let wake = Notify::new();
        let looks = watch::Sender::new(0);
        let bell = watch::Sender::new(Revision::default());
        Self(Arc::new(Shared { kernel, me, lease, inner, wake, looks, bell }))
    }

    /// Joins the members that run a consumer. Returns an assignment for each partition, in their
    /// order.
    pub(crate) fn join(&self, group: &ConsumerName, places: &[Place]) -> Vec<Seat> {
        let mut inner = self.inner();
        inner.leases.join(group.clone(), places.len());
        let seats = places.iter().enumerate().map(|(at, place)| {
            let part = (group.clone(), at);
            let (tell, standing) = watch::channel(Standing::Waiting);
            inner.seats.insert(part.clone(), (tell, place.clone()));
            Seat { membership: self.clone(), part, standing }
        });
        let seats = seats.collect();
        drop(inner);
        self.keep_running();
        self.0.wake.notify_one();
        seats
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

    pub(super) fn left(&self, part: &Part) {
        let mut inner = self.inner();
        let held = inner.leases.left(part);
        inner.release(part, held);
        inner.tell(part, Standing::Waiting);
        self.0.wake.notify_one();
    }

    pub(super) fn quit(&self, part: &Part) {
        let mut inner = self.inner();
        let held = inner.leases.quit(part);
        inner.release(part, held);
        inner.seats.remove(part);
        self.0.wake.notify_one();
    }

    /// Waits for a complete round that begins after the call.
    pub(super) async fn look_again(&self) {
        let mut looks = self.0.looks.subscribe();
        // A round that is under way may have read the store too early; wait for the next one.
        let enough = *looks.borrow_and_update() + 2;
        while *looks.borrow_and_update() < enough {
            self.keep_running();
            self.0.wake.notify_one();
            let _ = looks.changed().await;
        }
    }

    /// The bell as the scans of the leases read it, while this process runs a shared consumer.
    pub(crate) fn bell(&self) -> Bell {
        Bell(self.0.bell.subscribe())
    }

    /// The position of a partition from its owner's last seen heartbeat.
    pub(crate) fn position(&self, part: &Part) -> Option<Position> {
        self.inner().seen.position(part)
    }

    /// Waits until the store holds no lease and no heartbeat of this process. All its assignments
    /// must have ended.
    pub(crate) async fn ended(&self) {
        let mut looks = self.0.looks.subscribe();
        loop {
            self.keep_running();
            if !self.inner().is_running {
                return;
            }
            self.0.wake.notify_one();
            let _ = looks.changed().await;
        }
    }

    async fn run(self, mut ending: Ending) {
        loop {
            let is_regular = tokio::select! {
                biased;
                () = self.0.wake.notified() => false,
                () = self.0.kernel.clock().sleep(self.0.lease / SILENCE_MAX) => true,
            };
            for round in 0..ROUNDS_MAX {
                match caught(self.round(is_regular && round == 0)).await {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false)) => break,
                    // The store failed or panicked: try again after a pause.
                    failed => {
                        let reason = match failed {
                            Err(panic) => panic,
                            Ok(failed) => failed.err().map_or_else(String::new, |e| e.to_string()),
                        };
                        tracing::warn!(
                            reason,
                            "the heartbeat of this process can't be written or the leases can't be read"
                        );
                        self.0.kernel.clock().sleep(self.0.lease / SILENCE_MAX / 4).await;
                        break;
                    }
                }
            }
            if self.is_idle() {
                let gone = WriteBatch::new().remove(member_key(self.0.me), ExpectedRevision::Any);
                let _ = caught(self.documents().write(gone)).await;
                let mut inner = self.inner();
                // A consumer may have started meanwhile.
                ending.is_over = inner.is_idle();
                inner.is_running = !ending.is_over;
            }
            self.0.looks.send_modify(|looks| *looks += 1);
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
        self.release().await?;
        let member = {
            let inner = self.inner();
            if inner.leases.is_idle() {
                return Ok(false);
            }
            let machine = machine::here().map(Into::into);
            Member { process: std::process::id(), machine, runs: inner.runs() }
        };
        let key = member_key(self.0.me);
        let lives = WriteBatch::new().put(key, ExpectedRevision::Any, progress::encode(&member));
        self.documents().write(lives).await?;
        let seen = stored::read(&**self.documents()).await?;
        self.0.bell.send_if_modified(|bell| std::mem::replace(bell, seen.bell) != seen.bell);
        let effects = {
            let mut inner = self.inner();
            inner.follow(seen, is_regular)
        };
        let mut outcome = Ok(false);
        for effect in effects {
            // Perform the other steps in any case: the next scan finds the failed one again.
            match (self.perform(effect).await, &mut outcome) {
                (Ok(is_room), Ok(was_room)) => *was_room |= is_room,
                (Err(error), _) => outcome = Err(error),
                (Ok(_), Err(_)) => {}
            }
        }
        outcome
    }

    async fn perform(&self, effect: Effect) -> Result<bool, WriteError> {
        match effect {
            Effect::Bury(member, revision, leases) => {
                let mut gone = WriteBatch::new();
                if let Some(revision) = revision {
                    gone = gone.remove(member_key(member), ExpectedRevision::Exact(revision));
                }
                for (part, revision) in leases.iter().take(BURIED_MAX) {
                    gone = gone.remove(part_key(part), ExpectedRevision::Exact(*revision));
                }
                self.is_written(gone).await.map(|revision| revision.is_some())
            }
            Effect::Take(part) => {
                let lease = progress::encode(&Lease { owner: self.0.me });
                let take = WriteBatch::new().put(part_key(&part), ExpectedRevision::Absent, lease);
                let taken = self.is_written(take).await?;
                let mut inner = self.inner();
                match taken {
                    Some(revision) if inner.leases.taken(&part, revision) => {
                        inner.tell(&part, Standing::Mine);
                    }
                    Some(revision) => inner.release(&part, Some(revision)),
                    None => {}
                }
                Ok(false)
            }
            // `follow` has done these already.
            Effect::Have(_) | Effect::Leave(_) | Effect::Lost(_) | Effect::Release(..) => Ok(false),
        }
    }

    /// Removes the leases that were released.
    async fn release(&self) -> Result<(), WriteError> {
        loop {
            let Some((part, revision)) = self.inner().released.first().cloned() else {
                return Ok(());
            };
            let gone = WriteBatch::new().remove(part_key(&part), ExpectedRevision::Exact(revision));
            // On a conflict the lease is gone already, or belongs to another process.
            self.is_written(gone).await?;
            self.inner().released.retain(|it| *it != (part.clone(), revision));
        }
    }

    /// Writes a batch. `None`: another process has changed one of the documents before.
    async fn is_written(&self, batch: WriteBatch) -> Result<Option<Revision>, WriteError> {
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

    /// Takes over a scan and informs the workers at once, under one lock: nothing may happen
    /// between. Returns the steps that need a write.
    fn follow(&mut self, mut seen: Seen, is_regular: bool) -> Vec<Effect> {
        // A lease that is about to be removed counts as free.
        for (part, revision) in &self.released {
            if seen.leases.get(part).is_some_and(|(stored, _)| stored == revision) {
                seen.leases.remove(part);
            }
        }
        let effects = self.leases.look(&seen, is_regular);
        for effect in &effects {
            match effect {
                Effect::Have(part) => self.tell(part, Standing::Mine),
                Effect::Leave(part) => self.tell(part, Standing::Leave),
                Effect::Lost(part) => self.tell(part, Standing::Waiting),
                Effect::Release(part, revision) => self.release(part, Some(*revision)),
                Effect::Take(_) | Effect::Bury(..) => {}
            }
        }
        self.seen = seen;
        effects
    }

    fn tell(&self, part: &Part, standing: Standing) {
        if let Some((tell, _)) = self.seats.get(part) {
            tell.send_replace(standing);
        }
    }

    fn release(&mut self, part: &Part, held: Option<Revision>) {
        self.released.extend(held.map(|revision| (part.clone(), revision)));
    }

    /// The content of the heartbeat: this process's consumers and positions.
    fn runs(&self) -> Runs {
        let runs = self.leases.held().map(|(group, held)| {
            let position = |at: usize| {
                let (_, place) = self.seats.get(&(group.clone(), at))?;
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
            inner.seats.values().for_each(|(tell, _)| tell.send_modify(|_| {}));
            self.membership.0.looks.send_modify(|_| {});
        }
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("me", &self.0.me).finish_non_exhaustive()
    }
}
