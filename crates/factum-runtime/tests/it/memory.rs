//! The memory of an idle entity, measured in a process that does nothing else.

use std::{
    env,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use factum_kernel::{Kernel, Repository};
use factum_memory::MemoryStore;
use factum_runtime::Entities;

use crate::{bench::options, counter::Counter};

const ENTITIES: usize = 100_000;
const CHILD: &str = "FACTUM_RUNTIME_MEMORY_CHILD";

#[cfg(target_os = "linux")]
#[test]
fn an_idle_entity_takes_less_than_a_kibibyte_beside_its_state() {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "memory::idle_entities", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let bytes = text.lines().find_map(|line| line.split_once("bytes_each=")).expect(&text).1;
    let bytes: usize = bytes.trim().parse().unwrap();
    assert!((100..1_024 + size_of::<Counter>()).contains(&bytes), "{bytes} bytes each");
}

/// The test above runs this in a process of its own, because other tests would change the result.
#[tokio::test]
async fn idle_entities() {
    if env::var_os(CHILD).is_none() {
        return;
    }
    let store = Arc::new(MemoryStore::new());
    let kernel = Kernel::new(store.clone(), store);
    let counters = Entities::<Counter>::new(Repository::new(kernel), options());
    counters.look("first", |_, _| ()).await.unwrap();
    let before = resident_bytes();
    let next = Arc::new(AtomicUsize::new(0));
    let lookers = (0..8).map(|_| {
        let counters = counters.clone();
        let next = next.clone();
        tokio::spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= ENTITIES {
                    break;
                }
                counters.look(format!("customer-{n:08}"), |_, _| ()).await.unwrap();
            }
        })
    });
    for looker in lookers.collect::<Vec<_>>() {
        looker.await.unwrap();
    }
    assert_eq!(counters.stats().resident, ENTITIES + 1);
    println!("bytes_each={}", (resident_bytes() - before) / ENTITIES);
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * 4_096
}
