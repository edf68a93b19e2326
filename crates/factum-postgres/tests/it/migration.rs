//! Logs that an older version made, migrated to this one.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use factum_kernel::{
    AppendBatch, AppendCondition, AppendError, DocumentStore, EventStore, ExpectedRevision,
    ExpectedVersion, KeyRange, Lineage, Position, Query, ReadQuery, ScanQuery, StreamChange,
    StreamVersion, Tag, Uuid, WriteBatch,
};
use factum_postgres::{Access, Applied, PostgresStore, SCHEMA_VERSION, apply_schema};
use factum_testing::deletion;

use crate::{
    fresh::{category, event, one, pages, positions, stream, tagged},
    role::Role,
    server::{Database, Schema, raw},
};

/// The statements that made every log of version 1.
const V1: [&str; 3] = [
    include_str!("../../src/schema/v1/tables.sql"),
    include_str!("../../src/schema/v1/read.sql"),
    include_str!("../../src/schema/v1/write.sql"),
];
/// The migration to version 2.
const V2: &str = include_str!("../../src/schema/v2.sql");
/// The rights that version 1 gave to a role.
const GRANTS_1: &str = "GRANT USAGE ON SCHEMA @s TO @r;
    GRANT SELECT, INSERT, DELETE ON @s.events, @s.event_tags TO @r;
    GRANT SELECT, INSERT, UPDATE, DELETE ON @s.erased, @s.streams, @s.documents TO @r;
    GRANT SELECT, UPDATE ON @s.log TO @r; GRANT SELECT, USAGE ON @s.document_revisions TO @r;";

const LINEAGE: Uuid = Uuid::from_u128(7);

/// Makes a log of version 1 in a session with this path.
async fn make_v1(schema: &Schema, path: &str) {
    let name = &schema.name;
    let made = V1.concat().replace("@schema@", &format!("\"{name}\"")).replace("@name@", name);
    let all = format!(
        "SET search_path = {path}; CREATE SCHEMA {name}; {made}
         INSERT INTO {name}.log (schema_version, lineage) VALUES (1, '{LINEAGE}')"
    );
    schema.raw().await.batch_execute(&all).await.unwrap();
}

/// Migrates a log of version 1 to version 2.
async fn bring_to_v2(schema: &Schema) {
    let name = &schema.name;
    let v2 = V2.replace("@schema@", &format!("\"{name}\"")).replace("@name@", name);
    let all = format!("BEGIN; {v2}; UPDATE {name}.log SET schema_version = 2; COMMIT");
    schema.raw().await.batch_execute(&all).await.unwrap();
}

/// Gives a grantee the rights of version 1 on a log.
async fn grant_v1(schema: &Schema, grantee: &str) {
    let grants = GRANTS_1.replace("@s", &schema.name).replace("@r", grantee);
    schema.raw().await.batch_execute(&grants).await.unwrap();
}

/// The store of a program of version 1: it sends the same statements, and only has another number
/// for its version.
async fn open_as_v1(role: &Role) -> PostgresStore {
    open_as(role, 1).await
}

async fn open_as(role: &Role, version: i32) -> PostgresStore {
    let set = |version| format!("UPDATE {}.log SET schema_version = {version}", role.1.name);
    let server = role.1.raw().await;
    server.batch_execute(&set(SCHEMA_VERSION)).await.unwrap();
    let store = PostgresStore::open(role.options()).await.unwrap();
    server.batch_execute(&set(version)).await.unwrap();
    store
}

fn expecting(key: &str, version: ExpectedVersion) -> AppendBatch {
    AppendBatch::new().write(stream(key), version, [event("{}")])
}

/// Deletes a stream as programs did before version 4: as a change, without an event.
async fn delete_silently(role: &Role, key: &str) -> Result<u64, tokio_postgres::Error> {
    let schema = &role.1.name;
    let change = format!("SELECT {schema}.change(1000, 0, $1, 3, -1, NULL, NULL)");
    role.1.raw().await.execute(&change, &[&stream(key).as_str()]).await
}

