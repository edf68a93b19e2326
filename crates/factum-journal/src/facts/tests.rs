use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use factum_kernel::{Query, QueryItem, SystemClock, SystemIds};

use super::*;
use crate::{
    disk::SystemFiles,
    recovery::{self, Founded},
    tail::TailOptions,
};

/// More than there are processors, so that a reader is sometimes stopped between two locks.
const READERS: usize = 8;

fn log(folder: &Path) -> Arc<Log> {
    let options = TailOptions {
        ids: Arc::new(SystemIds),
        clock: Arc::new(SystemClock),
        segment_bytes: 4 << 10,
    };
    let files = Arc::new(SystemFiles::open(folder).unwrap());
    recovery::open(files, Founded::Never, &options).unwrap().log
}

/// Callers look up old facts before they queue, while the writer shows new ones. A look that locked
/// the active segment's index twice met a writer that waited for the lock in between, and both
/// waited forever.
#[test]
fn a_look_takes_no_lock_twice() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(folder.path());
    let is_done = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let active = log.view().tables.active().clone();
        let is_done = is_done.clone();
        move || {
            while !is_done.load(Ordering::Relaxed) {
                drop(active.write());
            }
        }
    });
    let (done, is_over) = mpsc::channel();
    for reader in 0..READERS {
        let log = log.clone();
        let done = done.clone();
        thread::spawn(move || {
            let view = log.view();
            for n in 0..30_000 {
                let stream = StreamId::new("account", &format!("{reader}-{n}")).unwrap();
                LogFacts::new(&log, &view).state(&stream).unwrap();
            }
            done.send(()).unwrap();
        });
    }
    let over = (0..READERS).map(|_| is_over.recv_timeout(Duration::from_secs(30)));
    let over: Result<Vec<()>, _> = over.collect();
    is_done.store(true, Ordering::Relaxed);
    over.expect("no look waits forever");
    writer.join().unwrap();
}

/// Callers look before the limits of a batch are checked.
#[test]
fn nothing_matches_after_the_last_number() {
    let folder = tempfile::tempdir().unwrap();
    let log = log(folder.path());
    let view = log.view();
    let after = Position::new(u64::MAX);
    let fail_if_events_match = Query::new([QueryItem::default()]);
    let found =
        LogFacts::new(&log, &view).first_match(&AppendCondition { fail_if_events_match, after });
    assert_eq!(found.unwrap(), None);
}
