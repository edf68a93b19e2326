use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use factum_core::{SystemClock, SystemIds};

use super::*;
use crate::{
    disk::SystemFiles,
    recovery::{self, Founded},
    tail::TailOptions,
};

/// More than there are processors, so that one is stopped between two locks now and then.
const READERS: usize = 8;

/// Callers look up old facts before they queue, beside the writer that shows new ones. A look that
/// held the lock of the active segment's index and took it once more met a writer that waited for
/// it in between, and both waited for ever.
#[test]
fn a_look_takes_no_lock_twice() {
    let folder = tempfile::tempdir().unwrap();
    let options = TailOptions {
        ids: Arc::new(SystemIds),
        clock: Arc::new(SystemClock),
        segment_bytes: 4 << 10,
    };
    let files = Arc::new(SystemFiles::open(folder.path()).unwrap());
    let log = recovery::open(files, Founded::Never, &options).unwrap().log;
    let is_done = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (active, is_done) = (log.view().tables.active().clone(), is_done.clone());
        move || {
            while !is_done.load(Ordering::Relaxed) {
                drop(active.write());
            }
        }
    });
    let (done, is_over) = mpsc::channel();
    for reader in 0..READERS {
        let (log, done) = (log.clone(), done.clone());
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
    over.expect("no look waits for ever");
    writer.join().unwrap();
}
