//! The state of consumers as running applications publish it.

use factum::{
    consumer::StoredConsumer,
    event::Timestamp,
    stats::{PublishedConsumer, PublishedStats},
};
use serde_json::{Value, json};

use crate::{
    number::{age, counted, grouped},
    output::Paint,
};

/// A consumer in the stats that one application published last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running<'a> {
    stats: &'a PublishedStats,
    pub(super) consumer: &'a PublishedConsumer,
    /// True if the process is known to have died since.
    has_died: bool,
}

/// The consumers of all applications, without those of an application that has clearly ended.
pub(super) fn all(
    published: &[PublishedStats],
    now: Timestamp,
) -> impl Iterator<Item = Running<'_>> {
    let living = published.iter().filter(move |stats| !stats.is_dead(now));
    living.flat_map(|stats| {
        stats.consumers.iter().map(move |consumer| Running { stats, consumer, has_died: false })
    })
}

impl Running<'_> {
    /// Compares the process with the one that the consumer's stored state says has died.
    pub(super) fn compare(&mut self, stored: &StoredConsumer) {
        self.has_died = stored.has_died && stored.process == Some(self.stats.process);
    }

    /// True if the published state is not the present one any more.
    fn is_silent(&self, now: Timestamp) -> bool {
        self.has_died || self.stats.is_silent(now)
    }

    /// True if the consumer seems to run: its stats are recent and its state is not `stopped`.
    pub(super) fn is_at_work(&self, now: Timestamp) -> bool {
        !self.is_silent(now) && self.consumer.state != "stopped"
    }

    /// The key for choosing one process: recent stats first, then the highest position.
    pub(super) fn order(&self, now: Timestamp) -> (bool, u64) {
        (!self.is_silent(now), self.consumer.position)
    }

    /// The id of its process.
    pub(super) fn process(&self) -> u32 {
        self.stats.process
    }

    pub(super) fn object(&self, now: Timestamp) -> Value {
        let mut object = serde_json::to_value(self.consumer).expect("all keys are text");
        object.as_object_mut().expect("it has fields").remove("name");
        object["lag"] = json!(self.consumer.lag_events());
        object["process"] = json!(self.stats.process);
        object["instance"] = json!(self.stats.instance);
        object["written_at"] = json!(self.stats.written_at.to_string());
        object["silent_ms"] = json!(self.stats.silence(now).as_millis() as u64);
        if self.is_silent(now) {
            // The last published state must not be taken for the present one.
            object["was"] = object["state"].take();
            object["state"] = json!("silent");
        }
        object
    }

    pub(super) fn line(&self, now: Timestamp, paint: Paint) -> String {
        let process = self.stats.process;
        let described = describe(self.consumer, paint);
        if !self.is_silent(now) {
            return format!("process {process}: {described}");
        }
        let silent = match self.has_died {
            true => "has died".to_owned(),
            false => format!("silent for {}", age(self.stats.silence(now))),
        };
        format!("process {process}: {}, was {described}", paint.bad(silent))
    }
}

/// Describes the state of a consumer in one line.
pub(crate) fn describe(consumer: &PublishedConsumer, paint: Paint) -> String {
    let state = match &*consumer.state {
        state @ ("waiting" | "retrying" | "stopped") => paint.bad(state),
        state => state.to_owned(),
    };
    let lag = consumer.lag().map(|lag| format!(" ({})", age(lag))).unwrap_or_default();
    let behind = match consumer.lag_events() {
        Some(0) => ", at the log's end".to_owned(),
        Some(events) => format!(", {} behind{lag}", counted(events, "event")),
        // It has stopped, and does not know what came after.
        None => String::new(),
    };
    let mut line = format!("{state} at {}{behind}", grouped(consumer.position));
    if consumer.events_per_s > 0 {
        line += &format!(", {} per second", counted(consumer.events_per_s, "event"));
    }
    if consumer.parked > 0 {
        let parked = format!("{} parked", counted(consumer.parked, "stream"));
        line += &format!(", {}", paint.bad(parked));
    }
    if consumer.waiting > 0 {
        let waiting = counted(consumer.waiting, "stream");
        let verb = if consumer.waiting == 1 { "waits" } else { "wait" };
        let reason = consumer.unread.as_deref().unwrap_or("an event can't be decoded");
        let waiting = format!("{waiting} {verb} for a reader: {}", reason.escape_debug());
        line += &format!(", {}", paint.bad(waiting));
    }
    if consumer.cautious {
        line += ", cautious";
    }
    if let Some(since) = consumer.committing_since {
        line += &format!(", committing since {since}");
    }
    if let Some(undropped) = &consumer.undropped {
        let undropped = format!("an earlier build is not dropped: {}", undropped.escape_debug());
        line += &format!(", {}", paint.bad(undropped));
    }
    if let Some(error) = &consumer.heartbeat_error {
        let failing = format!("its heartbeat fails: {}", error.escape_debug());
        line += &format!(", {}", paint.bad(failing));
    }
    if let Some(error) = &consumer.snapshot_error {
        let failing = format!("its snapshot failed: {}", error.escape_debug());
        line += &format!(", {}", paint.bad(failing));
    }
    if let Some(attempts) = consumer.attempts {
        line += &format!(", tried {}", counted(attempts.into(), "time"));
    }
    if let Some(cause) = &consumer.cause {
        line += &format!(": {}", cause.escape_debug());
    }
    line
}
