//! The prose of the repository: comments, messages and pages. Phrases that are hard to understand
//! at first reading are counted, and no count may exceed its goal.

use crate::repository::{SourceFile, assert_none, files};

/// A kind of phrase, and the most of it that the repository may hold.
struct Rule {
    advice: &'static str,
    goal: usize,
    find: fn(&Text) -> Vec<String>,
}

/// A goal may fall, never rise.
const RULES: &[Rule] = &[
    Rule {
        advice: "`behind` is lag; write `after` for order",
        goal: 33,
        find: |text| phrases(text, &["behind"]),
    },
    Rule { advice: "write `N`, `this many` or a number's name", goal: 0, find: so_many },
    Rule {
        advice: "name the subject: the caller, the store, another process",
        goal: 3,
        find: |text| phrases(text, PRONOUNS),
    },
    Rule { advice: "write the usual word", goal: 1, find: unusual },
    Rule {
        advice: "begin a doc comment with the thing or the action",
        goal: 4,
        find: |text| question(text).into_iter().collect(),
    },
    Rule { advice: "split a sentence of more than 35 words", goal: 4, find: long_sentences },
];

const PRONOUNS: &[&str] = &[
    "whoever",
    "somebody",
    "someone",
    "anybody",
    "anyone",
    "everybody",
    "everyone",
    "nobody",
    "no one",
];
const UNUSUAL: &[&str] = &[
    "belong into",
    "belongs into",
    "fare",
    "fares",
    "anew",
    "for ever",
    "to blame",
    "is told",
    "are told",
];
const QUESTIONS: &[&str] = &["What", "Who", "Whoever", "How", "Whether", "Where", "Which"];
const INDIRECT: &[&str] = &["what", "who", "how", "whether", "where"];
const WORDS_MAX: usize = 35;
/// Shorter texts in quotes are names and keys.
const MESSAGE_CHARS_MIN: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Comment,
    /// The first line of a doc comment.
    Start,
    Doc,
    Message,
    Page,
}

/// A paragraph of prose, with its lines joined.
#[derive(Debug)]
struct Text {
    line: usize,
    kind: Kind,
    text: String,
}

/// Lower-case words, without the marks around them.
fn words(text: &str) -> Vec<String> {
    let is_mark = |c: char| !c.is_alphanumeric() && c != '_';
    text.split(is_mark).filter(|it| !it.is_empty()).map(str::to_lowercase).collect()
}

fn phrases(text: &Text, phrases: &[&str]) -> Vec<String> {
    let words = words(&text.text);
    let find = |phrase: &&str| {
        let phrase: Vec<&str> = phrase.split(' ').collect();
        let count = words.windows(phrase.len()).filter(|it| *it == phrase).count();
        vec![phrase.join(" "); count]
    };
    phrases.iter().flat_map(find).collect()
}

fn so_many(text: &Text) -> Vec<String> {
    let mut found = phrases(text, &["so many", "so much", "so often", "so far as", "so long"]);
    for _ in phrases(text, &["so long as"]) {
        found.pop();
    }
    found
}

fn unusual(text: &Text) -> Vec<String> {
    let mut found = phrases(text, UNUSUAL);
    let lower = text.text.to_lowercase();
    let concerns = |rest: &str| rest.chars().take(28).collect::<String>().contains("business");
    found.extend(lower.split("none of").skip(1).filter(|rest| concerns(rest)).map(str::to_owned));
    found
}

fn question(text: &Text) -> Option<String> {
    let mut words = text.text.split(|c: char| !c.is_alphanumeric());
    let first = words.next()?;
    let mut is_indirect = || words.next().is_some_and(|word| INDIRECT.contains(&word));
    let is_question = QUESTIONS.contains(&first)
        || (["Says", "Tells", "Answers"].contains(&first) && is_indirect());
    (text.kind == Kind::Start && is_question).then(|| first.to_owned())
}

