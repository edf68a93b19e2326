//! Damage of every kind, by hand: each is reported with its file and place, and nothing else is.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use factum_journal::{Damage, JournalReport, JournalStore, Part, verify, verify_watched};
use factum_kernel::{
    DocumentStore, EventStore, ExpectedRevision, StreamChange, StreamVersion, WriteBatch,
};
use factum_testing::deletion;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::fresh::{files, grow, open, stream};
use crate::golden::copy;

/// A copy of a journal that is made once, with erased events, a deleted stream, documents and
/// several runs.
pub(crate) async fn rich_journal() -> TempDir {
    static MADE: OnceCell<TempDir> = OnceCell::const_new();
    let folder = tempfile::tempdir().unwrap();
    copy(MADE.get_or_init(make).await.path(), folder.path());
    folder
}

async fn make() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    grow(&store, 1_000).await;
    let truncate = StreamChange::TruncateBefore(StreamVersion::new(30));
    store.change(&stream("s1"), truncate).await.unwrap();
    store.append(deletion(stream("s2"))).await.unwrap();
    grow(&store, 400).await;
    for n in 0..50 {
        put(&store, n).await;
    }
    store.close().await.unwrap();
    folder
}

async fn put(store: &JournalStore, n: usize) {
    let key = format!("k{}", n % 7);
    let batch = WriteBatch::new().put(key, ExpectedRevision::Any, vec![n as u8; 100]);
    store.write(batch).await.unwrap();
}

