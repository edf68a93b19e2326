//! `factum lineage`: which history the positions of a log belong to.

use factum::Lineage;
use serde_json::json;

#[cfg(feature = "postgres")]
use crate::schema::postgres_at;
use crate::{args::LineageCommand, exit::Failure, output::Output, place};

/// Does what was asked for.
pub(crate) async fn run(command: &LineageCommand, out: &mut Output) -> Result<(), Failure> {
    let LineageCommand::Renew { store, json } = command;
    let lineage = renew(store).await?;
    let place = place::shown(store);
    if *json {
        return out.line(json!({ "store": place, "lineage": lineage.to_string() }));
    }
    out.line(format_args!("the lineage is {lineage} now, store={place}"))
}

async fn renew(store: &str) -> Result<Lineage, Failure> {
    #[cfg(feature = "postgres")]
    if let Some(options) = postgres_at(store)? {
        return renew_postgres(options).await;
    }
    renew_journal(store).await
}

#[cfg(feature = "postgres")]
async fn renew_postgres(options: factum::PostgresOptions) -> Result<Lineage, Failure> {
    use factum::{EventStore, PostgresAccess, PostgresStore};
    // Opened for writing, a mistyped name would become an empty log.
    let reading = options.clone().with_access(PostgresAccess::ReadOnly);
    PostgresStore::open(reading).await?.close().await?;
    let store = PostgresStore::open(options).await?;
    let renewed = store.renew_lineage().await;
    store.close().await?;
    Ok(renewed?)
}

#[cfg(feature = "journal")]
async fn renew_journal(store: &str) -> Result<Lineage, Failure> {
    let folder = place::journal_at(store)?;
    let renew = move || factum::renew_journal_lineage(&folder);
    Ok(tokio::task::spawn_blocking(renew).await??)
}

#[cfg(not(feature = "journal"))]
async fn renew_journal(store: &str) -> Result<Lineage, Failure> {
    let text = format!("this program is built without journals: store={store}");
    Err(Failure::new(crate::exit::Exit::Usage, text))
}
