//! `factum schema`: the tables and functions of a log in PostgreSQL.

use factum::{
    postgres::{self, Applied, SCHEMA_VERSION},
    read::Lineage,
    store::{Clock, IdSource, SystemClock, SystemIds},
};
use serde_json::json;

use crate::{
    args::{ApplyArgs, PrintArgs, SchemaCommand},
    exit::{Exit, Failure},
    output::Output,
    place::Place,
};

/// Runs a command for the schema.
pub(crate) async fn run(command: &SchemaCommand, out: &mut Output) -> Result<(), Failure> {
    match command {
        SchemaCommand::Print(args) => print(args, out),
        SchemaCommand::Apply(args) => apply(args, out).await,
    }
}

fn print(args: &PrintArgs, out: &mut Output) -> Result<(), Failure> {
    let schema = &args.schema;
    let lineage = Lineage::new(SystemIds.uuid(SystemClock.now()));
    let tables = postgres::schema_sql(schema, lineage);
    let grants = args.role.as_ref().map(|role| postgres::grants_sql(schema, role));
    let sql = format!("BEGIN;\n{tables}{}COMMIT;\n", grants.unwrap_or_default());
    if args.json {
        let version = SCHEMA_VERSION;
        return out.line(json!({
            "schema": schema.as_str(), "schema_version": version, "lineage": lineage.to_string(),
            "sql": sql,
        }));
    }
    out.write(sql.as_bytes())
}

async fn apply(args: &ApplyArgs, out: &mut Output) -> Result<(), Failure> {
    let place = Place::find(&args.store)?;
    let Some(options) = place.postgres()? else {
        let text = format!(
            "schemas are for PostgreSQL, give a URL such as postgres://host/database: store={place}"
        );
        return Err(Failure::new(Exit::Usage, text));
    };
    let applied = postgres::apply_schema(&options).await?;
    let schema = options.schema.as_str();
    let version = SCHEMA_VERSION;
    let made = applied == Applied::Made;
    if args.json {
        return out.line(json!({
            "store": place.to_string(), "schema": schema, "schema_version": version, "made": made,
            "migrated": applied == Applied::Migrated,
        }));
    }
    let what = match applied {
        Applied::Made => "the log is made",
        Applied::Migrated => "the log is migrated",
        _ => "the log was there, nothing is changed",
    };
    out.line(format_args!("{what}: schema={schema} version={version} store={place}"))
}
