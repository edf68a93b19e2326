//! What can be asked about the tables and functions of a log in PostgreSQL.

use clap::Subcommand;
use factum::{POSTGRES_SCHEMA_DEFAULT, PostgresRoleName, PostgresSchemaName};

/// What can be done with a schema.
#[derive(Debug, Subcommand)]
pub(crate) enum SchemaCommand {
    Print(PrintArgs),
    Apply(ApplyArgs),
}

/// Print the SQL that makes a log, for a role that may run it
///
/// Connects to nothing. It is one transaction, to be run once: run again where a log is, it fails
/// and changes nothing. Each print has a new lineage in it, so every log gets a print of its own.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: schema, schema_version, lineage, sql.

Examples:
  factum schema print --schema ledger --role app > ledger.sql
  factum schema print | psql --set ON_ERROR_STOP=1 postgres://owner@host/bank")]
pub(crate) struct PrintArgs {
    /// The schema that will hold the log, 1 to 48 of a-z, 0-9 and _
    #[arg(long, value_name = "NAME", default_value = POSTGRES_SCHEMA_DEFAULT)]
    pub(crate) schema: PostgresSchemaName,
    /// A role that is there, to be given the rights that working with the log takes, and no more
    #[arg(long, value_name = "NAME")]
    pub(crate) role: Option<PostgresRoleName>,
    /// Print one JSON object instead of SQL
    #[arg(long)]
    pub(crate) json: bool,
}

/// Make a log in a database, as a role that may, or bring it to this program's version
///
/// What opening does by itself for a role that may create the schema. What is there in the right
/// version stays as it is; what is newer is refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: store, schema, schema_version, and made, false if it was there.

Example:
  factum schema apply --store 'postgres://owner@host/bank?schema=ledger'")]
pub(crate) struct ApplyArgs {
    /// The database, and in its option schema the schema
    #[arg(long, value_name = "URL")]
    pub(crate) store: String,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}
