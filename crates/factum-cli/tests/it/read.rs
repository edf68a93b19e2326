//! `factum read`.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::OnceLock,
    time::Instant,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{PATIENCE, Running, command, fail, json, run, sqlite_in, succeed};

/// A bank for tests that only read.
fn bank() -> &'static str {
    static BANK: OnceLock<(TempDir, String)> = OnceLock::new();
    let (_, store) = BANK.get_or_init(|| {
        let folder = tempfile::tempdir().expect("there is room");
        let store = sqlite_in(folder.path());
        succeed(&format!("demo --store {store} --accounts 6 --commands 300 -q"));
        (folder, store)
    });
    store
}

/// The events that the program reads from the bank with these arguments.
fn read(arguments: &str) -> Vec<Value> {
    let lines = succeed(&format!("read --store {} --json {arguments}", bank()));
    lines.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

fn positions(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["position"].as_u64().expect("a number")).collect()
}

/// Waits until a store that another process creates has an event.
pub(crate) fn first_event(store: &str) -> Value {
    #[expect(clippy::disallowed_methods, reason = "the patience of a test is real time")]
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let ran = run(&format!("read --store {store} --limit 1 --json"));
        if ran.code == Some(0) && !ran.stdout.is_empty() {
            return serde_json::from_str(&ran.stdout).expect("an object");
        }
    }
    panic!("no event came: store={store}");
}

#[test]
fn the_log_is_the_default_and_every_field_is_there() {
    let events = read("");
    assert_eq!(positions(&events), (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(events, read("--log"));
    let first = events[0].as_object().unwrap();
    let names: Vec<_> = first.keys().map(String::as_str).collect();
    let mut expected = [
        "position",
        "version",
        "stream",
        "type",
        "schema_version",
        "content",
        "id",
        "recorded_at",
        "tags",
        "metadata",
        "data",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(first["type"], "account.opened");
    assert!(first["data"]["owner"].is_string());
}

#[test]
fn a_stream_a_category_a_type_and_a_tag_select() {
    let all = read("");
    let stream = all[0]["stream"].as_str().unwrap();
    let of = |name: &str, value: &str| {
        all.iter().filter(|event| event[name] == value).cloned().collect::<Vec<_>>()
    };
    assert_eq!(read(&format!("--stream {stream}")), of("stream", stream));
    assert_eq!(read("--category account"), all);
    assert_eq!(read("--category other"), Vec::<Value>::new());
    let sent = of("type", "account.sent");
    assert_eq!(read("--type account.sent"), sent);
    let tag = sent[0]["tags"][0].as_str().unwrap();
    let tagged = read(&format!("--tag {tag} --type account.sent --type account.received"));
    assert!(!tagged.is_empty());
    for event in &tagged {
        assert!(event["tags"].as_array().unwrap().contains(&tag.into()), "{event}");
    }
    assert_eq!(read(&format!("--tag {tag}")), tagged, "only transfers have it");
    assert_eq!(read(&format!("--tag {tag} --tag no:such")), Vec::<Value>::new());
    assert_eq!(tagged[0]["metadata"]["correlation_id"].as_str().map(str::len), Some(36));
}

#[test]
fn a_hashed_tag_is_found_by_the_value_that_nobody_can_read_from_it() {
    let opened = read("--type account.opened");
    let email = opened[1]["data"]["email"].as_str().unwrap();
    let found = read(&format!("--hashed-tag email:{email}"));
    assert_eq!(found, [opened[1].clone()]);
    assert!(found[0]["tags"][0].as_str().unwrap().starts_with("email:#"), "{found:?}");
    let tagged = format!("--hashed-tag email:{email} --type account.sent --tag no:such");
    assert_eq!(read(&tagged), Vec::<Value>::new());
    let said = fail(&format!("read --store {} --hashed-tag email:", bank()), 2);
    assert!(said.contains("invalid tag value"), "{said}");
}

#[test]
fn a_read_that_finds_nothing_says_so_to_people() {
    for scope in ["--stream account-nobody", "--category other", "--type account.opend"] {
        let line = format!("read --store {} {scope}", bank());
        let ran = run(&line);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{line}");
        assert_eq!(ran.stderr, "no events\n", "{line}");
        for option in ["-q", "--json"] {
            assert_eq!(run(&format!("{line} {option}")).stderr, "", "{line} {option}");
        }
    }
    assert_eq!(run(&format!("read --store {} --limit 1", bank())).stderr, "");
}

#[test]
fn names_that_nothing_can_have_are_refused() {
    let long = "x".repeat(300);
    for scope in ["--type", "--category", "--stream"] {
        let said = fail(&format!("read --store {} {scope} {long}", bank()), 2);
        assert!(said.contains("invalid"), "{said}");
    }
}

#[test]
fn after_and_limit_bound_and_the_systems_own_events_come_when_asked() {
    assert_eq!(positions(&read("--after 10 --limit 5")), [11, 12, 13, 14, 15]);
    assert_eq!(read("--after 100000"), Vec::<Value>::new());
    assert_eq!(read("--limit 100000"), read("--system"));
}

#[test]
fn people_get_a_line_per_event_without_colours() {
    let text = succeed(&format!("read --store {} --limit 3", bank()));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].trim_start().starts_with("1  20"), "{text}");
    assert!(lines[0].contains("@1  account.opened  {\"owner\":"), "{text}");
    assert!(!text.contains('\x1b'));
}

#[test]
fn a_closed_pipe_is_a_quiet_success() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite_in(folder.path());
    // The output is larger than any pipe's buffer.
    succeed(&format!("bench append --store {store} --events 2000 --payload-bytes 400 -q"));
    let mut reading = command(&format!("read --store {store} --json"));
    let mut reading = reading.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(reading.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("data_hex"), "{first}");
    let ended = reading.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}

#[test]
fn a_follower_sees_what_is_there_and_what_comes() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite_in(folder.path());
    let line = format!("demo --store {store} --accounts 2 --commands 50 --json");
    let head = json(&line)["events"].as_u64().unwrap();
    let mut follower =
        Running::start(&format!("read --store {store} --json --follow --after {}", head - 1));
    let position = |line: String| {
        let event: Value = serde_json::from_str(&line).unwrap();
        event["position"].as_u64().unwrap()
    };
    assert_eq!(position(follower.line()), head);
    json(&line);
    assert_eq!(position(follower.line()), head + 1);
    assert_eq!(follower.child.try_wait().unwrap(), None, "it waits for more");
    #[cfg(unix)]
    {
        follower.signal("INT");
        assert_eq!(follower.wait().code, Some(130));
    }
}

#[test]
fn a_follower_stops_at_its_limit() {
    let events = read("--follow --limit 4 --category account");
    assert_eq!(positions(&events), [1, 2, 3, 4]);
}

#[test]
fn what_is_not_there_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none");
    for (scheme, what) in [("", "journal"), ("journal:", "journal"), ("sqlite:", "database")] {
        let said = fail(&format!("read --store {scheme}{}", path.display()), 2);
        assert!(said.contains(&format!("there is no {what} to read")), "{said}");
        assert!(!path.exists());
    }
}
