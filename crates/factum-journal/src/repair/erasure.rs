//! Erasures recorded in the part of the log that a repair takes away. Where the space of those
//! events was reclaimed, they can't come back, so the log records again that they are erased.

use std::sync::Arc;

use bytes::BytesMut;
use factum_kernel::{StoreError, StreamVersion};
use hashbrown::HashMap;

use crate::{
    disk::Files,
    error,
    frame::{self, FrameKind, FramePlace},
    record::{Record, RecordPlace, StreamState, put_change},
    segment::{Segment, segment_name, segments_in},
    synced::record_repaired,
    verify::names,
    walk::{End, Walked, read_chain, walk},
};

/// The bytes of a frame of changes, about.
const FRAME_BYTES: usize = 1 << 20;

/// The streams that lost events to rewritten segments: the highest left-out version, and the state
/// by the rest of the log.
type Lost = HashMap<String, (StreamVersion, StreamState)>;

/// Appends a change to a log for each stream of which rewritten segments left out more than is
/// erased. The log must be whole.
pub(super) fn keep(files: &Arc<dyn Files>) -> Result<(), StoreError> {
    let headers = read_chain(&**files, &segments_in(&names(&**files)?))?;
    let Some((last, sealed)) = headers.split_last() else { return Ok(()) };
    let mut lost = Lost::new();
    for (index, header) in sealed.iter().enumerate() {
        if header.rewritten.is_some() {
            let segment = Segment::open(&**files, header.first)?;
            walk(&segment, End::Sealed(&headers[index + 1]), |frame, _| {
                for (_, record) in &frame.records {
                    if let Record::Erased(stream, version) = record {
                        let lost = lost.entry_ref(*stream).or_default();
                        lost.0 = lost.0.max(StreamVersion::new(*version));
                    }
                }
                Ok(())
            })?;
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    let mut end = None;
    for (index, header) in headers.iter().enumerate() {
        let until = headers.get(index + 1).map_or(End::Open, End::Sealed);
        let segment = Segment::open(&**files, header.first)?;
        let walked = walk(&segment, until, |frame, _| {
            frame.records.iter().for_each(|(_, record)| learn(&mut lost, record));
            Ok(())
        })?;
        end = Some(walked);
    }
    lost.retain(|_, (through, state)| *through > state.bounds.erased_through);
    match end.filter(|_| !lost.is_empty()) {
        Some(end) => write(&**files, &Segment::open(&**files, last.first)?, &end, lost),
        None => Ok(()),
    }
}

fn learn(lost: &mut Lost, record: &Record<'_>) {
    match record {
        Record::Event(event) => {
            if let Some((_, state)) = lost.get_mut(event.stream) {
                state.bounds.version = event.header.version;
            }
        }
        Record::Change(stream, changed) => {
            if let Some((_, state)) = lost.get_mut(*stream) {
                *state = changed.after(state);
            }
        }
        _ => {}
    }
}

/// Writes the changes after the last frame.
fn write(files: &dyn Files, last: &Segment, walked: &Walked, lost: Lost) -> Result<(), StoreError> {
    let name = segment_name(last.header.first);
    let at = |e| error::disk("recording the erasures again", &name, e);
    let put = |frame: &BytesMut, end: &mut u32| {
        last.file.write_at(frame, u64::from(*end)).and_then(|()| last.file.sync()).map_err(at)?;
        *end += frame.len() as u32;
        Ok::<(), StoreError>(())
    };
    let place = |offset| FramePlace { salt: last.header.salt, seed: last.seed, offset };
    let Walked { mut end, next, last: before, .. } = *walked;
    if before.is_some_and(|(_, kind)| kind == FrameKind::Close) {
        put(&frame::mark(place(end), next, FrameKind::Open), &mut end)?;
    }
    let record = RecordPlace { seed: last.seed, base_at: last.header.base_at, position: next };
    let mut buffer = BytesMut::new();
    let mut lost = lost.into_iter().peekable();
    while lost.peek().is_some() {
        frame::begin(&mut buffer);
        while let Some((stream, (through, mut state))) =
            lost.next_if(|_| buffer.len() < FRAME_BYTES)
        {
            state.bounds.erased_through = through;
            state.bounds.version = through.max(state.bounds.version);
            put_change(&mut buffer, record, &stream, &state);
        }
        frame::finish(&mut buffer, place(end), next, FrameKind::Group)?;
        put(&buffer, &mut end)?;
    }
    record_repaired(files, Some((last.header.first, end)))
}
