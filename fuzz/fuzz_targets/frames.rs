//! Any bytes as those of a segment: the reader never panics, and never contradicts itself.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    factum_journal::fuzzing::read_segment(bytes);
});
