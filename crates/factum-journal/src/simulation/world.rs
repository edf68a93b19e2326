//! A journal on a simulated disk: opened without threads, and read to the last byte.

use std::{collections::BTreeMap, sync::Arc};

use bytes::BytesMut;
use factum_kernel::{
    AppendBatch, Clock, Content, Document, EventName, ExpectedVersion, IdSource, KeyRange,
    NewEvent, Query, ReadQuery, ScanQuery, StoreError, StreamId, Tag, Timestamp,
};
use factum_testing::VirtualClock;

use super::{
    disk::{Random, SimDisk},
    model::{Known, Model, ModelEvent},
};
use crate::{
    append::{Committer, Delay},
    change,
    documents::Documents,
    error,
    keeper::Keeper,
    log::Log,
    place::{MARKER, MARKER_TEXT},
    read,
    reclaim::Reclaimer,
    recovery::{self, Founded},
    synced::Synced,
    tail::TailOptions,
    verify::Folders,
};

/// So small that a life goes through many segments.
const SEGMENT_BYTES: u32 = 4 << 10;
/// So small that documents are flushed every few writes, and runs are merged.
const DOCUMENT_SEGMENT_BYTES: u32 = 2 << 10;
const DOCUMENT_FANOUT: usize = 3;

/// Ids from a seed.
#[derive(Debug)]
pub(super) struct SeededIds(pub(super) std::sync::Mutex<Random>);

impl IdSource for SeededIds {
    fn uuid(&self, now: Timestamp) -> uuid::Uuid {
        let mut random = self.0.lock().unwrap();
        let bytes = [random.next().to_le_bytes(), random.next().to_le_bytes()].concat();
        let random = bytes[..10].try_into().unwrap();
        uuid::Builder::from_unix_timestamp_millis(now.as_millis(), &random).into_uuid()
    }

    fn jitter(&self, _: std::time::Duration) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

/// The part of a life that outlives the journal's openings.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) disk: SimDisk,
    pub(super) clock: VirtualClock,
    pub(super) ids: Arc<SeededIds>,
}

/// An open journal.
pub(super) struct Open {
    pub(super) committer: Committer,
    pub(super) documents: Arc<Documents>,
    pub(super) reclaimer: Reclaimer,
    /// The disk with its lock.
    disk: SimDisk,
}

impl World {
    pub(super) fn open(&self, founded: Founded) -> Result<Open, StoreError> {
        let opened = self.open_locked(founded);
        // A failed opening releases the lock.
        self.disk.lock(opened.is_ok());
        opened
    }

    fn open_locked(&self, founded: Founded) -> Result<Open, StoreError> {
        Synced::announce(&*self.disk.folder("log"))?;
        Synced::announce(&*self.disk.folder("documents"))?;
        self.disk.lock(true);
        let options = TailOptions {
            ids: self.ids.clone(),
            clock: Arc::new(self.clock.clone()),
            segment_bytes: SEGMENT_BYTES,
        };
        self.disk.open_begins();
        let opened = recovery::open(self.disk.folder("log"), founded, &options)?;
        let options = TailOptions { segment_bytes: DOCUMENT_SEGMENT_BYTES, ..options };
        let files = self.disk.folder("documents");
        self.disk.open_begins();
        let (documents, _) = recovery::open_documents(files, founded, &options, DOCUMENT_FANOUT)?;
        if founded == Founded::Never {
            let put = self.disk.top().put(MARKER, MARKER_TEXT.as_bytes());
            put.map_err(|e| error::disk("making a journal", MARKER, e))?;
        }
        let documents = Arc::new(documents);
        let committer = Committer {
            keeper: Keeper::idle(opened.log.clone(), opened.tail.spare.clone()),
            log: opened.log,
            tail: opened.tail,
            clock: Arc::new(self.clock.clone()),
            commit_delay: Delay::default(),
            buffer: BytesMut::new(),
            documents: documents.clone(),
            document_keeper: None,
            lock: None,
        };
        Ok(Open { committer, documents, reclaimer: Reclaimer::default(), disk: self.disk.clone() })
    }

    pub(super) fn folders(&self) -> Folders {
        self.disk.folders()
    }

    /// An event in a stream, with a payload of this many bytes.
    pub(super) fn batch(&self, key: &str, bytes: usize) -> AppendBatch {
        let name = EventName::from_static("account.opened");
        let event = NewEvent::new(self.id(), name, Content::Cbor, vec![7; bytes]);
        let stream = StreamId::new("account", key).unwrap();
        AppendBatch::new().write(stream, ExpectedVersion::Any, [event])
    }

    pub(super) fn id(&self) -> factum_kernel::EventId {
        factum_kernel::EventId::new(self.ids.uuid(self.clock.now()))
    }
}

impl Open {
    /// Ends without a mark, like a killed process.
    pub(super) fn kill(mut self) {
        self.committer.tail.kill();
        self.documents.kill();
        self.disk.lock(false);
    }

