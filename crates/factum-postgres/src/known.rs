//! The facts that are known around a round, in the form that the planning of groups asks for.
//!
//! The database tells which members it did not store. The planning that all stores share decides,
//! member by member, what that means to the caller.

use std::collections::HashMap;

use factum_backend::{Facts, FoundEvent, LogEnd, Span, plan_group};
use factum_kernel::{
    AppendBatch, AppendCondition, AppendError, Appended, ErasedRange, EventId, Position,
    StoreError, StreamBounds, StreamId, StreamVersion, Timestamp,
};
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use crate::{
    documents::no_row,
    link::{Parameter, get},
    number::{signed, unsigned},
};

/// A question for events by their ids.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub(crate) stream: StreamId,
    pub(crate) ids: Vec<EventId>,
    pub(crate) span: Span,
}

/// The facts about one member that are known of the log at one moment.
#[derive(Debug, Default)]
pub(crate) struct Known<'k> {
    pub(crate) bounds: HashMap<&'k StreamId, StreamBounds>,
    /// The conditions of the member that an event matches, by their index.
    pub(crate) hits: Vec<(usize, Position)>,
}

/// The questions that were asked of the log so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Questions {
    /// Questions for events by their ids.
    pub(crate) ids: Vec<Asked>,
    /// Ranges of positions whose events may be erased.
    pub(crate) missing: Vec<ErasedRange>,
}

/// The answers of the log so far.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    /// The events that have one of the ids asked for.
    pub(crate) found: Vec<(StreamId, FoundEvent)>,
    /// The version through which each stream was erased when its events were looked for. It may
    /// have been truncated after its bounds were read.
    pub(crate) erased_through: HashMap<StreamId, StreamVersion>,
    /// The ranges of positions that were asked for and whose events are all erased.
    pub(crate) erased: Vec<ErasedRange>,
}

impl Questions {
    /// Adds those questions of `asked` that are new, and returns them.
    pub(crate) fn take_new(&mut self, asked: &Self) -> Self {
        let is_new = |one: &&Asked| !self.ids.contains(one);
        let ids: Vec<_> = asked.ids.iter().filter(is_new).cloned().collect();
        let is_new = |range: &&ErasedRange| !self.missing.contains(range);
        let missing: Vec<_> = asked.missing.iter().filter(is_new).copied().collect();
        self.ids.extend_from_slice(&ids);
        self.missing.extend_from_slice(&missing);
        Self { ids, missing }
    }

    pub(crate) fn extend(&mut self, more: Self) {
        self.ids.extend(more.ids);
        self.missing.extend(more.missing);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.missing.is_empty()
    }
}

/// The judgement of a member by the known facts.
#[derive(Debug)]
pub(crate) struct Judged {
    /// Its outcome; `None` if no known fact stands against it.
    pub(crate) outcome: Option<Result<Appended, AppendError>>,
    /// The questions that the judgement asked. If some of them are not answered yet, the outcome is
    /// not final.
    pub(crate) asked: Questions,
}

impl Known<'_> {
    pub(crate) fn judge(
        &self,
        batch: &AppendBatch,
        end: LogEnd,
        replies: &Replies,
    ) -> Result<Judged, StoreError> {
        let asked = Questions::default();
        let mut answers = Answers { known: self, batch, replies, asked };
        let plan = plan_group([batch], end, &mut answers)?;
        let outcome = plan.outcomes.into_iter().next().expect("one outcome per member");
        let is_new = outcome.as_ref().is_ok_and(|appended| !appended.replayed);
        Ok(Judged { outcome: (!is_new).then_some(outcome), asked: answers.asked })
    }
}

struct Answers<'k> {
    known: &'k Known<'k>,
    batch: &'k AppendBatch,
    replies: &'k Replies,
    asked: Questions,
}

