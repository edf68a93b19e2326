//! Repairs: what is set aside, what is left, and that nothing is lost without permission.

use std::{fs, os::unix::fs::FileExt, path::Path};

use factum_journal::{JournalRepair, Loss, repair, verify};
use factum_kernel::{
    DocumentStore, EventStore, ExpectedRevision, KeyRange, Lineage, ScanQuery, StoreErrorKind,
    WriteBatch,
};
use tempfile::TempDir;

use crate::{
    fresh::{check_log, files, files_in, grow, open},
    lineage::lineage,
    reading::follow,
    verifying::{first, flip, frames, name, rich_journal},
};

fn repaired(folder: &TempDir, loss: Loss) -> JournalRepair {
    repair(folder.path(), loss, &mut |_, _| {}).unwrap()
}

/// Every file of a folder with its bytes.
fn everything(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything(&path));
        } else if name(&path) != "lock" {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// The lineage in its pages.
async fn shown(folder: &TempDir) -> Lineage {
    let store = open(folder.path()).await;
    let shown = lineage(&store).await;
    store.close().await.unwrap();
    shown
}

/// Opens it; after some more work, expects this many positions and no damage.
async fn goes_on(folder: &TempDir, events: u64) {
    let store = open(folder.path()).await;
    assert_eq!(check_log(&store).await.value(), events);
    grow(&store, 100).await;
    assert_eq!(check_log(&store).await.value(), events + 100);
    store.close().await.unwrap();
    drop(store);
    let report = verify(folder.path()).unwrap();
    assert!(report.is_whole() && report.torn.is_empty(), "{report:#?}");
}

#[tokio::test]
async fn a_whole_journal_is_left_alone() {
    let folder = rich_journal().await;
    let before = everything(folder.path());
    let done = repaired(&folder, Loss::Accepted);
    assert!(done.is_done && done.folder.is_none() && done.files.is_empty(), "{done:#?}");
    assert_eq!(everything(folder.path()), before);
}

#[tokio::test]
async fn damaged_runs_are_moved_away_and_made_anew_and_no_event_is_lost() {
    let folder = rich_journal().await;
    let before = shown(&folder).await;
    for run in files(folder.path(), ".index") {
        flip(&run, 70);
    }
    let damaged: Vec<_> = files(folder.path(), ".index").iter().map(|run| name(run)).collect();
    let done = repaired(&folder, Loss::Refused);
    assert!(done.is_done && done.events.is_none() && done.lineage.is_none(), "{done:#?}");
    assert!(done.left.is_whole());
    let aside = folder.path().join(done.folder.unwrap());
    for run in damaged {
        assert!(aside.join("log").join(&run).is_file(), "{run}");
    }
    goes_on(&folder, 1_401).await;
    assert_eq!(shown(&folder).await, before);
}

#[tokio::test]
async fn a_damaged_log_is_ended_only_when_the_loss_is_accepted() {
    let folder = rich_journal().await;
    let before = shown(&folder).await;
    let segments = files(folder.path(), ".log");
    let damaged = &segments[6];
    flip(damaged, frames(damaged)[12] + 60);
    let untouched = everything(folder.path());
    let position = first(damaged) + 12;

    let said = repaired(&folder, Loss::Refused);
    assert!(!said.is_done && said.folder.is_some(), "{said:#?}");
    let lost = said.events.unwrap();
    assert_eq!((lost.from, lost.through), (position, Some(1_401)));
    assert_eq!(everything(folder.path()), untouched, "nothing is done");

    let done = repaired(&folder, Loss::Accepted);
    assert_eq!((done.is_done, done.events, &done.files), (true, said.events, &said.files));
    assert!(done.left.is_whole() && done.left.events == position - 1, "{:#?}", done.left);
    let aside = folder.path().join(done.folder.unwrap());
    for (path, bytes) in untouched.iter().filter(|(path, _)| path.ends_with(".log")) {
        let path = Path::new(path);
        if path.parent().unwrap().ends_with("log") && first(path) >= first(damaged) {
            assert_eq!(&fs::read(aside.join("log").join(name(path))).unwrap(), bytes);
        }
    }
    let note = fs::read_to_string(aside.join("repair.txt")).unwrap();
    assert!(note.contains(&format!("Positions out of the journal: {position} to 1401")), "{note}");

    let after = shown(&folder).await;
    assert!(after != before && Some(after) == done.lineage);
    goes_on(&folder, position - 1).await;
}

#[tokio::test]
async fn every_damage_of_the_log_can_be_repaired() {
    type Harm = fn(&Path);
    let cases: [(&str, Harm); 6] = [
        ("a header", |segment| flip(segment, 41)),
        ("missing", |segment| fs::remove_file(segment).unwrap()),
        ("cut short", |segment| {
            let file = fs::File::options().write(true).open(segment).unwrap();
            file.set_len(frames(segment)[5] + 10).unwrap();
        }),
        ("the first frame", |segment| flip(segment, 515)),
        ("the last frame", |segment| flip(segment, frames(segment).pop().unwrap() + 3)),
        ("zeros", |segment| {
            let file = fs::File::options().write(true).open(segment).unwrap();
            file.write_all_at(&[0; 3_000], 2_000).unwrap();
        }),
    ];
    for (what, damage) in cases {
        for at in ["first", "middle", "last"] {
            let folder = rich_journal().await;
            let segments = files(folder.path(), ".log");
            damage(match at {
                "first" => &segments[0],
                "middle" => &segments[5],
                _ => &segments[segments.len() - 1],
            });
            let done = repaired(&folder, Loss::Accepted);
            assert!(done.left.is_whole() && done.found.damage_count > 0, "{what}, {at}: {done:#?}");
            let from = done.events.unwrap().from;
            let store = open(folder.path()).await;
            assert_eq!(check_log(&store).await.value(), from - 1, "{what}, {at}");
            assert_eq!(Some(lineage(&store).await), done.lineage);
            grow(&store, 30).await;
            store.close().await.unwrap();
            drop(store);
            let report = verify(folder.path()).unwrap();
            assert!(report.is_whole(), "{what}, {at}: {report:#?}");
        }
    }
}

#[tokio::test]
async fn damaged_documents_are_ended_like_a_log_and_events_stay() {
    let folder = rich_journal().await;
    let before = shown(&folder).await;
    let segment = folder.path().join("documents/00000000000000000001.log");
    flip(&segment, frames(&segment)[20] + 50);
    let said = repaired(&folder, Loss::Refused);
    assert!(!said.is_done && said.documents.unwrap().from == 21, "{said:#?}");
    let done = repaired(&folder, Loss::Accepted);
    assert!(done.left.is_whole() && done.events.is_none() && done.lineage.is_none(), "{done:#?}");
    let store = open(folder.path()).await;
    assert_eq!(check_log(&store).await.value(), 1_401);
    assert_eq!(lineage(&store).await, before);
    let page = store.scan(ScanQuery::new(KeyRange::all())).await.unwrap();
    let revisions = page.documents.iter().map(|it| it.revision.value());
    assert_eq!((page.documents.len(), revisions.max()), (7, Some(20)));
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_is_beside_the_logs_is_made_anew() {
    let folder = rich_journal().await;
    fs::remove_file(folder.path().join("factum-journal")).unwrap();
    let done = repaired(&folder, Loss::Refused);
    assert!(done.is_done && done.left.is_whole() && done.lineage.is_none(), "{done:#?}");
    factum_journal::renew_lineage(folder.path()).unwrap();
    flip(&folder.path().join("lineage"), 20);
    let done = repaired(&folder, Loss::Refused);
    assert!(done.is_done && done.left.is_whole() && done.left.lineage == done.lineage);
    assert!(folder.path().join(done.folder.unwrap()).join("lineage").is_file());
    goes_on(&folder, 1_401).await;
}

#[tokio::test]
async fn a_repair_is_refused_beside_a_writer() {
    let folder = rich_journal().await;
    let store = open(folder.path()).await;
    let error = repair(folder.path(), Loss::Accepted, &mut |_, _| {}).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    store.close().await.unwrap();
    let empty = tempfile::tempdir().unwrap();
    let error = repair(empty.path(), Loss::Accepted, &mut |_, _| {}).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Invalid);
}

#[tokio::test]
async fn a_reader_that_is_open_sees_that_documents_were_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let put =
        |key: &'static str, value: String| WriteBatch::new().put(key, ExpectedRevision::Any, value);
    let writer = open(folder.path()).await;
    let reader = follow(folder.path()).await;
    let idle = follow(folder.path()).await;
    for key in ["a", "b", "c", "d"] {
        writer.write(put(key, key.repeat(2_000))).await.unwrap();
        assert!(reader.get(key.as_bytes()).await.unwrap().is_some());
        assert!(idle.get(key.as_bytes()).await.unwrap().is_some());
    }
    writer.close().await.unwrap();
    drop(writer);
    assert!(reader.get(b"d").await.unwrap().is_some());
    let log = &files_in(folder.path(), "documents", ".log")[1];
    flip(log, frames(log)[2] + 60);
    assert_eq!(repaired(&folder, Loss::Accepted).documents.unwrap().from, 3);

    let writer = open(folder.path()).await;
    for length in [1, 1_000, 10_000, 1] {
        writer.write(put("new", "n".repeat(length))).await.unwrap();
        let query = || ScanQuery::new(KeyRange::all());
        let there = writer.scan(query()).await.unwrap().documents;
        assert_eq!(reader.scan(query()).await.unwrap().documents, there);
        let keys: Vec<_> = there.iter().map(|it| &it.key[..]).collect();
        assert_eq!(keys, [&b"a"[..], b"b", b"new"]);
    }
    // By now the log is longer than it was, but different.
    assert!(idle.get(b"d").await.unwrap().is_none());
    writer.close().await.unwrap();
}
