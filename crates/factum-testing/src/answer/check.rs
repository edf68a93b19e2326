//! The comparison of the answers with the log.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Debug,
};

use factum_kernel::{
    Aggregate, Context, EventStore, Metadata, Position, ReadQuery, StreamId, StreamVersion,
    Timestamp, Verdict, fold,
};

use super::{Answer, AnswerSummary, Answers, Contradiction, Noted};

/// The place in the log that an answer claims for its command.
#[derive(Clone, Copy)]
struct Claimed {
    version: StreamVersion,
    position: Option<Position>,
}

/// A stream in the log.
struct Story<A: Aggregate> {
    stream: StreamId,
    /// The states by version, from version 0.
    states: Vec<A>,
    /// The events by version, from version 1.
    events: Vec<(Position, Vec<A::Event>)>,
    /// The versions that an answer claimed for its command.
    told: HashSet<StreamVersion>,
}

impl<A: Aggregate + Clone + PartialEq + Debug> Answers<A>
where
    A::Event: PartialEq,
    A::Rejection: PartialEq,
{
    /// Compares the answers with the log. No caller may append in the meantime.
    ///
    /// # Errors
    /// The first contradiction found.
    pub async fn check(&self) -> Result<AnswerSummary, Contradiction> {
        let streams: HashSet<_> = self.noted().iter().map(|it| it.stream.clone()).collect();
        let mut stories = BTreeMap::new();
        for stream in streams {
            let story = Story::<A>::read(&*self.store, stream.clone()).await?;
            stories.insert(stream, story);
        }
        let mut summary = AnswerSummary::default();
        for noted in self.noted().iter() {
            let story = stories.get_mut(&noted.stream).expect("every noted stream was read");
            story.check(noted, &mut summary)?;
        }
        let untold = stories.values().map(|it| (it.events.len() - it.told.len()) as u64);
        summary.untold = untold.sum();
        Ok(summary)
    }
}

impl<A: Aggregate + Clone + PartialEq + Debug> Story<A>
where
    A::Event: PartialEq,
    A::Rejection: PartialEq,
{
    async fn read(store: &dyn EventStore, stream: StreamId) -> Result<Self, Contradiction> {
        let mut states = vec![A::default()];
        let mut events = Vec::new();
        let mut query = Some(ReadQuery::stream(stream.clone()));
        while let Some(asked) = query {
            let page = store.read(asked.clone()).await?;
            for event in &page.events {
                let decoded = event.decode::<A::Event>()?;
                let mut state = states.last().expect("it begins with one").clone();
                decoded.iter().for_each(|event| fold(&mut state, event));
                states.push(state);
                events.push((event.position(), decoded));
            }
            query = asked.next(&page);
        }
        Ok(Self { stream, states, events, told: HashSet::new() })
    }

    fn check(
        &mut self,
        noted: &Noted<A>,
        summary: &mut AnswerSummary,
    ) -> Result<(), Contradiction> {
        match &noted.answer {
            Answer::Done { command, version, position, events, state } => {
                self.check_state(noted, *version, state)?;
                let at = Claimed { version: *version, position: *position };
                if events.is_empty() {
                    summary.nothing += 1;
                    return self.check_nothing(noted, command, at);
                }
                summary.stored += 1;
                summary.events += events.len() as u64;
                self.check_stored(noted, command, at, events)
            }
            Answer::Rejected { command, rejection } => {
                summary.rejected += 1;
                summary.guarded += usize::from(self.check_rejected(noted, command, rejection)?);
                Ok(())
            }
            Answer::Seen { version, state } => {
                summary.seen += 1;
                self.check_state(noted, *version, state)
            }
        }
    }

    /// Checks that the version existed between call and answer, and that its state is the answered
    /// one.
    fn check_state(
        &self,
        noted: &Noted<A>,
        version: StreamVersion,
        told: &A,
    ) -> Result<(), Contradiction> {
        let stream = self.stream.clone();
        if version < noted.from {
            return Err(Contradiction::Stale { stream, version, from: noted.from });
        }
        let there = self.states.get(version.value() as usize);
        match there {
            Some(state) if version <= noted.to && state == told => Ok(()),
            Some(state) if version <= noted.to => {
                let told = format!("{told:?}");
                let is = format!("{state:?}");
                Err(Contradiction::OtherState { stream, version, told, is })
            }
            _ => Err(Contradiction::Early { stream, version, to: noted.to }),
        }
    }

    fn check_stored(
        &mut self,
        noted: &Noted<A>,
        command: &A::Command,
        at: Claimed,
        events: &[A::Event],
    ) -> Result<(), Contradiction> {
        let Claimed { version, position } = at;
        let stream = self.stream.clone();
        let not_stored = |what| Contradiction::NotStored { what, stream: stream.clone(), version };
        let end = version.value() as usize;
        let begin = end.checked_sub(events.len()).ok_or_else(|| not_stored("its version"))?;
        let before = StreamVersion::new(begin as u64);
        if before < noted.from {
            let stream = stream.clone();
            return Err(Contradiction::Stale { stream, version: before, from: noted.from });
        }
        let there = &self.events[begin..end];
        if there.last().map(|(position, _)| *position) != position {
            return Err(not_stored("its position"));
        }
        if !there.iter().flat_map(|(_, events)| events).eq(events) {
            return Err(not_stored("its events"));
        }
        let decided = self.decide(begin, command).is_ok_and(|it| it.events() == events);
        if !decided {
            return Err(self.unfounded(before, before, "its events"));
        }
        for at in begin..end {
            let version = StreamVersion::new(at as u64 + 1);
            if !self.told.insert(version) {
                return Err(Contradiction::Twice { stream, version });
            }
        }
        Ok(())
    }

    fn check_nothing(
        &self,
        noted: &Noted<A>,
        command: &A::Command,
        at: Claimed,
    ) -> Result<(), Contradiction> {
        let Claimed { version, position } = at;
        if position.is_some() {
            let what = "its position";
            let stream = noted.stream.clone();
            return Err(Contradiction::NotStored { what, stream, version });
        }
        match self.decide(version.value() as usize, command) {
            Ok(decision) if decision.events().is_empty() => Ok(()),
            _ => Err(self.unfounded(version, version, "nothing to do")),
        }
    }

    /// Returns whether the rejection came from a guard.
    fn check_rejected(
        &self,
        noted: &Noted<A>,
        command: &A::Command,
        rejection: &A::Rejection,
    ) -> Result<bool, Contradiction> {
        let mut guarded = false;
        // The log holds every version that existed, because it only grew since.
        for at in noted.from.value()..=noted.to.value() {
            match self.decide(at as usize, command) {
                Err(said) if said == *rejection => return Ok(false),
                Ok(decision) => guarded |= decision.guards().any(|(_, no)| no == rejection),
                Err(_) => {}
            }
        }
        if guarded {
            return Ok(true);
        }
        Err(self.unfounded(noted.from, noted.to, &format!("the rejection {rejection:?}")))
    }

    fn decide(&self, at: usize, command: &A::Command) -> Verdict<A> {
        let version = StreamVersion::new(at as u64);
        let metadata = Metadata::new();
        let cx = Context::new(self.stream.key(), version, Timestamp::EPOCH, &metadata);
        self.states[at].decide(command, &cx)
    }

    fn unfounded(&self, from: StreamVersion, to: StreamVersion, told: &str) -> Contradiction {
        Contradiction::Unfounded { stream: self.stream.clone(), from, to, told: told.into() }
    }
}