/// Does each thing that a role may do to a log.
async fn work(store: &PostgresStore, key: &str) {
    for _ in 0..3 {
        store.append(tagged(key, &["a:1", "b:2"])).await.unwrap();
    }
    store.change(&stream(key), StreamChange::TruncateBefore(StreamVersion::new(2))).await.unwrap();
    store.append(one(key).repeated()).await.unwrap();
    let write = WriteBatch::new().put(key.to_owned(), ExpectedRevision::Absent, "v");
    store.write(write).await.unwrap();
}

/// All events and documents, as text.
async fn contents(store: &PostgresStore) -> String {
    let documents = store.scan(ScanQuery::new(KeyRange::all())).await.unwrap();
    format!("{:?} {:?}", pages(store, ReadQuery::log()).await, documents.documents)
}

#[tokio::test]
async fn a_log_of_version_1_is_migrated_with_all_that_it_holds() {
    let role = Role::new("").await;
    make_v1(&role.1, "DEFAULT").await;
    grant_v1(&role.1, &role.0).await;
    let old = open_as_v1(&role).await;
    work(&old, "ada").await;
    let before = contents(&old).await;

    // A role that works with the log may not migrate it, and the error names the command that does.
    let refused = PostgresStore::open(role.options()).await.unwrap_err().to_string();
    assert!(refused.contains("factum schema apply"), "{refused}");
    assert_eq!(apply_schema(&role.1.options()).await.unwrap(), Applied::Migrated);
    assert_eq!(apply_schema(&role.1.options()).await.unwrap(), Applied::Present);

    let new = PostgresStore::open(role.options()).await.unwrap();
    assert_eq!(contents(&new).await, before);
    assert_eq!(new.read(ReadQuery::log()).await.unwrap().lineage, Lineage::new(LINEAGE));
    work(&new, "bob").await;
    // A running program of version 1 works beside it.
    work(&old, "cyd").await;
    assert_eq!(contents(&old).await, contents(&new).await);
    for store in [old, new] {
        store.close().await.unwrap();
    }
    role.drop().await;
}

#[tokio::test]
async fn deletions_without_an_event_stay_and_others_come_beside_them() {
    let role = Role::new("").await;
    make_v1(&role.1, "DEFAULT").await;
    grant_v1(&role.1, &role.0).await;
    let old = open_as_v1(&role).await;
    let keys = ["ada", "bob"];
    for key in keys {
        old.append(one(key)).await.unwrap();
        delete_silently(&role, key).await.unwrap();
    }
    assert_eq!(apply_schema(&role.1.options()).await.unwrap(), Applied::Migrated);
    let new = PostgresStore::open(role.options()).await.unwrap();
    for key in keys {
        let bounds = new.stream_info(&stream(key)).await.unwrap().bounds;
        let two = StreamVersion::new(2);
        assert_eq!((bounds.version, bounds.erased_through, bounds.deleted_at), (two, two, two));
        for refused in [deletion(stream(key)), expecting(key, ExpectedVersion::NoStream)] {
            let refused = new.append(refused).await;
            let Err(AppendError::Conflict(conflict)) = refused else { panic!("{refused:?}") };
            assert_eq!(conflict.deleted_at, Some(two));
        }
    }
    // The head is known although the last events are erased.
    let begun = new.append(expecting("ada", StreamVersion::new(2).into())).await.unwrap();
    assert_eq!((begun.first.value(), begun.versions[0].value()), (3, 3));
    let deleted = new.append(deletion(stream("ada"))).await.unwrap();
    assert_eq!((deleted.first.value(), deleted.versions[0].value()), (4, 4));
    // A running program of version 1 can't delete any more: programs of this version would not see
    // it.
    old.append(one("ada")).await.unwrap();
    let before = positions(&new, ReadQuery::log()).await;
    let refused = delete_silently(&role, "ada").await.unwrap_err();
    let refused = refused.as_db_error().unwrap();
    assert_eq!(refused.code().code(), "FC001");
    assert!(refused.message().contains("start this version"), "{refused}");
    assert_eq!(positions(&new, ReadQuery::log()).await, before);
    assert!(before.contains(&5), "its event is still there: {before:?}");
    for store in [old, new] {
        store.close().await.unwrap();
    }
    role.drop().await;
}