pub(crate) fn flip(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// The offsets of a segment's frames, each of which begins with the segment's salt.
pub(crate) fn frames(segment: &Path) -> Vec<u64> {
    let bytes = fs::read(segment).unwrap();
    let salt = &bytes[32..40];
    let starts = (512..bytes.len()).step_by(8).filter(|at| bytes[*at..].starts_with(salt));
    starts.map(|at| at as u64).collect()
}

pub(crate) fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// The first position of a segment.
pub(crate) fn first(segment: &Path) -> u64 {
    name(segment)[..20].parse().unwrap()
}

#[track_caller]
fn only_damage(folder: &TempDir) -> Damage {
    let report = verify(folder.path()).unwrap();
    assert_eq!(report.damage_count, 1, "{report:#?}");
    report.damages.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_whole_journal_is_whole_and_every_byte_is_told_of() {
    let folder = rich_journal().await;
    let mut told = Vec::new();
    let report = verify_watched(folder.path(), &mut |done, all| told.push((done, all))).unwrap();
    assert!(report.is_whole() && report.torn.is_empty(), "{report:#?}");
    assert_eq!((report.events, report.streams, report.documents), (1_401, 10, 7));
    // 29 of the truncated stream, and the first 100 of the deleted one.
    assert_eq!(report.erased, 29 + 100);
    assert!(report.runs > 0 && report.segments > 8 && report.lineage.is_some());
    assert!(told.is_sorted() && told.iter().all(|(done, all)| done <= all));
    let (done, all) = told.last().copied().unwrap();
    assert!(done == all && done == report.bytes && done > 200_000, "{done} of {all}");
}

#[tokio::test]
async fn a_writer_at_work_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let writer = tokio::spawn(async move {
        grow(&store, 1_000).await;
        store.close().await.unwrap();
    });
    let mut looks = 0;
    while !writer.is_finished() {
        let path = folder.path().to_owned();
        let looked = tokio::task::spawn_blocking(move || verify(&path)).await.unwrap();
        // Until the writer has begun, there is nothing to verify.
        if let Ok(report) = looked {
            assert!(report.is_whole(), "{report:#?}");
            looks += u64::from(report.is_beside_writer);
        }
    }
    writer.await.unwrap();
    assert!(looks > 0);
}

#[tokio::test]
async fn a_flipped_bit_in_the_middle_of_the_log_is_one_damage_and_the_rest_is_looked_at() {
    let folder = rich_journal().await;
    let segment = files(folder.path(), ".log").remove(3);
    let starts = frames(&segment);
    flip(&segment, starts[10] + 60);
    let damage = only_damage(&folder);
    assert_eq!((damage.part, damage.file.clone()), (Part::Log, format!("log/{}", name(&segment))));
    assert_eq!(damage.offset, Some(starts[10]));
    let position = first(&segment) + 10;
    assert_eq!((damage.from, damage.through), (Some(position), Some(position)));
    // A second damage in the same segment, and one in another.
    flip(&segment, starts[20] + 60);
    flip(&files(folder.path(), ".log")[5], frames(&files(folder.path(), ".log")[5])[0] + 3);
    assert_eq!(verify(folder.path()).unwrap().damage_count, 3);
}

#[tokio::test]
async fn a_missing_segment_is_named_also_the_newest() {
    let folder = rich_journal().await;
    let segments = files(folder.path(), ".log");
    let lost = fs::read(&segments[2]).unwrap();
    fs::remove_file(&segments[2]).unwrap();
    let damage = only_damage(&folder);
    assert_eq!(damage.file, format!("log/{}", name(&segments[2])));
    let positions = (Some(first(&segments[2])), Some(first(&segments[3]) - 1));
    assert_eq!((damage.offset, (damage.from, damage.through)), (None, positions));
    fs::write(&segments[2], lost).unwrap();
    assert!(verify(folder.path()).unwrap().is_whole());

    let newest = segments.last().unwrap();
    fs::remove_file(newest).unwrap();
    let damage = only_damage(&folder);
    assert_eq!((damage.file, damage.from), (format!("log/{}", name(newest)), Some(first(newest))));
}

#[tokio::test]
async fn a_segment_that_was_cut_short_is_named_with_where_its_frames_end() {
    let folder = rich_journal().await;
    let segments = files(folder.path(), ".log");
    let starts = frames(&segments[4]);
    let file = fs::File::options().write(true).open(&segments[4]).unwrap();
    file.set_len(starts[5] + 10).unwrap();
    let damage = only_damage(&folder);
    assert_eq!(damage.file, format!("log/{}", name(&segments[4])));
    assert_eq!(damage.offset, Some(starts[5]));
    let positions = (Some(first(&segments[4]) + 5), Some(first(&segments[5]) - 1));
    assert_eq!((damage.from, damage.through), positions);
    assert!(damage.what.contains("too short"), "{damage}");
}

#[tokio::test]
async fn a_damaged_header_is_one_damage() {
    let folder = rich_journal().await;
    for index in [0, 3, files(folder.path(), ".log").len() - 1] {
        let segment = files(folder.path(), ".log").remove(index);
        flip(&segment, 41);
        let damage = only_damage(&folder);
        let place = (damage.file, damage.offset, damage.from);
        assert_eq!(place, (format!("log/{}", name(&segment)), Some(0), Some(first(&segment))));
        flip(&segment, 41);
    }
    assert!(verify(folder.path()).unwrap().is_whole());
}

#[tokio::test]
async fn a_torn_end_is_said_and_is_no_damage() {
    let folder = rich_journal().await;
    let segment = files(folder.path(), ".log").pop().unwrap();
    let starts = frames(&segment);
    // As after a crash: without the mark, with half a frame, and without a recorded end.
    let file = fs::File::options().write(true).open(&segment).unwrap();
    let end = fs::metadata(&segment).unwrap().len();
    let last = starts[starts.len() - 2];
    file.write_all_at(&vec![0; (end - last - 40) as usize], last + 40).unwrap();
    let damage = only_damage(&folder);
    assert_eq!((damage.file, damage.offset), (format!("log/{}", name(&segment)), Some(last)));
    fs::remove_file(folder.path().join("log/synced")).unwrap();
    let report = verify(folder.path()).unwrap();
    assert!(report.is_whole(), "{report:#?}");
    let torn: Vec<_> = report.torn.iter().map(|torn| (torn.file.clone(), torn.offset)).collect();
    assert_eq!(torn, [(format!("log/{}", name(&segment)), last)]);
}

#[tokio::test]
async fn a_damaged_run_is_named_with_its_block() {
    let folder = rich_journal().await;
    let run = files(folder.path(), ".index").remove(0);
    let blocks = blocks(&run);
    let (offset, len) = blocks[blocks.len() / 2];
    // In a block, in the list of blocks, in the footer.
    let size = fs::metadata(&run).unwrap().len();
    for (at, said) in [(offset + len / 2, Some(offset)), (size - 20, Some(size - 96))] {
        flip(&run, at);
        let damage = only_damage(&folder);
        assert_eq!((damage.part, damage.file), (Part::Index, format!("log/{}", name(&run))));
        assert_eq!(damage.offset, said);
        flip(&run, at);
    }
}

/// The blocks of a run: the offset and the length of each, with its checksum.
fn blocks(run: &Path) -> Vec<(u64, u64)> {
    let bytes = fs::read(run).unwrap();
    let footer = &bytes[bytes.len() - 96..];
    let at = |offset: usize| u64::from_le_bytes(footer[offset..offset + 8].try_into().unwrap());
    let mut list = &bytes[at(64) as usize..at(72) as usize - 4];
    let mut blocks = Vec::new();
    let mut offset = 0;
    while !list.is_empty() {
        let len = varint(&mut list);
        let key = varint(&mut list);
        list = &list[key as usize..];
        blocks.push((offset, len));
        offset += len;
    }
    blocks
}

pub(crate) fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}

