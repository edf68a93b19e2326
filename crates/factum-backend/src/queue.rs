//! The queue before a writer's thread: many put jobs in, one takes them all at once.
//!
//! A channel would pay for each job that is taken: a lock for its room, and a wake. Here the thread
//! takes all waiting jobs with one lock. It is woken only while it sleeps, and not for the first of
//! many jobs if more are known to come.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The longest time that jobs gather. The tasks that will put them in are about to run. If these
/// can't, because their runtime is blocked, the jobs of others must not wait for them.
const GATHERING_MAX: Duration = Duration::from_millis(2);

/// The end that callers put jobs into.
pub(crate) struct Entrance<J>(Arc<Queue<J>>);

/// The end that the thread takes jobs from. Its drop closes the queue.
pub(crate) struct Exit<J> {
    queue: Arc<Queue<J>>,
    taken: VecDeque<J>,
}

struct Queue<J> {
    waiting: Mutex<Waiting<J>>,
    wake: Condvar,
}

struct Waiting<J> {
    jobs: VecDeque<J>,
    /// Takes no more jobs; those in it are still done.
    is_closed: bool,
    /// The thread sleeps.
    is_asleep: bool,
    /// The number of jobs that are on their way, known from a gatherer, which calls `end` when they
    /// are in. 0: unknown.
    expected: usize,
    /// The number of gatherings under way.
    gatherings: usize,
    /// The number of jobs that were ever put in.
    count: u64,
}

impl<J> Waiting<J> {
    /// Returns whether the thread should be woken.
    fn is_ready(&self) -> bool {
        !self.jobs.is_empty() && self.jobs.len() >= self.expected
    }
}

/// Makes an empty queue.
pub(crate) fn queue<J>() -> (Entrance<J>, Exit<J>) {
    let waiting = Waiting {
        jobs: VecDeque::new(),
        is_closed: false,
        is_asleep: false,
        expected: 0,
        gatherings: 0,
        count: 0,
    };
    let queue = Arc::new(Queue { waiting: Mutex::new(waiting), wake: Condvar::new() });
    (Entrance(queue.clone()), Exit { queue, taken: VecDeque::new() })
}

impl<J> Queue<J> {
    fn waiting(&self) -> MutexGuard<'_, Waiting<J>> {
        // No code panics while it holds this lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread if it sleeps and has something to do.
    fn wake(&self, mut waiting: MutexGuard<'_, Waiting<J>>) {
        if waiting.is_ready() && std::mem::take(&mut waiting.is_asleep) {
            drop(waiting);
            self.wake.notify_one();
        }
    }

    /// Sleeps until woken, or for this long; while jobs gather, for a short time only. True: the
    /// time was over.
    fn sleep<'w>(
        &'w self,
        mut waiting: MutexGuard<'w, Waiting<J>>,
        limit: Duration,
    ) -> (MutexGuard<'w, Waiting<J>>, bool) {
        waiting.is_asleep = true;
        let is_gathering = waiting.expected > 0;
        let limit = if is_gathering { GATHERING_MAX } else { limit };
        let woken = self.wake.wait_timeout(waiting, limit);
        let (mut waiting, passed) = woken.unwrap_or_else(PoisonError::into_inner);
        if is_gathering && passed.timed_out() {
            waiting.expected = 0;
        }
        waiting.is_asleep = false;
        (waiting, passed.timed_out() && !is_gathering)
    }

    fn close(&self) -> VecDeque<J> {
        let mut waiting = self.waiting();
        waiting.is_closed = true;
        std::mem::take(&mut waiting.jobs)
    }
}

impl<J> Entrance<J> {
    /// Puts a job in. False if the queue is closed; the job is dropped then.
    pub(crate) fn put(&self, job: J) -> bool {
        let mut waiting = self.0.waiting();
        if waiting.is_closed {
            return false;
        }
        waiting.jobs.push_back(job);
        waiting.count += 1;
        self.0.wake(waiting);
        true
    }

    /// The handle for code that knows when many jobs are on their way.
    pub(crate) fn gatherer(&self) -> Arc<dyn Gatherer>
    where
        J: Send + 'static,
    {
        self.0.clone()
    }
}

/// Lets the thread sleep while jobs gather.
pub(crate) trait Gatherer: Send + Sync {
    /// Until [`Gatherer::end`], which must follow soon, the thread is not woken for fewer jobs than
    /// these.
    fn begin(&self, expected: usize);

    /// The number of jobs that were ever put in.
    fn count(&self) -> u64;

    /// Ends the gathering: the thread takes all jobs that are there.
    fn end(&self);
}

impl<J: Send> Gatherer for Queue<J> {
    fn begin(&self, expected: usize) {
        let mut waiting = self.waiting();
        waiting.expected = expected;
        waiting.gatherings += 1;
    }

    fn count(&self) -> u64 {
        self.waiting().count
    }

    fn end(&self) {
        let mut waiting = self.waiting();
        waiting.gatherings -= 1;
        if waiting.gatherings == 0 {
            waiting.expected = 0;
            self.wake(waiting);
        }
    }
}

impl<J> Drop for Entrance<J> {
    fn drop(&mut self) {
        self.0.waiting().is_closed = true;
        self.0.wake.notify_one();
    }
}

