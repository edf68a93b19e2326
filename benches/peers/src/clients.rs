//! The clients: each appends, waits for the answer, and appends again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    load::{Load, Records},
    peer::Peer,
};

/// The result of one reading.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) events: usize,
    pub(crate) time: Duration,
    /// The time that each call took.
    pub(crate) latencies: Vec<Duration>,
}

/// Lets all clients append until the load is done.
pub(crate) async fn append<P: Peer>(peer: &Arc<P>, load: Load, run: usize) -> Measured {
    let records = Records::new(run);
    let begin = Instant::now();
    let clients: Vec<_> = (0..load.clients)
        .map(|client| tokio::spawn(client_appends(peer.clone(), load, records, client, begin)))
        .collect();
    let mut events = 0;
    let mut latencies = Vec::new();
    for client in clients {
        let (appended, its_latencies) = client.await.expect("no client panics");
        events += appended;
        latencies.extend(its_latencies);
    }
    Measured { events, time: begin.elapsed(), latencies }
}

/// Returns the number of events that it appended, and the time of each append.
async fn client_appends<P: Peer>(
    peer: Arc<P>,
    load: Load,
    records: Records,
    client: usize,
    begin: Instant,
) -> (usize, Vec<Duration>) {
    let mut events = 0;
    let mut latencies = Vec::new();
    let firsts = (0..load.events).step_by(load.events_per_append);
    for first in firsts.skip(client).step_by(load.clients) {
        if begin.elapsed() >= load.time_max {
            break;
        }
        let count = load.events_per_append.min(load.events - first);
        let made = records.make(first, count);
        let asked = Instant::now();
        peer.append(made).await;
        latencies.push(asked.elapsed());
        events += count;
    }
    (events, latencies)
}