    /// Ends like a process that closes the journal.
    pub(super) fn close(self) {
        drop(self.committer);
        self.disk.lock(false);
    }

    /// Everything that can be read.
    pub(super) fn observe(&self, streams: &[StreamId]) -> Result<Model, StoreError> {
        let mut model = Look(&self.committer.log).observe(streams)?;
        model.documents = all_documents(&self.documents)?;
        Ok(model)
    }
}

/// All documents, read page by page in both directions, and one by one.
pub(super) fn all_documents(documents: &Documents) -> Result<Known, StoreError> {
    let walk = |backward: bool| -> Result<Vec<Document>, StoreError> {
        let mut found = Vec::new();
        let mut rest = Some(KeyRange::all());
        while let Some(range) = rest {
            let query = ScanQuery::new(range).with_documents_max(3);
            let query = if backward { query.backward() } else { query };
            let page = documents.scan(&query)?;
            found.extend(page.documents);
            rest = page.rest;
        }
        Ok(found)
    };
    let forward = walk(false)?;
    let backward = walk(true)?;
    assert!(forward.iter().eq(backward.iter().rev()), "documents forward and backward");
    for document in &forward {
        assert_eq!(documents.get(&document.key)?.as_ref(), Some(document));
    }
    let entry = |it: Document| (it.key.to_vec(), (it.revision.value(), it.value.to_vec()));
    Ok(forward.into_iter().map(entry).collect())
}

/// A look at a log.
pub(super) struct Look<'l>(pub(super) &'l Log);

impl Look<'_> {
    /// Everything that can be read from the log. Checks that streams, categories and tags show the
    /// same.
    pub(super) fn observe(&self, streams: &[StreamId]) -> Result<Model, StoreError> {
        let mut model = Model::default();
        for event in self.all(ReadQuery::log(), Some(&mut model))? {
            let position = event.0 as usize;
            model.events[position - 1] = Some(event.1);
        }
        for stream in streams {
            let info = change::info(self.0, stream)?;
            let found = (info.bounds, info.retention);
            if found != Default::default() {
                model.streams.insert(stream.clone(), found);
            }
        }
        self.check_views(&model, streams)?;
        Ok(model)
    }

    fn check_views(&self, model: &Model, streams: &[StreamId]) -> Result<(), StoreError> {
        let expected = |fits: &dyn Fn(&ModelEvent) -> bool| -> BTreeMap<u64, ModelEvent> {
            let events = model.events.iter().zip(1..).filter_map(|(event, position)| {
                event.clone().filter(|event| fits(event)).map(|event| (position, event))
            });
            events.collect()
        };
        for stream in streams {
            let query = ReadQuery::stream(stream.clone());
            let wanted = expected(&|event| event.stream == *stream);
            assert_eq!(self.both_ways(query)?, wanted, "{stream}");
        }
        let category = factum_kernel::Category::new("account").unwrap();
        let wanted = expected(&|event| event.stream.category() == "account");
        assert_eq!(self.both_ways(ReadQuery::category(category))?, wanted);
        let tag = Tag::new("parity", 1).unwrap();
        let wanted = expected(&|event| event.event.tags.contains(&tag));
        assert_eq!(self.both_ways(ReadQuery::matching(Query::tag(tag)))?, wanted);
        Ok(())
    }

    fn both_ways(&self, query: ReadQuery) -> Result<BTreeMap<u64, ModelEvent>, StoreError> {
        let query = query.with_events_max(7);
        let forward = self.all(query.clone(), None)?;
        let mut backward = self.all(query.backward(), None)?;
        backward.reverse();
        assert_eq!(forward, backward, "forward and backward");
        Ok(forward.into_iter().collect())
    }

    fn all(
        &self,
        query: ReadQuery,
        mut whole: Option<&mut Model>,
    ) -> Result<Vec<(u64, ModelEvent)>, StoreError> {
        let mut events = Vec::new();
        let mut next = Some(query);
        let mut last = 0;
        while let Some(query) = next {
            let page = read::page(self.0, &query)?;
            next = query.next(&page);
            if let Some(model) = &mut whole {
                let erased: u64 = page
                    .erased
                    .iter()
                    .map(|range| range.last.value() + 1 - range.first.value())
                    .sum();
                let count = erased + page.events.len() as u64;
                assert_eq!(page.scanned_through.value() - last, count, "a hole in the log");
                last = page.scanned_through.value();
                model.events.resize(last as usize, None);
            }
            for event in &page.events {
                let new = NewEvent {
                    id: event.id(),
                    name: EventName::parse(event.name()).unwrap(),
                    schema_version: event.schema_version(),
                    content: event.content(),
                    payload: event.payload_bytes(),
                    tags: event.tags().map(|tag| Tag::parse(tag).unwrap()).collect(),
                    metadata: event.metadata(),
                };
                let stream = event.stream().to_stream_id();
                let version = event.version().value();
                let event_is = ModelEvent { stream, version, event: new };
                events.push((event.position().value(), event_is));
            }
        }
        Ok(events)
    }
}
