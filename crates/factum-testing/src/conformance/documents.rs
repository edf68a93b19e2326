//! The laws of documents.

use std::{collections::BTreeMap, ops::Deref};

use bytes::Bytes;
use factum_kernel::{
    Direction, Document, DocumentStore, ExpectedRevision, KeyRange, Revision, ScanQuery,
    StoreErrorKind, WriteBatch, WriteError,
};
use tokio::{sync::Barrier, task::JoinSet};

use super::{
    failure::{CaseResult, Stop, Within, ensure, ensure_eq},
    trial::{Bench, Trial},
};

const ANY: ExpectedRevision = ExpectedRevision::Any;
const ABSENT: ExpectedRevision = ExpectedRevision::Absent;

fn put(key: impl Into<Bytes>, expected: ExpectedRevision, value: &'static str) -> WriteBatch {
    WriteBatch::new().put(key, expected, value)
}

fn exact(revision: Revision) -> ExpectedRevision {
    ExpectedRevision::Exact(revision)
}

/// The documents of a fresh store. Its subject, and with it the store's files, lives as long.
#[derive(Clone)]
struct Fresh(Trial);

impl Deref for Fresh {
    type Target = dyn DocumentStore;

    fn deref(&self) -> &Self::Target {
        &*self.0.stores.documents
    }
}

async fn documents(bench: &Bench) -> CaseResult<Fresh> {
    bench.open().await.map(Fresh)
}

/// Every document, by one scan after another.
async fn scan_all(store: &dyn DocumentStore, query: ScanQuery) -> CaseResult<Vec<Document>> {
    let mut found: Vec<Document> = vec![];
    let mut query = query;
    for pages in 0.. {
        let place = format!("{query:?}");
        let page = store.scan(query.clone()).await.within(|| place.clone())?;
        let bytes: usize = page.documents.iter().map(|d| d.key.len() + d.value.len()).sum();
        let len = page.documents.len();
        ensure!(len <= query.documents_max, "{place}: {len} documents on a page");
        ensure!(bytes <= query.bytes_max || len == 1, "{place}: {bytes} bytes on a page");
        ensure!(page.rest.is_none() || len > 0, "{place}: an empty page that is not the last");
        ensure!(pages < 1_000, "{place}: no end of pages");
        found.extend(page.documents);
        match page.rest {
            Some(rest) => query.range = rest,
            None => break,
        }
    }
    Ok(found)
}

async fn revision_of(store: &dyn DocumentStore, key: &str) -> CaseResult<Option<Revision>> {
    Ok(store.get(key.as_bytes()).await?.map(|document| document.revision))
}

async fn conflicts(store: &dyn DocumentStore, batch: WriteBatch, wanted: usize) -> CaseResult {
    match store.write(batch).await {
        Err(WriteError::Conflict { entry }) => {
            ensure_eq!(entry, wanted, "the entry that conflicts");
            Ok(())
        }
        other => Err(Stop::failed(format!("a write at another revision ended with {other:?}"))),
    }
}

/// A written document is read at once, and every entry has the revision in the answer.
pub(crate) async fn a_written_document_is_read_at_once(bench: Bench) -> CaseResult {
    let store = documents(&bench).await?;
    ensure_eq!(store.get(b"a").await?, None, "a document that never was");
    let first = store.write(put("a", ANY, "1").put("b", ABSENT, "2")).await?;
    ensure!(first > Revision::ZERO, "the first revision is {first}");
    let wanted = Document { key: "a".into(), revision: first, value: "1".into() };
    ensure_eq!(store.get(b"a").await?, Some(wanted), "the document under `a`");
    ensure_eq!(revision_of(&*store, "b").await?, Some(first), "revision of `b`");
    let second = store.write(put("a", ANY, "").remove("b", ANY)).await?;
    ensure!(second > first, "revision {second} after {first}");
    let wanted = Document { key: "a".into(), revision: second, value: Bytes::new() };
    ensure_eq!(store.get(b"a").await?, Some(wanted), "an empty document");
    ensure_eq!(store.get(b"b").await?, None, "a removed document");
    Ok(())
}

/// `Any`, `Absent` and `Exact`, for an existing and for an absent document.
pub(crate) async fn every_expected_revision(bench: Bench) -> CaseResult {
    let store = documents(&bench).await?;
    let other = Revision::new(99);
    conflicts(&*store, put("a", exact(other), "x"), 0).await?;
    conflicts(&*store, WriteBatch::new().remove("a", exact(other)), 0).await?;
    store.write(WriteBatch::new().remove("a", ANY).remove("b", ABSENT)).await?;
    let first = store.write(put("a", ABSENT, "1")).await?;
    for expected in
        [ABSENT, exact(first.next()), exact(first.previous()), exact(Revision::new(u64::MAX))]
    {
        conflicts(&*store, put("a", expected, "x"), 0).await?;
        conflicts(&*store, WriteBatch::new().remove("a", expected), 0).await?;
    }
    let second = store.write(put("a", exact(first), "2")).await?;
    conflicts(&*store, put("a", exact(first), "x"), 0).await?;
    store.write(WriteBatch::new().remove("a", exact(second))).await?;
    conflicts(&*store, put("a", exact(second), "x"), 0).await?;
    store.write(put("a", ABSENT, "3")).await?;
    Ok(())
}

