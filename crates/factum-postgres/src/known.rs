//! What is known around a round, as the facts that the planning of groups asks for.
//!
//! The database says which members it did not store; what that means to the caller is decided by
//! the one planning that all stores share, a member at a time.

use std::collections::HashMap;

use factum_backend::{Facts, FoundEvent, LogEnd, plan_group};
use factum_core::{
    AppendBatch, AppendCondition, AppendError, Appended, EventId, Position, StoreError,
    StreamBounds, StreamId, StreamVersion, Timestamp,
};
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use crate::{
    documents::no_row,
    link::{Parameter, get},
    number::{signed, unsigned},
};

/// A question for events by their ids.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) stream: StreamId,
    pub(crate) ids: Vec<EventId>,
    pub(crate) since: Timestamp,
}

/// What is known of the log at one moment, as far as one member goes.
#[derive(Debug, Default)]
pub(crate) struct Known<'k> {
    pub(crate) bounds: HashMap<&'k StreamId, StreamBounds>,
    /// Conditions of the member that an event matches, by their place.
    pub(crate) hits: Vec<(usize, Position)>,
    /// Events that have one of the ids of batches that are looked for.
    pub(crate) found: &'k [(StreamId, FoundEvent)],
}

/// The judgement of a member by what is known.
#[derive(Debug)]
pub(crate) struct Judged {
    /// Its outcome; `None` if nothing that is known stands against it.
    pub(crate) outcome: Option<Result<Appended, AppendError>>,
    /// What was asked of the log.
    pub(crate) asked: Vec<Asked>,
}

impl Known<'_> {
    pub(crate) fn judge(&self, batch: &AppendBatch, end: LogEnd) -> Result<Judged, StoreError> {
        let mut answers = Answers { known: self, batch, asked: Vec::new() };
        let plan = plan_group([batch], end, &mut answers)?;
        let outcome = plan.outcomes.into_iter().next().expect("one outcome per member");
        let is_new = outcome.as_ref().is_ok_and(|appended| !appended.replayed);
        Ok(Judged { outcome: (!is_new).then_some(outcome), asked: answers.asked })
    }
}

struct Answers<'k> {
    known: &'k Known<'k>,
    batch: &'k AppendBatch,
    asked: Vec<Asked>,
}

impl Facts for Answers<'_> {
    fn bounds(&mut self, stream: &StreamId) -> Result<StreamBounds, StoreError> {
        Ok(self.known.bounds.get(stream).copied().unwrap_or_default())
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
        since: Timestamp,
    ) -> Result<Vec<FoundEvent>, StoreError> {
        self.asked.push(Asked { stream: stream.clone(), ids: ids.to_vec(), since });
        let wanted = |(place, event): &&(StreamId, FoundEvent)| {
            place == stream && ids.contains(&event.id) && event.recorded_at >= since
        };
        Ok(self.known.found.iter().filter(wanted).map(|(_, event)| *event).collect())
    }
}

/// The parameters of a question for events by their ids.
#[derive(Debug)]
pub(crate) struct Asking<'a> {
    streams: Vec<&'a str>,
    ids: Vec<Uuid>,
    since: Vec<i64>,
}

impl<'a> Asking<'a> {
    /// `None` if nothing is asked.
    pub(crate) fn of(asked: &'a [Asked]) -> Option<Self> {
        let all = || asked.iter().flat_map(|one| one.ids.iter().map(move |id| (one, id)));
        let asking = Self {
            streams: all().map(|(one, _)| one.stream.as_str()).collect(),
            ids: all().map(|(_, id)| id.as_uuid()).collect(),
            since: all().map(|(one, _)| signed(one.since.as_micros())).collect(),
        };
        (!asked.is_empty()).then_some(asking)
    }

    pub(crate) fn parameters(&self) -> Vec<Parameter<'_>> {
        vec![
            (&self.streams, Type::TEXT_ARRAY),
            (&self.ids, Type::UUID_ARRAY),
            (&self.since, Type::INT8_ARRAY),
        ]
    }

    /// What the database answers.
    pub(crate) fn found(
        asked: &[Asked],
        rows: &[Row],
    ) -> Result<Vec<(StreamId, FoundEvent)>, StoreError> {
        let found = |row: &Row| {
            let stream: &str = get(row, 0)?;
            let stream = asked.iter().find(|one| one.stream.as_str() == stream);
            let stream = stream.ok_or_else(no_row)?.stream.clone();
            let event = FoundEvent {
                id: EventId::new(get(row, 1)?),
                position: Position::new(unsigned(get(row, 2)?)),
                version: StreamVersion::new(unsigned(get(row, 3)?)),
                recorded_at: Timestamp::from_micros(unsigned(get(row, 4)?)),
            };
            Ok((stream, event))
        };
        rows.iter().map(found).collect()
    }
}
