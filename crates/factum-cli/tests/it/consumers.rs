//! `factum consumers` and `factum dead-letters`, beside an application that runs, and after it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum::{
    App, Consumer, ConsumerOptions, DocumentStore, ExpectedVersion, HandleError, Metadata,
    ProjectionFn, Projections, RecordedEvent,
    consumer::{ConsumerHandle, ConsumerHealth, ConsumerState, FailurePolicy},
    event::{Category, EventId, StreamId, encode_event},
    projection::SqliteTarget,
    read::Scope,
    store::{AppendBatch, Clock, ExpectedRevision, KeyRange, ScanQuery, SystemClock, WriteBatch},
};
use factum_testing::bank::{Account, AccountCommand, AccountEvent};

use serde_json::Value;

use crate::program::{Running, fail, json, run, sqlite_in, succeed};

/// Starts a consumer that fails on Ada's deposit until `is_good` is set.
async fn start(app: &App, is_good: &Arc<AtomicBool>) -> ConsumerHandle {
    let is_good = is_good.clone();
    let handle = move |event: AccountEvent, _: RecordedEvent| {
        let is_bad = matches!(event, AccountEvent::Deposited { cents: 13 });
        let fails = is_bad && !is_good.load(Ordering::SeqCst);
        async move { if fails { Err("thirteen".into()) } else { Ok(()) } }
    };
    let failure = FailurePolicy::new().with_retries_max(0);
    let consumer =
        Consumer::new("mails", handle).with_options(ConsumerOptions::new().with_failure(failure));
    app.consumers().start(consumer).await.expect("it starts")
}

/// A newer program, which knows that an account can be frozen.
mod newer {
    #[derive(Debug, factum::Event)]
    pub(super) enum AccountEvent {
        Frozen,
    }
}

#[tokio::test]
async fn a_stream_that_waits_for_a_reader_is_shown_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite_in(folder.path());
    let app = App::open(&store).await.expect("it opens");
    let kernel = app.kernel();
    let id = EventId::new(kernel.ids().uuid(SystemClock.now()));
    let frozen = encode_event(&newer::AccountEvent::Frozen, id, &Metadata::new(), None);
    let frozen = frozen.expect("it is encoded");
    let ada = StreamId::new("account", "ada").expect("it is a name");
    let batch = AppendBatch::new().write(ada, ExpectedVersion::Any, [frozen]);
    kernel.events().append(batch).await.expect("it is stored");
    let mails = start(&app, &Arc::new(AtomicBool::new(true))).await;
    let waits = |health: &ConsumerHealth| health.state == ConsumerState::Waiting;
    mails.watch().wait_for(waits).await.expect("it can't read it");
    app.close().await.expect("it closes");

    let seen = seen_outside(&store).await;
    let consumer = &seen["consumers"][0];
    assert_eq!((&consumer["waiting"], &consumer["parked"]), (&1.into(), &0.into()), "{seen}");
    let listed = outside(format!("consumers list --store {store}")).await;
    let line = "1 stream waits for a program that can read the next event";
    assert!(listed.contains(line) && !listed.contains("parked"), "{listed}");
    let listed = outside(format!("dead-letters list --store {store}")).await;
    assert!(listed.contains(&format!("nothing is parked, {line}")), "{listed}");
    assert!(listed.contains("account-ada  of mails, waits for a reader since"), "{listed}");
    assert!(listed.contains("no variant has this name"), "{listed}");
    assert!(listed.contains("start a program that knows the event's type"), "{listed}");
    let letters = format!("dead-letters list --store {store} --json");
    let letters = tokio::task::spawn_blocking(move || json(&letters)).await.expect("it ends");
    assert_eq!(letters["dead_letters"][0]["unread"], true, "{letters}");
}

async fn seen_outside(store: &str) -> Value {
    let line = format!("consumers list --store {store} --json");
    tokio::task::spawn_blocking(move || json(&line)).await.expect("it ends")
}

async fn outside(line: String) -> String {
    tokio::task::spawn_blocking(move || succeed(&line)).await.expect("it ends")
}

#[tokio::test]
async fn a_parked_event_is_seen_and_released_from_another_process() {
    let folder = tempfile::tempdir().unwrap();
    is_seen_and_released(sqlite_in(folder.path())).await;
}

