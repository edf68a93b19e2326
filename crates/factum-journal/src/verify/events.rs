//! The laws of the log, checked event by event, and the index of each segment.

use factum_kernel::{StoreError, StreamVersion, Timestamp};
use hashbrown::{HashMap, HashSet};

use super::{
    Findings, Watch,
    chain::{self, Chain, Visitor},
    compare::Remade,
    index::Runs,
    report::{Damage, Part},
    streams::{StreamKey, Streams},
};
use crate::{
    erased::Erased,
    frames::Frame,
    recent::{Indexed, Recent},
    record::{EventRecord, Record, StreamState},
    replay::tags_of,
    segment::Segment,
    walk::{End, walk},
};

/// Checks each event against the events before it, and the index of each segment.
pub(super) struct Events<'c> {
    streams: Streams,
    last_at: Timestamp,
    runs: Runs<'c>,
    /// The expected index of the segment; `None` if it can't be known.
    recent: Option<Recent>,
    /// The left-out positions of the segment.
    left_out: Erased,
    /// The erased versions of each stream at the end of the last segment with a run.
    erased_then: HashMap<StreamKey, StreamVersion>,
}

impl<'c> Events<'c> {
    pub(super) fn new(runs: Runs<'c>) -> Self {
        Self {
            streams: Streams::default(),
            last_at: Timestamp::EPOCH,
            runs,
            recent: None,
            left_out: Erased::default(),
            erased_then: HashMap::new(),
        }
    }

    /// The number of streams.
    pub(super) fn stream_count(&self) -> u64 {
        self.streams.len()
    }

    fn event(&mut self, event: &EventRecord<'_>, offset: u32) -> Result<(), String> {
        let stream = event.stream;
        let position = event.header.position;
        let key = self.streams.key(stream);
        let version = event.header.version;
        let is_next = self.streams.add_event(key, version);
        let is_early = event.header.recorded_at < self.last_at;
        self.last_at = event.header.recorded_at;
        if let Err(expected) = is_next {
            return Err(format!(
                "a version is out of order, position={position} stream={stream} \
                 version={version} expected={expected}"
            ));
        }
        if is_early {
            return Err(format!("time goes back, position={position}"));
        }
        let Some((category, _)) = stream.split_once('-') else {
            return Err(format!("no stream has such a name, position={position} stream={stream}"));
        };
        let Some(recent) = &mut self.recent else { return Ok(()) };
        if event.name as usize >= recent.names.len() {
            return Err(format!("an event's type has no name, position={position}"));
        }
        let indexed = Indexed { offset, stream, category, version, name: event.name };
        recent.push(indexed, tags_of(event.tags), StreamState::default);
        Ok(())
    }

    /// Compares the erased events by the log with those by the index. This looks at every event
    /// again, so it runs only if anything is erased at all.
    pub(super) fn check_erased(
        &self,
        chain: &Chain<'_>,
        findings: &mut Findings,
        watch: &mut Watch<'_>,
    ) -> Result<(), StoreError> {
        let erased = self.runs.erased(findings);
        let is_any = !self.streams.all_erased().is_empty() || self.streams.has_left_out();
        if self.erased_then.is_empty() && !is_any && erased.is_none() {
            return Ok(());
        }
        let erased = erased.unwrap_or_default();
        for (index, header) in chain.segments.iter().enumerate() {
            let Ok(header) = header else { continue };
            let segment = &Segment::open(chain.files, header.first)?;
            watch.more(chain::len(&*segment.file));
            let end = match chain.segments.get(index + 1) {
                Some(Ok(next)) => End::Sealed(next),
                _ => chain.end(),
            };
            let mut left_out = LeftOut::default();
            walk(segment, end, |frame, _| {
                self.check_frame(frame, &erased, findings);
                left_out.add(frame);
                Ok(())
            })?;
            self.check_left_out(chain, segment, &left_out, &erased, findings);
            watch.add(chain::len(&*segment.file));
        }
        Ok(())
    }

    /// Checks the left-out events of a rewritten segment: they must be erased, and an opening must
    /// be able to know it.
    fn check_left_out(
        &self,
        chain: &Chain<'_>,
        segment: &Segment,
        left_out: &LeftOut,
        erased: &Erased,
        findings: &mut Findings,
    ) {
        let first = segment.header.first;
        findings.report.erased += left_out.positions.len() as u64;
        let through = |stream: &str| self.streams.erased_through(self.streams.key(stream));
        let orphan = left_out.streams.iter().find(|(stream, version)| *version > through(stream));
        if let Some((stream, version)) = orphan {
            let what = format!(
                "events were left out of a segment, but the change that erased them is gone, \
                 stream={stream} version={version}"
            );
            findings.report.damage(Damage::new(Part::Log, chain.file(first), what));
            return;
        }
        let mut unknown = left_out.positions.iter().filter(|it| !erased.contains(**it)).peekable();
        let Some(position) = unknown.peek().copied() else { return };
        // If the erasure came after the runs, a replay finds the positions by their entries in this
        // run.
        let found = left_out.streams.iter().map(|(stream, version)| {
            let key = self.streams.key(stream);
            let then = self.erased_then.get(&key).copied().unwrap_or_default();
            let through = self.streams.erased_through(key).min(*version);
            self.runs.positions(first, stream, then.next().value()..=through.value())
        });
        let found: HashSet<u64> = found.flatten().flatten().collect();
        if self.runs.cover(first) && !unknown.all(|position| found.contains(position)) {
            self.runs.blame(findings, *position, "does not know that it is erased");
        }
    }

