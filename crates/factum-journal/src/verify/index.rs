//! The verification of the index's runs: each must be intact, of this log, and equal to the log.

use std::{io, ops::RangeInclusive};

use factum_kernel::{StoreError, StoreErrorKind};
use hashbrown::HashSet;

use super::{
    Findings, Watch,
    chain::{self, Chain},
    compare::{self, Counts, Remade},
    events::index_damage,
    streams::Streams,
};
use crate::{
    cache::Cache,
    erased::Erased,
    index::load_erased,
    run::reader::RunReader,
    run::{Run, run_name, runs_in},
    segment::{Segment, SegmentHeader},
};

/// The runs in use, in the order of positions.
pub(super) struct Runs<'c> {
    runs: Vec<Checked>,
    cache: &'c Cache,
    /// True once a part of the log was missing. From there on, the right states of streams are
    /// unknown.
    has_gap: bool,
}

/// A run, and the counts of its part of the log so far.
struct Checked {
    run: Run,
    found: Counts,
    wanted: Counts,
    /// True once a damage of this run was reported. There is one per run, because a single cause
    /// may affect many places.
    is_blamed: bool,
}

impl<'c> Runs<'c> {
    /// Opens the runs of a log, and reads each once.
    pub(super) fn open(
        chain: &Chain<'_>,
        names: &[String],
        cache: &'c Cache,
        findings: &mut Findings,
        watch: &mut Watch<'_>,
    ) -> Self {
        let mut runs = Self { runs: Vec::new(), cache, has_gap: false };
        for (first, last) in runs_in(names) {
            let name = run_name(first, last);
            match chain.files.open(&name) {
                // The run was merged away since the names were read.
                Err(e) if !chain.is_alone && e.kind() == io::ErrorKind::NotFound => continue,
                Err(_) => {}
                Ok(file) => watch.add(chain::len(&*file)),
            }
            // A wider run covers this one, which a merge left over. The next opening removes it.
            if runs.runs.last().is_some_and(|it| last <= it.run.header.last) {
                continue;
            }
            match read(chain, &name, first..=last) {
                Ok(checked) => {
                    if checked.found.has_erased() {
                        findings.erased_runs.insert(name);
                    }
                    runs.runs.push(checked);
                }
                Err(Unsound::Unreadable(error)) => {
                    findings.unreadable.get_or_insert(error);
                    let what = "the disk can't read a file of the index";
                    findings.report.damage(index_damage(&name, what));
                }
                Err(Unsound::Damaged(what, offset)) => {
                    findings.bad_runs.insert(name.clone());
                    let mut damage = index_damage(&name, what).positions(first, Some(last));
                    damage.offset = offset;
                    findings.report.damage(damage);
                }
            }
        }
        findings.report.runs = runs.runs.len() as u64;
        runs
    }

    /// The last position up to which the runs have the whole log. The first missing run may be the
    /// one with an erasure.
    pub(super) fn last(&self) -> u64 {
        self.runs
            .iter()
            .map(|it| it.run.header)
            .fold(0, |last, header| if header.first == last + 1 { header.last } else { last })
    }

    /// Records that a part of the log is missing here.
    pub(super) fn pass_gap(&mut self) {
        self.has_gap = true;
    }

    /// Compares a segment with its run. Returns whether the runs up to here are complete and this
    /// one ends with the segment.
    pub(super) fn check(
        &mut self,
        segment: &Segment,
        remade: Remade<'_>,
        streams: &Streams,
        findings: &mut Findings,
    ) -> bool {
        let first = segment.header.first;
        let known = self.last();
        let covers =
            |it: &&mut Checked| (it.run.header.first..=it.run.header.last).contains(&first);
        // The next opening makes a missing run.
        let Some(checked) = self.runs.iter_mut().find(covers) else { return false };
        checked.wanted.add(remade.recent, remade.left_out);
        let mut wrong = compare::segment(&checked.run, self.cache, remade);
        let is_end = checked.run.header.segment == first;
        if is_end && !self.has_gap {
            wrong = wrong
                .or_else(|| checked.found.difference(&checked.wanted))
                .or_else(|| compare::states(&checked.run, streams));
        }
        if let Some(wrong) = wrong {
            checked.blame(findings, &wrong);
        }
        is_end && checked.run.header.last <= known
    }

    /// Returns whether there is a run of a segment.
    pub(super) fn cover(&self, first: u64) -> bool {
        self.of(first).is_some()
    }

