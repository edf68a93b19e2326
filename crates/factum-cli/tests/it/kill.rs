//! SIGKILL at any moment loses nothing: the next run finds a whole log and continues it.

use std::time::Duration;

use serde_json::Value;

use crate::program::{Running, json, sqlite_in};

/// The number of kills; ten times as many in a full run.
fn kills(short: u64) -> u64 {
    if std::env::var_os("FACTUM_TEST_FULL").is_some() { 10 * short } else { short }
}

/// The longest time from the start to the kill, in milliseconds: while the store is created, while
/// the first accounts are opened, or during the month. After a kill that came before any event was
/// stored, later kills may come later, because the machine is slow.
const MOMENT_MAX_MS: u64 = 400;

#[test]
fn killed_at_random_moments_the_bank_adds_up_each_time_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("events.db");
    kill_again_and_again(&sqlite_in(folder.path()), || made.exists(), 20);
}

#[test]
fn killed_at_random_moments_the_bank_adds_up_each_time_in_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("data");
    let made = store.join("factum-journal");
    kill_again_and_again(store.to_str().unwrap(), || made.exists(), 20);
}

/// Kills the demonstration repeatedly and checks the bank after each kill. `is_made` is true if
/// opening the store would not create it.
pub(crate) fn kill_again_and_again(store: &str, is_made: impl Fn() -> bool, short: u64) {
    let mut seed = 0x5eed;
    let mut moment_max_ms = MOMENT_MAX_MS;
    let mut events = 0;
    let mut grown = 0;
    let kills = kills(short);
    for kill in 1..=kills {
        let line = format!("demo --store {store} --seed {kill} --accounts 20 --commands 1000000");
        let mut demo = Running::start(&(line + " --json"));
        let moment = Duration::from_millis(random(&mut seed) % moment_max_ms);
        // The program prints only at its end, which is far away. So this waits until the moment.
        assert_eq!(demo.line_within(moment), None, "it ended by itself");
        demo.child.kill().expect("it is killed");
        assert_eq!(demo.child.wait().expect("it ends").code(), None, "it had ended by itself");
        let found = if is_made() { look(store) } else { 0 };
        assert!(found >= events, "events were lost: kill={kill} before={events} after={found}");
        match found > events {
            true => grown += 1,
            false => moment_max_ms += moment_max_ms / 2,
        }
        events = found;
    }
    assert!(grown >= kills / 3, "the kills came before anything was done: grown={grown}");
    let line = format!("demo --store {store} --accounts 20 --commands 300 --json");
    assert_sound(&json(&line));
}

/// Checks the bank and returns the number of its events.
fn look(store: &str) -> u64 {
    let object = json(&format!("demo --store {store} --commands 0 --json"));
    assert_sound(&object);
    object["events"].as_u64().expect("a number")
}

pub(crate) fn assert_sound(object: &Value) {
    let checks = object["checks"].as_object().expect("an object");
    assert!(!checks.is_empty() && checks.values().all(|holds| holds == true), "{object}");
    assert_eq!((&object["conserved"], &object["gaps"]), (&true.into(), &0.into()), "{object}");
}

/// SplitMix64, so that a failure can be repeated.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
