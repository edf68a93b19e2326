use factum_backend::Commit;
use factum_kernel::{
    AppendBatch, Content, EventId, EventName, ExpectedVersion, IdSource, NewEvent, StreamId,
    SystemIds, Timestamp,
};

use super::*;
use crate::{append::tests::open, keeper::RECENTS_MAX, recovery::Founded};

const STREAMS: u64 = 20_000;
const GROUPS: u64 = 2_000;
const EVENTS_PER_GROUP: u64 = 50;

/// A hundred thousand events of twenty thousand streams, in some 135 segments. Memory holds the
/// index of a few segments, and of the runs a few bytes per stream.
#[test]
fn memory_holds_a_few_segments_and_a_few_bytes_per_stream() {
    let folder = tempfile::tempdir().unwrap();
    let mut committer = open(folder.path(), Founded::Never, 32 << 10);
    let mut recents_max = 0;
    for group in 0..GROUPS {
        let batch = |n: u64| {
            let id = EventId::new(SystemIds.uuid(Timestamp::EPOCH));
            let event = NewEvent::new(id, EventName::from_static("it"), Content::Json, "");
            let number = (group * EVENTS_PER_GROUP + n) * 7_919 % STREAMS;
            let stream = StreamId::new("s", &number.to_string()).unwrap();
            AppendBatch::new().write(stream, ExpectedVersion::Any, [event])
        };
        let batches: Vec<_> = (0..EVENTS_PER_GROUP).map(batch).collect();
        committer.commit(&batches).unwrap();
        while merge_step(&committer.log, &|| false).unwrap() {}
        recents_max = recents_max.max(committer.log.view().tables.recents.len());
    }
    // The active segment, and as many others as may wait for their runs before an append does.
    assert_eq!(recents_max, RECENTS_MAX + 1, "only the writer wrote runs");
    while seal_step(&committer.log).unwrap() {}
    while merge_step(&committer.log, &|| false).unwrap() {}
    let view = committer.log.view();
    let runs = &view.tables.runs;
    let segments = std::fs::read_dir(folder.path().join("log")).unwrap().count() - runs.len();
    assert!(segments > 130, "{segments} segments");
    let levels = runs[0].header.level as usize + 1;
    assert!(runs.len() < FANOUT * levels, "{} runs of {levels} levels", runs.len());
    let bytes: usize = runs.iter().map(|run| run.memory()).sum();
    // On each level a stream is in one run, with ten bits and its part of a block's first key.
    let most = STREAMS as usize * levels * 4;
    assert!(bytes < most, "{bytes} bytes in memory of {} runs, at most {most}", runs.len());
}
