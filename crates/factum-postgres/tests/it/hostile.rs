//! Objects of other roles, in schemas that a session's path names. None of them is ever called.

use std::{future::poll_fn, time::Duration};

use factum_kernel::{
    AppendBatch, AppendCondition, AppendError, DocumentStore, EventStore, ExpectedRevision,
    ExpectedVersion, KeyRange, Position, Query, QueryItem, ReadQuery, Retention, ScanQuery,
    StreamChange, StreamVersion, Tag, WriteBatch,
};
use factum_postgres::{
    Applied, PostgresStore, apply_schema,
    tokio_postgres::{AsyncMessage, Config, NoTls},
};
use factum_testing::deletion;
use tokio::{sync::mpsc, time::timeout};

use crate::{
    fresh::{Fresh, category, check_log, event, one, positions, stream, tagged},
    role::Role,
    server::{Database, Schema, raw},
};

const TWINS: &str = include_str!("twins.sql");

/// A better match than the server's own `anycompatiblearray || anycompatible`.
const FITS_BETTER: &str = "
CREATE FUNCTION public.unchanged(integer[], integer) RETURNS integer[]
    LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE OPERATOR public.||
    (LEFTARG = integer[], RIGHTARG = integer, FUNCTION = public.unchanged)";

/// An append to a stream with this expected version.
fn expecting(key: &str, version: ExpectedVersion) -> AppendBatch {
    AppendBatch::new().write(stream(key), version, [event("{}")])
}

#[tokio::test]
async fn an_operator_of_public_that_fits_better_switches_no_rule_off() {
    let database = Database::new("ENCODING 'UTF8'").await;
    raw(&database.url).await.batch_execute(FITS_BETTER).await.unwrap();
    let schema = Schema::on(&database.url);
    let store = PostgresStore::open(schema.options()).await.unwrap();
    let other = PostgresStore::open(schema.options()).await.unwrap();
    for round in 0..20 {
        let rivals: Vec<_> = (0..16)
            .map(|n| {
                let store = if n % 2 == 0 { store.clone() } else { other.clone() };
                let batch = expecting(&format!("s{round}"), ExpectedVersion::NoStream);
                tokio::spawn(async move { store.append(batch).await.is_ok() })
            })
            .collect();
        let mut winners = 0;
        for rival in rivals {
            winners += u32::from(rival.await.unwrap());
        }
        assert_eq!(winners, 1, "of 16 rivals in round {round}");
    }
    let late = expecting("s0", ExpectedVersion::NoStream);
    assert!(matches!(store.append(late).await, Err(AppendError::Conflict(_))));
    let batch = one("ada");
    let first = store.append(batch.clone()).await.unwrap();
    let again = other.append(batch.repeated()).await.unwrap();
    assert_eq!((again.first, again.replayed), (first.first, true));
    check_log(&store).await;
    store.close().await.unwrap();
    other.close().await.unwrap();
}