impl Facts for Answers<'_> {
    fn bounds(&mut self, stream: &StreamId) -> Result<StreamBounds, StoreError> {
        let mut bounds = self.known.bounds.get(stream).copied().unwrap_or_default();
        let erased_through = self.replies.erased_through.get(stream).copied();
        bounds.erased_through = bounds.erased_through.max(erased_through.unwrap_or_default());
        Ok(bounds)
    }

    fn first_match(&mut self, condition: &AppendCondition) -> Result<Option<Position>, StoreError> {
        let mut hits = self.known.hits.iter();
        let is_it =
            |place: usize| std::ptr::eq(&raw const self.batch.conditions()[place], condition);
        Ok(hits.find(|(place, _)| is_it(*place)).map(|(_, position)| *position))
    }

    fn find_ids(
        &mut self,
        stream: &StreamId,
        ids: &[EventId],
        span: Span,
    ) -> Result<Vec<FoundEvent>, StoreError> {
        self.asked.ids.push(Asked { stream: stream.clone(), ids: ids.to_vec(), span });
        let wanted = |(place, event): &&(StreamId, FoundEvent)| {
            place == stream && ids.contains(&event.id) && span.contains(event)
        };
        Ok(self.replies.found.iter().filter(wanted).map(|(_, event)| *event).collect())
    }

    fn are_erased(&mut self, positions: ErasedRange) -> Result<bool, StoreError> {
        self.asked.missing.push(positions);
        Ok(self.replies.erased.contains(&positions))
    }
}

/// The parameters of a question for events by their ids.
#[derive(Debug)]
pub(crate) struct Asking<'a> {
    streams: Vec<&'a str>,
    firsts: Vec<i64>,
    lasts: Vec<i64>,
    positions: Vec<i64>,
    since: Vec<i64>,
    /// The ids of all streams; the answer is then checked for which id belongs to which stream.
    ids: Vec<Uuid>,
}

impl<'a> Asking<'a> {
    pub(crate) fn of(asked: &'a [Asked]) -> Self {
        let numbers = |number: fn(&Span) -> u64| {
            asked.iter().map(|one| signed(number(&one.span))).collect::<Vec<_>>()
        };
        Self {
            streams: asked.iter().map(|one| one.stream.as_str()).collect(),
            firsts: numbers(|span| span.first.value()),
            lasts: numbers(|span| span.last.value()),
            positions: numbers(|span| span.after.value().saturating_add(1)),
            since: numbers(|span| span.since.as_micros()),
            ids: asked.iter().flat_map(|one| &one.ids).map(EventId::as_uuid).collect(),
        }
    }

    pub(crate) fn parameters(&self) -> Vec<Parameter<'_>> {
        vec![
            (&self.streams, Type::TEXT_ARRAY),
            (&self.firsts, Type::INT8_ARRAY),
            (&self.lasts, Type::INT8_ARRAY),
            (&self.positions, Type::INT8_ARRAY),
            (&self.since, Type::INT8_ARRAY),
            (&self.ids, Type::UUID_ARRAY),
        ]
    }

    /// Takes the database's answer.
    pub(crate) fn answer(
        asked: &[Asked],
        rows: &[Row],
        replies: &mut Replies,
    ) -> Result<(), StoreError> {
        for row in rows {
            let stream: &str = get(row, 0)?;
            let stream = asked.iter().find(|one| one.stream.as_str() == stream);
            let stream = &stream.ok_or_else(no_row)?.stream;
            let erased_through = StreamVersion::new(unsigned(get(row, 1)?));
            let known = replies.erased_through.entry(stream.clone()).or_default();
            *known = erased_through.max(*known);
            let id: Option<Uuid> = get(row, 2)?;
            let Some(id) = id else { continue };
            let event = FoundEvent {
                id: EventId::new(id),
                position: Position::new(unsigned(get(row, 3)?)),
                version: StreamVersion::new(unsigned(get(row, 4)?)),
                recorded_at: Timestamp::from_micros(unsigned(get(row, 5)?)),
            };
            replies.found.push((stream.clone(), event));
        }
        Ok(())
    }
}

/// The parameters of the question for erased ranges of positions.
#[derive(Debug)]
pub(crate) struct Missing {
    firsts: Vec<i64>,
    lasts: Vec<i64>,
}

impl Missing {
    pub(crate) fn of(ranges: &[ErasedRange]) -> Self {
        Self {
            firsts: ranges.iter().map(|range| signed(range.first.value())).collect(),
            lasts: ranges.iter().map(|range| signed(range.last.value())).collect(),
        }
    }

    pub(crate) fn parameters(&self) -> Vec<Parameter<'_>> {
        vec![(&self.firsts, Type::INT8_ARRAY), (&self.lasts, Type::INT8_ARRAY)]
    }

    /// Reads the database's answer.
    pub(crate) fn erased(rows: &[Row]) -> Result<Vec<ErasedRange>, StoreError> {
        let position = |row, column| get(row, column).map(unsigned).map(Position::new);
        let range = |row| Ok(ErasedRange { first: position(row, 0)?, last: position(row, 1)? });
        rows.iter().map(range).collect()
    }
}

#[cfg(test)]
mod tests;
