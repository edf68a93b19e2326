//! The program as people run it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{path::Path, process::Command};

fn run(folder: &Path, store: Option<&str>) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_shop"));
    let ran = program.current_dir(folder).args(store).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

const SHOWN: &str = "\
On the shelf of teas
  Assam, 250 g         8.90
  Sencha, 100 g       11.90
For less than ten, the cheapest first
  A cup                6.50
  Assam, 250 g         8.90
What ada ordered
  o1  2 x Assam, 250 g        17.80  shipped
  o3  4 x A cup               26.00  placed
What eve ordered
  o4  9 x A pot for four     306.00  cancelled
";

const BY_VERSION_1: &str = "\
What was sold, by version 1
  2026-03-02     2 sold     51.80
  2026-03-03     1 sold     26.00
  2026-03-04     2 sold    317.90
Version 2 was built meanwhile
";

/// The sales without the orders cancelled on the fourth day, and with the orders placed during the
/// build.
const BY_VERSION_2: &str = "\
What was sold, by version 2
  2026-03-02     2 sold     51.80
  2026-03-03     1 sold     26.00
  2026-03-04     1 sold     11.90
  2026-03-05   200 sold   1300.00
";

#[test]
fn three_read_models_are_shown_and_one_is_rebuilt_while_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let said = run(folder.path(), None);
    let released = said.strip_prefix(SHOWN).and_then(|it| it.strip_prefix(BY_VERSION_1));
    let (looks, sold) = released.unwrap_or_else(|| panic!("{said}")).split_once('\n').unwrap();
    let count: u64 = looks.trim().split(' ').next().unwrap().parse().unwrap();
    assert!(count > 0 && looks.ends_with("none failed, none went back"), "{said}");
    assert_eq!(sold, BY_VERSION_2);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "nothing is written");
}

#[test]
fn run_again_it_finds_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), Some("./shop"));
    assert_eq!(run(folder.path(), Some("./shop")), [SHOWN, BY_VERSION_2].concat());
}
