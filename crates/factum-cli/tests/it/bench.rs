//! `factum bench`.

use serde_json::Value;

use crate::program::{fail, json, run, sqlite_in, succeed};

fn assert_measured(object: &Value, bench: &str, store: &str) {
    assert_eq!((&object["bench"], &object["store"]), (&bench.into(), &store.into()), "{object}");
    for name in ["clients", "events", "p50_us", "p99_us"] {
        assert!(object[name].is_u64(), "{name}: {object}");
    }
    assert!(object["events_per_s"].as_f64() > Some(0.0), "{object}");
    assert!(object["p50_us"].as_u64() <= object["p99_us"].as_u64(), "{object}");
}

#[test]
fn append_measures_and_what_it_appended_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite_in(folder.path());
    let line = format!("bench append --store {store} --clients 7 --events 1001 --batch 10");
    let object = json(&(line + " --streams 50 --payload-bytes 100 --json"));
    assert_measured(&object, "append", &store);
    assert_eq!((&object["clients"], &object["events"]), (&7.into(), &1001.into()));
    assert_eq!(object["durability"], "power-loss");
    assert!(object["bytes_per_event"].as_f64().unwrap() > 100.0, "{object}");

    let scanned = json(&format!("bench read --store {store} --json --clients 2"));
    assert_measured(&scanned, "scan", &store);
    assert_eq!(scanned["events"], 2 * 1001);
    let streams = json(&format!("bench read --store {store} --json --what streams --clients 3"));
    assert_measured(&streams, "streams", &store);
    assert_eq!(streams["events"], 1001);
}

#[test]
fn memory_has_no_disk_and_an_empty_store_is_filled_before_it_is_read() {
    let object = json("bench append --store memory: --events 500 --json");
    assert_measured(&object, "append", "memory:");
    assert!(object.get("bytes_per_event").is_none());
    let object = json("bench read --store memory: --events 700 --streams 9 --json");
    assert_measured(&object, "scan", "memory:");
    assert_eq!(object["events"], 700);
}

#[test]
fn a_log_of_others_gets_no_noise_unless_asked() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite_in(folder.path());
    // More than a page, so that the demonstration's events are not on the first.
    succeed(&format!("bench append --store {store} --events 3000 --batch 100 -q"));
    let append = format!("bench append --store {store} --events 20 --json");
    json(&append);
    succeed(&format!("demo --store {store} --accounts 3 --commands 600 -q"));
    let events = || json(&format!("bench read --store {store} --json"))["events"].clone();
    let before = events();
    // The first event is the benchmark's, the last is not.
    let said = fail(&append, 2);
    assert!(said.contains("add --into-existing"), "{said}");
    assert_eq!(events(), before);
    json(&format!("{append} --into-existing"));
    assert_eq!(events(), before.as_u64().unwrap() + 20);
}

#[test]
fn a_log_that_others_began_gets_no_noise_either() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite_in(folder.path());
    succeed(&format!("demo --store {store} --accounts 3 --commands 50 -q"));
    let append = format!("bench append --store {store} --events 300 --json");
    json(&format!("{append} --into-existing"));
    assert!(fail(&append, 2).contains("--into-existing: stream=account-"));
}

#[test]
fn a_mistyped_path_is_not_filled_and_an_empty_store_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none");
    for scheme in ["", "sqlite:", "journal:"] {
        let store = format!("{scheme}{}", path.display());
        let said = fail(&format!("bench read --store {store}"), 2);
        assert!(said.contains("there is no store, check the path"), "{said}");
        assert!(!path.exists());
    }
    let other = folder.path().join("src");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("main.rs"), "fn main() {}").unwrap();
    fail(&format!("bench read --store journal:{}", other.display()), 2);
    let store = sqlite_in(folder.path());
    // An empty file is what a failed copy leaves.
    std::fs::write(folder.path().join("events.db"), []).unwrap();
    assert!(fail(&format!("bench read --store {store}"), 2).contains("there is no store"));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        factum::App::open(&store).await.unwrap().close().await.unwrap();
    });
    assert_eq!(json(&format!("bench read --store {store} --events 30 --json"))["events"], 30);
}

#[test]
fn people_are_told_the_work_the_store_and_how_durable_it_was() {
    let ran = run("bench append --store memory: --events 300 --clients 3 -q");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    for said in ["memory:, volatile", "3, each with", "256 bytes", "10,000 streams", "p99"] {
        assert!(ran.stdout.contains(said), "{said:?} is not in {}", ran.stdout);
    }
}

#[test]
fn what_the_store_does_not_take_is_refused() {
    let said = fail("bench append --store memory: --batch 5000 -q", 2);
    assert!(said.contains("too many events in a batch"), "{said}");
}
