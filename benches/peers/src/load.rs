//! The work, the same for all stores: events with random payloads, spread over the streams.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use uuid::Uuid;

pub(crate) const STREAMS: usize = 10_000;
/// The number of events in each stream when streams are read.
pub(crate) const EVENTS_PER_STREAM: usize = 30;
pub(crate) const PAYLOAD_BYTES: usize = 256;
pub(crate) const EVENT_NAME: &str = "account.money-deposited";

/// Random bytes that payloads are cut from. Engines that compress would compress repeated bytes
/// away.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let numbers = 0..(1_u64 << 17);
    numbers.flat_map(|n| scramble(n).to_le_bytes()).collect()
});

/// The size of the work, and its clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    pub(crate) events_per_append: usize,
    /// The number of events after which the reading ends.
    pub(crate) events: usize,
    /// The time after which the reading ends.
    pub(crate) time_max: Duration,
}

impl Load {
    /// The events that fill the stores before they are read.
    pub(crate) fn to_read() -> Self {
        Self {
            clients: 1_024,
            events_per_append: 1,
            events: STREAMS * EVENTS_PER_STREAM,
            time_max: Duration::MAX,
        }
    }

    /// The same events from one client, in appends as large as a group of all clients.
    pub(crate) fn as_groups(self) -> Self {
        Self { clients: 1, events_per_append: self.clients * self.events_per_append, ..self }
    }
}

/// One event, as a client holds it.
#[derive(Debug)]
pub(crate) struct Record {
    /// The number of the stream, from 0.
    pub(crate) stream: usize,
    pub(crate) id: Uuid,
    pub(crate) payload: Vec<u8>,
}

/// Makes the events of one reading.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Records {
    /// Ids are UUIDv7 of the present, as clients make them.
    millis: u64,
    /// The number of consecutive events of the same stream.
    run: usize,
}

impl Records {
    pub(crate) fn new(run: usize) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { millis: now.as_millis() as u64, run }
    }

    /// Makes this many events, from the `first` on.
    pub(crate) fn make(&self, first: usize, count: usize) -> Vec<Record> {
        (first..first + count).map(|n| self.record(n)).collect()
    }

    fn record(&self, n: usize) -> Record {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&scramble(n as u64).to_be_bytes());
        let id = uuid::Builder::from_unix_timestamp_millis(self.millis, &random).into_uuid();
        let at = (scramble(n as u64) as usize) % (NOISE.len() - PAYLOAD_BYTES);
        let payload = NOISE[at..at + PAYLOAD_BYTES].to_vec();
        Record { stream: spread(n / self.run), id, payload }
    }
}

/// A stream's name, in the form that applications use.
pub(crate) fn stream_name(stream: usize) -> String {
    format!("account-{stream}")
}

/// Spreads neighbours over different streams, evenly, by a multiplier without a common factor.
pub(crate) fn spread(n: usize) -> usize {
    n * 7_919 % STREAMS
}

/// Maps different numbers to different numbers (SplitMix64).
fn scramble(n: u64) -> u64 {
    let n = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
