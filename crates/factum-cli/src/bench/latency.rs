//! The durations of single operations, in bounded memory.

use std::time::Duration;

/// The number of buckets within one power of two: a percentile is at most 1/64 too high.
const STEPS: usize = 64;
const STEPS_LOG2: u32 = STEPS.trailing_zeros();
/// 2^40 microseconds are twelve days. A longer duration counts as twelve days.
const POWERS: usize = 40;

/// A histogram whose buckets grow with the durations that they hold.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    buckets: Vec<u64>,
    count: u64,
}

impl Latencies {
    /// A histogram without durations.
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; STEPS * POWERS], count: 0 }
    }

    /// Adds a duration.
    pub(crate) fn add(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket(micros).min(self.buckets.len() - 1);
        self.buckets[bucket] += 1;
        self.count += 1;
    }

    /// Adds the durations of another histogram.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
    }

    /// The microseconds within which `percent` of the operations were done; `None` without
    /// operations.
    pub(crate) fn percentile(&self, percent: u64) -> Option<u64> {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let reached = |count: &u64| {
            seen += count;
            seen >= rank
        };
        self.buckets.iter().position(reached).map(last_of)
    }
}

fn bucket(micros: u64) -> usize {
    let small = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    if micros < STEPS as u64 {
        return small(micros);
    }
    let power = micros.ilog2() - STEPS_LOG2;
    small(micros >> power) + STEPS * power as usize
}

/// The largest number of microseconds in a bucket.
fn last_of(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let power = bucket / STEPS - 1;
    (((bucket - STEPS * power) as u64 + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_lies_in_its_bucket_and_the_bucket_is_narrow() {
        for micros in (0..5_000).chain([1 << 20, (1 << 30) + 12_345]) {
            let last = last_of(bucket(micros));
            assert!(last >= micros && last - micros <= micros / 64, "{micros}: {last}");
            assert!(bucket(last) == bucket(micros) && bucket(last + 1) == bucket(micros) + 1);
        }
    }

    #[test]
    fn percentiles_count_from_the_smallest() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.percentile(50), None);
        for micros in 1..=50 {
            latencies.add(Duration::from_micros(micros));
        }
        let mut others = Latencies::new();
        others.add(Duration::from_secs(1 << 40));
        latencies.merge(&others);
        assert_eq!(latencies.percentile(50), Some(26));
        assert_eq!(latencies.percentile(0), Some(1));
        assert!(latencies.percentile(100) > Some(1 << 40));
    }
}
