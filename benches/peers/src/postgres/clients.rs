//! The clients of one process. Each has streams of its own, appends to one after the other, and
//! waits for each answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    clients::Measured,
    load::{Records, STREAMS},
    postgres::{
        framework::{Event, Framework},
        process::{Job, Writers},
    },
};

/// The appends of each client before the measurement, after which connections and statements are
/// ready.
const WARM_UP_APPENDS: usize = 4;

pub(crate) struct Clients<F: Framework> {
    framework: Arc<F>,
    clients: Vec<Client<F>>,
}

impl<F: Framework> Clients<F> {
    pub(crate) async fn open(job: &Job) -> Self {
        let framework = Arc::new(F::open(&job.url).await);
        let records = Records::new(1);
        let client = |first| {
            let streams = (first..STREAMS).step_by(job.clients);
            let streams = streams.map(|stream| framework.stream(stream)).collect();
            let framework = framework.clone();
            Client { framework, streams, records, first, stride: job.clients, appended: 0 }
        };
        let clients = (job.process..job.clients).step_by(job.processes).map(client).collect();
        Self { framework, clients }
    }
}

impl<F: Framework> Writers for Clients<F> {
    async fn warm_up(&mut self) {
        let clients = self.clients.drain(..).map(|mut client| {
            tokio::spawn(async move {
                for _ in 0..WARM_UP_APPENDS {
                    client.append().await;
                }
                client
            })
        });
        for client in clients.collect::<Vec<_>>() {
            self.clients.push(client.await.expect("no client panics"));
        }
    }

    async fn write(&mut self, time: Duration) -> Measured {
        let begin = Instant::now();
        let clients = self.clients.drain(..).map(|mut client| {
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while begin.elapsed() < time {
                    latencies.push(client.append().await);
                }
                latencies
            })
        });
        let mut latencies = Vec::new();
        for client in clients.collect::<Vec<_>>() {
            latencies.extend(client.await.expect("no client panics"));
        }
        Measured { events: latencies.len(), time: begin.elapsed(), latencies }
    }

    fn groups(&self) -> usize {
        self.framework.groups()
    }
}

struct Client<F: Framework> {
    framework: Arc<F>,
    streams: Vec<F::Stream>,
    records: Records,
    /// The client's number, and the number of clients in all processes: no two make the same event.
    first: usize,
    stride: usize,
    appended: usize,
}

impl<F: Framework> Client<F> {
    /// Returns the time that it took.
    async fn append(&mut self) -> Duration {
        let n = self.first + self.stride * self.appended;
        let at = self.appended % self.streams.len();
        self.appended += 1;
        let record = self.records.make(n, 1).pop().expect("one was asked for");
        let event = Event::from(record);
        let asked = Instant::now();
        self.framework.append(&mut self.streams[at], event).await;
        asked.elapsed()
    }
}
