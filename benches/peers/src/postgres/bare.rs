//! The rate of the database without any checks: groups as large as factum's in the same round, by
//! one `INSERT .. SELECT unnest` each, over one connection per process. `bare` inserts into
//! factum's own table with its indexes, `bare-key` into one of the same columns with only a primary
//! key.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_postgres::{Client, NoTls, Statement, types::ToSql};
use uuid::Uuid;

use crate::{
    clients::Measured,
    load::{EVENT_NAME, Records, STREAMS, stream_name},
    postgres::{
        framework::{Event, factum},
        process::{Job, Writers},
    },
};

const TABLE: &str = "CREATE TABLE bare_key (
    position bigint PRIMARY KEY, version bigint NOT NULL, recorded_at bigint NOT NULL,
    schema_version bigint NOT NULL, id uuid NOT NULL, content integer NOT NULL,
    stream text COLLATE \"C\" NOT NULL, type text COLLATE \"C\" NOT NULL, tags bytea NOT NULL,
    metadata bytea NOT NULL, payload bytea NOT NULL)";
const COLUMNS: &str = "(position, version, recorded_at, schema_version, id, content, stream, type,
    tags, metadata, payload)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[],
        $6::integer[], $7::text[], $8::text[], $9::bytea[], $10::bytea[], $11::bytea[])";
/// The distance between the first positions of two processes.
const POSITIONS_PER_PROCESS: usize = 1 << 40;
const WARM_UP_GROUPS: usize = 8;

pub(crate) async fn prepare<const INDEXED: bool>(url: &str) {
    if INDEXED {
        factum::prepare(url).await;
    } else {
        connect(url).await.batch_execute(TABLE).await.expect("a table");
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.expect("the server takes a connection");
    tokio::spawn(connection);
    client
}

/// The one client of a process.
pub(crate) struct Bare<const INDEXED: bool> {
    client: Client,
    insert: Statement,
    records: Records,
    /// The streams of this process.
    streams: Vec<Stream>,
    group: usize,
    first: usize,
    stride: usize,
    written: usize,
}

struct Stream {
    name: String,
    version: i64,
}

impl<const INDEXED: bool> Bare<INDEXED> {
    pub(crate) async fn open(job: &Job) -> Self {
        let client = connect(&job.url).await;
        let table = if INDEXED { "factum.events" } else { "bare_key" };
        let insert = client.prepare(&format!("INSERT INTO {table} {COLUMNS}")).await;
        let streams = (job.process..STREAMS).step_by(job.processes);
        Self {
            client,
            insert: insert.expect("the table is there"),
            records: Records::new(1),
            streams: streams.map(|n| Stream { name: stream_name(n), version: 0 }).collect(),
            group: job.group,
            first: job.process,
            stride: job.processes,
            written: 0,
        }
    }

    async fn write_group(&mut self) {
        let mut rows = Rows::default();
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        for n in self.written..self.written + self.group {
            let record = self.records.make(self.first + self.stride * n, 1).pop();
            let event = Event::from(record.expect("one was asked for"));
            let at = n % self.streams.len();
            let stream = &mut self.streams[at];
            stream.version += 1;
            rows.positions.push((self.first * POSITIONS_PER_PROCESS + n + 1) as i64);
            rows.versions.push(stream.version);
            rows.times.push(millis as i64 * 1_000);
            rows.ids.push(event.id);
            rows.streams.push(stream.name.clone());
            rows.payloads.push(event.text.into_bytes());
        }
        self.written += self.group;
        rows.insert(&self.client, &self.insert).await;
    }
}

impl<const INDEXED: bool> Writers for Bare<INDEXED> {
    async fn warm_up(&mut self) {
        for _ in 0..WARM_UP_GROUPS {
            self.write_group().await;
        }
    }

    async fn write(&mut self, time: Duration) -> Measured {
        let begin = Instant::now();
        let mut latencies = Vec::new();
        while begin.elapsed() < time {
            let asked = Instant::now();
            self.write_group().await;
            latencies.push(asked.elapsed());
        }
        Measured { events: self.group * latencies.len(), time: begin.elapsed(), latencies }
    }

    fn groups(&self) -> usize {
        0
    }
}

/// The columns of a group that differ from row to row.
#[derive(Default)]
struct Rows {
    positions: Vec<i64>,
    versions: Vec<i64>,
    times: Vec<i64>,
    ids: Vec<Uuid>,
    streams: Vec<String>,
    payloads: Vec<Vec<u8>>,
}

impl Rows {
    async fn insert(&self, client: &Client, insert: &Statement) {
        let count = self.positions.len();
        let ones = vec![1_i64; count];
        let contents = vec![1_i32; count];
        let types = vec![EVENT_NAME; count];
        let nothing = vec![&[] as &[u8]; count];
        let columns: [&(dyn ToSql + Sync); 11] = [
            &self.positions,
            &self.versions,
            &self.times,
            &ones,
            &self.ids,
            &contents,
            &self.streams,
            &types,
            &nothing,
            &nothing,
            &self.payloads,
        ];
        client.execute(insert, &columns).await.expect("an insert");
    }
}