/// Claims a tag that must be free.
fn claim(key: &str) -> AppendBatch {
    let query = Query::tag(Tag::new("claim", key).unwrap());
    let condition = AppendCondition { fail_if_events_match: query, after: Position::ZERO };
    tagged(key, &[&format!("claim:{key}")]).unless(condition)
}

#[tokio::test]
async fn a_log_of_version_2_is_migrated_and_its_roles_and_running_programs_work_on() {
    let role = Role::new("").await;
    make_v1(&role.1, "DEFAULT").await;
    grant_v1(&role.1, &role.0).await;
    bring_to_v2(&role.1).await;
    let old = open_as(&role, 2).await;
    work(&old, "ada").await;
    old.append(claim("ada")).await.unwrap();
    let before = contents(&old).await;

    assert_eq!(apply_schema(&role.1.options()).await.unwrap(), Applied::Migrated);
    let new = PostgresStore::open(role.options()).await.unwrap();
    assert_eq!(contents(&new).await, before);
    for (store, key) in [(&new, "bob"), (&old, "cyd")] {
        work(store, key).await;
        store.append(claim(key)).await.unwrap();
    }
    for key in ["ada", "bob", "cyd"] {
        for store in [&old, &new] {
            let taken = store.append(claim(key)).await;
            assert!(matches!(taken, Err(AppendError::ConditionFailed { .. })), "{taken:?}");
        }
    }
    for store in [old, new] {
        store.close().await.unwrap();
    }
    role.drop().await;
}

#[tokio::test]
async fn appends_of_a_running_program_go_on_through_the_migration() {
    let role = Role::new("").await;
    make_v1(&role.1, "DEFAULT").await;
    grant_v1(&role.1, &role.0).await;
    let old = open_as_v1(&role).await;
    let is_migrated = Arc::new(AtomicBool::new(false));
    let writer = old.clone();
    let done = Arc::clone(&is_migrated);
    let mut head = old.head();
    let writing = tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        let mut later = 0;
        while later < 20 {
            later += u32::from(done.load(Ordering::Acquire));
            acknowledged.push(writer.append(one("ada")).await.unwrap().first.value());
        }
        acknowledged
    });
    head.wait_for(|head| head.value() >= 20).await.unwrap();
    assert_eq!(apply_schema(&role.1.options()).await.unwrap(), Applied::Migrated);
    is_migrated.store(true, Ordering::Release);
    let acknowledged = writing.await.unwrap();
    assert_eq!(positions(&old, ReadQuery::log()).await, acknowledged);
    old.close().await.unwrap();
    role.drop().await;
}

