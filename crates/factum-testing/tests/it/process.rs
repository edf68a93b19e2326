//! The lines of another process are read up to its last whole line, and its end is reported
//! truthfully.

use std::{fs::File, io::Write};

use factum_testing::{ChildTest, tell};

const CHILD: ChildTest = ChildTest::new("process::child");

/// Not a test of its own: the program of the second process.
#[test]
fn child() {
    let Some(order) = CHILD.order() else { return };
    tell(&format!("ordered {order}"));
    match order.as_str() {
        "fail" => panic!("as ordered"),
        "hang" => {
            // A line and half of the next in one piece, as if the process ended while it was
            // writing.
            let mut out = File::options().append(true).open("/dev/stdout").unwrap();
            out.write_all(b"\ntold ready\ntold ha").unwrap();
            loop {
                std::thread::park();
            }
        }
        _ => {}
    }
}

#[test]
fn a_process_that_ends_has_told_everything() {
    let (child, told) = CHILD.start("end");
    assert_eq!(told.collect::<Vec<_>>(), ["ordered end"]);
    child.finish();
}

#[test]
#[should_panic(expected = "the other process failed")]
fn a_process_that_fails_is_told() {
    let (child, told) = CHILD.start("fail");
    assert_eq!(told.count(), 1);
    child.finish();
}

#[test]
fn a_process_that_is_killed_has_told_its_whole_lines() {
    let (child, mut told) = CHILD.start("hang");
    assert_eq!(told.by_ref().take(2).collect::<Vec<_>>(), ["ordered hang", "ready"]);
    child.kill();
    assert_eq!(told.next(), None, "half a line is none");
}

#[test]
fn a_process_that_nobody_ended_ends_with_its_handle() {
    let (child, mut told) = CHILD.start("hang");
    assert_eq!(told.by_ref().take(2).count(), 2);
    drop(child);
    assert_eq!(told.next(), None, "it has ended");
}

#[test]
fn a_shell_sets_limits_before_the_test_runs() {
    let output = CHILD.run_after("ulimit -n 64; echo limited to $(ulimit -n)", "end");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("limited to 64") && text.contains("told ordered end"), "{text}");
}