/// `Exact(0)` is `Absent`, for a key that never existed and for one whose document was removed.
pub(crate) async fn an_absent_document_is_at_revision_zero(bench: Bench) -> CaseResult {
    let store = documents(&bench).await?;
    let zero = exact(Revision::ZERO);
    store.write(WriteBatch::new().remove("a", zero)).await?;
    for value in ["1", "2"] {
        let revision = store.write(put("a", zero, value)).await?;
        conflicts(&*store, put("a", zero, "x"), 0).await?;
        conflicts(&*store, WriteBatch::new().remove("a", zero), 0).await?;
        ensure_eq!(revision_of(&*store, "a").await?, Some(revision), "revision of `a`");
        store.write(WriteBatch::new().remove("a", exact(revision))).await?;
    }
    Ok(())
}

/// One entry at another revision, wherever it is: nothing is written, removed or counted.
pub(crate) async fn a_write_is_whole_or_not_at_all(bench: Bench) -> CaseResult {
    let store = documents(&bench).await?;
    store.write(put("there", ANY, "1").put("kept", ANY, "1")).await?;
    let before = scan_all(&*store, ScanQuery::new(KeyRange::all())).await?;
    for wrong in 0..4 {
        let mut batch = WriteBatch::new();
        for at in 0..4 {
            let key = format!("new-{at}");
            batch = match at {
                at if at == wrong => batch.put("there", ABSENT, "2"),
                3 => batch.remove("kept", ANY),
                _ => batch.put(key, ANY, "2"),
            };
        }
        conflicts(&*store, batch, wrong).await?;
        let after = scan_all(&*store, ScanQuery::new(KeyRange::all())).await?;
        ensure_eq!(after, before, "documents after a write whose entry {wrong} conflicted");
    }
    Ok(())
}

/// 16 writers expect one revision, or none: one wins, and the document is the winner's.
pub(crate) async fn one_of_sixteen_writers_wins(bench: Bench) -> CaseResult {
    let store = documents(&bench).await?;
    let mut expected = ABSENT;
    for round in 0..12 {
        let barrier = std::sync::Arc::new(Barrier::new(16));
        let mut set = JoinSet::new();
        for at in 0..16 {
            let store = store.clone();
            let barrier = barrier.clone();
            set.spawn(async move {
                let value = Bytes::from(format!("{round}.{at}"));
                let batch = WriteBatch::new().put("lease", expected, value.clone());
                barrier.wait().await;
                (value, store.write(batch).await)
            });
        }
        let mut winners = vec![];
        while let Some(joined) = set.join_next().await {
            match joined.map_err(|e| Stop::failed(format!("a write panicked: {e}")))? {
                (value, Ok(revision)) => winners.push((value, revision)),
                (_, Err(WriteError::Conflict { entry: 0 })) => {}
                (_, Err(other)) => return Err(other.into()),
            }
        }
        ensure_eq!(winners.len(), 1, "winners among 16 writers that expect {expected:?}");
        let (value, revision) = winners.remove(0);
        let wanted = Document { key: "lease".into(), revision, value };
        ensure_eq!(store.get(b"lease").await?, Some(wanted), "the document after round {round}");
        expected = exact(revision);
    }
    Ok(())
}

/// Larger than every earlier one: after removal, after `clear`, and under other keys.
pub(crate) async fn revisions_are_never_given_again(bench: Bench) -> CaseResult {
    let store = documents(&bench).await?;
    let mut last = Revision::ZERO;
    for round in 0..8 {
        for batch in [put("a", ANY, "1"), put(format!("k-{round}"), ANY, "1").put("b", ANY, "2")] {
            let revision = store.write(batch).await?;
            ensure!(revision > last, "revision {revision} after {last}, round {round}");
            last = revision;
        }
        match round % 3 {
            0 => drop(store.write(WriteBatch::new().remove("a", ANY)).await?),
            1 => store.clear(KeyRange::all()).await?,
            _ => {}
        }
    }
    Ok(())
}

