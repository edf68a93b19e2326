use std::thread;

use super::*;

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

/// A child process has them from its beginning until its program is loaded.
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

/// What an older version holds while it writes.
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
