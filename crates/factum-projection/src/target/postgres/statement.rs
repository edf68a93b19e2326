//! What is said to PostgreSQL.

use std::sync::Arc;

use super::name::{TargetSchema, literal};

/// Begins a batch. What is set here goes with the transaction, which shows that it is still the
/// one that was begun.
pub(crate) const BEGIN: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL factum.batch = 'open'";

pub(crate) const IS_OURS: &str =
    "SELECT coalesce(current_setting('factum.batch', true), '') = 'open'";

/// Whoever holds a consumer's row is about to commit, or is cut off and will be found out.
pub(crate) const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '10s'";

/// "factumrm" in ASCII: the lock under which tables are made.
pub(crate) const LOCK: &str = "SELECT pg_advisory_xact_lock(x'66616374756d726d'::bigint)";

/// A consumer, and its partitions.
const OF_IT: &str = "(consumer = $1 OR starts_with(consumer, $1 || '#'))";

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
                "SELECT to_regnamespace({of_schema}) IS NOT NULL, \
                 to_regclass({of_table}) IS NOT NULL"
            )
            .into(),
            schema: make_schema(schema).into(),
            tables: tables(schema).into(),
            enter: format!(
                "INSERT INTO {consumers} (consumer, fence) VALUES ($1, 0) ON CONFLICT DO NOTHING"
            )
            .into(),
            consumer: format!(
                "SELECT fence, progress, mark FROM {consumers} WHERE consumer = $1 FOR UPDATE"
            )
            .into(),
            consumer_now: format!(
                "SELECT fence, progress, mark FROM {consumers} WHERE consumer = $1"
            )
            .into(),
            letters: format!("SELECT stream, letter FROM {letters} WHERE consumer = $1").into(),
            save: format!(
                "UPDATE {consumers} SET fence = fence + 1, progress = $3, \
                 mark = coalesce($4, mark) WHERE consumer = $1 AND fence = $2 \
                 AND current_setting('factum.batch', true) = 'open'"
            )
            .into(),
            put_letter: format!(
                "INSERT INTO {letters} (consumer, stream, letter) VALUES ($1, $2, $3) \
                 ON CONFLICT (consumer, stream) DO UPDATE SET letter = excluded.letter"
            )
            .into(),
            remove_letter: format!("DELETE FROM {letters} WHERE consumer = $1 AND stream = $2")
                .into(),
            // The rows stay: a fence that came again would let a straggler through.
            forget: format!(
                "UPDATE {consumers} SET fence = fence + 1, progress = NULL, mark = NULL \
                 WHERE {OF_IT}"
            )
            .into(),
            forget_letters: format!("DELETE FROM {letters} WHERE {OF_IT}").into(),
            is_closed: format!("SELECT fence < 0 FROM {consumers} WHERE consumer = $1 FOR SHARE")
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
    consumer text PRIMARY KEY,
    fence bigint NOT NULL,
    progress bytea,
    mark bytea
);
CREATE TABLE IF NOT EXISTS {schema}.factum_dead_letter (
    consumer text NOT NULL,
    stream text NOT NULL,
    letter bytea NOT NULL,
    PRIMARY KEY (consumer, stream)
);
"
    )
}
