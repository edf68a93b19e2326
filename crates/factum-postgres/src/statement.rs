//! All statements, most of them calls of the schema's functions. Values are bound, never pasted.
//! Only the schema's name is pasted, which its type has checked. Every name is qualified, so that
//! functions and operators are the same whatever the session's `search_path` is.

use crate::name::SchemaName;

/// The identity of the answering server, as a number that it got when it was started. A promoted
/// standby is another server, even if a pooler switches to it under an open connection.
const SERVER: &str = "pg_catalog.timestamptz_send(pg_catalog.pg_postmaster_start_time())";

/// The statements on one schema.
#[derive(Debug)]
pub(crate) struct Statements {
    /// On a server other than the one that it names, it does nothing and answers with no row.
    pub(crate) append: String,
    pub(crate) append_in: String,
    pub(crate) change: String,
    pub(crate) renew_lineage: String,
    pub(crate) find_ids: String,
    pub(crate) are_erased: String,
    pub(crate) log_end: String,
    pub(crate) stream_info: String,
    pub(crate) log_page: String,
    pub(crate) stream_page: String,
    pub(crate) category_page: String,
    pub(crate) query_page: String,
    pub(crate) get_document: String,
    pub(crate) scan_documents: String,
    pub(crate) write_documents: String,
    pub(crate) clear_documents: String,
}

impl Statements {
    pub(crate) fn new(schema: &SchemaName) -> Self {
        let call = |function: &str, parameters: usize| {
            let parameters: Vec<_> = (1..=parameters).map(|n| format!("${n}")).collect();
            format!("SELECT * FROM {}.{function}({})", schema.quoted(), parameters.join(", "))
        };
        Self {
            append: format!("{} WHERE {SERVER} OPERATOR(pg_catalog.=) $30", call("append", 29)),
            append_in: call("append", 29),
            change: call("change", 7),
            renew_lineage: call("renew_lineage", 2),
            find_ids: find_ids(&schema.quoted()),
            are_erased: are_erased(&schema.quoted()),
            log_end: format!("SELECT *, {SERVER} FROM {}.log_end()", schema.quoted()),
            stream_info: call("stream_info", 1),
            log_page: call("log_page", 5),
            stream_page: call("stream_page", 6),
            category_page: call("category_page", 6),
            query_page: call("query_page", 9),
            get_document: call("get_document", 1),
            scan_documents: call("scan_documents", 5),
            write_documents: call("write_documents", 4),
            clear_documents: call("clear_documents", 4),
        }
    }
}

/// The events that have one of the ids `$6`, in parts of streams. A part has a stream, a first and
/// last version, a first position and a first time. A binary search finds the beginning of a part.
/// Each part has at least one row, which holds the version through which the stream is erased at
/// that moment.
fn find_ids(schema: &str) -> String {
    format!(
        "SELECT w.stream, i.o_erased, e.id, e.position, e.version, e.recorded_at \
         FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), \
         pg_catalog.unnest($4), pg_catalog.unnest($5)) AS w (stream, first, last, position, since) \
         CROSS JOIN LATERAL {schema}.stream_info(w.stream) AS i \
         CROSS JOIN LATERAL (SELECT greatest(w.first, \
         {schema}.start_in_stream(w.stream, 2, w.position, true, i.o_version, i.o_erased), \
         {schema}.start_in_stream(w.stream, 4, w.since, true, i.o_version, i.o_erased)) \
         AS version) AS f \
         LEFT JOIN LATERAL (SELECT a.id, a.position, a.version, a.recorded_at \
         FROM {schema}.events AS a WHERE a.stream OPERATOR(pg_catalog.=) w.stream \
         AND a.version OPERATOR(pg_catalog.>=) f.version \
         AND a.version OPERATOR(pg_catalog.<=) w.last \
         AND a.id OPERATOR(pg_catalog.=) ANY ($6) ORDER BY a.version) AS e ON true"
    )
}

/// Those ranges of positions whose events are all erased.
fn are_erased(schema: &str) -> String {
    format!(
        "SELECT w.first, w.last \
         FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS w (first, last) \
         WHERE NOT EXISTS (SELECT FROM {schema}.events AS e \
         WHERE e.position OPERATOR(pg_catalog.>=) w.first \
         AND e.position OPERATOR(pg_catalog.<=) w.last)"
    )
}
