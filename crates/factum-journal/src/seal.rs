//! The background work on the index: from a sealed segment's index in memory to its run on disk,
//! and from many runs to few. The log does not depend on it, and the index can be rebuilt at any
//! time.

use std::sync::Arc;

use factum_kernel::{Lineage, StoreError};

use crate::{
    chunk::{self, CHUNK_MAX, PLACES_MAX, Places},
    disk::Files,
    erased::Erased,
    error,
    key::{self, Term},
    log::Log,
    recent::Recent,
    record::put_state,
    run::reader::encode_names,
    run::{Run, RunBuilder, RunHeader, merge},
    segment::Segment,
};

/// This many runs of one level are merged into one of the next level.
pub(crate) const FANOUT: usize = 8;

/// Writes the run of a sealed segment, and returns its name.
pub(crate) fn write_run(
    files: &dyn Files,
    lineage: Lineage,
    recent: &Recent,
    erased: &Erased,
) -> Result<String, StoreError> {
    let Segment { header, .. } = recent.segment;
    let header = RunHeader {
        lineage,
        level: 0,
        first: header.first,
        last: recent.last(),
        segment: header.first,
        salt: header.salt,
    };
    let mut run = RunBuilder::new(files, header)?;
    // In the order of keys: c, e, g, n, p, s, t.
    add_terms(&mut run, recent, sorted(&recent.categories), Term::Category)?;
    for container in &recent.erased_containers {
        run.add(&key::erased(*container), &erased.encode(*container))?;
    }
    add_terms(&mut run, recent, sorted(&recent.tags), Term::Tag)?;
    run.add(&key::names(recent.first()), &encode_names(&recent.names))?;
    add_places(&mut run, recent)?;
    add_streams(&mut run, recent)?;
    let mut types: Vec<(&str, &[u32])> =
        recent.names.iter().zip(&recent.types).map(|(name, it)| (&**name, &it[..])).collect();
    types.sort_unstable();
    add_terms(&mut run, recent, types, Term::Type)?;
    run.finish()
}

fn sorted(map: &hashbrown::HashMap<String, Vec<u32>>) -> Vec<(&str, &[u32])> {
    let mut terms: Vec<_> = map.iter().map(|(text, it)| (&text[..], &it[..])).collect();
    terms.sort_unstable();
    terms
}

fn add_terms<'r>(
    run: &mut RunBuilder<'_>,
    recent: &Recent,
    terms: Vec<(&'r str, &'r [u32])>,
    term: fn(&'r str) -> Term<'r>,
) -> Result<(), StoreError> {
    for (text, relative) in terms {
        let term = term(text).key();
        for part in relative.chunks(CHUNK_MAX) {
            let positions = absolute(recent, part);
            run.add(&term.at(positions[0]), &chunk::encode(&positions))?;
        }
    }
    Ok(())
}

fn add_places(run: &mut RunBuilder<'_>, recent: &Recent) -> Result<(), StoreError> {
    let segment = recent.first();
    let last = recent.offsets.len();
    for start in (0..last).step_by(PLACES_MAX) {
        let end = (start + PLACES_MAX).min(last);
        let mut offsets: Vec<u64> =
            recent.offsets[start..end].iter().map(|offset| u64::from(*offset)).collect();
        offsets.push(u64::from(recent.offsets.get(end).copied().unwrap_or(recent.end)));
        run.add(&key::places(segment + start as u64), &Places { segment, offsets }.encode())?;
    }
    Ok(())
}

fn add_streams(run: &mut RunBuilder<'_>, recent: &Recent) -> Result<(), StoreError> {
    let mut streams: Vec<_> = recent.streams.iter().collect();
    // Sorted by name. In keys a zero byte ends the name, and no byte of a name is less.
    streams.sort_unstable_by_key(|(name, _)| &name[..]);
    for (name, stream) in streams {
        let term = Term::Stream(name).key();
        let mut state = Vec::new();
        put_state(&mut state, &stream.state);
        run.add(&term.at(0), &state)?;
        for (mut version, positions) in stream.stretches() {
            for part in positions.chunks(CHUNK_MAX) {
                run.add(&term.at(version), &chunk::encode(&absolute(recent, part)))?;
                version += part.len() as u64;
            }
        }
    }
    Ok(())
}

fn absolute(recent: &Recent, relative: &[u32]) -> Vec<u64> {
    relative.iter().map(|it| recent.first() + u64::from(*it)).collect()
}

/// Writes the run of the oldest sealed segment that has none. Returns whether there was one. Must
/// not run twice at the same time.
pub(crate) fn seal_step(log: &Log) -> Result<bool, StoreError> {
    let view = log.view();
    let [oldest, _, ..] = &view.tables.recents[..] else { return Ok(false) };
    let name = write_run(&*log.files, log.lineage, &oldest.read(), &view.erased)?;
    let run = Arc::new(Run::open(&*log.files, &name)?);
    log.update(|view| {
        let tables = Arc::make_mut(&mut view.tables);
        tables.runs.push(run);
        tables.recents.remove(0);
    });
    Ok(true)
}

/// Merges runs if there are enough of one level, and returns whether there were. Must not run twice
/// at the same time.
pub(crate) fn merge_step(log: &Log, is_stopped: &dyn Fn() -> bool) -> Result<bool, StoreError> {
    let view = log.view();
    let merged = merge_last(&*log.files, &view.tables.runs, is_stopped)?;
    let Some((first, run)) = merged else { return Ok(false) };
    let old = &view.tables.runs[first..];
    log.update(|view| {
        // Since then, runs may have been added after these, but none among them.
        let tables = Arc::make_mut(&mut view.tables);
        tables.runs.splice(first..first + old.len(), [run]);
    });
    for run in old {
        // If this fails, the next opening removes the file, because the new run covers it.
        let removed = log.files.remove(&run.name);
        removed.map_err(|e| error::disk("removing a run of the index", &run.name, e))?;
    }
    Ok(true)
}

/// Writes one run in place of the last of these, if there are enough of one level. Returns the
/// index of the first run that it replaces, and the new run; it replaces all from there on.
pub(crate) fn merge_last(
    files: &dyn Files,
    runs: &[Arc<Run>],
    is_stopped: &dyn Fn() -> bool,
) -> Result<Option<(usize, Arc<Run>)>, StoreError> {
    let Some(first) = to_merge(runs) else { return Ok(None) };
    let old: Vec<&Run> = runs[first..].iter().map(|run| &**run).collect();
    let Some(name) = merge(files, &old, is_stopped)? else { return Ok(None) };
    Ok(Some((first, Arc::new(Run::open(files, &name)?))))
}

/// The index of the first run to merge; the merge takes all runs from there on.
fn to_merge(runs: &[Arc<Run>]) -> Option<usize> {
    let level = runs.last()?.header.level;
    let same = runs.iter().rev().take_while(|run| run.header.level == level).count();
    (same >= FANOUT).then(|| runs.len() - same)
}

#[cfg(test)]
mod tests;
