//! The tables and functions of a log, and their version.

use factum_backend::IfAbsent;
use factum_kernel::{Lineage, StoreError, StoreErrorKind};

use crate::{
    error,
    link::{Dialer, Link, get},
    name::{RoleName, SchemaName},
    options::{Access, PostgresOptions},
};

/// The version of the tables and functions that this program works with.
pub const SCHEMA_VERSION: i32 = 4;

/// The oldest supported PostgreSQL, in the numbers of `server_version_num`.
const SERVER_MIN: i32 = 140_000;

/// The migrations: lists of statements, of which list n brings version n to n + 1.
type Steps = &'static [&'static [&'static str]];

const MIGRATIONS: [&[&str]; SCHEMA_VERSION as usize] = [
    &[
        include_str!("schema/v1/tables.sql"),
        include_str!("schema/v1/read.sql"),
        include_str!("schema/v1/write.sql"),
    ],
    &[include_str!("schema/v2.sql")],
    &[include_str!("schema/v3.sql")],
    &[include_str!("schema/v4.sql")],
];

/// Every function of a log. They call each other with the rights of their caller.
const FUNCTIONS: [&str; 25] = [
    "append",
    "begin_write",
    "category_page",
    "change",
    "clear_documents",
    "erase",
    "find_ids",
    "get_document",
    "has_id",
    "hits",
    "item_positions",
    "lock_log",
    "log_end",
    "log_page",
    "next_match",
    "query_page",
    "renew_lineage",
    "retain",
    "scan_documents",
    "start_in_log",
    "start_in_stream",
    "stream_info",
    "stream_page",
    "tags_of",
    "write_documents",
];

/// The beginning of a transaction that looks for objects or makes them. Names without a schema,
/// including those of types and operators, then mean the server's own, whatever the role's path is.
const PIN_PATH: &str = "SET LOCAL search_path = pg_catalog, pg_temp;";

/// The server's properties, read over a connection before anything else.
struct Server {
    version: i32,
    encoding: String,
    is_standby: bool,
    is_durable: bool,
    has_schema: bool,
    has_log: bool,
}

/// The findings of an opening.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// True if a commit is on the disk when it is acknowledged.
    pub(crate) is_durable: bool,
    /// The work that was done on the tables and functions.
    applied: Applied,
}

/// The work that was done on a log's tables and functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Applied {
    /// None: they existed, in the version of this program.
    Present,
    /// They were made.
    Made,
    /// They were migrated from an older version to this program's.
    Migrated,
}

/// Makes the log in its schema. Opening does the same if the role has the right. Repeating it has
/// no effect.
///
/// # Errors
/// Those of [`PostgresStore::open`](crate::PostgresStore::open): one sentence that names the
/// server, database or schema, what is wrong with it, and the remedy.
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), factum_kernel::StoreError> {
/// use factum_postgres::{Applied, PostgresOptions, apply_schema};
///
/// let options = PostgresOptions::parse("postgres://owner@localhost/bank?schema=ledger")?;
/// apply_schema(&options).await?;
/// assert_eq!(apply_schema(&options).await?, Applied::Present);
/// # Ok(()) }
/// ```
pub async fn apply_schema(options: &PostgresOptions) -> Result<Applied, StoreError> {
    Ok(prepare(&Dialer::new(options)?, options).await?.applied)
}

/// The statements that make a log in a schema. Opening runs the same if the role has the right.
///
/// Run them in one transaction, once: each log has a lineage of its own. They set `search_path`
/// until that transaction ends.
///
/// ```
/// use factum_kernel::{Lineage, Uuid};
/// use factum_postgres::{SchemaName, schema_sql};
///
/// let lineage = Lineage::new(Uuid::from_u128(7));
/// let statements = schema_sql(&SchemaName::new("ledger")?, lineage);
/// assert!(statements.contains("CREATE TABLE \"ledger\".events"));
/// # Ok::<(), factum_kernel::StoreError>(())
/// ```
pub fn schema_sql(schema: &SchemaName, lineage: Lineage) -> String {
    let made = made(schema, lineage, &MIGRATIONS);
    format!("{PIN_PATH}\nCREATE SCHEMA IF NOT EXISTS {};\n{made}", schema.quoted())
}

fn made(schema: &SchemaName, lineage: Lineage, steps: Steps) -> String {
    format!(
        "{}\nINSERT INTO {}.log (schema_version, lineage) VALUES ({}, '{lineage}');\n",
        named(steps, schema),
        schema.quoted(),
        steps.len(),
    )
}

/// The statements that give a role the rights for working with a log, and no more. The role can
/// append, erase, write documents and renew the lineage. It can't make or migrate the log.
///
/// A role that only reads needs `USAGE` on the schema, `SELECT` on its tables and `EXECUTE` on its
/// functions. A role that may write to `events` directly can break every law.
///
/// ```
/// use factum_postgres::{RoleName, SchemaName, grants_sql};
///
/// let statements = grants_sql(&SchemaName::new("ledger")?, &RoleName::new("app")?);
/// assert!(statements.contains("GRANT SELECT, UPDATE ON \"ledger\".log TO \"app\";"));
/// # Ok::<(), factum_kernel::StoreError>(())
/// ```
pub fn grants_sql(schema: &SchemaName, role: &RoleName) -> String {
    let schema = schema.quoted();
    let role = role.quoted();
    let grant = |rights: &str, names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| format!("{schema}.{name}")).collect();
        format!("GRANT {rights} {} TO {role};\n", names.join(", "))
    };
    [
        format!("GRANT USAGE ON SCHEMA {schema} TO {role};\n"),
        grant("SELECT, INSERT, DELETE ON", &["events", "event_tags"]),
        grant("SELECT, INSERT, UPDATE, DELETE ON", &["erased", "streams", "documents"]),
        grant("SELECT, UPDATE ON", &["log"]),
        grant("SELECT, USAGE ON", &["document_revisions"]),
        grant("EXECUTE ON FUNCTION", &FUNCTIONS),
    ]
    .concat()
}

