//! Starting a consumer: a worker for each of its partitions.

use std::{fmt, sync::Arc};

use tokio::sync::mpsc;

use super::Consumers;
use crate::{
    error::StartError,
    handle::{ConsumerHandle, Look, Order, Partition, StoredPart},
    health::{Board, Place},
    hold::Handover,
    name::ConsumerName,
    option::ConsumerOptions,
    source::SharedPages,
    target::Target,
    work::Work,
    worker::{Ending, Part, Worker},
};

/// So many orders wait for a partition.
const ORDERS_MAX: usize = 16;

/// What is started.
pub struct Launch<W: Work> {
    /// Its name, with the version or build of a projection.
    pub name: ConsumerName,
    /// What it does with events.
    pub work: Arc<W>,
    /// Where effects and progress are kept.
    pub target: Arc<W::Target>,
    /// What was chosen for it.
    pub options: ConsumerOptions,
    /// Whether the number of its partitions is compared with what was stored when it was first
    /// started. That of a build is known from elsewhere.
    pub is_layout_kept: bool,
    /// Who lets another consumer take its place, where somebody may.
    pub handover: Option<Arc<dyn Handover>>,
}

/// For what is run above consumers: see `part.rs`.
#[doc(hidden)]
impl Consumers {
    /// Starts a consumer of any kind.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn launch<W: Work>(&self, launch: Launch<W>) -> Result<ConsumerHandle, StartError> {
        let name = launch.name.clone();
        let count = launch.options.partitions.count();
        if count > 1 && !W::Target::IS_PARALLEL {
            return Err(StartError::OnePartition(name));
        }
        self.enter_started(&name.clone(), || {
            let board = Board::new(&name, count);
            let places: Vec<_> = (0..count).map(|at| board.place(at)).collect();
            let membership = self.membership.clone();
            let mut seats = membership.as_ref().map(|it| it.join(&name, &places).into_iter());
            let mut reading = self.reading.clone();
            reading.shared = (count > 1).then(|| Arc::new(SharedPages::new(&reading.kernel)));
            let mut partitions = Vec::with_capacity(count);
            for (at, health) in places.into_iter().enumerate() {
                let (orders, taken) = mpsc::channel(ORDERS_MAX);
                let look = look(launch.target.clone(), name.part(at, count));
                partitions.push(Partition { orders, look });
                let ending = Ending(health.clone());
                let seat = seats.as_mut().and_then(Iterator::next);
                let part = Part { at, health, orders: taken, seat, bell: self.bell() };
                let worker = Worker::new(&launch, part, reading.clone(), self.outages.clone());
                tokio::spawn(worker.run(ending));
            }
            let partitions = partitions.into();
            let clock = self.reading.kernel.clock().clone();
            ConsumerHandle { name, partitions, board, membership, clock }
        })
    }

    /// Starts a loop that no other process takes part in: it gets its orders, and its place to say
    /// how it fares.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn launch_alone(
        &self,
        name: &ConsumerName,
        start: impl FnOnce(mpsc::Receiver<Order>, Place),
    ) -> Result<ConsumerHandle, StartError> {
        self.enter_started(name, || {
            let board = Board::new(name, 1);
            let health = board.place(0);
            let (orders, taken) = mpsc::channel(ORDERS_MAX);
            let partitions = [Partition { orders, look: look_here(health.clone()) }].into();
            start(taken, health);
            let clock = self.reading.kernel.clock().clone();
            ConsumerHandle { name: name.clone(), partitions, board, membership: None, clock }
        })
    }
}

impl<W: Work> fmt::Debug for Launch<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Where it is, for those who wait: no other process works on it.
fn look_here(health: Place) -> Look {
    Arc::new(move || {
        let part = StoredPart { position: health.position(), ..StoredPart::default() };
        Box::pin(async move { Ok(part) })
    })
}

fn look<T: Target>(target: Arc<T>, name: ConsumerName) -> Look {
    Arc::new(move || {
        let target = target.clone();
        let name = name.clone();
        Box::pin(async move { StoredPart::look(&*target, &name).await })
    })
}
