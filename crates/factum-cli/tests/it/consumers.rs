//! `factum consumers` and `factum dead-letters`, beside an application that runs, and after it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum::{App, Consumer, ConsumerHandle, ConsumerOptions, FailurePolicy, RecordedEvent};
use factum_testing::bank::{Account, AccountCommand, AccountEvent};

use crate::program::{fail, json, sqlite_in, succeed};

/// A consumer to which Ada's deposit is bad, until it is good.
fn start(app: &App, is_good: &Arc<AtomicBool>) -> ConsumerHandle {
    let is_good = is_good.clone();
    let handle = move |event: AccountEvent, _: RecordedEvent| {
        let is_bad = matches!(event, AccountEvent::Deposited { cents: 13 });
        let fails = is_bad && !is_good.load(Ordering::SeqCst);
        async move { if fails { Err("thirteen".into()) } else { Ok(()) } }
    };
    let failure = FailurePolicy::new().with_retries_max(0);
    let consumer =
        Consumer::new("mails", handle).with_options(ConsumerOptions::new().with_failure(failure));
    app.consumers().start(consumer).expect("it starts")
}

async fn outside(line: String) -> String {
    tokio::task::spawn_blocking(move || succeed(&line)).await.expect("it ends")
}

#[tokio::test]
async fn a_parked_event_is_seen_and_released_from_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite_in(folder.path());
    let app = App::open(&store).await.expect("it opens");
    let is_good = Arc::new(AtomicBool::new(false));
    let mails = start(&app, &is_good);
    let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    app.execute::<Account>("ada", &open).await.expect("it is new");
    for cents in [13, 14, 15] {
        let deposit = AccountCommand::Deposit { cents };
        app.execute::<Account>("ada", &deposit).await.expect("it is open");
    }
    mails.wait_for(factum::Position::new(4), Duration::from_secs(20)).await.expect("it comes");

    let seen = outside(format!("consumers list {store} --json")).await;
    let seen: serde_json::Value = serde_json::from_str(&seen).expect("JSON");
    let consumer = &seen["consumers"][0];
    assert_eq!((&consumer["name"], &consumer["parked"]), (&"mails".into(), &1.into()), "{seen}");
    assert_eq!(consumer["at_work"], true);
    let listed = outside(format!("dead-letters list {store}")).await;
    assert!(listed.contains("account-ada  of mails") && listed.contains("thirteen"), "{listed}");
    let shown = outside(format!("dead-letters show {store} mails account-ada --json")).await;
    assert!(shown.contains(r#""blocked":2"#), "{shown}");

    is_good.store(true, Ordering::SeqCst);
    outside(format!("dead-letters retry {store} mails account-ada")).await;
    let mut health = mails.watch();
    health.wait_for(|health| health.parked == 0).await.expect("it takes the order");
    app.close().await.expect("it closes");
    assert_eq!(succeed(&format!("dead-letters list {store}")), "nothing is parked\n");
    let seen = json(&format!("consumers list {store} --json"));
    assert_eq!(
        (&seen["consumers"][0]["at_work"], &seen["consumers"][0]["lag"]),
        (&false.into(), &0.into())
    );
    assert!(succeed(&format!("consumers list {store}")).contains("at the log's end"));
    let told = fail(&format!("dead-letters retry {store} mails account-ada"), 2);
    assert!(told.contains("nothing of this stream is parked"), "{told}");

    // Sent back, it has everything before it again; where there is nothing, nothing is moved.
    let told = succeed(&format!("consumers rewind {store} mails --to 1"));
    assert!(told.contains("goes on behind position 1"), "{told}");
    let seen = json(&format!("consumers list {store} --json"));
    assert_eq!(
        (&seen["consumers"][0]["position"], &seen["consumers"][0]["lag"]),
        (&1.into(), &3.into())
    );
    let told = fail(&format!("consumers rewind {store} mails --to 99"), 2);
    assert!(told.contains("the log ends before this position"), "{told}");
    let told = fail(&format!("consumers rewind {store} males --to 1"), 2);
    assert!(told.contains("nothing is stored of the consumer"), "{told}");
}
