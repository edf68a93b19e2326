//! Starting a consumer: a worker for each of its partitions.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::mpsc;

use super::Consumers;
use crate::{
    error::StartError,
    handle::{ConsumerHandle, Look, Partition, StoredPart},
    health::Board,
    hold::Handover,
    lease::Membership,
    name::ConsumerName,
    option::ConsumerOptions,
    source::SharedPages,
    target::Target,
    work::Work,
    worker::{Calls, Ending, Worker},
};

/// So many orders wait for a partition.
pub(crate) const ORDERS_MAX: usize = 16;

/// What is started.
pub(crate) struct Launch<W: Work> {
    pub(crate) name: ConsumerName,
    pub(crate) work: Arc<W>,
    pub(crate) target: Arc<W::Target>,
    pub(crate) options: ConsumerOptions,
    /// Whether the number of its partitions is compared with what was stored when it was first
    /// started. That of a build is known from elsewhere.
    pub(crate) is_layout_kept: bool,
    /// Who lets another consumer take its place, where somebody may.
    pub(crate) handover: Option<Arc<dyn Handover>>,
}

impl Consumers {
    pub(crate) fn launch<W: Work>(&self, launch: Launch<W>) -> Result<ConsumerHandle, StartError> {
        let Launch { name, work, target, options, is_layout_kept, handover } = launch;
        let count = options.partitions.count();
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
            let clock = self.reading.kernel.clock().clone();
            let mut partitions = Vec::with_capacity(count);
            for (at, health) in places.into_iter().enumerate() {
                let (orders, taken) = mpsc::channel(ORDERS_MAX);
                let part = name.part(at, count);
                partitions.push(Partition { orders, look: look(target.clone(), part.clone()) });
                let worker = Worker {
                    id: Worker::<W>::new_id(&self.reading.kernel),
                    name: part,
                    partition: at,
                    is_layout_kept,
                    is_layout_checked: false,
                    handover: handover.clone(),
                    work: work.clone(),
                    target: Calls::new(target.clone(), health.clone(), clock.clone()),
                    options: options.clone(),
                    outages: self.outages.clone(),
                    reading: reading.clone(),
                    orders: taken,
                    health,
                    seat: seats.as_mut().and_then(Iterator::next),
                    is_paused: false,
                    letters: BTreeMap::new(),
                    pace: None,
                    failing: None,
                    unreached: 0,
                    overtaken: 0,
                    panics: 0,
                    frozen: (0, 0),
                    looked_at: None,
                    bell: membership.as_ref().map(Membership::bell),
                    is_owner: false,
                };
                let ending = Ending(worker.health.clone());
                tokio::spawn(worker.run(ending));
            }
            let partitions = partitions.into();
            ConsumerHandle { name, partitions, board, membership, clock }
        })
    }
}

fn look<T: Target>(target: Arc<T>, name: ConsumerName) -> Look {
    Arc::new(move || {
        let target = target.clone();
        let name = name.clone();
        Box::pin(async move { StoredPart::look(&*target, &name).await })
    })
}
