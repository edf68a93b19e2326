use std::thread;

use super::*;
use crate::synced::Recorded;

fn take(folder: &tempfile::TempDir) -> Result<Lock, StoreError> {
    Lock::take(&SystemFiles::open(folder.path()).unwrap())
}

fn journal() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in [LOG, DOCUMENTS] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    folder
}

/// A child process has such copies from its start until its program is loaded.
#[test]
fn copies_of_its_descriptors_do_not_keep_a_lock() {
    let folder = journal();
    let lock = take(&folder).unwrap();
    let copies: Vec<File> = lock.held.iter().map(|file| file.try_clone().unwrap()).collect();
    assert_eq!(copies.len(), 4, "three folders and a file");
    assert!(take(&folder).is_err());
    drop(lock);
    take(&folder).unwrap();
}

#[test]
fn a_writer_that_is_about_to_go_is_waited_for() {
    let folder = journal();
    for _ in 0..20 {
        let lock = take(&folder).unwrap();
        assert!(take(&folder).is_err());
        drop(lock.leave());
        thread::scope(|scope| {
            let next = scope.spawn(|| take(&folder).map(drop));
            thread::yield_now();
            drop(lock);
            next.join().unwrap().unwrap();
        });
    }
}

/// The handle of a closed store may outlive the next opening of its folder.
#[test]
fn a_handle_that_outlived_its_lock_says_nothing_of_the_next() {
    let folder = journal();
    let leave = take(&folder).unwrap().leave();
    let _next = take(&folder).unwrap();
    drop(leave);
    assert!(take(&folder).unwrap_err().to_string().contains("open in another"));
}

/// An older version locks only this file while it writes.
#[test]
fn a_locked_file_is_respected_as_the_folder_is() {
    let folder = journal();
    let old = File::create(folder.path().join(LOCK)).unwrap();
    old.try_lock().unwrap();
    assert!(take(&folder).unwrap_err().to_string().contains("open in another"));
    let top = SystemFiles::open(folder.path()).unwrap();
    assert!(Lock::share(&top).unwrap().is_none());
    old.unlock().unwrap();
    let lock = take(&folder).unwrap();
    assert!(matches!(old.try_lock(), Err(TryLockError::WouldBlock)), "and it respects ours");
    drop(lock);
    let shared = Lock::share(&top).unwrap();
    assert!(take(&folder).unwrap_err().to_string().contains("being verified"));
    drop(shared);
    take(&folder).unwrap();
}

/// The recorded end may be older than a power cut.
#[test]
fn readers_do_not_take_what_was_said_before_for_the_word_of_a_writer_that_comes() {
    let folder = journal();
    let log = SystemFiles::open(&folder.path().join(LOG)).unwrap();
    Synced::begin(&log, [7; 16], (1, 512)).unwrap();
    assert_eq!(Recorded::read(&log).unwrap().writer_end(), Some((1, 512)));
    let _lock = take(&folder).unwrap();
    let recorded = Recorded::read(&log).unwrap();
    // The recorded end stays, as the least that must be there.
    assert_eq!((recorded.writer_end(), recorded.reach()), (None, Some((1, 512))));
}

#[test]
fn where_folders_can_not_be_locked_a_writer_says_nothing_before_it_has_the_file() {
    let folder = journal();
    let log = SystemFiles::open(&folder.path().join(LOG)).unwrap();
    Synced::begin(&log, [7; 16], (1, 512)).unwrap();
    drop(take(&folder).unwrap());
    Synced::begin(&log, [7; 16], (1, 512)).unwrap();
    let top = SystemFiles::open_unlockable(folder.path()).unwrap();
    let shared = Lock::share(&top).unwrap().unwrap();
    assert!(Lock::take(&top).unwrap_err().to_string().contains("open in another"));
    assert_eq!(Recorded::read(&log).unwrap().writer_end(), Some((1, 512)));
    drop(shared);
    let _lock = Lock::take(&top).unwrap();
    assert_eq!(Recorded::read(&log).unwrap().writer_end(), None);
}

#[test]
fn a_shared_lock_becomes_a_writers_where_no_other_shares_it() {
    let folder = journal();
    drop(take(&folder).unwrap());
    let open = || SystemFiles::open(folder.path()).unwrap();
    let one = open();
    let other = open();
    let shared = Lock::share(&one).unwrap().unwrap();
    let second = Lock::share(&other).unwrap().unwrap();
    assert!(shared.for_writer(&one).unwrap_err().to_string().contains("being verified"));
    let lock = second.for_writer(&other).unwrap();
    assert!(Lock::share(&one).unwrap().is_none() && is_held(&one).unwrap());
    drop(lock);
    assert!(!is_held(&one).unwrap());
    take(&folder).unwrap();
}