/// An empty write does nothing, and is not an error.
pub(crate) async fn an_empty_write_does_nothing(bench: Bench) -> CaseResult {
    let store = documents(&bench).await?;
    let none = store.write(WriteBatch::new()).await?;
    ensure_eq!(none, Revision::ZERO, "answer to an empty write before the first");
    let first = store.write(put("a", ANY, "1")).await?;
    for _ in 0..2 {
        let again = store.write(WriteBatch::new()).await?;
        ensure_eq!(again, first, "answer to an empty write");
    }
    ensure_eq!(revision_of(&*store, "a").await?, Some(first), "revision after an empty write");
    Ok(())
}

/// Keys that differ in a byte, in length, in case, and in bytes that are not UTF-8.
fn keys() -> Vec<Bytes> {
    let keys: [&[u8]; 14] = [
        &[0],
        &[0, 0],
        &[0, 1],
        b"A",
        b"a",
        b"a\0",
        b"a/",
        b"a/1",
        b"a/10",
        b"a/2",
        b"b",
        &[0xc3, 0xa9],
        &[0xff],
        &[0xff, 0xff],
    ];
    keys.iter().map(|key| Bytes::from_static(key)).collect()
}

async fn with_keys(bench: &Bench) -> CaseResult<(Fresh, BTreeMap<Bytes, usize>)> {
    let store = documents(bench).await?;
    let mut sizes = BTreeMap::new();
    // Written in another order than that of the keys.
    for (at, key) in keys().into_iter().enumerate().rev() {
        let size = [0, 3, 40, 7][at % 4];
        store.write(WriteBatch::new().put(key.clone(), ANY, vec![b'x'; size])).await?;
        sizes.insert(key, size);
    }
    Ok((store, sizes))
}

/// Every range between two keys, and by prefix; in both directions; in pages of any number and
/// size.
pub(crate) async fn scans_are_in_key_order_at_every_boundary(bench: Bench) -> CaseResult {
    let (store, sizes) = with_keys(&bench).await?;
    let mut ranges = vec![KeyRange::all(), KeyRange::new("b", "a"), KeyRange::new("a", "a")];
    for prefix in [&b""[..], b"a", b"a/", b"a/1", b"z", &[0], &[0xff], &[0xff, 0xff], &[0xc3]] {
        ranges.push(KeyRange::prefix(Bytes::from_static(prefix)));
    }
    for pair in keys().windows(3) {
        ranges.push(KeyRange::new(pair[0].clone(), pair[2].clone()));
        ranges.push(KeyRange { from: pair[1].clone(), to: None });
    }
    for range in ranges {
        for (documents_max, bytes_max) in [(1, 1_000), (2, 1_000), (3, 30), (100, 0), (100, 1_000)]
        {
            let query = ScanQuery::new(range.clone())
                .with_documents_max(documents_max)
                .with_bytes_max(bytes_max);
            for query in [query.clone(), query.backward()] {
                check_scan(&*store, &sizes, query).await?;
            }
        }
    }
    Ok(())
}

async fn check_scan(
    store: &dyn DocumentStore,
    sizes: &BTreeMap<Bytes, usize>,
    query: ScanQuery,
) -> CaseResult {
    let found = scan_all(store, query.clone()).await?;
    let within = sizes.iter().filter(|(key, _)| query.range.contains(key));
    let mut wanted: Vec<_> = within.map(|(key, size)| (key.clone(), *size)).collect();
    if query.direction == Direction::Backward {
        wanted.reverse();
    }
    let found: Vec<_> = found.into_iter().map(|d| (d.key, d.value.len())).collect();
    ensure_eq!(found, wanted, "keys and sizes scanned by {query:?}");
    Ok(())
}

/// `clear` removes the range and nothing else, and may be repeated.
pub(crate) async fn clear_takes_its_range_only(bench: Bench) -> CaseResult {
    for range in [
        KeyRange::prefix("a/"),
        KeyRange::new("A", "b"),
        KeyRange::prefix(Bytes::from_static(&[0xff])),
        KeyRange::new("x", "y"),
        KeyRange::new("b", "a"),
        KeyRange::all(),
    ] {
        let (store, sizes) = with_keys(&bench).await?;
        store.clear(range.clone()).await?;
        store.clear(range.clone()).await?;
        let found = scan_all(&*store, ScanQuery::new(KeyRange::all())).await?;
        let found: Vec<_> = found.into_iter().map(|document| document.key).collect();
        let wanted: Vec<_> = sizes.into_keys().filter(|key| !range.contains(key)).collect();
        ensure_eq!(found, wanted, "keys left after clearing {range:?}");
    }
    Ok(())
}

