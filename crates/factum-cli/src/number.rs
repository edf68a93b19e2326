//! Numbers, amounts and times in a form for people.

use std::time::Duration;

use factum::event::Timestamp;

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Cents as an amount: `-123456` as `-1,234.56`.
pub(crate) fn money(cents: i128) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02}", grouped(cents / 100), cents % 100)
}

/// The count per second, as a whole number.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
    let count = count as f64;
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { (count / seconds).round() } else { 0.0 }
}

/// The mean number of bytes of an event, with one decimal; `None` without events.
pub(crate) fn ratio(bytes: u64, events: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a mean needs no more than 53 bits")]
    let mean = bytes as f64 / events as f64;
    (events > 0).then(|| (mean * 10.0).round() / 10.0)
}

/// A rate for people.
pub(crate) fn rate(per_second: f64) -> String {
    #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "it is a count")]
    grouped(per_second as u64)
}

/// A duration such as `2.31 s` or `850 ms`.
pub(crate) fn duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.2} s", duration.as_secs_f64())
    }
}

/// An age or a delay: `850 ms`, `2.31 s`, `5 min`, `3 h`, `12 d`.
pub(crate) fn age(age: Duration) -> String {
    match age.as_secs() {
        0..120 => duration(age),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", grouped(seconds / 86_400)),
    }
}

/// Microseconds in a suitable unit.
pub(crate) fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..100_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        _ => format!("{} ms", micros / 1_000),
    }
}

/// A count with its noun: `1 event`, `2 events`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// A moment to the minute, in UTC.
pub(crate) fn minute(time: Timestamp) -> String {
    time.to_string()[..16].replace('T', " ")
}

/// A moment to the millisecond, in UTC.
pub(crate) fn millisecond(time: Timestamp) -> String {
    time.to_string()[..23].replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number as u64), text);
        }
        assert_eq!(money(-123_456), "-1,234.56");
        assert_eq!(money(7), "0.07");
        assert_eq!(counted(1, "event"), "1 event");
    }

    #[test]
    fn times_come_in_the_unit_that_fits() {
        assert_eq!(micros(999), "999 µs");
        assert_eq!(micros(1_550), "1.5 ms");
        assert_eq!(micros(2_000_000), "2000 ms");
        assert_eq!(duration(Duration::from_millis(850)), "850 ms");
        for (seconds, text) in
            [(119, "119.00 s"), (7_199, "119 min"), (7_200, "2 h"), (172_800, "2 d")]
        {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
        assert_eq!(minute("2026-01-31T08:05:59Z".parse().unwrap()), "2026-01-31 08:05");
        assert_eq!(ratio(10, 0), None);
        assert_eq!(per_second(10, Duration::ZERO).to_string(), "0");
    }
}