#[tokio::test]
async fn a_parked_event_is_released_while_its_journal_is_open() {
    let folder = tempfile::tempdir().unwrap();
    is_seen_and_released(format!("journal:{}", folder.path().join("data").display())).await;
}

async fn is_seen_and_released(store: String) {
    let app = App::open(&store).await.expect("it opens");
    let is_good = Arc::new(AtomicBool::new(false));
    let mails = start(&app, &is_good).await;
    let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    app.command::<Account>("ada", open).await.expect("it is new");
    for cents in [13, 14, 15] {
        let deposit = AccountCommand::Deposit { cents };
        app.command::<Account>("ada", deposit).await.expect("it is open");
    }
    mails.wait_for(factum::Position::new(4), Duration::from_secs(20)).await.expect("it comes");

    let seen = seen_outside(&store).await;
    let consumer = &seen["consumers"][0];
    assert_eq!((&consumer["name"], &consumer["parked"]), (&"mails".into(), &1.into()), "{seen}");
    assert_eq!((&consumer["at_work"], &consumer["stored"]), (&true.into(), &true.into()));
    assert_eq!(consumer["running"], serde_json::json!([]), "no application publishes here");
    let listed = outside(format!("dead-letters list --store {store}")).await;
    assert!(listed.contains("account-ada  of mails") && listed.contains("thirteen"), "{listed}");
    let shown =
        outside(format!("dead-letters show --store {store} mails account-ada --json")).await;
    assert!(shown.contains(r#""blocked":2"#), "{shown}");

    is_good.store(true, Ordering::SeqCst);
    outside(format!("dead-letters retry --store {store} mails account-ada")).await;
    let mut health = mails.watch();
    health.wait_for(|health| health.parked == 0).await.expect("it takes the order");
    app.close().await.expect("it closes");
    let listed = succeed(&format!("dead-letters list --store {store}"));
    assert!(listed.ends_with(", nothing is parked\n"), "{listed}");
    let seen = json(&format!("consumers list --store {store} --json"));
    assert_eq!(
        (&seen["consumers"][0]["at_work"], &seen["consumers"][0]["lag"]),
        (&false.into(), &0.into())
    );
    assert!(succeed(&format!("consumers list --store {store}")).contains("nothing to handle"));
    let told = fail(&format!("dead-letters retry --store {store} mails account-ada"), 2);
    assert!(told.contains("nothing of this stream is parked"), "{told}");

    // A rewind makes the consumer handle later events again. Without a position or consumer to move
    // to, it fails and moves nothing.
    let told = succeed(&format!("consumers rewind --store {store} mails --to 1"));
    assert!(told.contains("resumes after position 1"), "{told}");
    let seen = json(&format!("consumers list --store {store} --json"));
    let consumer = &seen["consumers"][0];
    assert_eq!((&consumer["position"], &consumer["lag"]), (&1.into(), &3.into()));
    assert!(consumer["lag_ms"].as_u64().is_some(), "since the second event: {consumer}");
    let told = succeed(&format!("consumers list --store {store}"));
    assert!(told.contains("stored at 1, 3 events behind ("), "{told}");
    let told = fail(&format!("consumers rewind --store {store} mails --to 99"), 2);
    assert!(told.contains("the log ends before this position"), "{told}");
    let told = fail(&format!("consumers rewind --store {store} males --to 1"), 2);
    assert!(told.contains("nothing is stored of the consumer"), "{told}");
}

/// Ada opens an account and deposits 13 cents, on which the consumer fails.
async fn bad_deposit(app: &App) {
    let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    app.command::<Account>("ada", open).await.expect("it is new");
    let deposit = AccountCommand::Deposit { cents: 13 };
    app.command::<Account>("ada", deposit).await.expect("it is open");
}

#[tokio::test]
async fn what_runs_is_seen_with_what_it_is_doing_also_if_it_keeps_its_progress_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite_in(folder.path());
    let every = Duration::from_millis(100);
    let app = App::builder().with_stats_every(every).open(&store).await.expect("it opens");
    bad_deposit(&app).await;
    // The consumer fails on its first event for an hour, so it has stored no progress.
    let failure = FailurePolicy::new().with_pause(hours(1), hours(1));
    let options = ConsumerOptions::new().with_failure(failure);
    let handle = |event: AccountEvent, _: RecordedEvent| async move {
        let is_bad = matches!(event, AccountEvent::Deposited { .. });
        if is_bad { Err(HandleError::from("thirteen")) } else { Ok(()) }
    };
    let mails = Consumer::new("mails", handle).with_options(options);
    let mails = app.consumers().start(mails).await.expect("it starts");
    let rows = folder.path().join("rows.db");
    let totals = ProjectionFn::<AccountEvent, SqliteTarget, _>::new("totals", 1, |_, _, _| Ok(()));
    let target = move |_: &_| SqliteTarget::new(&rows);
    let totals = app.consumers().maintain_fn(totals, target, ConsumerOptions::new()).await;
    let totals = totals.expect("it starts");
    totals.wait_for(factum::Position::new(2), Duration::from_secs(20)).await.expect("it comes");
    let retries = |it: &ConsumerHealth| matches!(it.state, ConsumerState::Retrying { .. });
    mails.watch().wait_for(retries).await.expect("it fails");

    let mut seen = seen_outside(&store).await;
    let is_told = |seen: &Value| {
        seen["consumers"][0]["running"][0]["state"] == "retrying"
            && seen["consumers"][1]["running"][0]["position"] == 2
    };
    while !is_told(&seen) {
        seen = seen_outside(&store).await;
    }
    let [mails, totals] = &seen["consumers"].as_array().expect("a list")[..] else {
        panic!("two: {seen}")
    };
    let running = &mails["running"][0];
    assert_eq!((&mails["name"], &mails["stored"]), (&"mails".into(), &true.into()), "{seen}");
    assert_eq!((&running["attempts"], &running["lag"]), (&1.into(), &1.into()), "{seen}");
    assert_eq!(running["cause"], "thirteen: position=2");
    assert_eq!(running["process"], std::process::id());
    assert_eq!((&totals["name"], &totals["stored"]), (&"totals@1".into(), &false.into()), "{seen}");
    assert_eq!((&totals["position"], &totals["at_work"]), (&2.into(), &true.into()), "{seen}");
    assert_eq!(totals["running"][0]["state"], "live");
    let listed = outside(format!("consumers list --store {store}")).await;
    let process = std::process::id();
    for expected in [
        &format!("process {process}: retrying at 1, 1 event behind ("),
        ", tried 1 time: thirteen: position=2",
        "totals@1  keeps its progress elsewhere",
        &format!("process {process}: live at 2, at the log's end"),
    ] {
        assert!(listed.contains(expected), "{expected}: {listed}");
    }
    let stats = outside(format!("stats --store {store}")).await;
    let ill = stats.find("  consumer  mails: retrying");
    let well = stats.find("  consumer  totals@1");
    assert!(ill.is_some() && ill < well, "{stats}");
    app.close().await.expect("it closes");
    let seen = json(&format!("consumers list --store {store} --json"));
    assert_eq!(seen["consumers"].as_array().expect("a list").len(), 1, "{seen}");
    assert_eq!(seen["consumers"][0]["running"], serde_json::json!([]));
}

/// A consumer that wants none of the events once showed a lag of all that it had passed since it
/// last stored its progress.
#[tokio::test]
async fn a_consumer_that_has_nothing_to_do_has_no_lag_however_far_its_checkpoint_is() {
    let folder = tempfile::tempdir().unwrap();
    for store in
        [sqlite_in(folder.path()), format!("journal:{}", folder.path().join("j").display())]
    {
        let app = App::open(&store).await.expect("it opens");
        bad_deposit(&app).await;
        let handle = |_: AccountEvent, _: RecordedEvent| async { Ok(()) };
        // Each has a reason of its own to want nothing more: its scope, and its enum.
        let other = Scope::Category(Category::parse("order").expect("a category"));
        let orders = Consumer::new("orders", handle);
        let orders = orders.with_options(ConsumerOptions::new().with_scope(other));
        let rooms = Consumer::new("rooms", |_: RoomEvent, _: RecordedEvent| async { Ok(()) });
        let mut handles = vec![app.consumers().start(orders).await.expect("it starts")];
        handles.push(app.consumers().start(rooms).await.expect("it starts"));
        for handle in &handles {
            handle.wait_for(factum::Position::new(2), Duration::from_secs(20)).await.unwrap();
        }
        let lags = |seen: &Value| -> Vec<Value> {
            let all = seen["consumers"].as_array().expect("a list");
            all.iter().map(|it| it["lag"].clone()).collect()
        };
        assert_eq!(lags(&seen_outside(&store).await), [0, 0], "while they run");
        for handle in &handles {
            handle.stop().await;
        }
        let mails = start(&app, &Arc::new(AtomicBool::new(true))).await;
        mails.wait_for(factum::Position::new(2), Duration::from_secs(20)).await.unwrap();
        mails.stop().await;
        let deposit = AccountCommand::Deposit { cents: 14 };
        app.command::<Account>("ada", deposit).await.expect("it is open");
        // One that has stopped is behind by what it wants.
        assert_eq!(lags(&seen_outside(&store).await), [1, 0, 0], "mails, orders, rooms");
        app.close().await.expect("it closes");
    }
}

#[derive(Debug, factum::Event)]
enum RoomEvent {
    Booked {},
}

/// The checkpoint is ahead of the other log, so the lag once was 0.
#[tokio::test]
async fn a_consumer_of_another_log_is_shown_as_diverged_and_without_a_lag() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("journal:{}", folder.path().join("data").display());
    let app = App::open(&store).await.expect("it opens");
    bad_deposit(&app).await;
    let mails = start(&app, &Arc::new(AtomicBool::new(true))).await;
    mails.wait_for(factum::Position::new(2), Duration::from_secs(20)).await.unwrap();
    app.close().await.expect("it closes");
    drop(app);
    succeed(&format!("lineage renew --store {store}"));
    let seen = json(&format!("consumers list --store {store} --json"));
    let consumer = &seen["consumers"][0];
    assert_eq!((&consumer["lag"], &consumer["lag_ms"]), (&Value::Null, &Value::Null), "{seen}");
    assert!(consumer["diverged"].as_str().is_some_and(|it| it.contains("lineage")), "{seen}");
    let listed = succeed(&format!("consumers list --store {store}"));
    assert!(listed.contains("diverged: the log is not the one"), "{listed}");
    // Started all the same, it stops, and says so to all that wait for it.
    let app = App::builder().with_stats_every(Duration::from_millis(100)).open(&store).await;
    let app = app.expect("it opens");
    let mails = start(&app, &Arc::new(AtomicBool::new(true))).await;
    let waited = mails.wait_for(factum::Position::new(1), Duration::from_secs(20)).await;
    let error = waited.expect_err("it is of another log").to_string();
    assert!(error.contains("the log is not the one"), "{error}");
    assert_eq!(mails.health().lag_events(), None);
    let is_told = |seen: &Value| seen["consumers"][0]["running"][0]["state"] == "stopped";
    let mut seen = seen_outside(&store).await;
    while !is_told(&seen) {
        seen = seen_outside(&store).await;
    }
    assert_eq!(seen["consumers"][0]["running"][0]["lag"], Value::Null, "{seen}");
    assert_eq!(seen["consumers"][0]["lag"], Value::Null, "{seen}");
    app.close().await.expect("it closes");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_consumer_whose_process_died_is_not_shown_at_work() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite_in(folder.path());
    let mut demo = Running::start(&format!("demo --store {store} --commands 1000000 --json -q"));
    let is_at_work = |seen: &Value| {
        let all = seen["consumers"].as_array().expect("a list");
        all.iter().find(|it| it["at_work"] == true).cloned()
    };
    let seen = loop {
        let ran = run(&format!("consumers list --store {store} --json"));
        let seen = serde_json::from_str(&ran.stdout).ok();
        if let Some(seen) = seen.as_ref().and_then(is_at_work) {
            break seen;
        }
    };
    assert_eq!(seen["process"], demo.child.id(), "{seen}");
    demo.child.kill().expect("it runs");
    demo.child.wait().expect("it ends");
    // What it would have published a moment before.
    let process = demo.child.id();
    let name = seen["name"].as_str().expect("a name");
    let stats = serde_json::json!({
        "instance": "019a8d3c-5a43-7c11-8fd1-1d2c3b4a5968", "process": process,
        "written_at": SystemClock.now().to_string(), "every_ms": 5_000, "uptime_ms": 0,
        "total": { "active": 0, "resident": 0, "resident_bytes": 0, "quarantined": 0,
            "commands": 0, "rejected": 0, "failed": 0, "conflicts": 0, "stale": 0, "loads": 0,
            "deaths": 0, "passivated": 0, "mailbox_high_water": 0 },
        "kinds": [], "workers": [], "consumers": [{ "name": name, "state": "live", "position": 1,
            "head": 1, "parked": 0, "handled": 1, "cautious": false }],
    });
    let app = App::open(&store).await.expect("it opens");
    let key = "$factum/stats/019a8d3c-5a43-7c11-8fd1-1d2c3b4a5968";
    let stats = stats.to_string().into_bytes();
    let published = WriteBatch::new().put(key, ExpectedRevision::Any, stats);
    app.kernel().documents().write(published).await.expect("it is written");
    app.close().await.expect("it closes");
    let after = json(&format!("consumers list --store {store} --json"));
    let all = after["consumers"].as_array().expect("a list");
    let same = all.iter().find(|it| it["name"] == seen["name"]).expect("it is there");
    assert_eq!((&same["at_work"], &same["died"]), (&false.into(), &true.into()), "{after}");
    let listed = succeed(&format!("consumers list --store {store}"));
    assert!(listed.contains(&format!("its process {process} has died")), "{listed}");
    assert!(!listed.contains("at work"), "{listed}");
    assert!(listed.contains(&format!("process {process}: has died, was live at 1")), "{listed}");
    assert_eq!(same["running"][0]["state"], "silent", "{after}");
}

