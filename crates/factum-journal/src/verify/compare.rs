//! The comparison of the index of a part of the log with that part.

use factum_backend::Postings;
use factum_kernel::{Direction, StoreError};

use super::streams::Streams;
use crate::{
    cache::Cache,
    chunk::{self, Places},
    erased::Erased,
    key::{self, Term},
    posting::{List, TermSource},
    recent::{Recent, RecentStream},
    record::{StreamState, take_state},
    run::Run,
    run::reader::RunReader,
};

/// The number of entries of each kind in a part of the log. If a run has entries only for what is
/// in the log, and these counts are equal, then the run has an entry for all that is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    segments: u64,
    places: u64,
    in_streams: u64,
    in_categories: u64,
    in_types: u64,
    tags: u64,
    /// Entries about erased events, which are in the run of the change that erased them.
    erased: u64,
    /// Events that were left out of rewritten segments. Earlier runs still have them.
    left_out: u64,
}

impl Counts {
    /// Counts the entries of a run, and checks that they are in order.
    pub(super) fn of(run: &Run) -> Result<Self, StoreError> {
        let mut counts = Self::default();
        run.check(|entry| counts.count(entry.key(), entry.value()).is_some())?;
        Ok(counts)
    }

    /// Counts an entry; `None` if it is not valid.
    fn count(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let count = match (key.first()?, key::split(key)) {
            (b's', Some((_, 0))) => return take_state(&mut &value[..]).map(|_| ()),
            (b's', Some(_)) => &mut self.in_streams,
            (b'c', Some(_)) => &mut self.in_categories,
            (b't', Some(_)) => &mut self.in_types,
            (b'g', Some(_)) => &mut self.tags,
            (b'p', None) => {
                self.places += Places::decode(value)?.offsets.len() as u64 - 1;
                return Some(());
            }
            (b'n', None) => {
                self.segments += 1;
                return Some(());
            }
            (b'e', None) => {
                self.erased += 1;
                return key::number_of(key).map(|_| ());
            }
            _ => return None,
        };
        let positions = chunk::decode(value)?;
        *count += positions.len() as u64;
        // If a position stood here twice, one could be missing elsewhere.
        positions.is_sorted_by(|one, next| one < next).then_some(())
    }

    /// Returns whether there is an entry about erased events.
    pub(super) fn has_erased(&self) -> bool {
        self.erased > 0
    }

    /// Adds the counts of a segment of the log.
    pub(super) fn add(&mut self, recent: &Recent, left_out: &Erased) {
        let positions = recent.offsets.len() as u64;
        let gone = left_out.count(recent.first(), recent.last());
        self.segments += 1;
        self.places += positions;
        self.left_out += gone;
        for count in [&mut self.in_streams, &mut self.in_categories, &mut self.in_types] {
            *count += positions - gone;
        }
        self.tags += recent.tags.values().map(|positions| positions.len() as u64).sum::<u64>();
    }

    /// The first count that is more or less than it should be.
    pub(super) fn difference(&self, wanted: &Self) -> Option<String> {
        let gone = wanted.left_out;
        // An event that was left out may have had any tags.
        let tags = if gone > 0 { u64::MAX } else { 0 };
        let counts = [
            ("segments", self.segments, wanted.segments, 0),
            ("places", self.places, wanted.places, 0),
            ("events of streams", self.in_streams, wanted.in_streams, gone),
            // Each event is in one stream, one category and one type.
            ("events of categories", self.in_categories, self.in_streams, 0),
            ("events of types", self.in_types, self.in_streams, 0),
            ("tags", self.tags, wanted.tags, tags),
        ];
        let wrong = counts.into_iter().find(|(_, found, least, more)| {
            !(*least..=least.saturating_add(*more)).contains(found)
        });
        wrong.map(|(name, found, wanted, _)| format!("its {name} are {found} instead of {wanted}"))
    }
}

/// The index of a segment, made from its frames, and the positions that were left out of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remade<'s> {
    pub(super) recent: &'s Recent,
    pub(super) left_out: &'s Erased,
}

