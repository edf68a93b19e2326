//! Opening for writing: from the files in the folder to a log that can be written, after whatever
//! happened before.

use std::sync::Arc;

use factum_kernel::{Lineage, StoreError};

use crate::{
    cache::Cache,
    disk::{File, Files, UNFINISHED},
    documents::{Documents, Folder, Sizes},
    erased::Erased,
    error,
    frame::{self, FrameKind, FramePlace},
    frames::Tail,
    index::Index,
    log::Log,
    segment::{SECTOR, Segment, SegmentHeader, check_alone, segment_name, segments_in},
    synced::Synced,
    tail::{LogTail, TailOptions, first_segment, new_salt, write_zeros},
    walk::{End, Walked, read_chain},
};

/// The findings of an opening.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// The file that keeps the torn end of the last write.
    pub(crate) set_aside: Option<String>,
}

/// A log that was opened for writing.
pub(crate) struct OpenLog {
    pub(crate) log: Arc<Log>,
    pub(crate) tail: LogTail,
    pub(crate) findings: Findings,
}

/// The two possible histories of a folder: with a log, or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Founded {
    /// There was a log, and it must be found.
    Before,
    /// There was none, or only a part of it was made.
    Never,
}

/// Opens a log for writing, and makes it if there was none. The folder must be locked.
pub(crate) fn open(
    files: Arc<dyn Files>,
    founded: Founded,
    options: &TailOptions,
) -> Result<OpenLog, StoreError> {
    let names = tidy(&*files)?;
    let headers = chain_or_first(&*files, &segments_in(&names), founded, options)?;
    if headers[0].previous != 0 {
        return Err(error::damaged("the segments before it are missing", headers[0].first, 0));
    }
    let (last, sealed) = headers.split_last().expect("there is one at least");
    let active = Segment::open(&*files, last.first)?;
    check_alone(&*active.file, &segment_name(last.first))?;
    let cache = Cache::new();
    let lineage = active.header.lineage;
    let mut index = Index::new(&*files, lineage, &cache);
    index.load(&names, sealed, last)?;
    let mut replayed = index.replay(&active, End::Open)?;
    let findings = mend(&*files, &active, &replayed)?;
    settle(&*files, &active, &mut replayed)?;
    let view = index.into_view();
    check_left_out(&headers, &view.erased)?;
    view.tables.active().write().end = replayed.end;
    let log = Arc::new(Log::new(files.clone(), lineage, view));
    let tail = LogTail::new(files, active, replayed.end, options.clone())?;
    Ok(OpenLog { log, tail, findings })
}

/// Opens the documents for writing, and makes their log if there was none. `fanout` runs of one
/// level are merged into one of the next.
pub(crate) fn open_documents(
    files: Arc<dyn Files>,
    founded: Founded,
    options: &TailOptions,
    fanout: usize,
) -> Result<(Documents, Findings), StoreError> {
    let names = tidy(&*files)?;
    let folder = Folder::look(&*files, &names, &[])?;
    // Where there are runs, there was a log.
    let founded = if folder.runs.is_empty() { founded } else { Founded::Before };
    let headers = chain_or_first(&*files, &folder.firsts, founded, options)?;
    let last = headers.last().expect("there is one at least").first;
    check_alone(&*Segment::open(&*files, last)?.file, &segment_name(last))?;
    folder.tidy(&*files, &headers)?;
    let sizes = Some(Sizes { segment_bytes: options.segment_bytes, fanout });
    let (documents, mut replayed) =
        Documents::load(files.clone(), sizes, folder, &headers, End::Open)?;
    let active = documents.active_segment();
    let findings = mend(&*files, &active, &replayed)?;
    settle(&*files, &active, &mut replayed)?;
    let tail = LogTail::new(files, active, replayed.end, options.clone())?;
    documents.begin_writing(tail, replayed.next);
    Ok((documents, findings))
}

/// Checks that everything left out of a segment is erased. The change that erased it was durable
/// before the rewrite, so if that change is gone, the end of the log is gone.
fn check_left_out(segments: &[SegmentHeader], erased: &Erased) -> Result<(), StoreError> {
    for (segment, next) in segments.iter().zip(&segments[1..]) {
        let Some(rewritten) = segment.rewritten else { continue };
        let first = segment.first;
        let next = next.first;
        let left_out = (next - first).saturating_sub(rewritten.events.into());
        if erased.count(first, next - 1) < left_out {
            let what = "events were left out of it, but the change that erased them is gone";
            return Err(error::damaged(what, first, 0));
        }
    }
    Ok(())
}

