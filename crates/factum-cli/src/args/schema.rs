//! The arguments of the commands for the tables and functions of a log in PostgreSQL.

use clap::Subcommand;
use factum::postgres::{RoleName, SCHEMA_DEFAULT, SchemaName};

/// The commands for a schema.
#[derive(Debug, Subcommand)]
pub(crate) enum SchemaCommand {
    Print(PrintArgs),
    Apply(ApplyArgs),
}

/// Print the SQL that creates a log, for a role that may run it
///
/// Connects to no server. The SQL is one transaction, to be run once: run again where a log exists,
/// it fails and changes nothing. Each print has a new lineage in it, so print the SQL again for
/// every log.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: schema, schema_version, lineage, sql.

Examples:
  factum schema print --schema ledger --role app > ledger.sql
  factum schema print | psql --set ON_ERROR_STOP=1 postgres://owner@host/bank")]
pub(crate) struct PrintArgs {
    /// The schema that will hold the log, 1 to 48 characters of a-z, 0-9 and _
    #[arg(long, value_name = "NAME", default_value = SCHEMA_DEFAULT)]
    pub(crate) schema: SchemaName,
    /// An existing role that gets the rights that working with the log needs, and no more
    #[arg(long, value_name = "NAME")]
    pub(crate) role: Option<RoleName>,
    /// Print one JSON object instead of SQL
    #[arg(long)]
    pub(crate) json: bool,
}

/// Create a log in a database, or migrate it to this program's version
///
/// Run it as a role that may create the schema. For such a role, opening a store does the same by
/// itself. A log of the right version stays as it is; a newer one is refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: store, schema, schema_version, made (false if the log existed), migrated.

Example:
  factum schema apply --store 'postgres://owner@host/bank?schema=ledger'")]
pub(crate) struct ApplyArgs {
    /// The database; the URL's option `schema` names the schema
    #[arg(long, value_name = "URL")]
    pub(crate) store: String,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}