    /// Returns whether rewritten segments left out more than is erased.
    pub(super) fn has_orphans(&self) -> bool {
        self.streams.has_orphans()
    }

    fn check_frame(&self, frame: &Frame<'_>, erased: &Erased, findings: &mut Findings) {
        for (_, record) in &frame.records {
            let Record::Event(event) = record else { continue };
            let key = self.streams.key(event.stream);
            let version = event.header.version;
            let position = event.header.position.value();
            let is_erased = version <= self.streams.erased_through(key);
            findings.report.erased += u64::from(is_erased);
            let was_erased = self.erased_then.get(&key).is_some_and(|through| version <= *through);
            let is_indexed = position <= self.runs.last();
            match erased.contains(position) {
                true if !is_erased => {
                    self.runs.blame(findings, position, "calls erased what is not");
                }
                false if was_erased && is_indexed => {
                    self.runs.blame(findings, position, "does not know that it is erased");
                }
                _ => {}
            }
        }
    }
}

/// The left-out events of a segment.
#[derive(Default)]
struct LeftOut {
    positions: Vec<u64>,
    /// The highest left-out version of each stream.
    streams: Vec<(String, StreamVersion)>,
}

impl LeftOut {
    fn add(&mut self, frame: &Frame<'_>) {
        self.positions.extend(frame.left_out.clone());
        for (_, record) in &frame.records {
            if let Record::Erased(stream, version) = record {
                self.streams.push(((*stream).into(), StreamVersion::new(*version)));
            }
        }
    }
}

impl Visitor for Events<'_> {
    fn begin(&mut self, segment: &Segment) {
        self.recent = Some(Recent::new(segment.clone()));
        self.left_out = Erased::default();
    }

    fn frame(&mut self, segment: &Segment, frame: &Frame<'_>, faults: &mut Vec<(u32, String)>) {
        for position in frame.left_out.clone() {
            self.left_out.insert(position);
            self.recent.iter_mut().for_each(Recent::skip);
        }
        for (offset, record) in &frame.records {
            let fault = match record {
                Record::Name(name) => {
                    self.recent.iter_mut().for_each(|recent| recent.add_name(name));
                    Ok(())
                }
                Record::Change(stream, state) => {
                    self.streams.change(self.streams.key(stream), *state);
                    if let Some(recent) = &mut self.recent {
                        recent.set_state(stream, *state);
                    }
                    Ok(())
                }
                Record::Event(event) => self.event(event, *offset),
                Record::Erased(stream, version) if segment.header.rewritten.is_some() => {
                    let key = self.streams.key(stream);
                    self.streams.leave_out(key, StreamVersion::new(*version));
                    if let Some(recent) = &mut self.recent {
                        recent.set_state(stream, StreamState::default());
                    }
                    Ok(())
                }
                Record::Erased(..) => {
                    Err("events were left out of a segment that was never rewritten".to_owned())
                }
                Record::Document(_) | Record::Commit => {
                    Err("a document stands among events".to_owned())
                }
            };
            faults.extend(fault.err().map(|what| (*offset, what)));
        }
        if let Some(recent) = &mut self.recent {
            recent.end = frame.end;
        }
    }

    fn gap(&mut self) {
        self.streams.pass_gap();
        // After a gap, the expected index of the segment is not complete.
        self.recent = None;
        self.runs.pass_gap();
    }

    fn end(&mut self, segment: &Segment, is_whole: bool, findings: &mut Findings) {
        let Some(recent) = self.recent.take().filter(|_| is_whole) else {
            self.runs.pass_gap();
            return;
        };
        let remade = Remade { recent: &recent, left_out: &self.left_out };
        if self.runs.check(segment, remade, &self.streams, findings) {
            self.erased_then = self.streams.all_erased();
        }
    }
}

/// The file of a run, relative to the journal's folder.
pub(super) fn run_file(name: &str) -> String {
    format!("{}/{name}", Part::Log.name())
}

/// A damage of the index.
pub(super) fn index_damage(name: &str, what: impl Into<String>) -> Damage {
    Damage::new(Part::Index, run_file(name), what)
}
