use std::path::Path;

use factum_kernel::{
    Content, EventId, EventName, ExpectedVersion, IdSource, NewEvent, ReadQuery, StoreErrorKind,
    SystemClock, SystemIds,
};

use super::*;
use crate::{
    disk::SystemFiles,
    frame::FRAME_BYTES_MAX,
    read,
    recovery::{self, Founded},
    tail::TailOptions,
};

/// The journal of a folder, without threads and limits.
pub(crate) fn open(folder: &Path, founded: Founded, segment_bytes: u32) -> Committer {
    let ids = Arc::new(SystemIds);
    let clock = Arc::new(SystemClock);
    let options = TailOptions { ids, clock: clock.clone(), segment_bytes };
    let files = |name: &str| {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        Arc::new(SystemFiles::open(&folder.join(name)).unwrap())
    };
    let opened = recovery::open(files("log"), founded, &options).unwrap();
    let documents = recovery::open_documents(files("documents"), founded, &options, 8).unwrap().0;
    Committer {
        keeper: Keeper::idle(opened.log.clone(), opened.tail.spare.clone()),
        log: opened.log,
        tail: opened.tail,
        clock,
        commit_delay: Delay::default(),
        buffer: BytesMut::new(),
        documents: Arc::new(documents),
        document_keeper: None,
        lock: None,
    }
}

/// A batch of this many events of one stream, each with a payload of this many bytes.
pub(crate) fn batch(events: usize, bytes: usize) -> AppendBatch {
    let stream = StreamId::new("account", "ada").unwrap();
    let payload = bytes::Bytes::from(vec![7; bytes]);
    let event = |_| {
        let id = EventId::new(SystemIds.uuid(SystemClock.now()));
        let name = EventName::from_static("account.opened");
        NewEvent::new(id, name, Content::Cbor, payload.clone())
    };
    AppendBatch::new().write(stream, ExpectedVersion::Any, (0..events).map(event))
}

fn head(committer: &Committer) -> u64 {
    let query = ReadQuery::log().with_events_max(1);
    read::page(&committer.log, &query).unwrap().head.value()
}

/// If it were acknowledged, no opening would accept its frame: all of it would be lost without an
/// error.
#[test]
fn a_batch_whose_frame_no_reader_takes_is_refused_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut committer = open(folder.path(), Founded::Never, 1 << 20);
    committer.commit(&[batch(2, 10)]).unwrap();
    for too_large in [batch(1, FRAME_BYTES_MAX as usize), batch(65, 1 << 20)] {
        match committer.commit(&[too_large]) {
            Err(CommitError::NotStored(error)) => {
                assert_eq!(error.kind(), StoreErrorKind::Invalid, "{error}");
            }
            other => panic!("it must be refused before anything is written: {other:?}"),
        }
    }
    let largest = batch(1, FRAME_BYTES_MAX as usize - 200);
    committer.commit(&[largest]).unwrap();
    committer.commit(&[batch(1, 10)]).unwrap();
    assert_eq!(head(&committer), 4);
    drop(committer);
    let committer = open(folder.path(), Founded::Before, 1 << 20);
    assert_eq!(head(&committer), 4, "everything that was acknowledged is there again");
}