fn long_sentences(text: &Text) -> Vec<String> {
    if text.kind == Kind::Message || text.text.contains('|') {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut count = 0;
    let mut sentence = String::new();
    for word in text.text.split_whitespace() {
        count += 1;
        sentence = format!("{sentence}{word} ");
        if word.ends_with(['.', '!', '?', ':', ';']) {
            found.extend((count > WORDS_MAX).then(|| sentence.clone()));
            (count, sentence) = (0, String::new());
        }
    }
    found.extend((count > WORDS_MAX).then_some(sentence));
    found
}

/// The paragraphs of a file's comments and messages, or of a page.
fn texts(file: &SourceFile) -> Vec<Text> {
    let is_page = file.path.ends_with(".md");
    let mut texts: Vec<Text> = Vec::new();
    let mut is_fenced = false;
    let mut is_open = false;
    let mut last_doc = None;
    for (line, raw) in (1..).zip(file.text.lines()) {
        let comment = comment(raw);
        let (mut kind, piece) = match comment {
            _ if is_page => (Kind::Page, raw.trim()),
            Some((kind, piece)) => (kind, piece),
            None => {
                texts.extend(messages(line, raw));
                (is_fenced, is_open) = (false, false);
                continue;
            }
        };
        if kind == Kind::Doc {
            if last_doc != Some(line - 1) {
                kind = Kind::Start;
            }
            last_doc = Some(line);
        }
        if piece.starts_with("```") {
            is_fenced = !is_fenced;
        }
        if is_fenced || piece.is_empty() || piece.starts_with("```") {
            is_open = false;
            continue;
        }
        match texts.last_mut() {
            Some(text) if is_open && goes_on(text.kind, kind) => {
                text.text = format!("{} {piece}", text.text);
            }
            _ => texts.push(Text { line, kind, text: piece.to_owned() }),
        }
        is_open = true;
    }
    texts
}

/// Whether a line of the second kind continues a paragraph of the first.
fn goes_on(text: Kind, line: Kind) -> bool {
    (text == line && line != Kind::Start) || (text, line) == (Kind::Start, Kind::Doc)
}

fn comment(line: &str) -> Option<(Kind, &str)> {
    let line = line.trim_start();
    let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
    match doc {
        Some(text) => Some((Kind::Doc, text.trim())),
        None => line.strip_prefix("//").map(|text| (Kind::Comment, text.trim())),
    }
}

/// The texts in quotes on a line of code.
fn messages(line: usize, code: &str) -> Vec<Text> {
    let code = code.replace("\\\\", "  ").replace("\\\"", "''");
    let quoted = code.split('"').skip(1).step_by(2);
    let long = quoted.filter(|it| it.chars().count() >= MESSAGE_CHARS_MIN);
    long.map(|it| Text { line, kind: Kind::Message, text: it.to_owned() }).collect()
}

/// Source files of the workspace, and pages; the history of changes stays as it was written.
fn is_read(file: &SourceFile) -> bool {
    let name = file.name();
    let is_source = name.ends_with(".rs") && format!("/{}", file.path).contains("/src/");
    is_source || (name.ends_with(".md") && name != "CHANGELOG.md")
}

fn places(rule: &Rule, files: &[SourceFile]) -> Vec<String> {
    let mut places = Vec::new();
    for file in files.iter().filter(|file| is_read(file)) {
        for text in texts(file) {
            for found in (rule.find)(&text) {
                places.push(format!("{}:{}: {found}: {}", file.path, text.line, text.text));
            }
        }
    }
    places
}

fn breaches(files: &[SourceFile]) -> Vec<String> {
    let mut breaches = Vec::new();
    for rule in RULES {
        let places = places(rule, files);
        if places.len() > rule.goal {
            breaches.push(format!("{}: {} for {}", rule.advice, places.len(), rule.goal));
            breaches.extend(places);
        }
    }
    breaches
}

#[test]
fn no_count_of_hard_phrases_exceeds_its_goal() {
    assert_none(&breaches(&files()));
}

fn count(rule: usize, path: &str, text: &str) -> usize {
    places(&RULES[rule], &[SourceFile { path: path.into(), text: text.into() }]).len()
}

#[test]
fn hard_phrases_are_found_in_comments_messages_and_pages() {
    for (rule, text) in [
        (0, "It stands\n/// behind it."),
        (1, "After so many events, not so long as it runs."),
        (2, "Nobody writes."),
        (3, "It is made anew."),
        (3, "That is none of its business."),
        (4, "Whether it fits."),
        (4, "Tells how it ended."),
        (5, &"word ".repeat(36)),
    ] {
        let doc = format!("/// {text}\nfn f() {{}}\n");
        assert_eq!(count(rule, "crates/x/src/a.rs", &doc), 1, "{text}");
        assert_eq!(count(rule, "crates/x/tests/a.rs", &doc), 0, "{text}");
        if rule < 4 {
            let message = format!("fail(\"{}\");\n", text.replace("\n///", ""));
            assert_eq!(count(rule, "crates/x/src/a.rs", &message), 1, "{text}");
            assert_eq!(count(rule, "docs/a.md", &text.replace("\n///", "")), 1, "{text}");
        }
    }
}

#[test]
fn plain_words_are_not_counted() {
    for (rule, text) in [
        (0, "/// It stands after it.\n"),
        (1, "// It goes on so long as it runs.\n"),
        (4, "/// The number.\n/// How it ended.\n"),
        (4, "// How it ended.\n"),
        (5, "/// Short. And short again: and again.\n"),
        (0, "let behind = 1;\n"),
        (0, "/// ```\n/// behind\n/// ```\n"),
    ] {
        assert_eq!(count(rule, "crates/x/src/a.rs", text), 0, "{text}");
    }
}
