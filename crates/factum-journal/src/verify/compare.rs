//! What the index says of a segment beside what the log says.

use factum_core::{Direction, StoreError};
use hashbrown::HashMap;

use super::{Expected, JournalReport};
use crate::{
    cache::Cache, erased::Erased, key::Term, posting::TermSource, recent::Recent,
    record::StreamState, run::Run, stretch::Stretch,
};

/// Reports where a run says something else of a segment than the log.
pub(super) fn run(run: &Run, cache: &Cache, expected: &Expected, report: &mut JournalReport) {
    let recent = &expected.recent;
    let stretch = Stretch { run, cache };
    let mut check = |what: String, is_same: Result<bool, StoreError>| match is_same {
        Ok(true) => {}
        Ok(false) => report.damage(format!(
            "the index says something else than the log, remove the file and open the store, \
             which makes it anew: file={} {what}",
            run.name
        )),
        Err(error) => report.damage(error),
    };
    for name in recent.categories.keys() {
        let term = Term::Category(name);
        check(format!("category={name}"), has_same(&stretch, expected, term));
    }
    for tag in recent.tags.keys() {
        check(format!("tag={tag}"), has_same(&stretch, expected, Term::Tag(tag)));
    }
    for name in recent.names.iter() {
        check(format!("type={name}"), has_same(&stretch, expected, Term::Type(name)));
    }
    for (name, stream) in &recent.streams {
        check(format!("stream={name}"), has_stream(&stretch, recent, name, stream));
    }
    check("places".into(), has_places(&stretch, expected));
    check("names".into(), stretch.names(recent.first()).map(|names| names == *recent.names));
}

/// Whether both hold the same positions of a term in the segment. A run may know more, of events
/// that were left out since.
fn has_same(
    stretch: &Stretch<'_>,
    expected: &Expected,
    term: Term<'_>,
) -> Result<bool, StoreError> {
    let Expected { recent, left_out, .. } = expected;
    let (mut ours, mut theirs) = (recent.postings(term), stretch.postings(term));
    let mut from = recent.first();
    loop {
        let wanted = ours.seek(from, Direction::Forward)?;
        let found = theirs.seek(from, Direction::Forward)?.filter(|it| *it <= recent.last());
        match (wanted, found) {
            (None, None) => return Ok(true),
            (Some(wanted), Some(found)) if wanted == found => from = found + 1,
            (_, Some(found)) if left_out.contains(found) => from = found + 1,
            _ => return Ok(false),
        }
    }
}

fn has_stream(
    stretch: &Stretch<'_>,
    recent: &Recent,
    name: &str,
    stream: &crate::recent::RecentStream,
) -> Result<bool, StoreError> {
    for (version, positions) in stream.stretches() {
        let wanted = positions.iter().map(|relative| recent.first() + u64::from(*relative));
        let limit = positions.len();
        let found = stretch.stream_positions(name, version, Direction::Forward, limit)?;
        if !wanted.eq(found) {
            return Ok(false);
        }
    }
    Ok(stretch.state(name)?.is_some())
}

fn has_places(stretch: &Stretch<'_>, expected: &Expected) -> Result<bool, StoreError> {
    let Expected { recent, left_out, .. } = expected;
    let mut position = recent.first();
    while position <= recent.last() {
        let (first, places) = stretch.places(position)?;
        let count = places.offsets.len() as u64 - 1;
        for at in position..first + count {
            let wanted = recent.place(at).map(|(offset, _)| u64::from(offset));
            let is_same = wanted == Some(places.offsets[(at - first) as usize]);
            if !is_same && !left_out.contains(at) {
                return Ok(false);
            }
        }
        position = first + count;
    }
    Ok(true)
}

/// Counts erased events. What the index calls erased must be so by its stream's state. The other
/// way round what was erased lately stands in the log only.
pub(super) fn erased(
    expected: &Expected,
    streams: &HashMap<String, StreamState>,
    erased: &Erased,
    report: &mut JournalReport,
) {
    let (first, last) = (expected.recent.first(), expected.recent.last());
    report.erased += expected.left_out.count(first, last);
    for (stream, version) in &expected.lost {
        let through = streams.get(stream).map_or(0, |it| it.bounds.erased_through.value());
        if *version > through {
            report.damage(format!(
                "events were left out that nothing erased: segment={first} stream={stream} \
                 version={version}"
            ));
        }
    }
    for (stream, version, position) in &expected.versions {
        let through = streams.get(stream).map_or(0, |it| it.bounds.erased_through.value());
        if *version <= through {
            report.erased += 1;
        } else if erased.contains(*position) {
            report.damage(format!(
                "the index calls an event erased that is not: position={position} stream={stream}"
            ));
        }
    }
}
