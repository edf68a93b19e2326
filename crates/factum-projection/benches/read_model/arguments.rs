//! The options of a benchmark: `--name value`, each with a default.

use std::collections::BTreeMap;

use super::Failure;

/// Options that were given and not yet taken.
#[derive(Debug)]
pub(super) struct Arguments {
    given: BTreeMap<String, String>,
}

impl Arguments {
    /// Takes pairs of a name and a value.
    pub(super) fn read(words: &[String]) -> Result<Self, Failure> {
        let pair = |pair: &[String]| match pair {
            [name, value] if name.starts_with("--") => Ok((name.clone(), value.clone())),
            _ => Err(format!("options are pairs such as --rounds 2: {}", pair.join(" "))),
        };
        let given = words.chunks(2).map(pair).collect::<Result<_, _>>()?;
        Ok(Self { given })
    }

    /// A whole number, at least 1.
    pub(super) fn number(&mut self, name: &str, default: u64) -> Result<u64, Failure> {
        let Some(text) = self.given.remove(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| format!("{name} takes a whole number, at least 1: {text}").into())
    }

    /// A text.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.given.remove(name)
    }

    /// Refuses what nothing has taken.
    pub(super) fn end(self) -> Result<(), Failure> {
        match self.given.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("there is no such option: {name}").into()),
        }
    }
}
