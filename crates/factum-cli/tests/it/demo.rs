//! `factum demo`.

use serde_json::Value;

use crate::program::{Running, fail, json, run, sqlite_in, succeed};

fn number(object: &Value, name: &str) -> u64 {
    object[name].as_u64().unwrap_or_else(|| panic!("{name} is no number: {object}"))
}

/// Asserts that every check holds.
fn assert_sound(object: &Value) {
    assert_eq!(object["conserved"], true, "{object}");
    assert_eq!(number(object, "gaps"), 0, "{object}");
    let checks = object["checks"].as_object().expect("an object");
    assert_eq!(checks.len(), 8);
    assert!(checks.values().all(|holds| holds == true), "{object}");
}

#[test]
fn on_memory_every_key_is_there_and_every_check_holds() {
    let object = json("demo --store memory: --accounts 10 --commands 400 --json");
    assert_sound(&object);
    assert_eq!((number(&object, "accounts"), number(&object, "commands")), (10, 400));
    let events = number(&object, "events");
    let rejections = number(&object, "rejections");
    let transfers = number(&object, "transfers");
    assert!(rejections > 0 && transfers > 0);
    // Each command leads to one event, a transfer to two, a rejected command to none.
    assert_eq!(events, 400 - rejections + transfers);
    assert!(number(&object, "total_cents") > 0);
    let seen = &object["read_models"];
    assert_eq!((number(seen, "accounts"), number(seen, "transfers")), (10, transfers));
    assert_eq!(seen["held_cents"], object["total_cents"]);
    let richest = seen["richest"].as_array().expect("a list");
    assert_eq!(richest.len(), 5);
    assert!(richest.is_sorted_by_key(|it| std::cmp::Reverse(it["cents"].as_i64())), "{seen}");
    assert!(object["conflicts_retried"].is_u64());
    assert!(object["commands_per_s"].as_f64().unwrap() > 0.0);
    assert_eq!(object["bytes_measured_on"], "events");
    let kinds = object["rejections_by_kind"].as_object().unwrap();
    assert!(kinds.contains_key("overdraft"), "{object}");
    assert_eq!(kinds.values().filter_map(Value::as_u64).sum::<u64>(), rejections);
}

#[test]
fn writers_race_and_a_taken_address_is_refused() {
    let object = json("demo --store memory: --accounts 5 --commands 3000 --json");
    assert!(number(&object, "conflicts_retried") > 0, "{object}");
    assert!(number(&object["rejections_by_kind"], "email_taken") > 0, "{object}");
    assert_sound(&object);
}

#[test]
fn run_again_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite_in(folder.path());
    let line = format!("demo --store {store} --accounts 8 --commands 200 --json");
    let first = json(&line);
    let second = json(&line);
    for object in [&first, &second] {
        assert_sound(object);
        assert_eq!(object["bytes_measured_on"], "disk");
    }
    assert_eq!((number(&first, "accounts"), number(&second, "accounts")), (8, 16));
    assert_eq!(
        number(&second, "events"),
        number(&first, "events") + number(&second, "events_added")
    );
    // This run only checks the bank and adds nothing.
    let third = json(&format!("demo --store {store} --commands 0 --json"));
    assert_sound(&third);
    assert_eq!(third["total_cents"], second["total_cents"]);
    assert_eq!(number(&third, "events_added"), 0);
}

#[test]
fn a_bare_path_is_a_store_and_the_month_is_in_its_times() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bank").display().to_string();
    succeed(&format!("demo --store {path} --accounts 5 --commands 300 -q"));
    let events = succeed(&format!("read --store {path} --json"));
    let time = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        event["recorded_at"].as_str().unwrap().parse::<factum::event::Timestamp>().unwrap()
    };
    let first = time(events.lines().next().unwrap());
    let last = time(events.lines().last().unwrap());
    let days = (last.as_micros() - first.as_micros()) / 86_400_000_000;
    assert!((20..=30).contains(&days), "{days} days from {first} to {last}");
}

#[test]
fn the_report_tells_it_to_people_without_colours() {
    let ran = run("demo --store memory: --accounts 10 --commands 1000 --seed 3");
    assert_eq!(ran.code, Some(0));
    for said in [
        "seed 3",
        "commands               1,000",
        "conflicts retried",
        "bytes per event",
        "✓ money is conserved",
        "✓ positions are gapless",
        "✓ read models agree",
        "The bank, by its statistics",
        "The richest, by the account list",
        "The busiest",
        "a week earlier",
    ] {
        assert!(ran.stdout.contains(said), "{said:?} is not in {}", ran.stdout);
    }
    assert!(!ran.stdout.contains('\x1b') && !ran.stderr.contains('\x1b'));
    assert!(ran.stderr.contains("1,000 commands on a new bank"), "{}", ran.stderr);
}

