//! Starting a consumer: a supervisor with a worker for each of its partitions.

use std::{fmt, sync::Arc};

use factum_kernel::Kernel;
use factum_runtime::Supervisor;

use super::Consumers;
use crate::{
    checkpoints::stored_layout,
    error::StartError,
    freeze::Handover,
    handle::{ConsumerHandle, Look, Partition, StoredPart},
    health::{Board, Place},
    name::ConsumerName,
    option::{ConsumerOptions, FailurePolicy, StartFrom},
    orders::Orders,
    partition::Partitions,
    progress::{self, Progress},
    source::SharedPages,
    supervision::{EventLoop, supervise},
    target::{Save, Target, TargetError, unreadable},
    work::Work,
    worker::{PartitionSetup, Worker},
};

/// The number of attempts to store a beginning while other processes store or remove one.
const BEGINS_MAX: usize = 8;

/// A consumer to start.
pub struct Launch<W: Work> {
    /// The name, with the version or build of a projection.
    pub name: ConsumerName,
    /// The handling of events.
    pub work: Arc<W>,
    /// The target, which stores effects and progress.
    pub target: Arc<W::Target>,
    /// The options.
    pub options: ConsumerOptions,
    /// True: the number of partitions is stored at the first start and compared at later ones. A
    /// build knows its number from elsewhere.
    pub is_layout_kept: bool,
    /// The handover in which another consumer may take this one's place.
    pub handover: Option<Arc<dyn Handover>>,
}

/// For the crates above: see `part.rs`.
#[doc(hidden)]
impl Consumers {
    /// Starts a consumer of any kind, after its beginning is stored.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn launch<W: Work>(&self, launch: Launch<W>) -> Result<ConsumerHandle, StartError> {
        let name = launch.name.clone();
        let count = launch.options.partitions.count();
        can_run(&name, &*launch.work, &launch.options.partitions)?;
        self.can_start(&name)?;
        if launch.options.from == StartFrom::Now {
            // Boxed, because few consumers need it, and it would deepen every caller's future.
            Box::pin(begin_now(&self.reading.kernel, &launch)).await?;
        }
        self.enter_started(&name.clone(), || {
            let board = Board::new(&name, count);
            let places: Vec<_> = (0..count).map(|at| board.place(at)).collect();
            let membership = self.membership.clone();
            let mut assignments = membership.as_ref().map(|it| it.join(&name, &places).into_iter());
            let mut reading = self.reading.clone();
            reading.shared = (count > 1).then(|| Arc::new(SharedPages::new(&reading.kernel)));
            let supervisor = self.supervisor();
            let mut partitions = Vec::with_capacity(count);
            for (at, health) in places.into_iter().enumerate() {
                let (orders, taken) = Orders::new(health.clone());
                let part = name.part(at, count);
                partitions.push(Partition { orders, look: look(&launch.target, &part) });
                let place = health.clone();
                let assignment = assignments.as_mut().and_then(Iterator::next);
                let setup =
                    PartitionSetup { at, health, orders: taken, assignment, bell: self.bell() };
                let worker = Worker::new(&launch, setup, reading.clone(), self.outages.clone());
                supervise(&supervisor, part.as_str(), place, &launch.options.failure, worker);
            }
            let partitions = partitions.into();
            let clock = self.reading.kernel.clock().clone();
            ConsumerHandle { name, partitions, board, supervisor, membership, clock }
        })
    }

    /// Starts a loop that no other process shares. `make` gets the loop's orders and the place
    /// where it reports its health.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn launch_alone<L: EventLoop>(
        &self,
        name: &ConsumerName,
        failure: FailurePolicy,
        make: impl FnOnce(Orders, Place) -> L,
    ) -> Result<ConsumerHandle, StartError> {
        self.enter_started(name, || {
            let board = Board::new(name, 1);
            let health = board.place(0);
            let (orders, taken) = Orders::new(health.clone());
            let partitions = [Partition { orders, look: look_here(health.clone()) }].into();
            let supervisor = self.supervisor();
            let event_loop = make(taken, health.clone());
            supervise(&supervisor, name.as_str(), health, &failure, event_loop);
            let name = name.clone();
            let membership = None;
            let clock = self.reading.kernel.clock().clone();
            ConsumerHandle { name, partitions, board, supervisor, membership, clock }
        })
    }

    /// A supervisor for the loops of one consumer.
    fn supervisor(&self) -> Supervisor {
        let kernel = &self.reading.kernel;
        Supervisor::new(kernel.clock().clone(), kernel.ids().clone())
    }
}

/// Checks that the work can be done in these partitions.
///
/// # Errors
/// [`StartError::OnePartition`], [`StartError::PartitionedByKey`].
pub fn can_run<W: Work>(
    name: &ConsumerName,
    work: &W,
    partitions: &Partitions,
) -> Result<(), StartError> {
    if partitions.count() > 1 && !W::Target::IS_PARALLEL {
        return Err(StartError::OnePartition(name.clone()));
    }
    if !partitions.is_by_stream() && work.wants_deletions() {
        return Err(StartError::PartitionedByKey(name.clone()));
    }
    Ok(())
}

/// Stores the end of the log as the beginning of each partition that has none yet. The first
/// partition decides for all: if a process dies in between, or two start at once, no partition
/// begins later than another.
async fn begin_now<W: Work>(kernel: &Kernel, launch: &Launch<W>) -> Result<(), StartError> {
    let count = launch.options.partitions.count();
    if launch.is_layout_kept
        && stored_layout(kernel, &launch.name).await?.is_some_and(|it| it != count)
    {
        // The worker reports it.
        return Ok(());
    }
    let first = launch.name.part(0, count);
    let began = begin_part(kernel, &*launch.target, &first, StartFrom::Now).await?;
    for at in 1..count {
        begin_part(kernel, &*launch.target, &launch.name.part(at, count), began).await?;
    }
    Ok(())
}

/// Stores the beginning of a partition that has none yet. Returns the beginning that is stored.
async fn begin_part<T: Target>(
    kernel: &Kernel,
    target: &T,
    part: &ConsumerName,
    from: StartFrom,
) -> Result<StartFrom, StartError> {
    let mut found = target.look(part).await?;
    for _ in 0..BEGINS_MAX {
        if found.progress.is_none() {
            found = target.open(part).await?;
        }
        if let Some(stored) = found.progress {
            let stored: Progress = progress::decode(&stored).map_err(unreadable)?;
            return Ok(stored.began_after.map_or(from, StartFrom::After));
        }
        let beginning = Progress::beginning(kernel, from).await?;
        let save = Save {
            expected: found.fence,
            progress: progress::encode(&beginning),
            mark: None,
            letters: Vec::new(),
            events: 0,
        };
        match target.save(part, save).await {
            Ok(_) => return Ok(beginning.began_after.map_or(from, StartFrom::After)),
            // Another process has stored the beginning at the same time.
            Err(TargetError::Fenced) => found = target.look(part).await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(TargetError::Fenced.into())
}

impl<W: Work> fmt::Debug for Launch<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The position of a loop in this process, read from its health: no other process works on it.
fn look_here(health: Place) -> Look {
    Arc::new(move || {
        let part = StoredPart { position: health.position(), ..StoredPart::default() };
        Box::pin(async move { Ok(part) })
    })
}

fn look<T: Target>(target: &Arc<T>, name: &ConsumerName) -> Look {
    let target = target.clone();
    let name = name.clone();
    Arc::new(move || {
        let target = target.clone();
        let name = name.clone();
        Box::pin(async move { StoredPart::look(&*target, &name).await })
    })
}
