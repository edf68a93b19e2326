//! The program as people run it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    path::Path,
    process::{Command, Output},
};

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_banking"));
    let ran = program.current_dir(folder).args(arguments).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    ran
}

fn printed(ran: &Output) -> String {
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

const FIRST_DAY: &str = "\
ada opens               done, version 1
bob opens               done, version 1
eve opens               rejected: another account has this e-mail address
eve tries again         refused: \"nowhere\" is no e-mail address
ada pays in 500.00      done, version 2
ada withdraws 9000.00   rejected: only 50000 cents are there
eve withdraws it        refused: eve may not use the account ada
bob's slip 17           done, version 2
bob's slip 17           done before, version 2
ada sends bob 100.00    done, on both accounts
ada sends bob 9000.00   rejected: there are only 40000 cents: step=0
what they have          ada 40000 cents, bob 12500
";

#[test]
fn it_plays_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let said = printed(&run(folder.path(), &[]));
    assert!(said.starts_with(FIRST_DAY), "{said}");
    let crowd = said.lines().find_map(|it| it.strip_prefix("1000 pay in at once")).unwrap();
    let numbers = crowd.split(' ').filter_map(|word| word.parse::<u64>().ok());
    let [done, away] = numbers.collect::<Vec<_>>()[..] else { panic!("{crowd}") };
    assert!(done >= 1 && done + away == 1_000, "{said}");
    let rejected = r#"command="account.withdraw",outcome="rejected"} 1"#;
    assert!(said.contains(rejected), "{said}");
    let replayed = r#"command="account.deposit",outcome="replayed"} 1"#;
    assert!(said.contains(replayed), "{said}");
}

#[test]
fn run_again_it_goes_on_and_remembers_the_slip() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &["./bank"]);
    let again = printed(&run(folder.path(), &["./bank"]));
    assert!(again.starts_with("ada opens               nothing to do\n"), "{again}");
    assert_eq!(again.matches("bob's slip 17           done before, version 2\n").count(), 2);
    assert!(again.contains("ada 80000 cents"), "{again}");
}

#[test]
fn traced_it_says_what_came_of_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(folder.path(), &["--trace"]);
    let spans = String::from_utf8_lossy(&ran.stderr);
    assert!(spans.contains("account.deposit") && spans.contains("rejected"), "{spans}");
    assert!(printed(&ran).starts_with(FIRST_DAY));
}
