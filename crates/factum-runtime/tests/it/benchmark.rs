//! The benchmarks of this crate, run briefly.

#[path = "../../benches/entity/measurement.rs"]
mod measurement;

use serde_json::Value;

async fn run(line: &str) -> Result<Value, String> {
    let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
    let measured = measurement::run(&words[0], &words[1..]).await;
    measured.map_err(|error| error.to_string())
}

fn assert_positive(object: &Value, names: &[&str]) {
    for name in names {
        assert!(object[name].as_f64() > Some(0.0), "{name}: {object}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entities_are_measured_against_plain_appends_on_the_same_store() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("why?");
    std::fs::create_dir(&disk).unwrap();
    let line = format!("entities --disk {} --clients 9 --commands 500", disk.display());
    let object = run(&(line + " --keys 20 --rounds 2")).await.unwrap();
    assert_eq!((&object["bench"], &object["store"]), (&"entities".into(), &"journal".into()));
    assert_eq!((&object["clients"], &object["events"]), (&9.into(), &500.into()));
    assert_eq!(object["durability"], "power-loss");
    assert_positive(&object, &["seconds", "events_per_s", "appends_per_s", "ratio"]);
    assert!(object["p50_us"].as_u64() <= object["p99_us"].as_u64(), "{object}");
    assert_eq!(std::fs::read_dir(&disk).unwrap().count(), 0, "nothing is left");

    let store = format!("sqlite:{}", folder.path().join("events.db").display());
    let line = format!("entities --store {store} --clients 3 --commands 50 --keys 5 --rounds 1");
    assert_eq!(run(&line).await.unwrap()["store"], "sqlite");
    let refused = run(&line).await.unwrap_err();
    assert!(refused.contains("name an empty store"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn loading_is_measured_against_reading_with_and_without_snapshots() {
    let line = "recover --store memory: --events 1200 --keys 3 --rounds 2";
    let object = run(line).await.unwrap();
    assert_eq!((&object["bench"], &object["events"]), (&"recover".into(), &1200.into()));
    assert_positive(&object, &["load_us", "read_us", "ratio"]);
    assert_positive(&object, &["snapshot_load_us", "snapshot_read_us", "snapshot_ratio"]);
}

/// The memory of an entity is tested in a process that does nothing else.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn idle_entities_are_activated_and_weighed() {
    let object = run("idle --entities 2000").await.unwrap();
    assert_eq!((&object["bench"], &object["entities"]), (&"idle".into(), &2000.into()));
    assert_positive(&object, &["events_per_s", "state_bytes"]);
    assert!(object["bytes_beside_state"].is_u64(), "{object}");
}

#[tokio::test]
async fn every_benchmark_has_its_name_and_refuses_what_it_does_not_know() {
    for name in measurement::NAMES {
        let refused = run(&format!("{name} --colour red")).await.unwrap_err();
        assert!(refused.contains("no such option: --colour"), "{name}: {refused}");
    }
    for (line, reason) in [
        ("entity", "name one of entities, recover, idle"),
        ("idle --entities 0", "a whole number, at least 1: 0"),
        ("idle --entities", "options are pairs"),
    ] {
        let refused = run(line).await.unwrap_err();
        assert!(refused.contains(reason), "{line}: {refused}");
    }
}