/// Calls everything that a store can do, and checks the known answers.
async fn ask_everything(store: &PostgresStore) {
    let both = ["a:1", "b:2"];
    for (key, tags) in [("ada", &both[..]), ("ada", &both[..1]), ("bob", &both), ("cyd", &[])] {
        store.append(tagged(key, tags)).await.unwrap();
    }
    let batch = one("dan");
    store.append(batch.clone()).await.unwrap();
    assert!(store.append(batch.repeated()).await.unwrap().replayed);
    let late = expecting("ada", ExpectedVersion::from(StreamVersion::new(1)));
    assert!(store.append(late).await.is_err());
    let tags: Vec<_> = both.iter().map(|tag| Tag::parse(tag).unwrap()).collect();
    let of_type = |types| Query::new([QueryItem { types, tags: tags.clone() }]);
    let tagged_both = of_type(vec![]);
    let typed = of_type(vec![event("").name]);
    let unless = AppendCondition { fail_if_events_match: typed.clone(), after: Position::new(1) };
    assert!(store.append(one("eve").unless(unless)).await.is_err());
    for (query, expected) in [
        (ReadQuery::log(), vec![1, 2, 3, 4, 5]),
        (ReadQuery::stream(stream("ada")), vec![1, 2]),
        (ReadQuery::category(category()), vec![1, 2, 3, 4, 5]),
        (ReadQuery::matching(tagged_both), vec![1, 3]),
        (ReadQuery::matching(typed), vec![1, 3]),
    ] {
        assert_eq!(positions(store, query.clone()).await, expected, "{query:?}");
        let backward: Vec<_> = expected.into_iter().rev().collect();
        assert_eq!(positions(store, query.clone().backward()).await, backward, "{query:?}");
    }
    let keep = StreamChange::Retain(Retention {
        events_max: Some(1),
        age_max: Some(Duration::from_secs(60)),
    });
    store.change(&stream("ada"), keep).await.unwrap();
    store.append(one("ada")).await.unwrap();
    store.append(tagged("bob", &both)).await.unwrap();
    let truncate = StreamChange::TruncateBefore(StreamVersion::new(2));
    store.change(&stream("bob"), truncate).await.unwrap();
    store.append(deletion(stream("cyd"))).await.unwrap();
    assert_eq!(store.stream_info(&stream("ada")).await.unwrap().bounds.version.value(), 3);
    for key in ["a", "b"] {
        let write = WriteBatch::new().put(key, ExpectedRevision::Absent, "v");
        store.write(write).await.unwrap();
    }
    assert!(store.get(b"a").await.unwrap().is_some());
    let scan = ScanQuery::new(KeyRange::all());
    for scan in [scan.clone(), scan.backward()] {
        assert_eq!(store.scan(scan).await.unwrap().documents.len(), 2);
    }
    store.clear(KeyRange::all()).await.unwrap();
    store.renew_lineage().await.unwrap();
    // Positions 1, 2, 3 and 4 were erased, and nothing else; the deletion is at 8.
    assert_eq!(positions(store, ReadQuery::log()).await, [5, 6, 7, 8]);
}

#[tokio::test]
async fn nothing_is_called_from_a_schema_that_the_path_puts_first() {
    let database = Database::new("ENCODING 'UTF8'").await;
    let server = raw(&database.url).await;
    server.batch_execute(TWINS).await.unwrap();
    let twins = "SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace),
        (SELECT count(*) FROM pg_operator WHERE oprnamespace = 'public'::regnamespace)";
    let row = server.query_one(twins, &[]).await.unwrap();
    assert!(row.get::<_, i64>(0) > 1500 && row.get::<_, i64>(1) > 500, "there are twins: {row:?}");
    let name = database.url.rsplit_once('/').unwrap().1;
    let settings = format!(
        "ALTER ROLE @ SET search_path = public, pg_catalog; GRANT CREATE ON DATABASE {name} TO @"
    );
    let role = Role::at(Schema::on(&database.url), &settings).await;

    let (listener, mut connection) =
        database.url.parse::<Config>().unwrap().connect(NoTls).await.unwrap();
    let (tell, mut heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(_) = message {
                let _ = tell.send(());
            }
        }
    });
    listener.batch_execute(&format!("LISTEN factum_{}", role.1.name)).await.unwrap();

    let store = PostgresStore::open(role.options()).await.unwrap();
    ask_everything(&store).await;
    assert!(timeout(Duration::from_secs(30), heard.recv()).await.is_ok(), "others are told");
    let mut client = raw(&role.url()).await;
    let transaction = client.transaction().await.unwrap();
    store.append_in(&transaction, one("fay")).await.unwrap();
    let write = WriteBatch::new().put("c", ExpectedRevision::Absent, "v");
    store.write_in(&transaction, write).await.unwrap();
    transaction.commit().await.unwrap();
    store.close().await.unwrap();
    // An existing log is found, too.
    assert_eq!(apply_schema(&role.options()).await.unwrap(), Applied::Present);
    role.drop().await;
}

