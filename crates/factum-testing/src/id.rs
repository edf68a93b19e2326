//! A source of ids that gives the same ids for the same seed.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use factum_kernel::{IdSource, Timestamp};
use uuid::Uuid;

use crate::random::Random;

/// Ids and jitter from a seed: the same in every run, no id twice.
///
/// ```
/// use factum_kernel::{IdSource, Timestamp};
/// use factum_testing::SeededIds;
///
/// let first = SeededIds::new(7);
/// let again = SeededIds::new(7);
/// let id = first.uuid(Timestamp::EPOCH);
/// assert_eq!(id, again.uuid(Timestamp::EPOCH));
/// assert_ne!(id, first.uuid(Timestamp::EPOCH));
/// ```
#[derive(Debug)]
pub struct SeededIds {
    random: Mutex<Random>,
}

impl SeededIds {
    /// The source of a seed.
    pub fn new(seed: u64) -> Self {
        Self { random: Mutex::new(Random::new(seed)) }
    }

    fn next(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

impl IdSource for SeededIds {
    fn uuid(&self, now: Timestamp) -> Uuid {
        let number = self.next();
        let mut random = [0; 10];
        random[2..].copy_from_slice(&number.to_be_bytes());
        // A UUID's variant replaces the number's two high bits. They are kept here, so that two
        // numbers never give the same id.
        random[1] = random[2] >> 6;
        uuid::Builder::from_unix_timestamp_millis(now.as_millis(), &random).into_uuid()
    }

    fn jitter(&self, up_to: Duration) -> Duration {
        let mut one = Random::new(self.next());
        up_to.mul_f64(one.fraction())
    }
}