#[tokio::test]
async fn a_migration_shuts_out_no_role_that_could_work_with_the_log_and_lets_no_other_in() {
    let member = Role::new("CREATE ROLE @_group; GRANT @_group TO @").await;
    make_v1(&member.1, "DEFAULT").await;
    grant_v1(&member.1, &format!("{}_group", member.0)).await;
    let on_same = |settings: &'static str| {
        let schema = Schema { url: member.1.url.clone(), name: format!("x{}", member.1.name) };
        async move {
            let mut role = Role::at(schema, settings).await;
            // The same log, for another role.
            role.1.name.remove(0);
            role
        }
    };
    let reader = on_same("GRANT pg_read_all_data TO @").await;
    assert_eq!(apply_schema(&member.1.options()).await.unwrap(), Applied::Migrated);

    let store = PostgresStore::open(member.options()).await.unwrap();
    work(&store, "ada").await;
    store.close().await.unwrap();
    let read = reader.options().with_access(Access::ReadOnly);
    let store = PostgresStore::open(read).await.unwrap();
    assert!(!positions(&store, ReadQuery::category(category())).await.is_empty());
    store.close().await.unwrap();

    // A role that sees the schema but none of its tables calls nothing.
    let server = member.1.raw().await;
    let name = &member.1.name;
    let outsider = format!("{}_outsider", member.0);
    let make = format!("CREATE ROLE {outsider}; GRANT USAGE ON SCHEMA {name} TO {outsider}");
    server.batch_execute(&make).await.unwrap();
    server.batch_execute(&format!("SET ROLE {outsider}")).await.unwrap();
    let lock = format!("SELECT {name}.lock_log(100)");
    let error = server.batch_execute(&lock).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501");

    let drop = format!(
        "RESET ROLE; DROP OWNED BY {outsider}, {0}_group; DROP ROLE {outsider}, {0}_group",
        member.0
    );
    server.batch_execute(&drop).await.unwrap();
    reader.drop().await;
    member.drop().await;
}

#[tokio::test]
async fn rights_that_all_roles_had_by_choice_stay_with_all_roles() {
    let role = Role::new("").await;
    make_v1(&role.1, "DEFAULT").await;
    grant_v1(&role.1, "PUBLIC").await;
    assert_eq!(apply_schema(&role.1.options()).await.unwrap(), Applied::Migrated);
    let store = PostgresStore::open(role.options()).await.unwrap();
    work(&store, "ada").await;
    store.close().await.unwrap();
    role.drop().await;
}

#[tokio::test]
async fn what_version_1_took_from_a_schema_before_the_servers_own_is_made_again() {
    const FOREIGN: &str = "
        CREATE FUNCTION public.split_part(text, text, integer) RETURNS text
            LANGUAGE sql IMMUTABLE AS $$ SELECT 'x' $$;
        CREATE FUNCTION public.never(smallint, integer) RETURNS boolean
            LANGUAGE sql IMMUTABLE AS $$ SELECT true $$;
        CREATE OPERATOR public.= (LEFTARG = smallint, RIGHTARG = integer, FUNCTION = public.never)";
    let database = Database::new("ENCODING 'UTF8'").await;
    let schema = Schema::on(&database.url);
    raw(&database.url).await.batch_execute(FOREIGN).await.unwrap();
    make_v1(&schema, "public, pg_catalog").await;
    let server = schema.raw().await;
    let fill = "INSERT INTO @.events SELECT p, p, p, 1, gen_random_uuid(), 1, 'account-ada',
        'account.opened', '', '', '{}' FROM generate_series(1, 3) AS p";
    server.batch_execute(&fill.replace('@', &schema.name)).await.unwrap();

    assert_eq!(apply_schema(&schema.options()).await.unwrap(), Applied::Migrated);
    // Nothing in the log needs them any more.
    let drop = "DROP OPERATOR public.= (smallint, integer);
        DROP FUNCTION public.split_part(text, text, integer), public.never(smallint, integer)";
    server.batch_execute(drop).await.unwrap();
    let two = format!("INSERT INTO {}.log VALUES (2, 1, '{LINEAGE}')", schema.name);
    let error = server.batch_execute(&two).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23514", "a log has one row");
    let store = PostgresStore::open(schema.options()).await.unwrap();
    assert_eq!(positions(&store, ReadQuery::category(category())).await, [1, 2, 3]);
    let indexed = "SELECT pg_get_indexdef(('@.events_by_category')::regclass)";
    let index: String =
        server.query_one(&indexed.replace('@', &schema.name), &[]).await.unwrap().get(0);
    assert!(index.contains("(split_part(stream, '-'::text, 1), \"position\")"), "{index}");
    store.close().await.unwrap();
}
