//! The queue in front of a writer's thread: many put in, one takes everything at once.
//!
//! A channel would pay for each job when it is taken, with a lock for its room and a wake of its
//! own. Here the thread takes all that has gathered for one lock, and is woken only when it sleeps.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// The end that many put jobs into.
pub(crate) struct Entrance<J>(Arc<Queue<J>>);

/// The end that the thread takes jobs from. Dropping it closes the queue.
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
    /// Takes nothing more; what is in it is still done.
    is_closed: bool,
    /// The thread sleeps.
    is_asleep: bool,
}

/// A queue without anything in it.
pub(crate) fn queue<J>() -> (Entrance<J>, Exit<J>) {
    let waiting = Waiting { jobs: VecDeque::new(), is_closed: false, is_asleep: false };
    let queue = Arc::new(Queue { waiting: Mutex::new(waiting), wake: Condvar::new() });
    (Entrance(queue.clone()), Exit { queue, taken: VecDeque::new() })
}

impl<J> Queue<J> {
    fn waiting(&self) -> MutexGuard<'_, Waiting<J>> {
        // Nothing in here panics in between.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) -> VecDeque<J> {
        let mut waiting = self.waiting();
        waiting.is_closed = true;
        std::mem::take(&mut waiting.jobs)
    }
}

impl<J> Entrance<J> {
    /// Puts a job in; false if the queue is closed, and the job dropped.
    pub(crate) fn put(&self, job: J) -> bool {
        let mut waiting = self.0.waiting();
        if waiting.is_closed {
            return false;
        }
        waiting.jobs.push_back(job);
        if std::mem::take(&mut waiting.is_asleep) {
            drop(waiting);
            self.0.wake.notify_one();
        }
        true
    }
}

impl<J> Drop for Entrance<J> {
    fn drop(&mut self) {
        self.0.waiting().is_closed = true;
        self.0.wake.notify_one();
    }
}

impl<J> Exit<J> {
    /// Takes the next job, and waits for one; `None` when the queue is closed and empty.
    pub(crate) fn take(&mut self) -> Option<J> {
        if let Some(job) = self.taken.pop_front() {
            return Some(job);
        }
        let mut waiting = self.queue.waiting();
        while waiting.jobs.is_empty() {
            if waiting.is_closed {
                return None;
            }
            waiting.is_asleep = true;
            waiting = self.queue.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut waiting.jobs, &mut self.taken);
        drop(waiting);
        self.taken.pop_front()
    }

    /// Takes the next job, if there is one.
    pub(crate) fn try_take(&mut self) -> Option<J> {
        if self.taken.is_empty() {
            std::mem::swap(&mut self.queue.waiting().jobs, &mut self.taken);
        }
        self.taken.pop_front()
    }

    /// Puts back what was taken last.
    pub(crate) fn put_back(&mut self, job: J) {
        self.taken.push_front(job);
    }

    /// Takes nothing more in.
    pub(crate) fn close(&self) {
        self.queue.waiting().is_closed = true;
    }
}

impl<J> Drop for Exit<J> {
    fn drop(&mut self) {
        // Dropped outside the lock: a job's end may wake whoever put it in.
        drop(self.queue.close());
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

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
            let (thread, n) = exit.take().unwrap();
            assert_eq!(n, next[thread]);
            next[thread] += 1;
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(entrance);
        assert_eq!(exit.take(), None);
    }

    #[test]
    fn a_closed_queue_gives_out_what_is_in_it_and_takes_nothing_in() {
        let (entrance, mut exit) = queue();
        assert!(entrance.put(1) && entrance.put(2));
        assert_eq!((exit.take(), exit.try_take()), (Some(1), Some(2)));
        assert_eq!(exit.try_take(), None);
        assert!(entrance.put(3));
        exit.put_back(2);
        exit.close();
        assert!(!entrance.put(4));
        assert_eq!((exit.take(), exit.take(), exit.take()), (Some(2), Some(3), None));
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
}
