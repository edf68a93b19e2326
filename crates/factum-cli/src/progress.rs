//! Progress of long work: a bar on a terminal, plain lines elsewhere, nothing with `--quiet`.

use std::{
    fmt,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::{
    number::{self, counted, grouped},
    output::{self, Notes},
    stopwatch::Stopwatch,
};

/// The shortest time between two lines. A line is due at every tenth of the work.
const LINE_PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest time between two lines.
const LINE_PAUSE_MAX: Duration = Duration::from_secs(10);

/// The progress of some work.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Not shown.
    Silent,
    /// Shown as a bar on a terminal.
    Bar(ProgressBar),
    /// Shown as single lines.
    Lines(Mutex<Lines>),
}

impl Progress {
    /// The start of work on `total` items, which `noun` names.
    pub(crate) fn start(notes: Notes, verb: &'static str, noun: &'static str, total: u64) -> Self {
        match notes {
            Notes::None => Self::Silent,
            Notes::Live => Self::Bar(bar(verb, noun, total)),
            Notes::Lines => {
                let begun = Stopwatch::start();
                let told = (Duration::ZERO, 0);
                Self::Lines(Mutex::new(Lines { verb, noun, total, done: 0, told, begun }))
            }
        }
    }

    /// Adds finished items.
    pub(crate) fn add(&self, count: u64) {
        match self {
            Self::Silent => {}
            Self::Bar(bar) => bar.inc(count),
            Self::Lines(lines) => lock(lines).add(count),
        }
    }

    /// Sets the finished items and the total, which may have grown.
    #[cfg(feature = "journal")]
    pub(crate) fn reach(&self, done: u64, total: u64) {
        match self {
            Self::Silent => {}
            Self::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(done);
            }
            Self::Lines(lines) => {
                let mut lines = lock(lines);
                lines.total = total;
                let more = done.saturating_sub(lines.done);
                lines.add(more);
            }
        }
    }

    /// Ends the display; the work is finished or given up.
    pub(crate) fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn bar(verb: &str, noun: &str, total: u64) -> ProgressBar {
    let template = format!(
        "{verb} {{bar:32.cyan/dim}} {{human_pos}} of {{human_len}} {noun}s, {{rate}}/s, \
         {{eta}} left"
    );
    let style = ProgressStyle::with_template(&template).expect("the template is well formed");
    let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
        // The terminal may be gone, and that is no failure of the work.
        let _ = out.write_str(&number::rate(state.per_sec()));
    };
    ProgressBar::new(total).with_style(style.with_key("rate", rate).progress_chars("━╸─"))
}

fn lock(lines: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    lines.lock().expect("no holder of the lock panics")
}

/// The work and the last line that was printed.
#[derive(Debug)]
pub(crate) struct Lines {
    verb: &'static str,
    noun: &'static str,
    total: u64,
    done: u64,
    /// The time of the last line, and the tenths that it showed.
    told: (Duration, u64),
    begun: Stopwatch,
}

impl Lines {
    fn add(&mut self, count: u64) {
        self.done += count;
        let now = self.begun.elapsed();
        if self.is_due(now) {
            self.told = (now, self.tenths());
            let verb = self.verb;
            let noun = self.noun;
            let done = grouped(self.done);
            let total = counted(self.total, noun);
            let percent = self.done * 100 / self.total.max(1);
            output::note(Notes::Lines, format_args!("{verb}: {done} of {total} ({percent} %)"));
        }
    }

    fn tenths(&self) -> u64 {
        self.done * 10 / self.total.max(1)
    }

    fn is_due(&self, now: Duration) -> bool {
        let (last, tenths) = self.told;
        let pause = now.saturating_sub(last);
        pause >= LINE_PAUSE_MAX || (pause >= LINE_PAUSE_MIN && self.tenths() > tenths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_at_a_tenth_but_not_too_often_and_not_too_seldom() {
        let begun = Stopwatch::start();
        let told = (Duration::from_secs(5), 3);
        let with = |done| Lines { verb: "x", noun: "y", total: 100, done, told, begun };
        let at = Duration::from_millis;
        assert!(with(45).is_due(at(6_000)));
        assert!(!with(45).is_due(at(5_900)), "too soon");
        assert!(!with(39).is_due(at(6_000)), "no new tenth");
        assert!(with(39).is_due(at(15_000)), "too long ago");
    }
}