#[tokio::test]
async fn temporary_objects_of_a_session_are_not_taken_for_the_servers_own() {
    let fresh = Fresh::open().await;
    let mut client = fresh.schema.raw().await;
    let shadows = "CREATE DOMAIN pg_temp.regnamespace AS point; CREATE DOMAIN pg_temp.oid AS point;
        CREATE DOMAIN pg_temp.uuid AS point; CREATE DOMAIN pg_temp.text AS point";
    client.batch_execute(shadows).await.unwrap();
    let transaction = client.transaction().await.unwrap();
    fresh.store.append_in(&transaction, one("ada")).await.unwrap();
    let write = WriteBatch::new().put("a", ExpectedRevision::Absent, "v");
    fresh.store.write_in(&transaction, write).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(positions(&fresh.store, ReadQuery::log()).await, [1]);
}

#[tokio::test]
async fn every_function_pins_its_path_and_is_closed_to_roles_without_a_grant() {
    const OPEN: &str = "SELECT p.proname::text FROM pg_proc AS p
        WHERE p.pronamespace = $1::text::regnamespace
        AND (NOT 'search_path=pg_catalog, pg_temp' = ANY (coalesce(p.proconfig, '{}'))
            OR p.proacl IS NULL
            OR EXISTS (SELECT FROM aclexplode(p.proacl) AS a WHERE a.grantee = 0))";
    const GRANTED: &str = "SELECT count(*) FROM pg_proc AS p, aclexplode(p.proacl) AS a
        WHERE p.pronamespace = $1::text::regnamespace AND a.grantee = $2::text::regrole";
    const ALL: &str = "SELECT count(*) FROM pg_proc WHERE pronamespace = $1::text::regnamespace";
    let fresh = Fresh::open().await;
    let role = Role::new("").await;
    let server = fresh.schema.raw().await;
    let name = &fresh.schema.name;
    let open = server.query(OPEN, &[name]).await.unwrap();
    let open: Vec<String> = open.iter().map(|row| row.get(0)).collect();
    assert!(open.is_empty(), "{open:?}");
    let schema = name.parse().unwrap();
    let grants = factum_postgres::grants_sql(&schema, &role.0.parse().unwrap());
    server.batch_execute(&grants).await.unwrap();
    let granted: i64 = server.query_one(GRANTED, &[name, &role.0]).await.unwrap().get(0);
    let all: i64 = server.query_one(ALL, &[name]).await.unwrap().get(0);
    assert_eq!(granted, all, "a role is granted every function");
    role.drop().await;
}

#[tokio::test]
async fn a_role_with_a_hostile_name_gets_its_grants_and_nothing_else_happens() {
    let fresh = Fresh::open().await;
    let server = fresh.schema.raw().await;
    let schema = fresh.schema.name.parse().unwrap();
    for (n, name) in ["Upper Case", "a\"; DROP TABLE @.events; --", "it's\\'", "jürgen ☃", "$$;"]
        .iter()
        .enumerate()
    {
        let name = format!("{}_{n} {}", std::process::id(), name.replace('@', "factum"));
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        server.batch_execute(&format!("CREATE ROLE {quoted}")).await.unwrap();
        let grants = factum_postgres::grants_sql(&schema, &name.parse().unwrap());
        let granted = server.batch_execute(&grants).await;
        let may = "SELECT has_table_privilege($1::text, $2::text, 'INSERT')";
        let events = format!("{}.events", fresh.schema.name);
        let row = server.query_one(may, &[&name, &events]).await;
        server.batch_execute(&format!("DROP OWNED BY {quoted}; DROP ROLE {quoted}")).await.unwrap();
        granted.unwrap();
        assert!(row.unwrap().get::<_, bool>(0), "{name}");
    }
}
