//! The openings that are refused, each with one sentence, and openings with few rights.

use std::sync::Arc;

use factum_backend::IfAbsent;
use factum_kernel::{
    DocumentStore, EventStore, ExpectedRevision, ExpectedVersion, Lineage, ReadQuery, StoreError,
    StoreErrorKind, StreamVersion, Uuid, WriteBatch,
};
use factum_postgres::{
    Access, Applied, PostgresKind, PostgresOptions, PostgresStore, RoleName, SCHEMA_VERSION,
    SchemaName, apply_schema, grants_sql, schema_sql,
};
use factum_testing::deletion;

use crate::{
    fresh::{Fresh, check_log, event, one, stream, tagged},
    role::Role,
    server::{Database, Schema, raw, url, with},
};

async fn refusal(options: PostgresOptions) -> StoreError {
    PostgresStore::open(options).await.unwrap_err()
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_both_numbers() {
    let fresh = Fresh::open().await;
    let newer = SCHEMA_VERSION + 1;
    fresh.run(&format!("UPDATE log SET schema_version = {newer}")).await;
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let error = refusal(fresh.schema.options().with_access(access)).await;
        assert_eq!(error.kind(), StoreErrorKind::Invalid);
        let numbers = format!("schema={newer} known={SCHEMA_VERSION}");
        assert!(error.to_string().contains(&numbers), "{error}");
    }
}

#[tokio::test]
async fn a_server_older_than_14_is_refused() {
    let options = PostgresOptions::parse(&url("FACTUM_POSTGRES_13_URL")).unwrap();
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let error = refusal(options.clone().with_access(access)).await;
        assert_eq!(error.kind(), StoreErrorKind::Invalid);
        assert!(
            error.to_string().starts_with("PostgreSQL is too old, use 14 or later: version=13")
        );
    }
    let error = apply_schema(&options).await.unwrap_err();
    assert!(error.to_string().contains("use 14 or later"), "{error}");
}

#[tokio::test]
async fn a_database_in_another_encoding_is_refused() {
    let latin = Database::new("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'").await;
    let error = refusal(PostgresOptions::parse(&latin.url).unwrap()).await;
    assert!(error.to_string().contains("encoding=LATIN1"), "{error}");
}

#[tokio::test]
async fn a_server_or_database_that_is_not_there_is_named() {
    let schema = Schema::new();
    let error = refusal(PostgresOptions::parse("postgres://x@127.0.0.1:1/bank").unwrap()).await;
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(error.to_string().contains("server=127.0.0.1:1 database=bank"), "{error}");
    let nowhere = with(&schema.url, "factum", "nowhere");
    let error = refusal(PostgresOptions::parse(&nowhere).unwrap()).await;
    assert!(error.to_string().starts_with("there is no such database"), "{error}");
    let error = refusal(schema.options().with_access(Access::ReadOnly)).await;
    assert!(error.to_string().starts_with("there is no log"), "{error}");
}

