//! The index at opening: finds the runs of the sealed segments, and makes the missing ones.

use std::{ops::RangeInclusive, sync::Arc};

use factum_kernel::{Lineage, StoreError, Timestamp};
use hashbrown::HashSet;

use crate::{
    cache::Cache,
    disk::Files,
    erased::Erased,
    error,
    keeper::RECENTS_MAX,
    key,
    log::View,
    recent::Recent,
    replay::Replay,
    run::{Run, run_name, runs_in},
    seal::{merge_last, write_run},
    segment::{Segment, SegmentHeader},
    tables::{SharedRecent, Tables},
    walk::{End, Walked, walk},
};

/// The most sealed segments without a run that a read-only opening indexes in memory, if they are
/// large. A writer leaves about half as many.
const RUNLESS_MAX: usize = 2 * RECENTS_MAX;
/// The most bytes of log that a read-only opening indexes in memory, whatever the number of
/// segments.
const RUNLESS_BYTES_MAX: u64 = 512 << 20;

/// The index of a log during its opening.
pub(crate) struct Index<'a> {
    files: &'a dyn Files,
    lineage: Lineage,
    cache: &'a Cache,
    tables: Tables,
    erased: Erased,
    /// The time of the last event so far.
    last_at: Timestamp,
}

impl<'a> Index<'a> {
    pub(crate) fn new(files: &'a dyn Files, lineage: Lineage, cache: &'a Cache) -> Self {
        let tables = Tables { runs: Vec::new(), recents: Vec::new() };
        Self { files, lineage, cache, tables, erased: Erased::default(), last_at: Timestamp::EPOCH }
    }

    /// Takes the existing runs, makes the missing ones, and removes those that others cover.
    /// `active`: the header of the segment after the sealed ones.
    pub(crate) fn load(
        &mut self,
        names: &[String],
        sealed: &[SegmentHeader],
        active: &SegmentHeader,
    ) -> Result<(), StoreError> {
        let mut used = HashSet::new();
        let mut index = 0;
        while let Some(header) = sealed.get(index) {
            // A listed file that no longer exists counts as missing.
            let found = self.find(names, &sealed[index..], active).ok().flatten();
            let is_missing = found.is_none();
            let run = match found {
                Some(run) => run,
                None => self.make(header, sealed.get(index + 1).unwrap_or(active))?,
            };
            used.insert(run.name.clone());
            index += count_covered(&sealed[index..], &run);
            self.take(run)?;
            // Where all are missing, there would otherwise be one run, and one file, per segment.
            while is_missing && let Some(merged) = self.merge()? {
                used.insert(merged);
            }
        }
        for (first, last) in runs_in(names) {
            let name = run_name(first, last);
            if !used.contains(&name) {
                let removed = self.files.remove(&name);
                removed.map_err(|e| error::disk("removing an old run", &name, e))?;
            }
        }
        Ok(())
    }

    /// Takes the existing runs, and replays the segments without a run. Writes nothing.
    pub(crate) fn load_only(
        &mut self,
        names: &[String],
        sealed: &[SegmentHeader],
        active: &SegmentHeader,
    ) -> Result<(), StoreError> {
        let mut index = 0;
        while index < sealed.len() {
            let Some(run) = self.find(names, &sealed[index..], active)? else { break };
            index += count_covered(&sealed[index..], &run);
            self.take(run)?;
        }
        check_runless(&sealed[index..], active)?;
        while let Some(header) = sealed.get(index) {
            index += 1;
            let segment = Segment::open(self.files, header.first)?;
            self.replay(&segment, End::Sealed(sealed.get(index).unwrap_or(active)))?;
        }
        Ok(())
    }

    /// Merges the last runs if there are enough of them. Returns the name of the new run.
    fn merge(&mut self) -> Result<Option<String>, StoreError> {
        let merged = merge_last(self.files, &self.tables.runs, &|| false)?;
        let Some((first, run)) = merged else { return Ok(None) };
        let name = run.name.clone();
        for old in self.tables.runs.splice(first.., [run]) {
            let removed = self.files.remove(&old.name);
            removed.map_err(|e| error::disk("removing a run of the index", &old.name, e))?;
        }
        Ok(Some(name))
    }

    fn take(&mut self, run: Run) -> Result<(), StoreError> {
        load_erased(&run, self.cache, &mut self.erased)?;
        self.tables.runs.push(Arc::new(run));
        Ok(())
    }

