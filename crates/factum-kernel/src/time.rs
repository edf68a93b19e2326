//! Moments, and `Clock`, the only source of time.

use std::{
    fmt,
    str::FromStr,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::kind::ErrorKind;

/// A moment in microseconds since 1970-01-01 UTC, up to the year 9999.
///
/// ```
/// use factum_kernel::Timestamp;
///
/// let moment: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
/// assert_eq!(moment.to_string(), "2026-01-31T08:00:00.000000Z");
/// ```
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(from = "u64")]
pub struct Timestamp(u64);

/// 9999-12-30T22:00:00Z, the last moment that RFC 3339 and `jiff` can both write.
const MICROS_MAX: u64 = 253_402_207_200_000_000;

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);
    /// The last moment that can be represented.
    pub const MAX: Self = Self(MICROS_MAX);

    /// The moment this many microseconds after the epoch, or [`Timestamp::MAX`].
    pub const fn from_micros(micros: u64) -> Self {
        Self(if micros > MICROS_MAX { MICROS_MAX } else { micros })
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the epoch, the unit of a UUIDv7.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// This moment plus `duration`, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self::from_micros(self.0.saturating_add(micros))
    }

    /// This moment minus `duration`, at least the epoch.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later. Only for stored times:
    /// the clock may have been set since, so measure a wait by [`Clock::monotonic`].
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// The same as [`Timestamp::from_micros`], for deserialisation.
impl From<u64> for Timestamp {
    fn from(micros: u64) -> Self {
        Self::from_micros(micros)
    }
}

impl TryFrom<SystemTime> for Timestamp {
    type Error = InvalidTimestamp;

    /// The same moment, in whole microseconds. A moment before 1970 or after [`Timestamp::MAX`] is
    /// an error, and no other moment.
    fn try_from(time: SystemTime) -> Result<Self, InvalidTimestamp> {
        let since = time.duration_since(UNIX_EPOCH).ok();
        let micros = since.and_then(|since| u64::try_from(since.as_micros()).ok());
        let moment = micros.filter(|micros| *micros <= MICROS_MAX).map(Self);
        moment.ok_or_else(|| {
            let shown = jiff::Timestamp::try_from(time).map(|moment| moment.to_string());
            InvalidTimestamp(shown.unwrap_or_else(|_| format!("{time:?}")))
        })
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_micros(time.0)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with six decimals, so that texts sort as the moments do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = i64::try_from(self.0).expect("a timestamp is at most the year 9999");
        let moment = jiff::Timestamp::from_microsecond(micros).expect("in jiff's range");
        write!(f, "{moment:.6}")
    }
}

/// The error for a text that is not a moment, or for a moment outside the range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time such as 2026-01-31T08:00:00Z, from 1970 to 9999: text={0:?}")]
pub struct InvalidTimestamp(String);

impl InvalidTimestamp {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    /// Parses RFC 3339 with any offset.
    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        let bad = || InvalidTimestamp(text.chars().take(80).collect());
        let moment: jiff::Timestamp = text.parse().map_err(|_| bad())?;
        let micros = u64::try_from(moment.as_microsecond()).map_err(|_| bad())?;
        if micros > MICROS_MAX { Err(bad()) } else { Ok(Self(micros)) }
    }
}

/// A reading of a clock that never goes back and is never set. The start of the clock has no
/// meaning: only the difference of two readings of the same clock has one.
///
/// ```
/// use std::time::Duration;
/// use factum_kernel::{Clock, SystemClock};
///
/// let begun = SystemClock.monotonic();
/// let spent: Duration = SystemClock.monotonic().saturating_since(begun);
/// assert!(spent < Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(u64);

impl Monotonic {
    /// The start of the clock.
    pub const START: Self = Self(0);
    /// The last reading, 584 years after the start.
    pub const MAX: Self = Self(u64::MAX);

    /// This reading plus `duration`, at most [`Monotonic::MAX`].
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// The time from `earlier` to this reading; zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The only source of time. Tests replace it with a clock of their own.
#[async_trait]
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the current moment, to be stored or shown. It may go back or leap, as real clocks
    /// do; the times of a log never go back.
    fn now(&self) -> Timestamp;

    /// Returns a reading for measuring durations. It advances at the pace of
    /// [`sleep`](Self::sleep), and setting the time of [`now`](Self::now) doesn't change it.
    fn monotonic(&self) -> Monotonic;

    /// Completes when [`monotonic`](Self::monotonic) has advanced by `duration`.
    async fn sleep(&self, duration: Duration);
}

/// The machine's clock. `sleep` needs a tokio runtime with time enabled. `monotonic` may stand
/// still while the machine is suspended. While the machine's time is set before 1970, `now` is
/// 1970.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the only place that reads the clock")]
    fn now(&self) -> Timestamp {
        Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::EPOCH)
    }

    #[expect(clippy::disallowed_methods, reason = "the only place that reads the clock")]
    fn monotonic(&self) -> Monotonic {
        static START: OnceLock<Instant> = OnceLock::new();
        let start = *START.get_or_init(Instant::now);
        Monotonic::START.saturating_add(start.elapsed())
    }

    #[expect(clippy::disallowed_methods, reason = "the only place that reads the clock")]
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_moment_agree_over_the_whole_range() {
        for micros in [0, 1, 1_767_225_600_123_456, MICROS_MAX] {
            let moment = Timestamp::from_micros(micros);
            assert_eq!(moment.to_string().parse(), Ok(moment));
        }
        assert_eq!(Timestamp::from_micros(u64::MAX), Timestamp::MAX);
        let stored: Timestamp = serde_json::from_str("18446744073709551615").unwrap();
        assert_eq!(stored.to_string(), Timestamp::MAX.to_string(), "also out of hostile bytes");
    }

    #[test]
    fn a_system_time_outside_the_range_is_an_error_and_no_other_moment() {
        let last = SystemTime::from(Timestamp::MAX);
        for moment in [Timestamp::EPOCH, Timestamp::from_micros(1), Timestamp::MAX] {
            assert_eq!(Timestamp::try_from(SystemTime::from(moment)), Ok(moment));
        }
        for (time, shown) in [
            (UNIX_EPOCH - Duration::from_nanos(1), "1969-12-31T23:59:59.999999999Z"),
            (UNIX_EPOCH - Duration::from_secs(86_400), "1969-12-31T00:00:00Z"),
            (last + Duration::from_micros(1), "9999-12-30T22:00:00.000001Z"),
            (last + Duration::from_secs(1 << 40), ""),
        ] {
            let refused = Timestamp::try_from(time).unwrap_err().to_string();
            assert!(refused.contains(shown), "{refused}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in ["", "yesterday", "1969-12-31T23:59:59Z", "2026-02-30T00:00:00Z"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }
}
