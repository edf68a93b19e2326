use super::*;

fn walk(mut list: List<'_>, from: u64, direction: Direction) -> Vec<u64> {
    let mut found = Vec::new();
    let mut next = Some(from);
    while let Some(position) = next.and_then(|from| list.seek(from, direction).unwrap()) {
        found.push(position);
        next = match direction {
            Direction::Forward => position.checked_add(1),
            Direction::Backward => position.checked_sub(1),
        };
    }
    found
}

#[test]
fn lists_in_memory_are_gone_through_both_ways() {
    let slice = || List::Slice(Slice { first: 10, relative: &[0, 2, 9] });
    for (list, expected) in [
        (&slice as &dyn Fn() -> List<'static>, &[10, 12, 19][..]),
        (&|| List::All((3, 5)), &[3, 4, 5]),
        (&|| List::All((3, 2)), &[]),
    ] {
        assert_eq!(walk(list(), 0, Direction::Forward), expected);
        let mut backward = walk(list(), u64::MAX, Direction::Backward);
        backward.reverse();
        assert_eq!(backward, expected);
    }
}

#[test]
fn a_seek_begins_where_it_is_told() {
    let mut list = List::Slice(Slice { first: 10, relative: &[0, 5] });
    assert_eq!(list.seek(11, Direction::Forward).unwrap(), Some(15));
    assert_eq!(list.seek(16, Direction::Forward).unwrap(), None);
    assert_eq!(list.seek(14, Direction::Backward).unwrap(), Some(10));
    assert_eq!(list.seek(9, Direction::Backward).unwrap(), None);
}
