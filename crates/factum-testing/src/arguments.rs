//! The options of a benchmark: `--name value`, each with a default.

use std::collections::BTreeMap;

/// Options that a benchmark was given and has not yet taken.
///
/// ```
/// use factum_testing::Arguments;
///
/// let mut arguments = Arguments::read(&["--rounds".into(), "2".into()])?;
/// assert_eq!(arguments.number("--rounds", 5)?, 2);
/// assert_eq!(arguments.number("--events", 1_000)?, 1_000);
/// assert_eq!(arguments.text("--format"), None);
/// arguments.end()?;
/// # Ok::<(), String>(())
/// ```
#[derive(Debug)]
pub struct Arguments {
    given: BTreeMap<String, String>,
}

impl Arguments {
    /// Takes pairs of a name and a value.
    ///
    /// # Errors
    /// A sentence about words that are not such pairs.
    pub fn read(words: &[String]) -> Result<Self, String> {
        let pair = |pair: &[String]| match pair {
            [name, value] if name.starts_with("--") => Ok((name.clone(), value.clone())),
            _ => Err(format!("options are pairs such as --rounds 2: {}", pair.join(" "))),
        };
        let given = words.chunks(2).map(pair).collect::<Result<_, _>>()?;
        Ok(Self { given })
    }

    /// Takes a whole number, at least 1.
    ///
    /// # Errors
    /// A sentence about another value.
    pub fn number(&mut self, name: &str, default: u64) -> Result<u64, String> {
        let Some(text) = self.given.remove(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| format!("{name} takes a whole number, at least 1: {text}"))
    }

    /// Takes a text.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.given.remove(name)
    }

    /// Refuses what was not taken.
    ///
    /// # Errors
    /// A sentence with the first such option.
    pub fn end(self) -> Result<(), String> {
        match self.given.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("there is no such option: {name}")),
        }
    }
}
