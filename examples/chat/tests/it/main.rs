//! The program as people run it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{path::Path, process::Command};

fn run(folder: &Path, store: Option<&str>) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_chat"));
    let ran = program.current_dir(folder).args(store).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

const TALK: &str = "\
On bob's screen
  lobby | bob: is anybody here?
  lobby | ada: I am, bob
  lobby | bob: bye
Eve in the tea room
  eve is not a member of this room
";

#[test]
fn a_screen_follows_a_question_is_answered_and_counts_are_as_fresh_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let counts = "\
Unread
  ada: lobby 1, tea 0
  bob: lobby 0, tea 1
  eve: lobby 3
Eve reads
  eve: lobby 0
";
    assert_eq!(run(folder.path(), None), [TALK, counts].concat());
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "nothing is written");
}

#[test]
fn run_again_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), Some("./chat"));
    let counts = "\
Unread
  ada: lobby 1, tea 0
  bob: lobby 0, tea 2
  eve: lobby 3
Eve reads
  eve: lobby 0
";
    assert_eq!(run(folder.path(), Some("./chat")), [TALK, counts].concat());
}
