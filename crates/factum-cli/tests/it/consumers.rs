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
    event::{EventId, StreamId, encode_event},
    projection::SqliteTarget,
    store::{AppendBatch, Clock, ExpectedRevision, KeyRange, ScanQuery, SystemClock, WriteBatch},
};
use factum_testing::bank::{Account, AccountCommand, AccountEvent};

use serde_json::Value;

use crate::program::{fail, json, sqlite_in, succeed};

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
    assert!(succeed(&format!("consumers list --store {store}")).contains("at the log's end"));
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
    assert!(told.contains("stored at 1, 3 behind ("), "{told}");
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
