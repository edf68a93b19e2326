//! `factum verify` and `factum lineage`.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    program::{Running, fail, json, run, sqlite_in, succeed},
    read::first_event,
};

/// A bank in a journal.
fn bank() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("bank");
    succeed(&format!("demo --store journal:{} --accounts 6 --commands 300 -q", path.display()));
    (folder, path)
}

fn flip(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).expect("it is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it can be changed");
    file.write_all_at(&[byte[0] ^ 1], at).expect("it can be changed");
}

/// The JSON output of the program, which must end with this code.
fn said(line: &str, code: i32) -> Value {
    let ran = run(line);
    assert_eq!(ran.code, Some(code), "{line}: {ran:?}");
    serde_json::from_str(ran.stdout.lines().last().expect("a line")).expect("an object")
}

#[test]
fn a_whole_journal_is_called_whole_first_of_all() {
    let (_folder, path) = bank();
    let line = format!("verify --store {}", path.display());
    let text = succeed(&line);
    assert!(text.starts_with("whole  a journal, "), "{text}");
    let object = json(&format!("verify --store journal:{} --json", path.display()));
    assert_eq!((&object["verdict"], &object["damage_count"]), (&"whole".into(), &0.into()));
    assert!(object["events"].as_u64() > Some(100) && object["documents"].as_u64() > Some(0));
    assert_eq!(object["lineage"].as_str().map(str::len), Some(36));
    assert!(object.get("repair").is_none() && object["beside_writer"] == false);
    assert!(succeed(&format!("{line} --repair")).contains("nothing to repair"));
}

#[test]
fn damage_is_a_line_with_its_place_and_exit_code_1() {
    let (_folder, path) = bank();
    flip(&path.join("log/00000000000000000001.log"), 9_000);
    let line = format!("verify --store {}", path.display());
    let ran = run(&line);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.starts_with("damaged, 1 damage"), "{}", ran.stdout);
    let lines: Vec<_> = ran.stdout.lines().filter(|line| line.contains('✗')).collect();
    let has = |part: &str| lines[0].contains(part);
    assert!(lines.len() == 1 && has("log/00000000000000000001.log at ") && has("backup"));
    assert!(ran.stderr.contains("factum verify --store ") && ran.stderr.lines().count() == 1);
    let object = said(&format!("{line} --json"), 1);
    let damage = &object["damages"][0];
    // The offset of the frame that holds the byte. Which appends share a frame is chance.
    let offset = damage["offset"].as_u64().unwrap();
    assert!(damage["part"] == "log" && (512..=9_000).contains(&offset), "{damage}");
    assert!(damage["from"].as_u64() <= damage["through"].as_u64());
}

#[test]
fn a_repair_asks_before_events_leave_the_log_and_then_it_opens_again() {
    let (_folder, path) = bank();
    let store = path.display();
    let before = json(&format!("verify --store {store} --json"));
    flip(&path.join("log/00000000000000000001.log"), 9_000);
    let asked = said(&format!("verify --store {store} --repair --json"), 1);
    assert_eq!(asked["repair"]["done"], false);
    assert!(!path.join("set-aside").exists(), "nothing is done");
    let repaired = said(&format!("verify --store {store} --repair --accept-loss --json"), 0);
    let repair = &repaired["repair"];
    assert_eq!((&repair["done"], &repair["left"]["verdict"]), (&true.into(), &"whole".into()));
    assert_eq!(repair["events_lost"], asked["repair"]["events_lost"]);
    let kept = repair["left"]["events"].as_u64().unwrap();
    assert_eq!(repair["events_lost"]["from"].as_u64(), Some(kept + 1));
    assert!(path.join(repair["folder"].as_str().unwrap()).join("repair.txt").is_file());
    let after = json(&format!("verify --store {store} --json"));
    assert!(after["lineage"] == repair["lineage"] && after["lineage"] != before["lineage"]);
    let read = succeed(&format!("read --store {store} --system --json"));
    assert_eq!(read.lines().count() as u64, kept);
}

#[test]
fn a_lineage_is_renewed_but_not_under_a_writer_beside_which_one_may_verify() {
    let (_folder, path) = bank();
    let store = path.display();
    let before = json(&format!("verify --store {store} --json"))["lineage"].clone();
    let text = succeed(&format!("lineage renew --store {store}"));
    let after = json(&format!("verify --store {store} --json"))["lineage"].clone();
    assert!(text.contains(after.as_str().unwrap()) && after != before, "{text}");

    let folder = tempfile::tempdir().unwrap();
    let store = format!("journal:{}", folder.path().join("busy").display());
    let mut demo = Running::start(&format!("demo --store {store} --commands 1000000 --json"));
    first_event(&store);
    assert!(fail(&format!("lineage renew --store {store}"), 3).contains("open in another process"));
    assert!(
        fail(&format!("verify --store {store} --repair"), 3).contains("open in another process")
    );
    let beside = json(&format!("verify --store {store} --json"));
    assert_eq!((&beside["verdict"], &beside["beside_writer"]), (&"whole".into(), &true.into()));
    demo.child.kill().unwrap();
    demo.wait();
    assert_eq!(json(&format!("verify --store {store} --json"))["verdict"], "whole");
}

/// They once joined the journal, so that they had the application append for them.
#[test]
fn what_works_as_an_application_is_refused_beside_one_and_what_reads_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("journal:{}", folder.path().join("busy").display());
    let mut demo = Running::start(&format!("demo --store {store} --commands 1000000 --json"));
    first_event(&store);
    for line in ["demo --commands 0", "bench read"] {
        let said = fail(&format!("{line} --store {store}"), 3);
        assert!(said.contains("open in another process"), "{line}: {said}");
    }
    for mode in ["write", "existing", "join"] {
        for line in ["read --limit 1", "stats", "consumers list", "dead-letters list"] {
            succeed(&format!("{line} --store {store}?mode={mode}"));
        }
    }
    demo.child.kill().unwrap();
    demo.wait();
}

#[test]
fn what_is_no_journal_is_refused_and_nothing_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none");
    for command in ["verify", "verify --repair", "lineage renew"] {
        for path in [none.display().to_string(), "memory:".into(), "sqlite:./none.db".into()] {
            assert!(fail(&format!("{command} --store {path}"), 2).contains("no journal"), "{path}");
        }
    }
    assert!(!none.exists());
    let store = sqlite_in(folder.path());
    succeed(&format!("demo --store {store} --commands 5 -q"));
    assert!(fail(&format!("verify --store {store}"), 2).contains("for journals so far"));
    assert!(fail("verify --store x --accept-loss", 2).contains("--repair"));
}