    fn of(&self, first: u64) -> Option<&Run> {
        let covers = |it: &&Checked| (it.run.header.first..=it.run.header.last).contains(&first);
        self.runs.iter().find(covers).map(|it| &it.run)
    }

    /// The positions that the run of a segment has for these versions of a stream.
    pub(super) fn positions(
        &self,
        first: u64,
        stream: &str,
        versions: RangeInclusive<u64>,
    ) -> Option<Vec<u64>> {
        let reader = RunReader { run: self.of(first)?, cache: self.cache };
        reader.positions_between(stream, versions).ok()
    }

    /// The erased positions in all runs; `None` if there are none.
    pub(super) fn erased(&self, findings: &mut Findings) -> Option<Erased> {
        let mut erased = Erased::default();
        for checked in &self.runs {
            if load_erased(&checked.run, self.cache, &mut erased).is_err() {
                findings.bad_runs.insert(checked.run.name.clone());
                let what = "its entries about erased events can't be read";
                findings.report.damage(index_damage(&checked.run.name, what));
            }
        }
        (erased != Erased::default()).then_some(erased)
    }

    /// Reports that the runs are wrong about whether an event is erased. Which run is wrong can't
    /// be known, so all are rebuilt.
    pub(super) fn blame(&self, findings: &mut Findings, position: u64, what: &str) {
        if findings.is_erasure_blamed {
            return;
        }
        findings.is_erasure_blamed = true;
        findings.bad_runs.extend(self.runs.iter().map(|it| it.run.name.clone()));
        let covers = |it: &&Checked| position <= it.run.header.last;
        let Some(checked) = self.runs.iter().find(covers).or(self.runs.last()) else { return };
        let what = format!("the index {what}");
        let damage = index_damage(&checked.run.name, what).positions(position, Some(position));
        findings.report.damage(damage);
    }
}

impl Checked {
    fn blame(&mut self, findings: &mut Findings, wrong: &str) {
        if std::mem::replace(&mut self.is_blamed, true) {
            return;
        }
        findings.bad_runs.insert(self.run.name.clone());
        let what = format!("the index differs from the log, {wrong}");
        let first = self.run.header.first;
        let last = self.run.header.last;
        findings.report.damage(index_damage(&self.run.name, what).positions(first, Some(last)));
    }
}

/// The fault of a run.
enum Unsound {
    /// The text, and the offset.
    Damaged(String, Option<u64>),
    Unreadable(StoreError),
}

/// Reads a whole run.
fn read(chain: &Chain<'_>, name: &str, positions: RangeInclusive<u64>) -> Result<Checked, Unsound> {
    let damaged = |error: StoreError| {
        if error.kind() != StoreErrorKind::Corrupt {
            return Unsound::Unreadable(error);
        }
        let text = error.to_string();
        let offset = text.rsplit("offset=").next().and_then(|offset| offset.parse().ok());
        Unsound::Damaged("a file of the index is not what was written".into(), offset)
    };
    let run = Run::open(chain.files, name).map_err(damaged)?;
    if !is_ours(chain, &run, positions) {
        let what = "a file of the index is of another log, or of another history";
        return Err(Unsound::Damaged(what.into(), None));
    }
    let found = Counts::of(&run).map_err(damaged)?;
    Ok(Checked { run, found, wanted: Counts::default(), is_blamed: false })
}

/// Returns whether a run is of this log, as far as the log's segments show.
fn is_ours(chain: &Chain<'_>, run: &Run, positions: RangeInclusive<u64>) -> bool {
    let header = run.header;
    let known: HashSet<u64> = chain.firsts.iter().copied().collect();
    if (header.first..=header.last) != positions {
        return false;
    }
    let segments = chain.segments.iter().flatten();
    match segments.clone().find(|segment| segment.first == header.segment) {
        Some(segment) => {
            let next = chain.firsts.iter().find(|first| **first > header.segment);
            let is_followed = next.is_none_or(|next| *next == header.last + 1);
            // A missing segment after it, or a missing newest segment, is not the run's fault.
            let is_excused = segments.clone().any(|it| !known.contains(&it.previous));
            header.salt == segment.salt
                && header.lineage == segment.lineage
                && (is_followed || is_excused)
        }
        // The segment is missing or can't be read, which is reported elsewhere.
        None => {
            let is_excused = |it: &SegmentHeader| it.lineage == header.lineage;
            segments.clone().next().is_none_or(is_excused)
        }
    }
}
