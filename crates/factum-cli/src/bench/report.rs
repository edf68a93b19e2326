//! The result of a benchmark, for people and for programs.

use std::time::Duration;

use serde::Serialize;

use crate::{
    bench::latency::Latencies,
    exit::Failure,
    number::{self, micros},
    output::Output,
};

/// One measurement. The fields have the names of the JSON object.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Reading {
    pub(crate) bench: &'static str,
    pub(crate) store: String,
    pub(crate) clients: u64,
    pub(crate) events: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) streams: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) durability: Option<&'static str>,
    pub(crate) seconds: f64,
    pub(crate) events_per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_per_event: Option<f64>,
}

impl Reading {
    /// The measurement of `events` in `elapsed`, with the latencies of the single operations.
    pub(crate) fn of(events: u64, elapsed: Duration, latencies: &Latencies) -> Self {
        Self {
            events,
            seconds: elapsed.as_secs_f64(),
            events_per_s: number::per_second(events, elapsed),
            p50_us: latencies.percentile(50),
            p99_us: latencies.percentile(99),
            ..Self::default()
        }
    }

    /// Writes the JSON object on one line.
    pub(crate) fn print_json(&self, out: &mut Output) -> Result<(), Failure> {
        out.line(serde_json::to_string(self).expect("all keys are text"))
    }

    /// Writes the measurement for people, after the lines that describe the work. The latencies are
    /// those of `operation`.
    pub(crate) fn print(
        &self,
        out: &mut Output,
        title: &str,
        work: &[String],
        operation: &str,
    ) -> Result<(), Failure> {
        out.line(out.paint().bold(title))?;
        for line in work {
            out.line(format_args!("  {line}"))?;
        }
        let elapsed = number::duration(Duration::from_secs_f64(self.seconds));
        let rate = out.paint().bold(number::rate(self.events_per_s));
        out.line(format_args!("  rate      {rate} events per second, {elapsed} in all"))?;
        if let Some((p50, p99)) = self.p50_us.zip(self.p99_us) {
            let p50 = micros(p50);
            let p99 = micros(p99);
            out.line(format_args!("  {operation:<8}  p50 {p50}, p99 {p99}"))?;
        }
        if let Some(bytes) = self.bytes_per_event {
            out.line(format_args!("  disk      {bytes} bytes per event"))?;
        }
        Ok(())
    }
}