#[test]
fn quiet_and_json_say_nothing_beside_the_result() {
    for option in ["--quiet", "-q", "--json"] {
        let ran = run(&format!("demo --store memory: --accounts 3 --commands 50 {option}"));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
        assert_ne!(ran.stdout, "");
    }
}

#[test]
fn a_bank_that_does_not_add_up_is_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite_in(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(pay_from_nothing(&store));
    let ran = run(&format!("demo --store {store} --commands 0 --json"));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains(r#""conserved":false"#), "{}", ran.stdout);
    assert!(ran.stderr.contains("money is conserved"), "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1);
}

#[test]
fn a_read_model_that_says_otherwise_than_the_log_is_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite_in(folder.path());
    assert_sound(&json(&format!("demo --store {store} --accounts 5 --commands 200 --json")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(lose_an_account(&store));
    let ran = run(&format!("demo --store {store} --commands 0 --json"));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains(r#""read_models":false"#), "{}", ran.stdout);
    assert!(ran.stderr.contains("read models agree"), "{}", ran.stderr);
}

/// Removes an account from the read model, with its entries in the indexes.
async fn lose_an_account(store: &str) {
    use factum::store::{ExpectedRevision, KeyRange, ScanQuery, WriteBatch};
    let app = factum::App::open(store).await.expect("the store takes it");
    let documents = app.kernel().documents();
    let list = ScanQuery::new(KeyRange::prefix("$model/account-list@1/"));
    let found = documents.scan(list).await.expect("the store takes it").documents;
    let keys: Vec<_> = found.iter().map(|it| String::from_utf8_lossy(&it.key)).collect();
    let account = keys[0].strip_prefix("$model/account-list@1/").expect("a document comes first");
    let of_account = keys.iter().zip(&found).filter(|(key, _)| key.ends_with(account));
    let lost = of_account.fold(WriteBatch::new(), |lost, (_, document)| {
        lost.remove(document.key.clone(), ExpectedRevision::Any)
    });
    assert!(lost.entries().len() > 1, "{keys:?}");
    documents.write(lost).await.expect("the store takes it");
    app.close().await.expect("the store takes it");
}

/// Adds money that no account has sent.
async fn pay_from_nothing(store: &str) {
    use factum_testing::bank::{Account, AccountCommand};
    let app = factum::App::open(store).await.expect("the store takes it");
    let owner = "Eve".into();
    let email = "eve@example.org".into();
    app.command::<Account>("eve", AccountCommand::Open { owner, email })
        .await
        .expect("the store takes it");
    let receive = AccountCommand::Receive { from: "nobody".into(), cents: 5 };
    app.command::<Account>("eve", receive).await.expect("the store takes it");
    app.close().await.expect("the store takes it");
}

#[cfg(unix)]
fn assert_ends_in_order(signal: &str, code: i32) {
    let folder = tempfile::tempdir().expect("there is room");
    let store = sqlite_in(folder.path());
    let mut demo = Running::start(&format!("demo --store {store} --commands 10000000"));
    // The first event shows that the demonstration has begun: before it there is no store.
    let _ = crate::read::first_event(&store);
    demo.signal(signal);
    let ran = demo.wait();
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert!(ran.stderr.contains("run it again to go on"), "{}", ran.stderr);
    assert_sound(&json(&format!("demo --store {store} --commands 60 --accounts 2 --json")));
}

#[test]
#[cfg(unix)]
fn ctrl_c_ends_in_order_and_the_next_run_goes_on() {
    assert_ends_in_order("INT", 130);
}

#[test]
#[cfg(unix)]
fn sigterm_ends_as_ctrl_c_does() {
    assert_ends_in_order("TERM", 143);
}

#[test]
fn a_look_at_what_is_not_there_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none");
    for scheme in ["", "sqlite:", "journal:"] {
        let store = format!("{scheme}{}", path.display());
        let said = fail(&format!("demo --store {store} --commands 0"), 2);
        assert!(said.contains("there is no store, check the path"), "{said}");
        assert!(!path.exists());
    }
    assert_sound(&json("demo --store memory: --commands 0 --json"));
}

#[test]
fn what_can_not_be_is_refused() {
    fail("demo --accounts many", 2);
    assert!(fail("demo --commands -5", 2).contains("-5 is not in 0..=100000000"));
    assert!(fail("demo --store nothing:x", 2).contains("scheme=nothing"));
    assert!(fail("demo --store memory:x", 2).contains("say memory: alone"));
}
