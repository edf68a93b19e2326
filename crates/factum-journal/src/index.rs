//! Finding the index of the sealed segments at opening, and making what is missing.

use std::sync::Arc;

use factum_core::{Lineage, StoreError, Timestamp};
use hashbrown::HashSet;

use crate::{
    cache::Cache,
    disk::Files,
    erased::Erased,
    error, key,
    log::View,
    recent::Recent,
    replay::Replay,
    run::{Run, run_name, runs_in},
    seal::write_run,
    segment::{Segment, SegmentHeader},
    tables::{SharedRecent, Tables},
    walk::{End, Walked, walk},
};

/// The index of a log while it is opened.
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

    /// Takes what is there of runs, and makes those that are missing; what is covered by others is
    /// removed. `active`: the header of the segment behind the sealed ones.
    pub(crate) fn load(
        &mut self,
        names: &[String],
        sealed: &[Segment],
        active: &SegmentHeader,
    ) -> Result<(), StoreError> {
        let mut used = HashSet::new();
        let mut index = 0;
        while let Some(segment) = sealed.get(index) {
            let run = match self.find(names, &sealed[index..], active) {
                Some(run) => run,
                None => {
                    let next = sealed.get(index + 1).map_or(active, |next| &next.header);
                    self.make(segment, next)?
                }
            };
            used.insert(run.name.clone());
            index += count_covered(&sealed[index..], &run);
            self.take(run)?;
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

    /// Takes what is there of runs, and replays what has none; nothing is written.
    pub(crate) fn load_only(
        &mut self,
        names: &[String],
        sealed: &[Segment],
        active: &SegmentHeader,
    ) -> Result<(), StoreError> {
        let mut index = 0;
        while index < sealed.len() {
            let Some(run) = self.find(names, &sealed[index..], active) else { break };
            index += count_covered(&sealed[index..], &run);
            self.take(run)?;
        }
        while let Some(segment) = sealed.get(index) {
            index += 1;
            let next = sealed.get(index).map_or(active, |next| &next.header);
            self.replay(segment, End::Sealed(next))?;
        }
        Ok(())
    }

    fn take(&mut self, run: Run) -> Result<(), StoreError> {
        load_erased(&run, self.cache, &mut self.erased)?;
        self.tables.runs.push(Arc::new(run));
        Ok(())
    }

    /// The widest whole run of this log's that begins with the first of these segments.
    fn find(&self, names: &[String], sealed: &[Segment], active: &SegmentHeader) -> Option<Run> {
        let first = sealed.first()?.header.first;
        let fitting = runs_in(names).into_iter().filter(|(from, _)| *from == first);
        fitting.filter_map(|range| self.open(range, sealed, active)).next()
    }

    fn open(
        &self,
        (first, last): (u64, u64),
        sealed: &[Segment],
        active: &SegmentHeader,
    ) -> Option<Run> {
        let run = Run::open(self.files, &run_name(first, last)).ok()?;
        let header = run.header;
        let at = sealed.iter().position(|segment| segment.header.first == header.segment)?;
        let next = sealed.get(at + 1).map_or(active, |next| &next.header);
        let is_ours = header.lineage == self.lineage
            && (header.first, header.last) == (first, last)
            && sealed[at].header.salt == header.salt
            && next.first == header.last + 1;
        is_ours.then_some(run)
    }

    /// Makes the run of one segment anew, out of the log.
    fn make(&mut self, segment: &Segment, next: &SegmentHeader) -> Result<Run, StoreError> {
        let mut alone = Self {
            tables: self.tables.clone(),
            erased: self.erased.clone(),
            ..Self::new(self.files, self.lineage, self.cache)
        };
        alone.replay(segment, End::Sealed(next))?;
        let recent = alone.tables.active().read();
        let name = write_run(self.files, self.lineage, &recent, &alone.erased)?;
        Run::open(self.files, &name)
    }

    /// Replays a segment into memory, behind what is there.
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

    /// What is in the log.
    pub(crate) fn into_view(self) -> View {
        let Self { lineage, tables, erased, last_at, .. } = self;
        let head = tables.active().read().last();
        View { lineage, head, last_at, erased: Arc::new(erased), tables: Arc::new(tables) }
    }
}

/// How many of these segments a run covers.
fn count_covered(sealed: &[Segment], run: &Run) -> usize {
    sealed.iter().take_while(|segment| segment.header.first <= run.header.last).count()
}

/// Adds what a run knows of erased positions.
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
