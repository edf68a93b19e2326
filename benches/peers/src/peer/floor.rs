//! The plain-file floor: the rate of one thread that only encodes frames, writes each group at
//! once, and syncs it. No durable store can be faster.
//!
//! `floor` writes into a file that was filled with zeros and synced before, so that a sync has no
//! new length and no new blocks to store; `growing` writes into a file that grows. Reads check each
//! frame's CRC-32C: a scan in pieces of 1 MiB, a stream by an index in memory and one read per
//! event.

use std::{fs::File, os::unix::fs::FileExt, path::Path, sync::Mutex};

use crate::{
    frame::{self, Checksum, FRAME_BYTES},
    load::{Record, STREAMS},
    peer::Peer,
};

const PIECE_FRAMES: usize = (1 << 20) / FRAME_BYTES;

/// A log that is a single file. `ZEROED`: filled with zeros beforehand.
#[derive(Debug)]
pub(crate) struct Floor<const ZEROED: bool> {
    file: File,
    writer: Mutex<PlainFile>,
}

impl<const ZEROED: bool> Peer for Floor<ZEROED> {
    async fn open(folder: &Path, events: usize) -> Self {
        let writer = PlainFile::create(folder, if ZEROED { events } else { 0 });
        let file = writer.file.try_clone().expect("a second handle");
        Self { file, writer: Mutex::new(writer) }
    }

    async fn append(&self, records: Vec<Record>) {
        self.writer.lock().expect("no panic in a write").write(&[records]);
    }

    async fn scan(&self) -> usize {
        let events = self.writer.lock().expect("no panic in a write").events;
        let mut piece = vec![0; PIECE_FRAMES * FRAME_BYTES];
        for first in (0..events).step_by(PIECE_FRAMES) {
            let bytes = &mut piece[..(events - first).min(PIECE_FRAMES) * FRAME_BYTES];
            self.file.read_exact_at(bytes, offset(first)).expect("a read");
            for frame in bytes.chunks_exact(FRAME_BYTES) {
                frame::decode(frame, Checksum::Used).see();
            }
        }
        events
    }

    async fn read_stream(&self, stream: usize) -> usize {
        let writer = self.writer.lock().expect("no panic in a write");
        let mut bytes = [0; FRAME_BYTES];
        for position in &writer.streams[stream] {
            self.file.read_exact_at(&mut bytes, offset(*position)).expect("a read");
            let frame = frame::decode(&bytes, Checksum::Used);
            frame.see();
            assert_eq!(frame.stream, stream, "the index names the stream's own");
        }
        writer.streams[stream].len()
    }

    async fn close(self) {}
}

/// The writing side.
#[derive(Debug)]
pub(crate) struct PlainFile {
    file: File,
    events: usize,
    /// The events of each stream.
    streams: Vec<Vec<usize>>,
    buffer: Vec<u8>,
}

impl PlainFile {
    /// Makes a file with room for this many events.
    pub(crate) fn create(folder: &Path, room: usize) -> Self {
        let options = File::options().read(true).write(true).create_new(true).to_owned();
        let file = options.open(folder.join("events")).expect("a fresh file");
        let zeros = vec![0; PIECE_FRAMES * FRAME_BYTES];
        for first in (0..room).step_by(PIECE_FRAMES) {
            file.write_all_at(&zeros, offset(first)).expect("room for zeros");
        }
        file.sync_all().expect("a sync");
        Self { file, events: 0, streams: vec![Vec::new(); STREAMS], buffer: Vec::new() }
    }

    /// Stores a group: one write, one sync.
    pub(crate) fn write(&mut self, group: &[Vec<Record>]) {
        self.buffer.clear();
        let first = self.events;
        for record in group.iter().flatten() {
            frame::encode(record, self.events as u64, Checksum::Used, &mut self.buffer);
            self.streams[record.stream].push(self.events);
            self.events += 1;
        }
        self.file.write_all_at(&self.buffer, offset(first)).expect("a write");
        self.file.sync_data().expect("a sync");
    }
}

fn offset(event: usize) -> u64 {
    (event * FRAME_BYTES) as u64
}
