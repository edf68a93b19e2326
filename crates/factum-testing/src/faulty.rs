//! Stores that fail on purpose, by a script or by seeded chance.

mod documents;
mod events;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_kernel::{Clock, StoreError, StoreErrorKind};

use crate::random::Random;

pub use documents::FaultyDocuments;
pub use events::FaultyStore;

/// A fault in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The call does nothing and fails with `Unavailable`.
    FailBefore,
    /// The call does nothing and fails with an error of this kind.
    Refuse(StoreErrorKind),
    /// The call does its work, but the answer is lost: `Indeterminate`.
    DropReply,
    /// The call does nothing, but the caller can't know: `Indeterminate`.
    DropRequest,
    /// The call does its work after a delay.
    Delay(Duration),
}

/// The probabilities of faults, each from 0 (never) to 1 (always). A call has at most one fault, so
/// the sum of all of them is at most 1.
///
/// ```
/// use factum_testing::FaultRates;
///
/// let rates = FaultRates { drop_reply: 0.2, ..FaultRates::none() };
/// assert_eq!(rates.fail_before, 0.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaultRates {
    /// The probability that a write fails with [`Fault::FailBefore`].
    pub fail_before: f64,
    /// The probability that a write's answer is lost: [`Fault::DropReply`].
    pub drop_reply: f64,
    /// The probability that a write never arrives: [`Fault::DropRequest`].
    pub drop_request: f64,
    /// The probability that a read fails with `Unavailable`.
    pub fail_read: f64,
    /// The probability that a call is delayed.
    pub delay: f64,
    /// The longest delay.
    pub delay_max: Duration,
}

impl FaultRates {
    /// No faults.
    pub const fn none() -> Self {
        Self {
            fail_before: 0.0,
            drop_reply: 0.0,
            drop_request: 0.0,
            fail_read: 0.0,
            delay: 0.0,
            delay_max: Duration::ZERO,
        }
    }

    /// One write in ten has each kind of fault, one read in ten fails, and some calls are slow.
    pub const fn rough() -> Self {
        Self {
            fail_before: 0.1,
            drop_reply: 0.1,
            drop_request: 0.1,
            fail_read: 0.1,
            delay: 0.1,
            delay_max: Duration::from_millis(2),
        }
    }
}

/// Decides the next fault: scripted ones first, then by chance.
#[derive(Debug)]
struct Plan {
    rates: FaultRates,
    clock: Arc<dyn Clock>,
    chance: Mutex<Chance>,
    /// True during an outage, whatever is scripted.
    is_away: AtomicBool,
}

#[derive(Debug)]
struct Chance {
    random: Random,
    /// The faults of the next calls, in order; `None` lets a call succeed.
    writes: VecDeque<Option<Fault>>,
    reads: VecDeque<Option<Fault>>,
}

impl Plan {
    fn new(seed: u64, rates: FaultRates, clock: Arc<dyn Clock>) -> Self {
        let random = Random::new(seed);
        let chance = Chance { random, writes: VecDeque::new(), reads: VecDeque::new() };
        Self { rates, clock, chance: Mutex::new(chance), is_away: AtomicBool::new(false) }
    }

    fn with_chance<T>(&self, f: impl FnOnce(&mut Chance) -> T) -> T {
        f(&mut self.chance.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_away(&self) -> bool {
        self.is_away.load(Ordering::SeqCst)
    }

    fn script_write(&self, fault: Option<Fault>) {
        self.with_chance(|chance| chance.writes.push_back(fault));
    }

    fn script_read(&self, fault: Option<Fault>) {
        self.with_chance(|chance| chance.reads.push_back(fault));
    }

    /// The fault of this write, after any delay.
    async fn before_write(&self) -> Option<Fault> {
        if self.is_away() {
            return Some(Fault::FailBefore);
        }
        let rates = self.rates;
        let fault = self.with_chance(|chance| match chance.writes.pop_front() {
            Some(scripted) => scripted,
            None => chance.pick(
                rates,
                &[
                    (rates.fail_before, Fault::FailBefore),
                    (rates.drop_reply, Fault::DropReply),
                    (rates.drop_request, Fault::DropRequest),
                ],
            ),
        });
        self.serve_delay(fault).await
    }

    /// Lets this read succeed or fail, after any delay.
    async fn before_read(&self) -> Result<(), StoreError> {
        if self.is_away() {
            return Err(unavailable());
        }
        let rates = self.rates;
        let fault = self.with_chance(|chance| match chance.reads.pop_front() {
            Some(scripted) => scripted,
            None => chance.pick(rates, &[(rates.fail_read, Fault::FailBefore)]),
        });
        match self.serve_delay(fault).await {
            None => Ok(()),
            Some(Fault::Refuse(kind)) => Err(refused(kind)),
            Some(_) => Err(unavailable()),
        }
    }

    async fn serve_delay(&self, fault: Option<Fault>) -> Option<Fault> {
        let Some(Fault::Delay(delay)) = fault else { return fault };
        self.clock.sleep(delay).await;
        None
    }
}

impl Chance {
    fn pick(&mut self, rates: FaultRates, faults: &[(f64, Fault)]) -> Option<Fault> {
        let mut drawn = self.random.fraction();
        for (rate, fault) in faults {
            if drawn < *rate {
                return Some(*fault);
            }
            drawn -= rate;
        }
        (drawn < rates.delay).then(|| Fault::Delay(rates.delay_max.mul_f64(self.random.fraction())))
    }
}

fn unavailable() -> StoreError {
    StoreError::unavailable("the faulty store did nothing, as planned")
}

fn refused(kind: StoreErrorKind) -> StoreError {
    StoreError::new(kind, "the faulty store refused, as planned")
}

fn reply_lost() -> StoreError {
    StoreError::unavailable("the faulty store lost the reply, as planned")
}
