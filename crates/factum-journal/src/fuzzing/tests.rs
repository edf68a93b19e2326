use std::{collections::HashSet, env, fs, path::Path};

use super::*;
use crate::{
    number::u64_at,
    simulation::{Random, segments},
};

/// The inputs that the fuzzer, and the mutations here, begin with.
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/frames");
/// Tells `make` to write it: `cargo test -p factum-journal --lib fuzzing::tests::make`.
const MAKE: &str = "FACTUM_JOURNAL_MAKE_CORPUS";

/// The number of mutations of each file.
fn mutations() -> u64 {
    let is_full = env::var_os("FACTUM_TEST_FULL").is_some();
    if is_full { 100_000 } else { 3_000 }
}

/// Not a test of its own; it made the corpus: whole segments, torn ones, and segments with a
/// flipped bit.
#[test]
fn make() {
    if env::var_os(MAKE).is_none() {
        return;
    }
    fs::create_dir_all(CORPUS).unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(Path::new(CORPUS).join(name), bytes).unwrap();
    let segments = segments(1);
    let last = segments.len() - 1;
    for (name, index) in [("first", 0), ("middle", last / 2), ("closed", last)] {
        let bytes = &segments[index].1;
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        let shown = read_segment(bytes);
        let frame = shown[shown.len() / 2];
        put(&format!("{name}-whole"), bytes);
        let mut torn = bytes[..used + 1].to_vec();
        let half = ((frame.start + frame.end) / 2).min(torn.len());
        torn[half..].fill(0);
        put(&format!("{name}-torn"), &torn);
        let mut flipped = bytes.clone();
        flipped[frame.start + 40] ^= 4;
        put(&format!("{name}-flipped"), &flipped);
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(CORPUS).unwrap().map(|it| it.unwrap().path()).collect();
    // The fuzzer adds other files there, which are not kept.
    let kinds = ["whole", "torn", "flipped"];
    paths.retain(|path| kinds.iter().any(|kind| path.to_string_lossy().ends_with(kind)));
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A frame as it was written: the segment's salt, the frame's offset, its bytes.
type Written = (u64, usize, Vec<u8>);

fn written(bytes: &[u8], shown: &Shown) -> Written {
    // Without the padding of up to seven bytes, which carries nothing.
    let end = shown.start + FRAME_HEADER_BYTES + u32_at(bytes, shown.start + 12) as usize;
    (u64_at(bytes, 32), shown.start, bytes[shown.start..end].to_vec())
}

fn mutate(random: &mut Random, corpus: &[Vec<u8>], bytes: &mut Vec<u8>) {
    let len = bytes.len() as u64;
    let at = random.below(len) as usize;
    let end = at + random.below(len - at as u64 + 1).min(600) as usize;
    match random.below(7) {
        0 | 1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes[at..end].fill(0),
        3 => bytes[at..end].iter_mut().for_each(|byte| *byte = random.next() as u8),
        4 => bytes.truncate(at.max(512)),
        5 => bytes.copy_within(at..end, random.below(len - (end - at) as u64) as usize),
        _ => {
            let other = &corpus[random.below(corpus.len() as u64) as usize];
            let end = end.min(other.len());
            if at < end {
                bytes[at..end].copy_from_slice(&other[at..end]);
            }
        }
    }
}

#[test]
fn only_what_was_written_whole_is_shown_and_all_of_it_before_the_first_change() {
    let corpus = corpus();
    assert_eq!(corpus.len(), 9);
    let frames = |bytes: &Vec<u8>| read_segment(bytes);
    let whole: HashSet<Written> = corpus
        .iter()
        .flat_map(|bytes| frames(bytes).into_iter().map(|shown| written(bytes, &shown)))
        .collect();
    assert!(whole.len() > 10, "the corpus has frames");
    let mut random = Random::new(7);
    for original in &corpus {
        let before = read_segment(original);
        for _ in 0..mutations() {
            let mut bytes = original.clone();
            for _ in 0..=random.below(3) {
                mutate(&mut random, &corpus, &mut bytes);
            }
            let shown = read_segment(&bytes);
            for frame in &shown {
                assert!(whole.contains(&written(&bytes, frame)), "{frame:?} was never written");
            }
            let same = original.iter().zip(&bytes).take_while(|(one, other)| one == other).count();
            let must = before.iter().filter(|frame| frame.end <= same);
            assert!(must.zip(&shown).all(|(one, other)| one == other));
            let count = before.iter().filter(|frame| frame.end <= same).count();
            assert!(shown.len() >= count, "{count} frames before byte {same}");
        }
    }
}
