//! How far long work has come: a bar on a terminal, plain lines elsewhere, nothing if so wished.

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

/// A line comes at every tenth of the work, but not more often than this,
const LINE_PAUSE_MIN: Duration = Duration::from_secs(1);
/// and at least this often.
const LINE_PAUSE_MAX: Duration = Duration::from_secs(10);

/// How far some work has come.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Nobody wants to know.
    Silent,
    /// Drawn again and again.
    Bar(ProgressBar),
    /// Told now and then.
    Lines(Mutex<Lines>),
}

impl Progress {
    /// The beginning of work that consists of `total` of what `noun` names.
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

    /// So much more is done.
    pub(crate) fn add(&self, count: u64) {
        match self {
            Self::Silent => {}
            Self::Bar(bar) => bar.inc(count),
            Self::Lines(lines) => lock(lines).add(count),
        }
    }

    /// So much is done by now, and there is so much in all, which may be more than was known.
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

    /// All is done, or will not be.
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
        // Nobody is listening to a terminal that is gone.
        let _ = out.write_str(&number::rate(state.per_sec()));
    };
    ProgressBar::new(total).with_style(style.with_key("rate", rate).progress_chars("━╸─"))
}

fn lock(lines: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    lines.lock().expect("no holder of the lock panics")
}

/// What was told so far.
#[derive(Debug)]
pub(crate) struct Lines {
    verb: &'static str,
    noun: &'static str,
    total: u64,
    done: u64,
    /// When the last line was written, and how many tenths it told of.
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
