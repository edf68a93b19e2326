//! Consumers as they are published.

use std::time::Duration;

use factum_consumer::{ConsumerHealth, ConsumerState};
use factum_kernel::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ConsumerStats, millis};

/// The most consumers in a document; those that are not well come first.
const CONSUMERS_PUBLISHED: usize = 256;
/// So much is published of what an error says: a document has a limit.
const ERROR_CHARS_MAX: usize = 500;

/// One consumer or projection, or a partition of one, as it runs in the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PublishedConsumer {
    /// Its name, of a projection with its build, of one in partitions with the partition.
    pub name: String,
    /// `starting`, `catching-up`, `live`, `retrying`, `paused`, `standing-by` or `stopped`.
    pub state: String,
    /// It has handled, passed or parked every event up to here.
    pub position: u64,
    /// The last position of the log that it knew of.
    pub head: u64,
    /// How long ago the event was recorded that it has come to; not there: it was not behind, or
    /// has stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u64>,
    /// Streams that wait behind a parked event.
    pub parked: u64,
    /// Events handled since it was started.
    pub handled: u64,
    /// Events handled per second, lately.
    #[serde(default)]
    pub events_per_s: u64,
    /// It takes care after an unclean stop.
    pub cautious: bool,
    /// Since when it waits for its target to begin or store a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committing_since: Option<Timestamp>,
    /// What keeps an earlier build of it from being dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undropped: Option<String>,
    /// How often it has tried, while it tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Why it has stopped, or what its last attempt said.
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
            ConsumerState::Retrying { position, attempts, error } => {
                attempts_made = Some(*attempts);
                let at = position.map(|it| format!(": position={it}")).unwrap_or_default();
                ("retrying", Some(cut(error) + &at))
            }
            ConsumerState::Paused => ("paused", None),
            ConsumerState::Stopped(reason) => ("stopped", Some(cut(&reason.to_string()))),
            ConsumerState::StandingBy => ("standing-by", None),
            _ => ("unknown", None),
        };
        Self {
            name: consumer.name.to_string(),
            state: state.to_owned(),
            position: health.position.value(),
            head: health.head.value(),
            lag_ms: health.lag.map(millis),
            parked: health.parked as u64,
            handled: health.handled,
            events_per_s: health.rate.round() as u64,
            cautious: health.is_cautious,
            committing_since: health.committing_since,
            undropped: health.undropped.as_deref().map(cut),
            attempts: attempts_made,
            cause,
        }
    }

    /// How many positions it was behind.
    pub fn lag_events(&self) -> u64 {
        self.head.saturating_sub(self.position)
    }

    /// How long ago the event was recorded that it had come to, if it was behind and at work.
    pub fn lag(&self) -> Option<Duration> {
        self.lag_ms.map(Duration::from_millis)
    }
}

/// As many as are published, those that are not well in front.
pub(super) fn published(consumers: &[ConsumerStats]) -> Vec<PublishedConsumer> {
    let (well, ill): (Vec<_>, Vec<_>) = consumers.iter().partition(|it| is_well(&it.health));
    let all = ill.into_iter().chain(well);
    all.take(CONSUMERS_PUBLISHED).map(PublishedConsumer::of).collect()
}

/// Whether nobody need look at it.
fn is_well(health: &ConsumerHealth) -> bool {
    use ConsumerState::{Paused, Retrying, Stopped};
    let is_at_work = !matches!(health.state, Retrying { .. } | Paused | Stopped(_));
    is_at_work && health.parked == 0 && health.undropped.is_none()
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