/// The statements of these migrations, for a schema.
fn named(steps: Steps, schema: &SchemaName) -> String {
    let texts: Vec<_> = steps.concat();
    let text = texts.join("\n");
    text.replace("@schema@", &schema.quoted()).replace("@name@", schema.as_str())
}

/// Checks the server, and makes the log or migrates it to the present version.
pub(crate) async fn prepare(
    dialer: &Dialer,
    options: &PostgresOptions,
) -> Result<Found, StoreError> {
    prepare_by(&MIGRATIONS, dialer, options).await
}

async fn prepare_by(
    steps: Steps,
    dialer: &Dialer,
    options: &PostgresOptions,
) -> Result<Found, StoreError> {
    let link = dialer.connect(None).await?;
    let place = dialer.place();
    let server = look(&link, &options.schema).await?;
    if server.version < SERVER_MIN {
        return Err(StoreError::invalid(format!(
            "PostgreSQL is too old, use 14 or later: version={}.{} {place}",
            server.version / 10_000,
            server.version % 10_000
        )));
    }
    if server.encoding != "UTF8" {
        return Err(StoreError::invalid(format!(
            "the database is not in UTF-8, create one with ENCODING 'UTF8': encoding={} {place}",
            server.encoding
        )));
    }
    let is_writer = options.access == Access::ReadWrite;
    if is_writer && server.is_standby {
        return Err(StoreError::unavailable(format!(
            "the server is a standby, connect to the primary, or open with mode=read: {place}"
        )));
    }
    let found = |applied| Found { is_durable: server.is_durable, applied };
    let version = if server.has_log { Some(version(&link, &options.schema).await?) } else { None };
    if is_present(version, steps, place)? {
        return Ok(found(Applied::Present));
    }
    if version.is_none() && (!is_writer || options.if_absent == IfAbsent::Refuse) {
        return Err(StoreError::invalid(format!(
            "there is no log in the schema, check the URL: {place}"
        )));
    }
    if !is_writer {
        return Err(StoreError::invalid(format!(
            "there is no log of this version to read, open it for writing once: {place}"
        )));
    }
    bring(&link, options, steps, server.has_schema).await.map(found)
}

