use std::collections::BTreeMap;

use super::*;
use crate::{
    chunk,
    disk::SystemFiles,
    erased::Erased,
    key::{self, Term},
};

fn header(first: u64, last: u64) -> RunHeader {
    let lineage = Lineage::new(Uuid::from_u128(1));
    RunHeader { lineage, level: 0, first, last, segment: first, salt: 9 }
}

fn write(files: &dyn Files, header: RunHeader, entries: &BTreeMap<Vec<u8>, Vec<u8>>) -> Run {
    let mut builder = RunBuilder::new(files, header).unwrap();
    for (key, value) in entries {
        builder.add(key, value).unwrap();
    }
    Run::open(files, &builder.finish().unwrap()).unwrap()
}

fn tag_entry(n: u64) -> (Vec<u8>, Vec<u8>) {
    (Term::Tag(&format!("n:{n}")).key().at(n), chunk::encode(&[n]))
}

#[test]
fn every_key_is_found_from_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let files = SystemFiles::open(folder.path()).unwrap();
    let entries: BTreeMap<_, _> = (1..=5_000).map(|n| tag_entry(n * 2)).collect();
    let run = write(&files, header(1, 10_000), &entries);
    assert!(run.block_count() > 10);
    let cache = Cache::new();
    for n in 0..=10_001 {
        let (key, _) = tag_entry(n);
        let before = entries.range(..=key.clone()).next_back().map(|(key, _)| key.clone());
        let after = entries.range(key.clone()..).next().map(|(key, _)| key.clone());
        let found = run.at_or_before(&cache, &key).unwrap().map(|it| it.key().to_vec());
        assert_eq!(found, before, "at or before {n}");
        let found = run.at_or_after(&cache, &key).unwrap().map(|it| it.key().to_vec());
        assert_eq!(found, after, "at or after {n}");
        let found = run.at(&cache, &key).unwrap().map(|it| it.value().to_vec());
        assert_eq!(found.as_ref(), entries.get(&key));
    }
}

#[test]
fn merging_joins_chunks_and_keeps_the_newest_state() {
    let folder = tempfile::tempdir().unwrap();
    let files = SystemFiles::open(folder.path()).unwrap();
    let stream = Term::Stream("account-ada").key();
    let tag = Term::Tag("a:b").key();
    let runs: Vec<Run> = (0..3)
        .map(|part| {
            let first = part * 10 + 1;
            // A deletion takes a version between the second and the third run.
            let version = part * 2 + 1 + part / 2;
            let entries = BTreeMap::from([
                (stream.at(0), vec![part as u8]),
                (stream.at(version), chunk::encode(&[first, first + 1])),
                (tag.at(first), chunk::encode(&[first])),
            ]);
            write(&files, header(first, first + 9), &entries)
        })
        .collect();
    let merged = merge(&files, &runs.iter().collect::<Vec<_>>(), &|| false).unwrap().unwrap();
    let merged = Run::open(&files, &merged).unwrap();
    assert_eq!((merged.header.first, merged.header.last, merged.header.level), (1, 30, 1));
    assert_eq!(merged.header.segment, 21);
    let found: BTreeMap<_, _> = (0..merged.block_count())
        .flat_map(|block| merged.entries(block).unwrap())
        .map(|entry| (entry.key().to_vec(), entry.value().to_vec()))
        .collect();
    let wanted = BTreeMap::from([
        (stream.at(0), vec![2]),
        (stream.at(1), chunk::encode(&[1, 2, 11, 12])),
        (stream.at(6), chunk::encode(&[21, 22])),
        (tag.at(1), chunk::encode(&[1, 11, 21])),
    ]);
    assert_eq!(found, wanted);
}

/// A run that was rebuilt from a rewritten segment knows of positions that were erased after the
/// runs that follow it were written.
#[test]
fn merging_forgets_nothing_that_is_erased() {
    let folder = tempfile::tempdir().unwrap();
    let files = SystemFiles::open(folder.path()).unwrap();
    let erased = |positions: &[u64]| {
        let mut erased = Erased::default();
        positions.iter().for_each(|position| erased.insert(*position));
        erased
    };
    let parts = [&[3, 4, 5][..], &[4, 12], &[21]];
    let runs: Vec<Run> = parts
        .iter()
        .zip(0..)
        .map(|(positions, part)| {
            let entries = BTreeMap::from([(key::erased(0), erased(positions).encode(0))]);
            write(&files, header(part * 10 + 1, part * 10 + 10), &entries)
        })
        .collect();
    let merged = merge(&files, &runs.iter().collect::<Vec<_>>(), &|| false).unwrap().unwrap();
    let merged = Run::open(&files, &merged).unwrap();
    let entry = merged.at(&Cache::new(), &key::erased(0)).unwrap().unwrap();
    assert_eq!(entry.value(), erased(&[3, 4, 5, 12, 21]).encode(0));
}

#[test]
fn every_flipped_byte_is_noticed_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let files = SystemFiles::open(folder.path()).unwrap();
    let entries: BTreeMap<_, _> = (1..=100).map(tag_entry).collect();
    let name = write(&files, header(1, 100), &entries).name;
    let path = folder.path().join(&name);
    let bytes = std::fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
        let read = Run::open(&files, &name)
            .and_then(|run| (0..run.block_count()).try_for_each(|it| run.entries(it).map(|_| ())));
        assert!(read.is_err(), "byte {at}");
    }
}
