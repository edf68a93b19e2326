//! The outcomes of a group equal those of its members, one after another.

use factum_kernel::{AppendBatch, ExpectedVersion};
use proptest::prelude::*;

use super::{Log, event, exact, no_tag, short, stream, tag};

fn any_batch() -> impl Strategy<Value = AppendBatch> {
    let expected = prop_oneof![
        Just(ExpectedVersion::Any),
        Just(ExpectedVersion::NoStream),
        Just(ExpectedVersion::StreamExists),
        (0..4_u64).prop_map(exact),
    ];
    let tagged = (0..24_u32, proptest::option::of(0..3_u8));
    let writes = proptest::collection::vec((0..3_u8, expected, tagged), 1..4);
    (writes, proptest::option::of(0..3_u8), any::<bool>()).prop_map(|(writes, unless, repeated)| {
        let mut batch = AppendBatch::new();
        for (name, expected, (id, tagged)) in writes {
            // A batch holds no id twice; different streams may hold the same id.
            let event = event(id + 24 * batch.event_count() as u32);
            let is_first = batch.writes().iter().all(|write| write.stream != stream(name));
            let expected = if is_first { expected } else { ExpectedVersion::Any };
            let event = tagged.into_iter().fold(event, |event, value| event.with_tag(tag(value)));
            batch = batch.write(stream(name), expected, [event]);
        }
        let batch = unless.into_iter().fold(batch, |batch, value| batch.unless(no_tag(value)));
        if repeated { batch.repeated() } else { batch }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_group_gives_the_outcomes_of_its_members_one_by_one(
        batches in proptest::collection::vec(any_batch(), 1..24),
        cut in 0..24_usize,
    ) {
        let mut grouped = Log::default();
        let mut single = Log::default();
        let (head, tail) = batches.split_at(cut.min(batches.len()));
        let mut outcomes = grouped.append(head);
        outcomes.extend(grouped.append(tail));
        let one_by_one: Vec<_> = batches
            .iter()
            .map(|batch| short(&single.append(std::slice::from_ref(batch)).remove(0)))
            .collect();
        prop_assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>(), one_by_one);
        prop_assert_eq!(grouped.events, single.events);
    }
}
