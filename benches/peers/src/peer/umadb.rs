//! UmaDB's core, composed like its server: requests go through a channel of 1,024 to its own writer
//! thread, which commits the waiting ones as one group of at most 2,048 events. The storage options
//! are its server's defaults (zero-filled pages, the blocking writer), except where another
//! documented option measured faster. No single configuration is best at everything,
//! so two are measured. `umadb` reads by memory map: its appends are about as fast as with the
//! default, and its stream reads are faster. `umadb-cached` has a page cache of 1,000 MB, a size
//! that UmaDB's own benchmarks try: its stream reads are the fastest, and its appends are slower. A
//! commit syncs the pages, then the header.
//!
//! The cost of gRPC, which a program that uses UmaDB also has, is not included. A tag stands for a
//! stream, as UmaDB's documentation represents an aggregate. Reads take batches of 1,024 events, its server's default, and
//! run in the calling thread.

use std::{
    hint::black_box,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

use tokio::sync::{mpsc, oneshot, watch};
use umadb_core::{
    db::UmaDb,
    mvcc::{Mvcc, StorageOptions},
    pager::ReadMethod,
    writer_thread_blocking::writer_thread_blocking,
    writer_thread_request::WriterThreadRequest,
};
use umadb_dcb::{DcbEvent, DcbEventStoreSync, DcbQuery, DcbQueryItem};

use crate::{
    load::{EVENT_NAME, Record, stream_name},
    peer::Peer,
};

const CHANNEL_APPENDS: usize = 1_024;
const GROUP_EVENTS: usize = 2_048;
const READ_EVENTS: u32 = 1_024;
const CACHE_MB: usize = 1_000;

/// `CACHED`: with the page cache.
pub(crate) struct Umadb<const CACHED: bool> {
    database: UmaDb,
    requests: mpsc::Sender<WriterThreadRequest>,
    thread: JoinHandle<()>,
}

impl<const CACHED: bool> Peer for Umadb<CACHED> {
    async fn open(folder: &Path, _events: usize) -> Self {
        let options = StorageOptions::default().db_path(folder);
        let options = if CACHED {
            options.page_cache_max_mb(CACHE_MB)
        } else {
            options.read_method(ReadMethod::Mmap)
        };
        let mvcc = Arc::new(Mvcc::new(false, options).expect("a fresh database"));
        let (requests, received) = mpsc::channel(CHANNEL_APPENDS);
        let (head, _) = watch::channel(None);
        let writer = mvcc.clone();
        let thread =
            thread::spawn(move || writer_thread_blocking(writer, received, head, GROUP_EVENTS));
        Self { database: UmaDb::from_arc(mvcc), requests, thread }
    }

    async fn append(&self, records: Vec<Record>) {
        let events = records.into_iter().map(event).collect();
        let (response_tx, response) = oneshot::channel();
        let request = WriterThreadRequest::Append {
            events,
            condition: None,
            tracking_info: None,
            response_tx,
            cancel: None,
        };
        assert!(self.requests.send(request).await.is_ok(), "the writer runs");
        response.await.expect("the writer answers").expect("an append");
    }

    async fn scan(&self) -> usize {
        self.read(None)
    }

    async fn read_stream(&self, stream: usize) -> usize {
        let item = DcbQueryItem::new().tags([stream_name(stream)]);
        self.read(Some(DcbQuery::with_items([item])))
    }

    async fn close(self) {
        // The writer ends once no sender is left.
        drop(self.requests);
        self.thread.join().expect("the writer ends");
    }
}

impl<const CACHED: bool> Umadb<CACHED> {
    fn read(&self, query: Option<DcbQuery>) -> usize {
        let mut count = 0;
        let mut start = None;
        loop {
            let read = self.database.read(query.clone(), start, false, Some(READ_EVENTS));
            let events = read.expect("a read").next_batch().expect("a batch");
            count += events.len();
            start = events.last().map(|last| last.position + 1);
            if events.len() < READ_EVENTS as usize {
                black_box(events);
                return count;
            }
            black_box(events);
        }
    }
}

fn event(Record { stream, id, payload }: Record) -> DcbEvent {
    DcbEvent {
        event_type: EVENT_NAME.into(),
        tags: vec![stream_name(stream)],
        data: payload,
        uuid: Some(id),
        metadata: Vec::new(),
    }
}
