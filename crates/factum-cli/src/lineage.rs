//! `factum lineage`: the identity of the history that the positions of a log belong to.

use factum::read::Lineage;
use serde_json::json;

use crate::{args::LineageCommand, exit::Failure, output::Output, place::Place};

/// Runs a command for the lineage.
pub(crate) async fn run(command: &LineageCommand, out: &mut Output) -> Result<(), Failure> {
    let LineageCommand::Renew { store, json } = command;
    let (place, lineage) = renew(store).await?;
    if *json {
        return out.line(json!({ "store": place.to_string(), "lineage": lineage.to_string() }));
    }
    out.line(format_args!("the lineage is now {lineage}, store={place}"))
}

async fn renew(store: &str) -> Result<(Place, Lineage), Failure> {
    #[cfg(feature = "postgres")]
    {
        let place = Place::find(store)?;
        if let Some(options) = place.postgres()? {
            return Ok((place, renew_postgres(options).await?));
        }
    }
    renew_journal(store).await
}

#[cfg(feature = "postgres")]
async fn renew_postgres(options: factum::postgres::PostgresOptions) -> Result<Lineage, Failure> {
    use factum::{EventStore, postgres::PostgresStore, store::IfAbsent};

    let store = PostgresStore::open(options.with_if_absent(IfAbsent::Refuse)).await?;
    let renewed = store.renew_lineage().await;
    store.close().await?;
    Ok(renewed?)
}

#[cfg(feature = "journal")]
async fn renew_journal(store: &str) -> Result<(Place, Lineage), Failure> {
    let (place, folder) = crate::place::journal_at(store)?;
    let renew = move || factum::journal::renew_lineage(&folder);
    Ok((place, tokio::task::spawn_blocking(renew).await??))
}

#[cfg(not(feature = "journal"))]
async fn renew_journal(store: &str) -> Result<(Place, Lineage), Failure> {
    let place = Place::find(store)?;
    let text = format!("this program is built without journals: store={place}");
    Err(Failure::new(crate::exit::Exit::Usage, text))
}
