//! The benchmark of read models, run briefly.

// The path makes the module's files the ones beside it, for the benchmark and for its test.
#[path = "measurement.rs"]
mod measurement;

use serde_json::Value;

async fn run(line: &str) -> Result<Value, String> {
    let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
    measurement::run(&words).await.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_read_model_is_measured_beside_what_it_costs_bare() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("why?");
    std::fs::create_dir(&disk).unwrap();
    let line = format!("--disk {} --events 2500 --streams 40 --batch 100", disk.display());
    let object = run(&(line + " --rounds 2 --appends 20")).await.unwrap();
    assert_eq!((&object["bench"], &object["store"]), (&"project".into(), &"journal".into()));
    assert_eq!(object["events"], 2_500);
    let mut measured = vec!["scan", "memory", "documents", "documents_partitioned"];
    if cfg!(feature = "sqlite") {
        measured.extend(["sqlite", "sqlite_bare"]);
        assert!(object["sqlite_ratio"].is_f64(), "{object}");
    }
    for what in measured {
        assert!(object[format!("{what}_per_s")].as_f64() > Some(0.0), "{what}: {object}");
    }
    assert!(object["memory_ratio"].is_f64(), "{object}");
    assert!(object["p50_us"].as_u64() <= object["p99_us"].as_u64(), "{object}");
    assert!(object["p50_us"].is_u64() && object.get("postgres_per_s").is_none(), "{object}");
    assert_eq!(std::fs::read_dir(&disk).unwrap().count(), 0, "nothing is left");
}

#[tokio::test]
async fn options_that_are_not_known_are_refused() {
    let refused = run("--colour red").await.unwrap_err();
    assert!(refused.contains("no such option: --colour"), "{refused}");
}