/// The first item of a segment that a run has wrong.
pub(super) fn segment(run: &Run, cache: &Cache, remade: Remade<'_>) -> Option<String> {
    let Remade { recent, .. } = remade;
    let reader = RunReader { run, cache };
    let wrong = |what: String, is_same: Result<bool, StoreError>| match is_same {
        Ok(true) => None,
        Ok(false) => Some(what),
        Err(error) => Some(format!("{what} {error}")),
    };
    let terms = recent.categories.keys().map(|name| Term::Category(name));
    let terms = terms.chain(recent.tags.keys().map(|tag| Term::Tag(tag)));
    let mut terms = terms.chain(recent.names.iter().map(|name| Term::Type(name)));
    let mut streams = recent.streams.iter();
    terms
        .find_map(|term| wrong(shown(term), has_same(&reader, remade, term)))
        .or_else(|| {
            streams.find_map(|(name, stream)| {
                wrong(format!("stream={name}"), has_stream(&reader, recent, name, stream))
            })
        })
        .or_else(|| wrong("places".into(), has_places(&reader, remade)))
        .or_else(|| {
            let names = reader.names(recent.first());
            wrong("names of types".into(), names.map(|names| names == *recent.names))
        })
}

fn shown(term: Term<'_>) -> String {
    match term {
        Term::Stream(text) => format!("stream={text}"),
        Term::Category(text) => format!("category={text}"),
        Term::Type(text) => format!("type={text}"),
        Term::Tag(text) => format!("tag={text}"),
    }
}

/// Returns whether both have the same positions of a term in the segment. The run may have more, of
/// events that were left out since.
fn has_same(
    reader: &RunReader<'_>,
    remade: Remade<'_>,
    term: Term<'_>,
) -> Result<bool, StoreError> {
    let Remade { recent, left_out } = remade;
    let mut ours = recent.list(term);
    let mut theirs = reader.list(term);
    let seek = |list: &mut Option<List<'_>>, from| match list {
        Some(list) => list.seek(from, Direction::Forward),
        None => Ok(None),
    };
    let mut from = recent.first();
    loop {
        let wanted = seek(&mut ours, from)?;
        let found = seek(&mut theirs, from)?.filter(|it| *it <= recent.last());
        match (wanted, found) {
            (None, None) => return Ok(true),
            (Some(wanted), Some(found)) if wanted == found => from = found + 1,
            (_, Some(found)) if left_out.contains(found) => from = found + 1,
            _ => return Ok(false),
        }
    }
}

fn has_stream(
    reader: &RunReader<'_>,
    recent: &Recent,
    name: &str,
    stream: &RecentStream,
) -> Result<bool, StoreError> {
    for (version, positions) in stream.stretches() {
        let wanted = positions.iter().map(|relative| recent.first() + u64::from(*relative));
        let limit = positions.len();
        let found = reader.stream_positions(name, version, Direction::Forward, limit)?;
        if !wanted.eq(found) {
            return Ok(false);
        }
    }
    Ok(reader.state(name)?.is_some())
}

fn has_places(reader: &RunReader<'_>, remade: Remade<'_>) -> Result<bool, StoreError> {
    let Remade { recent, left_out } = remade;
    let mut position = recent.first();
    while position <= recent.last() {
        let (first, places) = reader.places(position)?;
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

/// The first stream whose state at the end of a run differs between the run and the log.
pub(super) fn states(run: &Run, streams: &Streams) -> Option<String> {
    for block in 0..run.block_count() {
        let Ok(entries) = run.entries(block) else { return Some("a block can't be read".into()) };
        for entry in entries {
            let Some((term, 0)) = key::split(entry.key()) else { continue };
            // The kind is before the name, and a zero byte after it.
            let name = term.get(1..term.len() - 1).and_then(|name| str::from_utf8(name).ok());
            let Some(name) = name.filter(|_| key::is_stream(term)) else { continue };
            let found = take_state(&mut entry.value());
            if found.is_none_or(|found| !is_state(streams, name, found)) {
                return Some(format!("how a stream is, stream={name}"));
            }
        }
    }
    None
}

/// Returns whether a stream may have this state. The erased versions in a run depend on the time at
/// which it was made. A run that was made after a rewrite knows erasures of a later change from the
/// rewritten segment.
fn is_state(streams: &Streams, name: &str, found: StreamState) -> bool {
    let key = streams.key(name);
    let Some(mut wanted) = streams.state(key) else { return false };
    let least = wanted.bounds.erased_through;
    let most = least.max(streams.left_out_through(key));
    wanted.bounds.erased_through = found.bounds.erased_through;
    found == wanted && (least..=most).contains(&found.bounds.erased_through)
}