#[tokio::test]
async fn existing_opens_a_log_that_exists_and_makes_nothing() {
    let schema = Schema::new();
    let raw = schema.raw().await;
    let is_made = async || {
        let query = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
        raw.query_one(query, &[&schema.name]).await.unwrap().get::<_, bool>(0)
    };
    let by_url = format!("{}?schema={}&mode=existing", schema.url, schema.name);
    let by_url = || PostgresOptions::parse(&by_url).unwrap();
    let options = || schema.options().with_if_absent(IfAbsent::Refuse);
    for options in [options(), by_url()] {
        let error = refusal(options).await;
        assert_eq!(error.kind(), StoreErrorKind::Invalid);
        assert!(error.to_string().starts_with("there is no log in the schema"), "{error}");
        assert!(!is_made().await, "{error}");
    }
    PostgresStore::open(schema.options()).await.unwrap().close().await.unwrap();
    for options in [options(), by_url()] {
        let store = PostgresStore::open(options).await.unwrap();
        store.append(one("ada")).await.unwrap();
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_role_with_few_rights_works_on_a_log_that_another_made() {
    let role = Role::new("").await;
    let error = refusal(role.options()).await;
    assert_eq!(error.kind(), StoreErrorKind::Invalid);
    assert!(error.to_string().contains("factum schema apply"), "{error}");

    let server = role.1.raw().await;
    let lineage = Lineage::new(Uuid::from_u128(7));
    let schema = SchemaName::new(&role.1.name).unwrap();
    server.batch_execute(&schema_sql(&schema, lineage)).await.unwrap();
    let grants = grants_sql(&schema, &RoleName::new(&role.0).unwrap());
    server.batch_execute(&grants).await.unwrap();
    let store = PostgresStore::open(role.options()).await.unwrap();
    for key in ["ada", "bob", "ada"] {
        store.append(tagged(key, &["a:1"])).await.unwrap();
    }
    store.append(deletion(stream("bob"))).await.unwrap();
    let write = WriteBatch::new().put("a", ExpectedRevision::Absent, "v");
    store.write(write).await.unwrap();
    store.clear(factum_kernel::KeyRange::all()).await.unwrap();
    let page = store.read(ReadQuery::log()).await.unwrap();
    assert_eq!(page.lineage, lineage);
    assert_ne!(store.renew_lineage().await.unwrap(), page.lineage);
    check_log(&store).await;
    store.close().await.unwrap();
    role.drop().await;
}

#[tokio::test]
async fn defaults_of_a_role_that_would_break_the_laws_are_not_obeyed() {
    let settings = "ALTER ROLE @ SET default_transaction_isolation = 'repeatable read';
        ALTER ROLE @ SET synchronous_commit = off; GRANT CREATE ON DATABASE postgres TO @";
    let role = Role::new(settings).await;
    let store = PostgresStore::open(role.options()).await.unwrap();
    let server = role.1.raw().await;
    let watch = "SET search_path = @s; CREATE TABLE seen (isolation text, commit text);
        GRANT ALL ON seen TO PUBLIC;
        CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            EXECUTE format('INSERT INTO %I.seen VALUES ($1, $2)', TG_TABLE_SCHEMA)
                USING current_setting('transaction_isolation'),
                current_setting('synchronous_commit');
            RETURN NULL;
        END $$;
        CREATE TRIGGER see AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION see()";
    server.batch_execute(&watch.replace("@s", &role.1.name)).await.unwrap();
    let other = Arc::new(PostgresStore::open(role.options()).await.unwrap());
    // Two rivals on two handles decide on what each has read: only one may win.
    for round in 0..20 {
        let expected = ExpectedVersion::from(StreamVersion::new(round));
        let rival = |store: PostgresStore| {
            let batch =
                factum_kernel::AppendBatch::new().write(stream("x"), expected, [event("{}")]);
            tokio::spawn(async move { store.append(batch).await.is_ok() })
        };
        let left = rival(store.clone());
        let right = rival((*other).clone());
        assert!(left.await.unwrap() != right.await.unwrap(), "one of two rivals wins");
    }
    let seen = format!("SELECT DISTINCT isolation, commit FROM {}.seen", role.1.name);
    let rows = server.query(&seen, &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].get(0), rows[0].get(1)), ("read committed", "on"));
    store.close().await.unwrap();
    other.close().await.unwrap();
    role.drop().await;
}

#[tokio::test]
async fn functions_refuse_another_isolation_with_the_remedy() {
    let fresh = Fresh::open().await;
    let server = fresh.schema.raw().await;
    server.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    let call = format!("SELECT {}.begin_write(100)", fresh.schema.name);
    let error = server.query(&call, &[]).await.unwrap_err();
    let refusal = error.as_db_error().unwrap();
    assert_eq!(refusal.code().code(), "FC001");
    assert!(refusal.message().contains("default_transaction_isolation"), "{refusal}");
}

#[tokio::test]
async fn a_role_that_may_only_read_is_told_where_to_write() {
    let settings = "ALTER ROLE @ SET default_transaction_read_only = on;
        GRANT CREATE ON DATABASE postgres TO @";
    let role = Role::new(settings).await;
    let error = refusal(role.options()).await;
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(error.to_string().contains("mode=read"), "{error}");
    role.drop().await;
}

#[tokio::test]
async fn a_url_opens_one_of_several_logs_of_a_database() {
    use factum_backend::{OpenContext, Registry};
    use factum_kernel::{SystemClock, SystemIds};
    let one_log = Schema::new();
    let other = Schema::new();
    let registry = Registry::new().with(PostgresKind::new()).with(PostgresKind::spelt_out());
    let context = OpenContext::new(Arc::new(SystemClock), Arc::new(SystemIds));
    let url = |schema: &Schema| format!("{}?schema={}", url("FACTUM_POSTGRES_URL"), schema.name);
    let first = registry.open(&url(&one_log), &context).await.unwrap();
    let second = url(&other).replace("postgres://", "postgresql://");
    let second = registry.open(&second, &context).await.unwrap();
    first.events.append(one("ada")).await.unwrap();
    assert_eq!(first.events.read(ReadQuery::log()).await.unwrap().events.len(), 1);
    assert_eq!(second.events.read(ReadQuery::log()).await.unwrap().events.len(), 0);
    assert_eq!(raw(&one_log.url).await.query("SELECT 1", &[]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_schema_is_applied_once_and_by_one_of_many() {
    let schema = Schema::new();
    let apply = |schema: &Schema| {
        let options = schema.options();
        tokio::spawn(async move { apply_schema(&options).await.unwrap() })
    };
    let mut applied = Vec::new();
    for applying in [0; 4].map(|_| apply(&schema)) {
        applied.push(applying.await.unwrap());
    }
    assert_eq!(applied.iter().filter(|it| **it == Applied::Made).count(), 1, "{applied:?}");
    assert_eq!(apply_schema(&schema.options()).await.unwrap(), Applied::Present);
}
