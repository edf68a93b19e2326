//! `factum stats` beside a running application, which is this process.

use std::time::Duration;

use factum::App;
use factum_testing::bank::{Account, AccountCommand};

use crate::program::{fail, json, sqlite_in, succeed};

/// Runs an application on a store, runs `factum stats`, closes the application, and runs it again.
async fn look_at(store: &str) {
    let every = Duration::from_millis(100);
    let app = App::builder().with_stats_every(every).open(store).await.expect("it opens");
    let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    app.command::<Account>("ada", open).await.expect("it is new");
    app.command::<Account>("ada", AccountCommand::Withdraw { cents: 5 })
        .await
        .expect_err("there is nothing");
    let mut seen = outside(store).await;
    while seen["instances"][0]["total"]["rejected"] != 1 {
        seen = outside(store).await;
    }
    let instance = &seen["instances"][0];
    assert_eq!((&seen["head"], &instance["total"]["commands"]), (&1.into(), &2.into()), "{seen}");
    assert_eq!(
        (&instance["process"], &instance["dead"]),
        (&std::process::id().into(), &false.into())
    );
    assert_eq!(instance["kinds"][0]["recent"][0]["stream"], "account-ada");
    assert_eq!(instance["workers"][0]["name"], "factum.stats");
    let written = instance["written_at"].as_str().expect("a text");
    assert!(written.parse::<factum::event::Timestamp>().is_ok(), "{written}");
    let line = format!("stats --store {store}");
    let text = tokio::task::spawn_blocking(move || succeed(&line)).await.expect("it ends");
    assert!(text.contains("2 processed, 1 rejected"), "{text}");

    app.close().await.expect("it closes");
    assert_eq!(outside(store).await["instances"], serde_json::json!([]));
    assert!(succeed(&format!("stats --store {store}")).contains("no application publishes"));
}

async fn outside(store: &str) -> serde_json::Value {
    let line = format!("stats --store {store} --json");
    tokio::task::spawn_blocking(move || json(&line)).await.expect("it ends")
}

#[tokio::test]
async fn an_application_on_sqlite_is_seen_from_another_process() {
    let folder = tempfile::tempdir().unwrap();
    look_at(&sqlite_in(folder.path())).await;
}

#[cfg(feature = "journal")]
#[tokio::test]
async fn an_application_on_a_journal_is_seen_from_another_process() {
    let folder = tempfile::tempdir().unwrap();
    look_at(&format!("journal:{}", folder.path().join("bank").display())).await;
}

#[test]
fn a_store_that_is_not_there_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    fail(&format!("stats --store {}", sqlite_in(folder.path())), 2);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
