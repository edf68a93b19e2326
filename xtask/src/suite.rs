//! The suites of one `cargo test`, recognised in its output.
//!
//! A state machine: lines in, finished suites out. It runs nothing and reads no clock.

use std::{collections::HashMap, mem, time::Duration};

/// The result of one test binary, or of the documentation of one crate.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Suite {
    pub(crate) name: String,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    pub(crate) took: Duration,
    pub(crate) output: Vec<String>,
}

/// The suites of one run, while it goes on.
#[derive(Debug)]
pub(crate) struct Suites {
    names: HashMap<String, String>,
    open: Option<(Suite, Duration)>,
    /// The output of cargo before the first suite.
    stray: Vec<String>,
    failed: bool,
}

impl Suites {
    /// `names` are the names of the suites, by the file name of the executable or, for
    /// documentation, by the crate as rustdoc writes it.
    pub(crate) fn new(names: HashMap<String, String>) -> Self {
        Self { names, open: None, stray: Vec::new(), failed: false }
    }

    /// Takes the next line, which came this long after the start. Returns the suite that it ends.
    pub(crate) fn line(&mut self, line: &str, at: Duration) -> Option<Suite> {
        if let Some(name) = heading(line).and_then(|key| self.names.get(key)).cloned() {
            let ended = self.close(at);
            self.open = Some((Suite { name, ..Suite::default() }, at));
            return ended;
        }
        match &mut self.open {
            Some((suite, _)) => suite.take(line),
            None => self.stray.push(line.into()),
        }
        None
    }

    /// Ends the run. Returns the last suite, and one named `cargo` for a failure that no suite
    /// explains.
    pub(crate) fn end(mut self, at: Duration, cargo_failed: bool) -> Vec<Suite> {
        let mut ended: Vec<Suite> = self.close(at).into_iter().collect();
        if cargo_failed && !self.failed {
            let mut output = mem::take(&mut self.stray);
            output.extend(ended.iter().flat_map(|suite| suite.output.clone()));
            ended.push(Suite { name: "cargo".into(), failed: 1, output, ..Suite::default() });
        }
        ended
    }

    fn close(&mut self, at: Duration) -> Option<Suite> {
        let (mut suite, since) = self.open.take()?;
        suite.took = at.saturating_sub(since);
        self.failed |= suite.failed > 0;
        Some(suite)
    }
}

impl Suite {
    /// The number of tests that it ran.
    pub(crate) fn tests(&self) -> u64 {
        self.passed + self.failed
    }

    fn take(&mut self, line: &str) {
        self.output.push(line.into());
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += count(result, "passed");
            self.failed += count(result, "failed");
            self.ignored += count(result, "ignored");
        } else if line.starts_with("error: ") && line.contains("test failed, to rerun pass") {
            // A binary that died has no result line, and must not pass for one without tests.
            self.failed = self.failed.max(1);
        }
    }
}

/// The suite that begins with this line of cargo's, if one does.
fn heading(line: &str) -> Option<&str> {
    let line = line.trim();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(name);
    }
    let (_, path) = line.strip_prefix("Running ")?.strip_suffix(')')?.rsplit_once('(')?;
    path.rsplit(['/', '\\']).next()
}

/// The number before this word in `ok. 3 passed; 0 failed; ...`.
fn count(result: &str, word: &str) -> u64 {
    let mut words = result.split([' ', ';', '.']).filter(|it| !it.is_empty()).peekable();
    while let Some(number) = words.next() {
        if words.peek() == Some(&word) {
            return number.parse().unwrap_or(0);
        }
    }
    0
}

#[cfg(test)]
mod tests;
