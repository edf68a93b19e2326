//! Consumers in published stats.

use std::time::Duration;

use factum_consumer::{ConsumerHealth, ConsumerState};
use factum_kernel::{Timestamp, sentence};
use serde::{Deserialize, Serialize};

use super::{ConsumerStats, millis};

/// The most consumers in a document. Those that need attention come first.
const CONSUMERS_PUBLISHED: usize = 256;
/// The most characters of an error in a document, because a document has a size limit.
const ERROR_CHARS_MAX: usize = 500;

/// One consumer or projection, or a partition of a consumer, in an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PublishedConsumer {
    /// The name. It includes the build of a projection, and the partition.
    pub name: String,
    /// `starting`, `catching-up`, `live`, `waiting`, `retrying`, `paused`, `standing-by` or
    /// `stopped`.
    pub state: String,
    /// The position up to which every event was handled, skipped or parked.
    pub position: u64,
    /// The last position of the log that the consumer knew.
    pub head: u64,
    /// The time since the event at the consumer's position was recorded. Missing if the consumer
    /// was not behind the head, or has stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u64>,
    /// The number of streams that wait because of a parked event.
    pub parked: u64,
    /// The number of streams that wait for a program that can read their next event.
    #[serde(default)]
    pub waiting: u64,
    /// The reason why the first of these events can't be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
    /// The number of events that were handled since the start.
    pub handled: u64,
    /// The recent rate of handled events per second.
    #[serde(default)]
    pub events_per_s: u64,
    /// True after an unclean stop: the consumer then notes each event before it handles it.
    pub cautious: bool,
    /// The time at which it began to wait for its target to begin or store a batch, while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committing_since: Option<Timestamp>,
    /// The reason why an earlier build of it can't be dropped yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undropped: Option<String>,
    /// The error of its process's last heartbeat, if that could not be stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_error: Option<String>,
    /// The error of the last snapshot of a model in memory, if that could not be stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_error: Option<String>,
    /// The number of attempts so far, while it retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// The reason why it stopped, or the error of its last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

impl PublishedConsumer {
    pub(super) fn of(consumer: &ConsumerStats) -> Self {
        let health = &consumer.health;
        let mut attempts_made = None;
        let (state, cause) = match &health.state {
            ConsumerState::Starting => ("starting", None),
            ConsumerState::CatchingUp => ("catching-up", None),
            ConsumerState::Live => ("live", None),
            ConsumerState::Waiting => ("waiting", None),
            ConsumerState::Retrying { position, attempts, error } => {
                attempts_made = Some(*attempts);
                let at = position.map(|it| format!(": position={it}")).unwrap_or_default();
                ("retrying", Some(cut(error) + &at))
            }
            ConsumerState::Paused => ("paused", None),
            ConsumerState::Stopped(reason) => ("stopped", Some(cut(&sentence(reason)))),
            ConsumerState::StandingBy => ("standing-by", None),
            _ => ("unknown", None),
        };
        Self {
            name: consumer.name.to_string(),
            state: state.to_owned(),
            position: health.position.value(),
            // Without a lag, the positions can't be compared.
            head: health.lag_events().map_or(health.position, |_| health.head).value(),
            lag_ms: health.lag.map(millis),
            parked: health.parked as u64,
            waiting: health.waiting as u64,
            unread: health.unread.as_ref().map(|event| cut(&event.error)),
            handled: health.handled,
            events_per_s: health.rate.round() as u64,
            cautious: health.is_cautious,
            committing_since: health.committing_since,
            undropped: health.undropped.as_deref().map(cut),
            heartbeat_error: health.heartbeat_error.as_deref().map(cut),
            snapshot_error: health.snapshot_error.as_deref().map(cut),
            attempts: attempts_made,
            cause,
        }
    }

    /// The number of positions that the consumer was behind the head. `None` if it is unknown,
    /// because the consumer had stopped: see [`ConsumerHealth::lag_events`].
    pub fn lag_events(&self) -> Option<u64> {
        let behind = self.head.saturating_sub(self.position);
        (self.state != "stopped" || behind > 0).then_some(behind)
    }

    /// The time since the event at the consumer's position was recorded, if it was behind and
    /// working.
    pub fn lag(&self) -> Option<Duration> {
        self.lag_ms.map(Duration::from_millis)
    }
}

/// The consumers to publish, those that need attention first.
pub(super) fn published(consumers: &[ConsumerStats]) -> Vec<PublishedConsumer> {
    let (well, ill): (Vec<_>, Vec<_>) = consumers.iter().partition(|it| is_well(&it.health));
    let all = ill.into_iter().chain(well);
    all.take(CONSUMERS_PUBLISHED).map(PublishedConsumer::of).collect()
}

/// True if the consumer needs no attention.
fn is_well(health: &ConsumerHealth) -> bool {
    use ConsumerState::{Paused, Retrying, Stopped};
    let is_at_work = !matches!(health.state, Retrying { .. } | Paused | Stopped(_));
    let failing = [&health.undropped, &health.heartbeat_error, &health.snapshot_error];
    let waits = health.parked + health.waiting > 0;
    is_at_work && !waits && failing.iter().all(|it| it.is_none())
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(ERROR_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_is_cut_between_two_letters() {
        assert_eq!(cut("thirteen"), "thirteen");
        let long = cut(&"ü".repeat(ERROR_CHARS_MAX + 1));
        assert_eq!(long, "ü".repeat(ERROR_CHARS_MAX) + "...");
        assert_eq!(cut(&long[..2 * ERROR_CHARS_MAX]), "ü".repeat(ERROR_CHARS_MAX));
    }
}