/// The result of waiting for a job.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken<J> {
    Job(J),
    /// No job came in time.
    Nothing,
    /// The queue is closed and empty.
    Closed,
}

impl<J> Exit<J> {
    /// Takes the next job, and waits for one for this long.
    pub(crate) fn take(&mut self, limit: Duration) -> Taken<J> {
        if let Some(job) = self.taken.pop_front() {
            return Taken::Job(job);
        }
        let mut waiting = self.queue.waiting();
        while !waiting.is_ready() {
            if waiting.is_closed {
                if waiting.jobs.is_empty() {
                    return Taken::Closed;
                }
                // No more jobs can come.
                break;
            }
            let is_over;
            (waiting, is_over) = self.queue.sleep(waiting, limit);
            if is_over && waiting.jobs.is_empty() && !waiting.is_closed {
                return Taken::Nothing;
            }
        }
        std::mem::swap(&mut waiting.jobs, &mut self.taken);
        drop(waiting);
        self.taken.pop_front().map_or(Taken::Closed, Taken::Job)
    }

    /// Takes the next job, if there is one.
    pub(crate) fn try_take(&mut self) -> Option<J> {
        if self.taken.is_empty() {
            std::mem::swap(&mut self.queue.waiting().jobs, &mut self.taken);
        }
        self.taken.pop_front()
    }

    /// Puts the job back that was taken last.
    pub(crate) fn put_back(&mut self, job: J) {
        self.taken.push_front(job);
    }

    /// Takes no more jobs in.
    pub(crate) fn close(&self) {
        self.queue.waiting().is_closed = true;
    }
}

impl<J> Drop for Exit<J> {
    fn drop(&mut self) {
        // Dropped outside the lock, because the end of a job may wake the task that put it in.
        drop(self.queue.close());
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Longer than any of these tests takes.
    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn jobs_come_out_in_the_order_in_which_each_thread_put_them_in() {
        let (entrance, mut exit) = queue();
        let entrance = Arc::new(entrance);
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let entrance = entrance.clone();
                thread::spawn(move || (0..10_000).for_each(|n| assert!(entrance.put((thread, n)))))
            })
            .collect();
        let mut next = [0; 4];
        for _ in 0..40_000 {
            let Taken::Job((thread, n)) = exit.take(LONG) else { panic!("one is missing") };
            assert_eq!(n, next[thread]);
            next[thread] += 1;
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(entrance);
        assert_eq!(exit.take(LONG), Taken::Closed);
    }

    #[test]
    fn a_closed_queue_gives_out_what_is_in_it_and_takes_nothing_in() {
        let (entrance, mut exit) = queue();
        assert!(entrance.put(1) && entrance.put(2));
        assert_eq!((exit.take(LONG), exit.try_take()), (Taken::Job(1), Some(2)));
        assert_eq!(exit.try_take(), None);
        assert!(entrance.put(3));
        exit.put_back(2);
        exit.close();
        assert!(!entrance.put(4));
        assert_eq!((exit.take(LONG), exit.try_take()), (Taken::Job(2), Some(3)));
        assert_eq!(exit.take(LONG), Taken::Closed);
    }

    #[test]
    fn jobs_that_nobody_will_take_are_dropped_with_the_exit() {
        let (entrance, exit) = queue();
        let job = Arc::new(());
        assert!(entrance.put(job.clone()));
        drop(exit);
        assert_eq!(Arc::strong_count(&job), 1);
        assert!(!entrance.put(job));
    }

    #[test]
    fn jobs_gather_until_as_many_are_in_as_are_expected() {
        let (entrance, _exit) = queue();
        let is_ready = || entrance.0.waiting().is_ready();
        let gatherer = entrance.gatherer();
        gatherer.begin(2);
        assert!(entrance.put(1) && !is_ready());
        assert!(entrance.put(2) && is_ready());
        gatherer.begin(9);
        // The end of one gathering does not end another that has begun since.
        gatherer.end();
        assert!(!is_ready());
        gatherer.end();
        assert!(is_ready());
    }

    #[test]
    fn the_end_of_a_gathering_wakes_the_thread() {
        let (entrance, mut exit) = queue();
        let gatherer = entrance.gatherer();
        gatherer.begin(2);
        let thread = thread::spawn(move || exit.take(LONG));
        assert!(entrance.put(1));
        gatherer.end();
        assert_eq!(thread.join().unwrap(), Taken::Job(1));
    }

    #[test]
    fn a_gathering_that_nobody_ends_holds_nothing_up() {
        let (entrance, mut exit) = queue();
        entrance.gatherer().begin(2);
        assert!(entrance.put(1));
        assert_eq!(exit.take(LONG), Taken::Job(1));
        drop(entrance);
        assert_eq!(exit.take(LONG), Taken::Closed);
    }

    #[test]
    fn who_waits_in_vain_learns_of_it_and_loses_nothing() {
        let (entrance, mut exit) = queue();
        assert_eq!(exit.take(Duration::from_millis(1)), Taken::Nothing);
        assert!(entrance.put(1));
        assert_eq!(exit.take(Duration::ZERO), Taken::Job(1));
        assert_eq!(exit.take(Duration::ZERO), Taken::Nothing);
        drop(entrance);
        assert_eq!(exit.take(Duration::ZERO), Taken::Closed);
    }
}