/// Makes the published stats look older by `ago`, as if their application had ended without a word.
async fn left_behind(documents: &dyn DocumentStore, ago: Duration) {
    let all = ScanQuery::new(KeyRange::prefix("$factum/stats/"));
    let document = documents.scan(all).await.expect("it is there").documents.remove(0);
    let mut stats: Value = serde_json::from_slice(&document.value).expect("JSON");
    stats["written_at"] = SystemClock.now().saturating_sub(ago).to_string().into();
    let left =
        WriteBatch::new().put(document.key, ExpectedRevision::Any, stats.to_string().into_bytes());
    documents.write(left).await.expect("it is written");
}

#[tokio::test]
async fn what_was_published_long_ago_is_not_shown_as_live() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite_in(folder.path());
    // The stats are written once, and not again while the test runs.
    let every = Duration::from_secs(30);
    let app = App::builder().with_stats_every(every).open(&store).await.expect("it opens");
    bad_deposit(&app).await;
    let mails = start(&app, &Arc::new(AtomicBool::new(true))).await;
    mails.wait_for(factum::Position::new(2), Duration::from_secs(20)).await.expect("it comes");
    let documents = app.kernel().documents().clone();
    let all = ScanQuery::new(KeyRange::prefix("$factum/stats/"));
    while documents.scan(all.clone()).await.expect("it is there").documents.is_empty() {
        tokio::task::yield_now().await;
    }
    let document = documents.scan(all).await.expect("it is there").documents.remove(0);
    let mut stats: Value = serde_json::from_slice(&document.value).expect("JSON");
    stats["consumers"] = serde_json::json!([{
        "name": "mails", "state": "live", "position": 2, "head": 2, "parked": 0, "handled": 2,
        "cautious": false,
    }]);
    let known = stats.to_string().into_bytes();
    let known = WriteBatch::new().put(document.key, ExpectedRevision::Any, known);
    documents.write(known).await.expect("it is written");

    left_behind(&*documents, Duration::ZERO).await;
    assert_eq!(seen_outside(&store).await["consumers"][0]["running"][0]["state"], "live");
    left_behind(&*documents, Duration::from_secs(100)).await;
    let seen = seen_outside(&store).await;
    let running = &seen["consumers"][0]["running"][0];
    assert_eq!((&running["state"], &running["was"]), (&"silent".into(), &"live".into()), "{seen}");
    let listed = outside(format!("consumers list --store {store}")).await;
    assert!(listed.contains(": silent for 7") && listed.contains("s, was live at 2"), "{listed}");
    left_behind(&*documents, hours(1)).await;
    let seen = seen_outside(&store).await;
    assert_eq!(seen["consumers"][0]["running"], serde_json::json!([]), "{seen}");
    let listed = outside(format!("consumers list --store {store}")).await;
    assert!(!listed.contains("live"), "{listed}");
    app.close().await.expect("it closes");
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(3_600 * count)
}
