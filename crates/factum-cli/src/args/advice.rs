//! The remedy for a command line that names its store without an option, `factum stats ./data`.

use std::ffi::{OsStr, OsString};

use clap::Parser;

use super::Args;

/// Marks of a server's URL, which may hold a password.
const SECRET: [&str; 3] = ["://", "@", "password="];

/// The refused command line with `--store` before the word that makes it valid; `None` if there is
/// no such word.
pub(super) fn with_store(line: &[OsString]) -> Option<String> {
    let is_right = |at: &usize| Args::try_parse_from(named(line, *at)).is_ok();
    // A word that looks like a server's URL comes first, even if another word could be the store.
    let is_url = |at: &usize| line[*at].to_string_lossy().contains("://");
    let urls = (1..line.len()).filter(is_url);
    let store = urls.chain(1..line.len()).find(is_right)?;
    let words = line.iter().enumerate().skip(1).map(|(at, word)| match at == store {
        true if is_secret(word) => "--store URL".into(),
        true => format!("--store {}", quoted(word)),
        false if is_secret(word) && !is_name(word) => "'***'".into(),
        false => quoted(word),
    });
    let right: Vec<_> = words.collect();
    Some(format!("name the store with --store: factum {}", right.join(" ")))
}

fn named(line: &[OsString], at: usize) -> impl Iterator<Item = OsString> {
    let (before, after) = line.split_at(at);
    before.iter().cloned().chain(["--store".into()]).chain(after.iter().cloned())
}

fn is_secret(word: &OsStr) -> bool {
    let word = word.to_string_lossy();
    SECRET.iter().any(|mark| word.contains(mark))
}

/// True for the name of a projection, such as `orders@1`.
fn is_name(word: &OsStr) -> bool {
    word.to_string_lossy().parse::<factum::consumer::ConsumerName>().is_ok()
}

/// A word in the form that a shell accepts.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:@=,+%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.into_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(words: &[&str]) -> Option<String> {
        with_store(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_advised_line_is_one_that_a_shell_takes() {
        let advised = advice(&["factum", "stats", "my data/it's", "--json"]).unwrap();
        assert!(advised.ends_with(r"--store: factum stats --store 'my data/it'\''s' --json"));
        let advised = advice(&["factum", "stats", "sqlite:a.db?mode=read"]).unwrap();
        assert!(advised.ends_with("--store: factum stats --store 'sqlite:a.db?mode=read'"));
    }

    #[test]
    fn no_word_with_a_password_is_repeated() {
        let url = "postgres://ada:s3c@db/bank";
        let advised = advice(&["factum", "dead-letters", "show", "orders@1", url, "order-17"]);
        let advised = advised.expect("it could be right");
        assert!(advised.ends_with("show orders@1 --store URL order-17"), "{advised}");
        let advised = advice(&["factum", "dead-letters", "list", "./data", "--consumer", url]);
        assert!(!advised.expect("it could be right").contains("s3c"));
    }

    #[test]
    fn a_line_that_stays_wrong_gets_no_advice() {
        assert_eq!(advice(&["factum", "stats", "./data", "./more"]), None);
        assert_eq!(advice(&["factum", "demo", "./data", "--accounts", "x"]), None);
        assert_eq!(advice(&["factum"]), None);
    }
}
