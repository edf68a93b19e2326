//! What is said to PostgreSQL. The handlers' statements find names by the session's path, so it
//! can't be pinned: each name here is qualified, those of functions, operators and types as well.

use std::sync::Arc;

use super::name::{TargetSchema, literal};

/// Begins a batch. What is set here goes with the transaction, which shows that it is still the
/// one that was begun.
pub(crate) const BEGIN: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL factum.batch = 'open'";

pub(crate) const IS_OURS: &str = "SELECT coalesce(pg_catalog.current_setting('factum.batch', true) \
     OPERATOR(pg_catalog.=) 'open', false)";

/// Whoever holds a consumer's row is about to commit, or is cut off and will be found out.
pub(crate) const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '10s'";

/// "factumrm" in ASCII: the lock under which tables are made.
pub(crate) const LOCK: &str =
    "SELECT pg_catalog.pg_advisory_xact_lock(x'66616374756d726d'::bigint)";

/// A consumer.
const IT: &str = "consumer OPERATOR(pg_catalog.=) $1";
/// A consumer, and its partitions.
const OF_IT: &str = "(consumer OPERATOR(pg_catalog.=) $1 \
    OR pg_catalog.starts_with(consumer, $1 OPERATOR(pg_catalog.||) '#'))";

/// The statements that name the schema.
#[derive(Debug)]
pub(crate) struct Statements {
    /// Whether the schema and the tables are there.
    pub(crate) are_there: Arc<str>,
    pub(crate) schema: Arc<str>,
    pub(crate) tables: Arc<str>,
    pub(crate) enter: Arc<str>,
    /// Locked, so that a commit of ours whose outcome is unknown has ended, one way or other.
    pub(crate) consumer: Arc<str>,
    /// As it is, whoever is at it.
    pub(crate) consumer_now: Arc<str>,
    pub(crate) letters: Arc<str>,
    pub(crate) save: Arc<str>,
    pub(crate) put_letter: Arc<str>,
    pub(crate) remove_letter: Arc<str>,
    pub(crate) forget: Arc<str>,
    pub(crate) forget_letters: Arc<str>,
    /// Whether a build was cleared; waits until it is, if somebody is about to.
    pub(crate) is_closed: Arc<str>,
    pub(crate) close: Arc<str>,
}

impl Statements {
    pub(crate) fn new(schema: &TargetSchema) -> Self {
        let schema = &schema.quoted();
        let (of_schema, of_table) =
            (literal(schema), literal(&format!("{schema}.factum_dead_letter")));
        let consumers = format!("{schema}.factum_consumer");
        let letters = format!("{schema}.factum_dead_letter");
        Self {
            are_there: format!(
                "SELECT pg_catalog.to_regnamespace({of_schema}) IS NOT NULL, \
                 pg_catalog.to_regclass({of_table}) IS NOT NULL"
            )
            .into(),
            schema: make_schema(schema).into(),
            tables: tables(schema).into(),
            enter: format!(
                "INSERT INTO {consumers} (consumer, fence) VALUES ($1, 0) ON CONFLICT DO NOTHING"
            )
            .into(),
            consumer: format!(
                "SELECT fence, progress, mark FROM {consumers} WHERE {IT} FOR UPDATE"
            )
            .into(),
            consumer_now: format!("SELECT fence, progress, mark FROM {consumers} WHERE {IT}")
                .into(),
            letters: format!("SELECT stream, letter FROM {letters} WHERE {IT}").into(),
            save: format!(
                "UPDATE {consumers} SET fence = fence OPERATOR(pg_catalog.+) 1, progress = $3, \
                 mark = coalesce($4, mark) WHERE {IT} AND fence OPERATOR(pg_catalog.=) $2 \
                 AND pg_catalog.current_setting('factum.batch', true) \
                 OPERATOR(pg_catalog.=) 'open'"
            )
            .into(),
            put_letter: format!(
                "INSERT INTO {letters} (consumer, stream, letter) VALUES ($1, $2, $3) \
                 ON CONFLICT (consumer, stream) DO UPDATE SET letter = excluded.letter"
            )
            .into(),
            remove_letter: format!(
                "DELETE FROM {letters} WHERE {IT} AND stream OPERATOR(pg_catalog.=) $2"
            )
            .into(),
            // The rows stay: a fence that came again would let a straggler through.
            forget: format!(
                "UPDATE {consumers} SET fence = fence OPERATOR(pg_catalog.+) 1, \
                 progress = NULL, mark = NULL WHERE {OF_IT}"
            )
            .into(),
            forget_letters: format!("DELETE FROM {letters} WHERE {OF_IT}").into(),
            is_closed: format!(
                "SELECT fence OPERATOR(pg_catalog.<) 0 FROM {consumers} WHERE {IT} FOR SHARE"
            )
            .into(),
            // A build's name never comes again, so nobody's fence is this one.
            close: format!(
                "UPDATE {consumers} SET fence = -1, progress = NULL, mark = NULL WHERE {OF_IT}"
            )
            .into(),
        }
    }
}

pub(crate) fn make_schema(schema: &str) -> String {
    format!("CREATE SCHEMA IF NOT EXISTS {schema};\n")
}

/// The tables that progress is kept in.
pub(crate) fn tables(schema: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {schema}.factum_consumer (
    consumer pg_catalog.text PRIMARY KEY,
    fence bigint NOT NULL,
    progress pg_catalog.bytea,
    mark pg_catalog.bytea
);
CREATE TABLE IF NOT EXISTS {schema}.factum_dead_letter (
    consumer pg_catalog.text NOT NULL,
    stream pg_catalog.text NOT NULL,
    letter pg_catalog.bytea NOT NULL,
    PRIMARY KEY (consumer, stream)
);
"
    )
}
