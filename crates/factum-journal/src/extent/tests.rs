use factum_kernel::{Lineage, Timestamp};
use uuid::Uuid;

use super::*;
use crate::segment::Rewritten;

const FIRST: u64 = 100;

/// A segment with offsets 512 to 2,000 and positions 100 to 109. Kept: 101 and 102 in one piece
/// after a name, a change after 104, and 107.
fn extents() -> Extents {
    let mut extents = Extents::new(FIRST);
    for (original, len, position, events) in
        [(544, 20, 1, 0), (564, 40, 1, 1), (604, 44, 2, 1), (800, 30, 5, 0), (1_000, 50, 7, 1)]
    {
        extents.keep(original, len, position, events);
    }
    (extents.positions, extents.original_end) = (10, 2_000);
    extents.table = extents.kept_end + 25;
    extents
}

fn header(extents: &Extents, table_len: usize) -> SegmentHeader {
    SegmentHeader {
        lineage: Lineage::new(Uuid::from_u128(7)),
        salt: 99,
        first: FIRST,
        base_at: Timestamp::from_micros(9),
        previous: 1,
        previous_end: 4_096,
        rewritten: Some(Rewritten {
            table: extents.table,
            table_len: table_len as u32,
            events: extents.events(),
        }),
    }
}

fn place(position: u64, offset: u64, end: u64) -> Place {
    Place { position, segment: FIRST, offset, end }
}

#[test]
fn records_that_follow_one_another_are_one_stretch() {
    let extents = extents();
    assert_eq!(extents.list().len(), 3);
    assert_eq!((extents.events(), extents.kept_end), (3, 512 + 104 + 30 + 50));
}

#[test]
fn what_was_kept_is_found_where_it_is_now() {
    let extents = extents();
    let found = |position, offset, end| extents.locate(place(position, offset, end)).unwrap();
    assert_eq!(found(101, 564, 604), Some(place(101, 532, 572)));
    // The end of a place may reach into what was left out.
    assert_eq!(found(102, 604, 1_000), Some(place(102, 572, 616)));
    assert_eq!(found(107, 1_000, 1_050), Some(place(107, 646, 696)));
    for left_out in [100, 103, 104, 105, 106, 108, 109] {
        assert_eq!(found(left_out, 700, 750), None, "{left_out}");
    }
    // The offset is not that of a record in the extent.
    assert!(extents.locate(place(107, 700, 750)).is_err());
    assert!(extents.locate(place(107, 1_050, 1_080)).is_err());
}

#[test]
fn before_what_was_left_out_the_last_that_was_kept_is_known() {
    let extents = extents();
    let found: Vec<_> = (100..110).map(|position| extents.kept_before(position)).collect();
    let wanted = [0, 101, 102, 102, 102, 102, 102, 107, 107, 107];
    assert_eq!(found, wanted.map(|position| (position > 0).then_some(position)));
}

#[test]
fn a_table_comes_back_and_every_flipped_bit_and_every_cut_is_noticed() {
    for extents in [extents(), Extents { positions: 4, ..Extents::new(FIRST) }] {
        let seed = header(&extents, 0).seed();
        let bytes = extents.encode(seed);
        let header = header(&extents, bytes.len());
        assert_eq!(Extents::decode(&header, &bytes).unwrap(), extents);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Extents::decode(&header, &bytes).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Extents::decode(&header, &bytes[..len]).is_err(), "cut at {len}");
        }
        let other = SegmentHeader { salt: 98, ..header };
        assert!(Extents::decode(&other, &bytes).is_err());
    }
}
