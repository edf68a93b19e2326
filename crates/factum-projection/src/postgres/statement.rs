//! The statements of the target. The session's search path belongs to the handlers' statements and
//! can't be fixed here, so each name is qualified: tables, functions, operators and types.

use std::{sync::Arc, time::Duration};

use super::{
    name::{TargetSchema, literal},
    transaction::Limits,
};

/// The error of a handler's `COMMIT`, and of other ways to end the transaction.
pub(crate) const ENDED: &str = "the handler has ended the transaction that it was given, leave \
                                 that to the projection";

/// Allows the commit: the target runs this before its own commit.
pub(crate) const MAY_END: &str = "RESET default_transaction_read_only; CLOSE factum_batch";

/// Gives the connection back to the pool as it came. It is one message, so that a pooler can't give
/// the session to another client while it is read-only.
pub(crate) const ROLLBACK: &str = "ROLLBACK; RESET default_transaction_read_only";

/// True if the session is still in the batch's transaction.
pub(crate) const IS_OURS: &str = "SELECT coalesce(\
     pg_catalog.current_setting('factum.batch', true), '') OPERATOR(pg_catalog.<>) ''";

/// Ends the sessions that are in a batch of this consumer, if the role may. The fence would exclude
/// them, but until then they hold locks. `$1` and `$2` are the halves of the key.
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
/// Two things keep a handler from storing anything by ending the transaction. The first is a cursor
/// `WITH HOLD`: a commit has to fill it and fails, because its setting is not a number. So every
/// commit fails until [`MAY_END`] closes the cursor. The second is a read-only session, set by a
/// transaction before this one: statements after a `ROLLBACK` or after a failed commit store
/// nothing.
///
/// The limits are the given ones, or the role's own if they are lower.
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

/// Marks the session as in a batch of a consumer, so that the next owner can end it.
pub(crate) fn in_batch(key: u64) -> String {
    let key = key.cast_signed();
    format!("SELECT pg_catalog.pg_advisory_xact_lock_shared('{key}'::pg_catalog.int8)")
}

/// Converts to whole milliseconds, as the server counts. The result is at least 1, because zero
/// would mean no limit.
fn millis(limit: Duration) -> i32 {
    i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1)
}

/// The FNV-1a hash of a text, the same in every program.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// The lock for making tables; its key is "factumrm" in ASCII.
pub(crate) const LOCK: &str =
    "SELECT pg_catalog.pg_advisory_xact_lock(x'66616374756d726d'::bigint)";

/// Matches a consumer.
const IT: &str = "consumer OPERATOR(pg_catalog.=) $1";
/// Matches a consumer and its partitions.
const OF_IT: &str = "(consumer OPERATOR(pg_catalog.=) $1 \
    OR pg_catalog.starts_with(consumer, $1 OPERATOR(pg_catalog.||) '#'))";

/// The statements that contain the name of the schema.
#[derive(Debug)]
pub(crate) struct Statements {
    /// Two booleans: the schema exists, the tables exist.
    pub(crate) are_there: Arc<str>,
    pub(crate) schema: Arc<str>,
    pub(crate) tables: Arc<str>,
    pub(crate) enter: Arc<str>,
    /// Reads the row and locks it: an own commit with an unknown outcome has ended when the lock is
    /// granted.
    pub(crate) consumer: Arc<str>,
    /// Reads the row without a lock.
    pub(crate) consumer_now: Arc<str>,
    pub(crate) letters: Arc<str>,
    pub(crate) save: Arc<str>,
    pub(crate) put_letter: Arc<str>,
    pub(crate) remove_letter: Arc<str>,
    pub(crate) forget: Arc<str>,
    pub(crate) forget_letters: Arc<str>,
    /// True if a build was cleared. It waits while another process clears it.
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
            // The rows stay, because a fence that is used again would let a late writer through.
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
            // No process can have this fence, because a build's name is never used again.
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

/// The statements that make the tables of the progress.
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
