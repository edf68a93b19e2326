//! What is said to PostgreSQL. The handlers' statements find names by the session's path, so it
//! can't be pinned: each name here is qualified, those of functions, operators and types as well.

use std::{sync::Arc, time::Duration};

use super::{
    name::{TargetSchema, literal},
    transaction::Limits,
};

/// What a handler's `COMMIT` fails with, among other signs of one.
pub(crate) const ENDED: &str = "the handler has ended the transaction that it was given, leave \
                                 that to the projection";

/// Before a commit: only its owner knows that the transaction may end now.
pub(crate) const MAY_END: &str = "RESET default_transaction_read_only; CLOSE factum_batch";

/// Gives the connection back to the pool as it came. It is one message, so that a pooler can't give
/// the session to another client while it is read-only.
pub(crate) const ROLLBACK: &str = "ROLLBACK; RESET default_transaction_read_only";

pub(crate) const IS_OURS: &str = "SELECT coalesce(pg_catalog.current_setting('factum.batch', true), '') \
     OPERATOR(pg_catalog.<>) ''";

/// Ends the sessions that are in a batch of this consumer, where the role may. They would be
/// fenced, but the locks that they hold until then are in the way. `$1` and `$2` are the halves of
/// the key.
pub(crate) const END_OTHERS: &str = "SELECT pg_catalog.pg_terminate_backend(l.pid)
    FROM pg_catalog.pg_locks l
    JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) l.pid
    WHERE (pg_catalog.pg_has_role(a.usesysid, 'MEMBER')
        OR pg_catalog.pg_has_role('pg_signal_backend', 'MEMBER'))
    AND locktype OPERATOR(pg_catalog.=) 'advisory'
    AND objsubid OPERATOR(pg_catalog.=) 1
    AND classid::pg_catalog.int8 OPERATOR(pg_catalog.=) $1
    AND objid::pg_catalog.int8 OPERATOR(pg_catalog.=) $2
    AND database OPERATOR(pg_catalog.=) (
        SELECT oid FROM pg_catalog.pg_database
        WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
    )
    AND l.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()";

/// Begins a batch, in one message.
///
/// Two things keep a handler from ending it. A cursor that is to be held over the commit is
/// filled by the commit, and this one can't be: its setting is no number. So every commit fails
/// until [`MAY_END`] closes it, whoever asks for it. And the session, by a transaction of its own
/// before, is read-only by default: what comes after a `ROLLBACK`, or after a commit that failed,
/// stores nothing.
///
/// The limits are those given, or the role's where they are lower.
pub(crate) fn begin(limits: Limits) -> String {
    let lock = millis(limits.lock);
    let statement = millis(limits.statement);
    format!(
        "BEGIN; SET default_transaction_read_only = on; COMMIT; \
         BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
         SELECT pg_catalog.set_config(name, CASE \
         WHEN pg_catalog.current_setting(name)::pg_catalog.interval \
         OPERATOR(pg_catalog.>) '0' \
         AND pg_catalog.current_setting(name)::pg_catalog.interval \
         OPERATOR(pg_catalog.<) most::pg_catalog.interval \
         THEN pg_catalog.current_setting(name) ELSE most END, true) \
         FROM (VALUES ('lock_timeout', '{lock}ms'), ('statement_timeout', '{statement}ms'), \
         ('idle_in_transaction_session_timeout', '{statement}ms')) AS limits (name, most); \
         SET LOCAL factum.batch = '{ENDED}'; \
         DECLARE factum_batch NO SCROLL CURSOR WITH HOLD FOR \
         SELECT pg_catalog.current_setting('factum.batch')::pg_catalog.int4"
    )
}

/// Tells the next owner of a consumer that this session is in a batch of it.
pub(crate) fn in_batch(key: u64) -> String {
    let key = key.cast_signed();
    format!("SELECT pg_catalog.pg_advisory_xact_lock_shared('{key}'::pg_catalog.int8)")
}

/// In whole milliseconds, as the server counts; zero would be no limit.
fn millis(limit: Duration) -> i32 {
    i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1)
}

/// The number of a text, the same in every program. FNV-1a.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

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
        let of_schema = literal(schema);
        let of_table = literal(&format!("{schema}.factum_dead_letter"));
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
                 OPERATOR(pg_catalog.<>) ''"
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
