//! Standbys, promoted and read, and backups that are restored.

use std::{sync::Arc, time::Duration};

use factum_kernel::{
    AppendBatch, AppendError, Checkpoint, Clock, DivergedReason, EventStore, ExpectedVersion,
    Kernel, ReadError, ReadQuery, Scope, StoreErrorKind, SubscribeFrom, Subscription, SystemClock,
};
use factum_postgres::{Access, PostgresOptions, PostgresStore};

use crate::{
    fresh::{check_log, event, one, positions, stream},
    instance::Instance,
    server::raw,
};

/// Appends with the rules of retrying, through a change of servers.
async fn append(store: &PostgresStore) -> u64 {
    let mut batch = AppendBatch::new().write(stream("ada"), ExpectedVersion::Any, [event("{}")]);
    loop {
        match store.append(batch.clone()).await {
            Ok(appended) => return appended.first.value(),
            Err(AppendError::Indeterminate(_)) => batch = batch.repeated(),
            Err(AppendError::Store(e)) if e.kind() == StoreErrorKind::Unavailable => {}
            Err(other) => panic!("{other:?}"),
        }
        SystemClock.sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_synchronous_standby_that_is_promoted_has_all_that_was_acknowledged() {
    let mut primary = Instance::start(&[]);
    let standby = Instance::copy_of(&primary, true);
    let server = raw(&primary.url()).await;
    server.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
    server.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let both = format!(
        "postgres://factum@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write",
        primary.port(),
        standby.port()
    );
    let store = PostgresStore::open(PostgresOptions::parse(&both).unwrap()).await.unwrap();
    let mut acknowledged = Vec::new();
    for _ in 0..50 {
        acknowledged.push(append(&store).await);
    }

    // Beside it, the standby can be read, and refuses writers.
    let options = PostgresOptions::parse(&standby.url()).unwrap();
    let error = PostgresStore::open(options.clone()).await.unwrap_err();
    assert!(error.to_string().contains("standby"), "{error}");
    let reader = PostgresStore::open(options.with_access(Access::ReadOnly)).await.unwrap();
    let mut head = reader.head();
    head.wait_for(|head| head.value() == 50).await.unwrap();
    assert_eq!(positions(&reader, ReadQuery::log()).await.len(), 50);

    let last = store.clone();
    let under_way = tokio::spawn(async move { append(&last).await });
    primary.kill();
    raw(&standby.url()).await.query("SELECT pg_promote()", &[]).await.unwrap();
    acknowledged.push(under_way.await.unwrap());
    for _ in 0..10 {
        acknowledged.push(append(&store).await);
    }
    assert_eq!(acknowledged, (1..=61).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(check_log(&store).await.value(), 61);
}

#[tokio::test]
async fn a_restored_backup_is_noticed_by_who_was_ahead_of_it() {
    let primary = Instance::start(&[]);
    let open =
        |instance: &Instance| PostgresStore::open(PostgresOptions::parse(&instance.url()).unwrap());
    let store = open(&primary).await.unwrap();
    for _ in 0..10 {
        store.append(one("ada")).await.unwrap();
    }
    let restored = Instance::copy_of(&primary, false);
    for _ in 0..5 {
        store.append(one("ada")).await.unwrap();
    }
    let page = store.read(ReadQuery::log()).await.unwrap();
    let checkpoint = |place: usize| Checkpoint::of(page.lineage, &page.events[place]);

    let store = open(&restored).await.unwrap();
    let next = async |checkpoint| {
        let store = Arc::new(store.clone());
        let kernel = Kernel::new(store.clone(), store);
        let from = SubscribeFrom::Checkpoint(checkpoint);
        let mut subscription = Subscription::new(&kernel, Scope::Log, from);
        subscription.next().await.unwrap()
    };
    let reason = |event| match event {
        Err(ReadError::Diverged(diverged)) => diverged.reason,
        other => panic!("{other:?}"),
    };
    // The restore was not announced, so only the missing event shows it.
    assert!(matches!(reason(next(checkpoint(14)).await), DivergedReason::Short(_)));
    for _ in 0..7 {
        store.append(one("bob")).await.unwrap();
    }
    assert!(matches!(reason(next(checkpoint(14)).await), DivergedReason::Event(_)));
    assert_eq!(next(checkpoint(4)).await.unwrap().position().value(), 6, "both share it");
    // After the lineage is renewed, every checkpoint of the old history is of another log.
    let lineage = store.renew_lineage().await.unwrap();
    assert_eq!(reason(next(checkpoint(4)).await), DivergedReason::Lineage(lineage));
}
