use super::*;

fn list(positions: &'static [u32]) -> Box<dyn Postings> {
    Box::new(Slice { first: 10, relative: positions })
}

fn walk(mut postings: Box<dyn Postings>, from: u64, direction: Direction) -> Vec<u64> {
    let mut found = Vec::new();
    let mut next = Some(from);
    while let Some(position) = next.and_then(|from| postings.seek(from, direction).unwrap()) {
        found.push(position);
        next = match direction {
            Direction::Forward => position.checked_add(1),
            Direction::Backward => position.checked_sub(1),
        };
    }
    found
}

#[track_caller]
fn check(make: impl Fn() -> Box<dyn Postings>, expected: &[u64]) {
    assert_eq!(walk(make(), 0, Direction::Forward), expected);
    let mut backward = walk(make(), u64::MAX, Direction::Backward);
    backward.reverse();
    assert_eq!(backward, expected);
}

#[test]
fn any_joins_and_every_meets_both_ways() {
    let (a, b) = (&[0, 2, 4, 6, 8][..], &[0, 3, 6, 7, 8, 9][..]);
    check(|| Box::new(Any(vec![list(a), list(b)])), &[10, 12, 13, 14, 16, 17, 18, 19]);
    check(|| Box::new(Every(vec![list(a), list(b)])), &[10, 16, 18]);
    check(|| Box::new(Every(vec![list(a), list(b), list(&[6])])), &[16]);
    check(|| Box::new(Every(vec![list(a), list(&[])])), &[]);
    check(|| Box::new(Any(vec![])), &[]);
    check(|| Box::new(All((3, 5))), &[3, 4, 5]);
    check(|| Box::new(All((3, 2))), &[]);
}

#[test]
fn a_seek_begins_where_it_is_told() {
    let mut postings = list(&[0, 5]);
    assert_eq!(postings.seek(11, Direction::Forward).unwrap(), Some(15));
    assert_eq!(postings.seek(16, Direction::Forward).unwrap(), None);
    assert_eq!(postings.seek(14, Direction::Backward).unwrap(), Some(10));
    assert_eq!(postings.seek(9, Direction::Backward).unwrap(), None);
}