async fn look(link: &Link, schema: &SchemaName) -> Result<Server, StoreError> {
    // Names are looked up in the catalog's tables, whose answers are current. The answer of
    // `to_regclass` may be older than a lock that this transaction has waited for.
    const LOOK: &str = "SELECT pg_catalog.current_setting('server_version_num')::integer, \
        pg_catalog.current_setting('server_encoding'), pg_catalog.pg_is_in_recovery(), \
        pg_catalog.current_setting('fsync')::boolean \
        AND pg_catalog.current_setting('full_page_writes')::boolean, \
        EXISTS (SELECT FROM pg_catalog.pg_namespace AS n \
        WHERE n.nspname OPERATOR(pg_catalog.=) $1), \
        EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n \
        ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
        WHERE n.nspname OPERATOR(pg_catalog.=) $1 AND c.relname OPERATOR(pg_catalog.=) 'log')";
    let rows = link.ask(LOOK, &[(&schema.as_str(), tokio_postgres::types::Type::TEXT)]).await;
    let rows = rows.map_err(error::of_read)?;
    let row = &rows[0];
    Ok(Server {
        version: get(row, 0)?,
        encoding: get(row, 1)?,
        is_standby: get(row, 2)?,
        is_durable: get(row, 3)?,
        has_schema: get(row, 4)?,
        has_log: get(row, 5)?,
    })
}

async fn version(link: &Link, schema: &SchemaName) -> Result<i32, StoreError> {
    let text = format!("SELECT schema_version FROM {}.log", schema.quoted());
    let rows = link.ask(&text, &[]).await.map_err(error::of_read)?;
    let row = rows.first().ok_or_else(|| {
        StoreError::corrupt(format!("the log has lost its row, restore a backup: schema={schema}"))
    })?;
    get(row, 0)
}

/// Makes the log, or migrates it to the present version, in one transaction and under a lock of its
/// own. If several processes start at once, one of them does it.
async fn bring(
    link: &Link,
    options: &PostgresOptions,
    steps: Steps,
    has_schema: bool,
) -> Result<Applied, StoreError> {
    link.run(&format!("BEGIN; {PIN_PATH} SELECT pg_advisory_xact_lock(1178682196)")).await?;
    let brought = bring_locked(link, options, steps, has_schema).await;
    link.run(if brought.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    brought
}

async fn bring_locked(
    link: &Link,
    options: &PostgresOptions,
    steps: Steps,
    has_schema: bool,
) -> Result<Applied, StoreError> {
    let schema = &options.schema;
    let place = options.place();
    let has_log = look(link, schema).await?.has_log;
    let version = if has_log { Some(version(link, schema).await?) } else { None };
    if is_present(version, steps, &place)? {
        return Ok(Applied::Present);
    }
    let quoted = schema.quoted();
    let Some(version) = version else {
        let lineage = Lineage::new(options.ids.uuid(options.clock.now()));
        // A role that may use a schema need not have the right to make one.
        let make = if has_schema { "" } else { &format!("CREATE SCHEMA IF NOT EXISTS {quoted};") };
        let made = format!("{make}\n{}", made(schema, lineage, steps));
        return link.run(&made).await.map(|()| Applied::Made).map_err(|e| rights(&place, e));
    };
    // No append is under way while functions and tables change.
    let lock = format!(
        "SELECT pg_advisory_xact_lock((1178682196::bigint << 32) | \
        '{schema}'::regnamespace::oid::bigint);"
    );
    let past = usize::try_from(version).unwrap_or(0);
    let statements = format!(
        "{lock}\n{}\nUPDATE {quoted}.log SET schema_version = {}",
        named(&steps[past..], schema),
        steps.len()
    );
    link.run(&statements).await.map(|()| Applied::Migrated).map_err(|e| rights(&place, e))
}

/// Returns whether a log of this version needs no work.
fn is_present(version: Option<i32>, steps: Steps, place: &str) -> Result<bool, StoreError> {
    let Some(version) = version else { return Ok(false) };
    let known = i32::try_from(steps.len()).expect("there are few versions");
    match version {
        1.. if version > known => Err(StoreError::invalid(format!(
            "the log was written by a newer program, use that one or a newer: schema={version} \
             known={known} {place}"
        ))),
        1.. => Ok(version == known),
        _ => Err(StoreError::corrupt(format!(
            "the log is of a version that never was, restore a backup: schema={version} {place}"
        ))),
    }
}

/// Adds the remedy if the role may not make the log.
fn rights(place: &str, error: StoreError) -> StoreError {
    match error.kind() {
        StoreErrorKind::Invalid => StoreError::invalid(format!(
            "the role may not make or migrate the log's tables, let one that may run `factum \
             schema apply`, or for a new log what `factum schema print` prints: {place}"
        ))
        .with_source(error),
        _ => error,
    }
}

#[cfg(test)]
mod tests;