/// Removes unfinished files. Returns the names of the others.
fn tidy(files: &dyn Files) -> Result<Vec<String>, StoreError> {
    let mut names = list(files)?;
    for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
        files.remove(name).map_err(|e| error::disk("removing what was not finished", name, e))?;
    }
    names.retain(|name| !name.ends_with(UNFINISHED));
    // The names may be in the system's memory only, and later steps depend on them.
    files.sync_names().map_err(|e| error::disk("syncing the folder", "", e))?;
    Ok(names)
}

fn chain_or_first(
    files: &dyn Files,
    firsts: &[u64],
    founded: Founded,
    options: &TailOptions,
) -> Result<Vec<SegmentHeader>, StoreError> {
    if !firsts.is_empty() {
        return read_chain(files, firsts);
    }
    if founded == Founded::Before {
        return Err(StoreError::corrupt(format!(
            "the folder is a journal's, but its log is gone; restore it from a backup: file={}",
            segment_name(1)
        )));
    }
    let now = options.clock.now();
    let lineage = Lineage::new(options.ids.uuid(now));
    let salt = new_salt(&*options.ids, now);
    Ok(vec![first_segment(files, lineage, salt, options.segment_bytes)?.header])
}

pub(crate) fn list(files: &dyn Files) -> Result<Vec<String>, StoreError> {
    files.list().map_err(|e| error::disk("listing the folder", "", e))
}

/// Sets a torn end aside: copies it into a file of its own, then removes it from the log. No caller
/// was told that any of it was stored, but it may be all that is left of some data.
fn mend(files: &dyn Files, segment: &Segment, replayed: &Walked) -> Result<Findings, StoreError> {
    let Tail::Torn { end } = replayed.tail else { return Ok(Findings::default()) };
    let first = segment.header.first;
    let torn = &replayed.bytes[replayed.end as usize..end as usize];
    let names = list(files)?;
    let free = (1..).map(|number| format!("{first:020}-{}-{number}.torn", replayed.end));
    let name = free.into_iter().find(|name| !names.contains(name)).expect("numbers do not end");
    files.put(&name, torn).map_err(|e| error::disk("setting a torn end aside", &name, e))?;
    let cleaned = write_zeros(&*segment.file, replayed.end, end.next_multiple_of(SECTOR))
        .and_then(|()| segment.file.sync());
    cleaned.map_err(|e| error::disk("clearing a torn end", &segment_name(first), e))?;
    Ok(Findings { set_aside: Some(name) })
}

/// Makes sure of the last frame. No later frame proves that it is durable: it may be in the
/// system's memory only, where a failed sync leaves it although the disk never had it. It is
/// written again, and the sync that follows takes it to the disk.
fn settle(files: &dyn Files, segment: &Segment, replayed: &mut Walked) -> Result<(), StoreError> {
    let Some((offset, kind)) = replayed.last else { return Ok(()) };
    let file: &dyn File = &*segment.file;
    let first = segment.header.first;
    let at = |e| {
        // This opening has failed, whether or not the doubt could be recorded.
        let _ = Synced::doubt(files);
        error::disk("securing the end of the log", &segment_name(first), e)
    };
    // Where the write was cut short in the zeros that pad the frame, the file is too short.
    replayed.bytes.resize(replayed.bytes.len().max(replayed.end as usize), 0);
    let frame = &replayed.bytes[offset as usize..replayed.end as usize];
    file.write_at(frame, u64::from(offset)).and_then(|()| file.sync()).map_err(at)?;
    if kind == FrameKind::Close {
        let place =
            FramePlace { salt: segment.header.salt, seed: segment.seed, offset: replayed.end };
        // From this mark on a torn end is possible again.
        let mark = frame::mark(place, replayed.next, FrameKind::Open);
        file.write_at(&mark, u64::from(replayed.end)).and_then(|()| file.sync()).map_err(at)?;
        replayed.end += mark.len() as u32;
    }
    Ok(())
}