/// A range of more documents than a store clears in one step: all of them go, no other does, and
/// revisions go on.
pub(crate) async fn a_large_range_is_cleared_whole(bench: Bench) -> CaseResult {
    const COUNT: u32 = 2_500;
    let store = documents(&bench).await?;
    let most = store.0.guarantees().limits.write_documents_max.min(100);
    let key = |n: u32| n.to_be_bytes().to_vec();
    let mut last = Revision::ZERO;
    for first in (0..COUNT).step_by(most) {
        let numbers = (first..COUNT).take(most);
        let batch = numbers.fold(WriteBatch::new(), |batch, n| batch.put(key(n), ANY, "v"));
        last = store.write(batch).await?;
    }
    store.clear(KeyRange::new(key(10), key(2_400))).await?;
    let left = scan_all(&*store, ScanQuery::new(KeyRange::all())).await?;
    ensure_eq!(left.len(), 110, "documents left after clearing 2,390 of 2,500");
    let wanted = (0..10).chain(2_400..COUNT).map(key);
    let other = left.iter().zip(wanted).find(|(document, key)| document.key != key[..]);
    ensure_eq!(other, None, "a document left after clearing, and which should be");
    store.clear(KeyRange::all()).await?;
    let left = scan_all(&*store, ScanQuery::new(KeyRange::all())).await?;
    ensure_eq!(left.len(), 0, "documents left after clearing all");
    let again = store.write(WriteBatch::new().put(key(1), ABSENT, "v")).await?;
    ensure!(again > last, "revision {again} after {last} and a clearing");
    Ok(())
}

/// The largest and the most fit, one more does not; invalid writes are refused, and nothing is
/// written.
pub(crate) async fn documents_have_limits(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let limits = trial.guarantees().limits;
    let store = trial.stores.documents;
    let key = |len: usize| vec![b'k'; len];
    let value = |len: usize| vec![b'v'; len];
    let many = |count: usize| {
        (0..count).fold(WriteBatch::new(), |batch, at| batch.put(format!("many-{at}"), ANY, "v"))
    };
    let refused = [
        ("an empty key", put("", ANY, "v")),
        ("the removal of an empty key", WriteBatch::new().remove("", ANY)),
        ("a key twice", put("a", ANY, "v").put("a", ANY, "v")),
        ("a key written and removed", put("a", ANY, "v").remove("a", ANY)),
        ("a key that is too long", put(key(limits.document_key_bytes_max + 1), ANY, "v")),
        (
            "a document that is too large",
            WriteBatch::new().put("a", ANY, value(limits.document_bytes_max + 1)),
        ),
        ("too many documents", many(limits.write_documents_max + 1)),
    ];
    for (what, batch) in refused {
        match store.write(batch).await {
            Err(WriteError::Store(error)) if error.kind() == StoreErrorKind::Invalid => {}
            other => return Err(Stop::failed(format!("{what} was answered with {other:?}"))),
        }
    }
    let left = scan_all(&*store, ScanQuery::new(KeyRange::all())).await?;
    ensure_eq!(left.len(), 0, "documents after refused writes");

    let largest = value(limits.document_bytes_max);
    store.write(WriteBatch::new().put(key(limits.document_key_bytes_max), ANY, largest)).await?;
    let found = store.get(&key(limits.document_key_bytes_max)).await?;
    let len = found.map(|document| document.value.len());
    ensure_eq!(len, Some(limits.document_bytes_max), "bytes of the largest document");
    store.write(many(limits.write_documents_max)).await?;
    let found = scan_all(&*store, ScanQuery::new(KeyRange::prefix("many-"))).await?;
    ensure_eq!(found.len(), limits.write_documents_max, "documents of the largest write");
    Ok(())
}

/// A page without room is invalid.
pub(crate) async fn impossible_scans_are_invalid(bench: Bench) -> CaseResult {
    let store = documents(&bench).await?;
    match store.scan(ScanQuery::new(KeyRange::all()).with_documents_max(0)).await {
        Err(error) if error.kind() == StoreErrorKind::Invalid => Ok(()),
        other => Err(Stop::failed(format!("a scan without room was answered with {other:?}"))),
    }
}

/// While writers move two documents together, no page shows one without the other.
pub(crate) async fn a_scan_is_one_snapshot(bench: Bench) -> CaseResult {
    let store = documents(&bench).await?;
    store.write(put("left", ANY, "0").put("right", ANY, "0")).await?;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for round in 0..60_u32 {
                let value = round.to_string();
                let batch =
                    WriteBatch::new().put("left", ANY, value.clone()).put("right", ANY, value);
                store.write(batch).await?;
            }
            Ok::<_, WriteError>(())
        }
    });
    while !writer.is_finished() {
        let page = store.scan(ScanQuery::new(KeyRange::all())).await?;
        ensure_eq!(page.documents.len(), 2, "documents on the page");
        let left = &page.documents[0];
        let right = &page.documents[1];
        ensure_eq!(left.revision, right.revision, "revisions of two documents written together");
        ensure_eq!(left.value, right.value, "values of two documents written together");
        tokio::task::yield_now().await;
    }
    writer.await.map_err(|e| Stop::failed(format!("a writer panicked: {e}")))??;
    Ok(())
}
