//! The memory of an idle entity: the growth of the process with `--entities` accounts without
//! events, on a store in memory. Only on systems with /proc/self/statm.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use factum_kernel::{Kernel, Repository, TagKey};
use factum_memory::MemoryStore;
use factum_runtime::{Entities, EntityOptions};
use factum_testing::{Arguments, bank::Account};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Failure, now, since};

/// The number of tasks that activate entities.
const CLIENTS: u64 = 16;
/// Linux counts memory in pages of this size where this program is built for it.
const PAGE_BYTES: u64 = 4_096;

/// Measures the memory of one idle entity.
pub(super) async fn run(mut arguments: Arguments) -> Result<Value, Failure> {
    let entities = arguments.number("--entities", 1_000_000)?;
    arguments.end()?;
    let options = EntityOptions::new().with_idle(None).with_weight_max(usize::MAX);
    let store = Arc::new(MemoryStore::new());
    let kernel = Kernel::new(store.clone(), store).with_tag_key(TagKey::new([1; 32]));
    let accounts = Entities::<Account>::new(Repository::new(kernel), options);
    accounts.look("first", |_, _| ()).await?;
    let before = resident_bytes()?;
    let begun = now();
    activate(&accounts, entities).await?;
    let seconds = since(begun).as_secs_f64();
    let grown = resident_bytes()?.saturating_sub(before);
    assert_eq!(accounts.stats().resident as u64, entities + 1, "all of them are in memory");
    accounts.shutdown(Duration::from_secs(30)).await;
    let each = grown / entities;
    let state = size_of::<Account>() as u64;
    Ok(json!({
        "bench": "idle", "store": "memory", "clients": CLIENTS, "entities": entities,
        "seconds": seconds, "events_per_s": entities as f64 / seconds, "bytes_per_entity": each,
        "state_bytes": state, "bytes_beside_state": each.saturating_sub(state),
    }))
}

async fn activate(accounts: &Entities<Account>, count: u64) -> Result<(), Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let accounts = accounts.clone();
        let next = next.clone();
        clients.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return Ok::<_, Failure>(());
                }
                accounts.look(format!("customer-{n:08}"), |_, _| ()).await?;
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok(())
}

fn resident_bytes() -> Result<u64, Failure> {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let text = "this system does not say what a process takes, run it on Linux: \
                file=/proc/self/statm";
    pages.map(|pages| pages * PAGE_BYTES).ok_or_else(|| text.into())
}
