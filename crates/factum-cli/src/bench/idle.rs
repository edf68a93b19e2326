//! `factum bench idle`: what an entity takes in memory that nobody asks anything.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use factum::{App, EntityOptions};
use factum_testing::bank::Account;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    args::IdleArgs,
    exit::{Exit, Failure},
    number::{self, grouped},
    output::Output,
    stopwatch::Stopwatch,
};

/// Who activates them.
const CLIENTS: u64 = 16;
/// Linux counts memory in pages of this size where this program is built for it.
const PAGE_BYTES: u64 = 4_096;

/// Measures, and says what came out.
pub(crate) async fn run(args: &IdleArgs, out: &mut Output) -> Result<(), Failure> {
    let options = EntityOptions::new().with_idle(None).with_weight_max(usize::MAX);
    let app = App::builder().with_entities(options).open("memory:").await?;
    app.entities::<Account>().look("first", |_, _| ()).await.map_err(failed)?;
    let before = resident_bytes()?;
    let begun = Stopwatch::start();
    activate(&app, args.entities).await?;
    let elapsed = begun.elapsed();
    let grown = resident_bytes()?.saturating_sub(before);
    let resident = app.stats().total.resident as u64;
    assert_eq!(resident, args.entities + 1, "all of them are in memory");
    app.close().await?;
    let (each, state) = (grown / args.entities, size_of::<Account>() as u64);
    let (beside, rate) = (each.saturating_sub(state), number::per_second(args.entities, elapsed));
    if args.json {
        return out.line(json!({
            "bench": "idle", "store": "memory", "clients": CLIENTS, "entities": args.entities,
            "seconds": elapsed.as_secs_f64(), "events_per_s": rate,
            "bytes_per_entity": each, "state_bytes": state, "bytes_beside_state": beside,
        }));
    }
    out.line(out.paint().bold("bench idle"))?;
    out.line(format_args!("  entities  {} idle in memory", grouped(args.entities)))?;
    out.line(format_args!("  rate      {} activations per second", number::rate(rate)))?;
    out.line(format_args!("  memory    {each} bytes each, {beside} beside a state of {state}"))
}

async fn activate(app: &App, count: u64) -> Result<(), Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (accounts, next) = (app.entities::<Account>(), next.clone());
        clients.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return Ok(());
                }
                let key = format!("customer-{n:08}");
                accounts.look(key, |_, _| ()).await.map_err(failed)?;
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.map_err(Failure::from).flatten()?;
    }
    Ok(())
}

fn failed(error: factum::EntityError) -> Failure {
    Failure::internal(factum::sentence(&error))
}

fn resident_bytes() -> Result<u64, Failure> {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let text = "this system does not say what a process takes, run it on Linux: \
                file=/proc/self/statm";
    pages.map(|pages| pages * PAGE_BYTES).ok_or_else(|| Failure::new(Exit::Usage, text))
}