/// Changes a value in a run, and corrects its block's checksum. Returns whether it did.
fn forge(run: &Path, change: impl Fn(&[u8], &mut [u8]) -> bool) -> bool {
    let mut bytes = fs::read(run).unwrap();
    for (offset, len) in blocks(run) {
        let block = &mut bytes[offset as usize..(offset + len) as usize];
        let end = block.len() - 4;
        let mut at = 0;
        while at < end {
            let mut rest = &block[at..end];
            let key_len = varint(&mut rest);
            let value_len = varint(&mut rest);
            let key = end - rest.len();
            let value = key + key_len as usize;
            at = value + value_len as usize;
            let name = block[key..value].to_vec();
            if change(&name, &mut block[value..at]) {
                let crc = crc32c::crc32c(&block[..end]).to_le_bytes();
                block[end..].copy_from_slice(&crc);
                fs::write(run, bytes).unwrap();
                return true;
            }
        }
    }
    false
}

#[tokio::test]
async fn a_run_that_says_something_else_is_known_by_the_log() {
    let kinds: [(&str, &[u8], usize); 7] = [
        ("category", b"c", 1),
        ("type", b"t", 1),
        ("tag", b"g", 1),
        ("places", b"p", 4),
        ("names", b"n", 3),
        ("stream's positions", b"saccount-s4", 1),
        ("erased", b"e", 1),
    ];
    let folder = rich_journal().await;
    let check = |what: &str, forged: &dyn Fn(&[u8], &mut [u8]) -> bool| {
        // The newest run that has such an entry.
        let runs = files(folder.path(), ".index");
        let before: Vec<_> = runs.iter().map(|run| fs::read(run).unwrap()).collect();
        let run = runs.iter().rposition(|run| forge(run, forged)).expect(what);
        let damage = only_damage(&folder);
        assert_eq!(damage.part, Part::Index, "{what}: {damage}");
        if what != "erased" {
            assert_eq!(damage.file, format!("log/{}", name(&runs[run])), "{what}: {damage}");
        }
        fs::write(&runs[run], &before[run]).unwrap();
    };
    for (what, kind, byte) in kinds {
        check(what, &|key, value| {
            // After the name of a stream come a zero and the version, which is not 0 here.
            let is_state = kind[0] == b's' && key.ends_with(&[0; 8]);
            let fits = key.starts_with(kind) && !is_state && value.len() > byte;
            if fits {
                value[byte] ^= 2;
            }
            fits
        });
    }
    check("how a stream is", &|key, value| {
        let fits = key.starts_with(b"saccount-s5") && key.ends_with(&[0; 8]);
        if fits {
            value[0] ^= 1;
        }
        fits
    });
    assert!(verify(folder.path()).unwrap().is_whole());
}

#[tokio::test]
async fn a_run_of_another_log_is_named() {
    let folder = rich_journal().await;
    let other = make().await;
    let run = files(folder.path(), ".index").remove(0);
    let theirs = files(other.path(), ".index").remove(0);
    fs::copy(&theirs, &run).unwrap();
    let damage = only_damage(&folder);
    assert_eq!((damage.part, &damage.file), (Part::Index, &format!("log/{}", name(&run))));
    assert!(damage.what.contains("another"), "{damage}");
}

fn document_segment(folder: &TempDir) -> PathBuf {
    folder.path().join("documents/00000000000000000001.log")
}

#[tokio::test]
async fn a_flipped_bit_in_the_documents_is_named() {
    let folder = rich_journal().await;
    let segment = document_segment(&folder);
    let starts = frames(&segment);
    flip(&segment, starts[7] + 50);
    let damage = only_damage(&folder);
    assert_eq!(
        (damage.part, &damage.file[..]),
        (Part::Documents, "documents/00000000000000000001.log")
    );
    assert_eq!((damage.offset, damage.from), (Some(starts[7]), Some(8)));
    assert!(damage.to_string().contains("revisions=8..=8"), "{damage}");
}

#[tokio::test]
async fn what_is_beside_the_logs_is_looked_at_too() {
    let folder = rich_journal().await;
    let marker = folder.path().join("factum-journal");
    let text = fs::read(&marker).unwrap();
    fs::remove_file(&marker).unwrap();
    assert_eq!(only_damage(&folder).file, "factum-journal");
    fs::write(&marker, text).unwrap();
    factum_journal::renew_lineage(folder.path()).unwrap();
    let report: JournalReport = verify(folder.path()).unwrap();
    assert!(report.is_whole(), "{report:#?}");
    flip(&folder.path().join("lineage"), 17);
    assert_eq!(only_damage(&folder).file, "lineage");
}