    /// The widest whole run of this log that begins with the first of these segments.
    ///
    /// # Errors
    /// A listed run is gone, or covers more than the log was known to have: its writer has merged
    /// it with others, or others into it.
    fn find(
        &self,
        names: &[String],
        sealed: &[SegmentHeader],
        active: &SegmentHeader,
    ) -> Result<Option<Run>, StoreError> {
        let fitting = runs_in(names).into_iter().filter(|(from, _)| *from == sealed[0].first);
        for (first, last) in fitting {
            match Run::open(self.files, &run_name(first, last)) {
                Ok(run) if self.is_ours(&run, first..=last, sealed, active) => {
                    return Ok(Some(run));
                }
                Ok(run) if run.header.lineage == self.lineage && last >= active.first => {
                    let message = "the journal went on while it was looked at, try again";
                    return Err(StoreError::unavailable(message));
                }
                Err(error) if error::is_gone(&error) => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(None)
    }

    fn is_ours(
        &self,
        run: &Run,
        positions: RangeInclusive<u64>,
        sealed: &[SegmentHeader],
        active: &SegmentHeader,
    ) -> bool {
        let header = run.header;
        let at = sealed.iter().position(|segment| segment.first == header.segment);
        at.is_some_and(|at| {
            header.lineage == self.lineage
                && (header.first..=header.last) == positions
                && sealed[at].salt == header.salt
                && sealed.get(at + 1).unwrap_or(active).first == header.last + 1
        })
    }

    /// Makes the run of one segment from the log.
    fn make(&mut self, header: &SegmentHeader, next: &SegmentHeader) -> Result<Run, StoreError> {
        let mut alone = Self {
            tables: self.tables.clone(),
            erased: self.erased.clone(),
            ..Self::new(self.files, self.lineage, self.cache)
        };
        alone.replay(&Segment::open(self.files, header.first)?, End::Sealed(next))?;
        let recent = alone.tables.active().read();
        let name = write_run(self.files, self.lineage, &recent, &alone.erased)?;
        Run::open(self.files, &name)
    }

    /// Replays a segment into memory, after the segments before it.
    pub(crate) fn replay(&mut self, segment: &Segment, end: End<'_>) -> Result<Walked, StoreError> {
        let readable = segment.clone().with_extents()?;
        self.tables.recents.push(SharedRecent::new(Recent::new(readable)));
        let mut replay = Replay {
            tables: &self.tables,
            cache: self.cache,
            erased: std::mem::take(&mut self.erased),
            last_at: segment.header.base_at,
        };
        let walked = walk(segment, end, |frame, _| replay.add(frame))?;
        (self.erased, self.last_at) = (replay.erased, replay.last_at);
        Ok(walked)
    }

    /// The view of the log.
    pub(crate) fn into_view(self) -> View {
        let Self { lineage, tables, erased, last_at, .. } = self;
        let head = tables.active().read().last();
        View { lineage, head, last_at, erased: Arc::new(erased), tables: Arc::new(tables) }
    }
}

/// Checks that memory has room for the index of these segments.
fn check_runless(sealed: &[SegmentHeader], active: &SegmentHeader) -> Result<(), StoreError> {
    let ends = sealed.iter().skip(1).chain([active]).map(|next| u64::from(next.previous_end));
    let count = sealed.len();
    let bytes = ends.sum::<u64>();
    if count <= RUNLESS_MAX || bytes <= RUNLESS_BYTES_MAX {
        return Ok(());
    }
    Err(StoreError::unavailable(format!(
        "the index of a part of the journal is missing, open the journal for writing once, which \
        rebuilds it: first={} segments={count} bytes={bytes} max={RUNLESS_BYTES_MAX}",
        sealed[0].first
    )))
}

/// The number of these segments that a run covers.
fn count_covered(sealed: &[SegmentHeader], run: &Run) -> usize {
    sealed.iter().take_while(|segment| segment.first <= run.header.last).count()
}

/// Adds the erased positions that a run knows.
pub(crate) fn load_erased(run: &Run, cache: &Cache, erased: &mut Erased) -> Result<(), StoreError> {
    let mut next = Some(key::erased(0));
    while let Some(from) = next.take() {
        let Some(entry) = run.at_or_after(cache, &from)? else { return Ok(()) };
        if !key::is_erased(entry.key()) {
            return Ok(());
        }
        let container = key::number_of(entry.key()).ok_or_else(|| run.damaged(0))?;
        erased.decode(container, entry.value()).ok_or_else(|| run.damaged(0))?;
        next = container.checked_add(1).map(key::erased);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
