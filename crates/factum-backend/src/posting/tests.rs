use std::convert::Infallible;

use factum_kernel::{EventName, Tag};

use super::*;

/// Counts the looks into it.
struct List<'t> {
    positions: Vec<u64>,
    looks: &'t std::cell::Cell<usize>,
}

impl Postings for List<'_> {
    type Error = Infallible;

    fn seek(&mut self, from: u64, direction: Direction) -> Result<Option<u64>, Infallible> {
        self.looks.set(self.looks.get() + 1);
        Ok(match direction {
            Direction::Forward => self.positions.iter().find(|at| **at >= from),
            Direction::Backward => self.positions.iter().rfind(|at| **at <= from),
        }
        .copied())
    }
}

const COUNT: u64 = 300;

/// Tag `n:7` is on every seventh of three hundred events, and so is type `n7`. The types `x` and
/// `y` alternate, ten of each.
fn has(term: QueryTerm<'_>, position: u64) -> bool {
    match term {
        QueryTerm::All => true,
        QueryTerm::Tag(tag) => position.is_multiple_of(tag[2..].parse().unwrap()),
        QueryTerm::Type(name) if name.starts_with('n') => {
            position.is_multiple_of(name[1..].parse().unwrap())
        }
        QueryTerm::Type(name) => (name == "x") == (position / 10).is_multiple_of(2),
    }
}

fn item(types: &[&str], tags: &[u64]) -> QueryItem {
    QueryItem {
        types: types.iter().map(|name| EventName::parse(name).unwrap()).collect(),
        tags: tags.iter().map(|n| Tag::parse(&format!("n:{n}")).unwrap()).collect(),
    }
}

struct Walked {
    found: Vec<u64>,
    pauses: usize,
    /// The number of looks into lists.
    looks: usize,
}

/// All matches, found by a walk that goes on after each pause.
fn walk(query: &Query, direction: Direction, budget: usize) -> Walked {
    let looks = std::cell::Cell::new(0);
    let begin = |from| {
        let find = |term: QueryTerm<'_>| {
            let positions: Vec<u64> = (1..=COUNT).filter(|at| has(term, *at)).collect();
            let list = List { positions, looks: &looks };
            Ok::<_, Infallible>((!list.positions.is_empty()).then_some(list))
        };
        Matches::of_query(query, Walk { from, direction }, find).unwrap()
    };
    let on = |at: u64| if direction == Direction::Forward { at + 1 } else { at - 1 };
    let mut found = Vec::new();
    let mut pauses = 0;
    let mut left = budget;
    let mut at = if direction == Direction::Forward { 1 } else { COUNT };
    let mut matches = begin(at);
    while let Some(candidate) = matches.seek(at, &mut left).unwrap() {
        match candidate {
            Candidate::Match(position) => {
                found.push(position);
                at = on(position);
            }
            Candidate::Paused(position) => {
                assert_ne!(position, at, "a pause without progress would go on forever");
                (at, left, pauses) = (position, budget, pauses + 1);
                matches = begin(at);
            }
        }
    }
    Walked { found, pauses, looks: looks.get() }
}

#[test]
fn queries_find_what_they_mean_both_ways_however_often_they_pause() {
    let queries = [
        Query::new([item(&[], &[2])]),
        Query::new([item(&["x"], &[])]),
        Query::new([item(&["x", "y"], &[2, 3])]),
        Query::new([item(&["y"], &[3]), item(&["x"], &[2]), item(&["x"], &[3])]),
        Query::new([item(&[], &[])]),
        Query::new([item(&[], &[301]), item(&["x"], &[3, 3])]),
        Query::default(),
    ];
    for query in &queries {
        let tags: Vec<u64> = query.items().iter().flat_map(|it| &it.tags).map(number).collect();
        let is_match = |position: &u64| {
            let kind = if has(QueryTerm::Type("x"), *position) { "x" } else { "y" };
            let tags = tags.iter().filter(|n| position.is_multiple_of(**n));
            let tags: Vec<String> = tags.map(|n| format!("n:{n}")).collect();
            query.matches(kind, tags.iter().map(String::as_str))
        };
        let mut expected: Vec<u64> = (1..=COUNT).filter(is_match).collect();
        for budget in [0, 1, 7, 50, usize::MAX] {
            assert_eq!(
                walk(query, Direction::Forward, budget).found,
                expected,
                "{query:?} {budget}"
            );
        }
        expected.reverse();
        for budget in [0, 1, 7, 50, usize::MAX] {
            assert_eq!(
                walk(query, Direction::Backward, budget).found,
                expected,
                "{query:?} {budget}"
            );
        }
    }
}

fn number(tag: &Tag) -> u64 {
    tag.as_str()[2..].parse().unwrap()
}

#[test]
fn a_rare_tag_beside_common_ones_costs_little() {
    let query = Query::new([item(&[], &[2, 3, 300])]);
    let Walked { found, pauses, looks } = walk(&query, Direction::Forward, 30);
    assert_eq!((found, pauses), (vec![300], 0));
    assert!(looks < 10, "{looks} looks");
}

/// The first item once spent the looks of all, and the others moved by one position in a page.
#[test]
fn items_share_the_looks_of_a_page() {
    // Neither item matches before 221, and each must be intersected to find that out.
    let query = Query::new([item(&[], &[13, 17]), item(&[], &[2, 3, 149])]);
    let budget = 20;
    let Walked { found, pauses, looks } = walk(&query, Direction::Forward, budget);
    assert_eq!(found, [221]);
    // Each beginning looks once more into each list, and no page is cut much shorter than that.
    assert!(pauses <= looks / (budget - 5), "{pauses} pauses for {looks} looks");
    assert!((2..=6).contains(&pauses), "{pauses} pauses");
}

/// For each match, every item was once looked up again, and so was every type of an item.
#[test]
fn a_match_of_one_list_costs_the_others_nothing() {
    let items = Query::new((2..66).map(|n| item(&[], &[n])));
    let names: Vec<String> = (2..66).map(|n| format!("n{n}")).collect();
    let types = Query::new([item(&names.iter().map(String::as_str).collect::<Vec<_>>(), &[1])]);
    check_looks(&items, 64);
    // The tag beside the types is on each event.
    check_looks(&types, 64 + 2 * COUNT as usize);
}

fn check_looks(query: &Query, others: usize) {
    let Walked { found, looks, .. } = walk(query, Direction::Forward, usize::MAX);
    let entries: usize = (2..66).map(|n| (COUNT / n) as usize).sum();
    assert!(found.len() > 250, "{} matches", found.len());
    assert!(looks <= entries + others, "{looks} looks: each entry once, and the end of each list");
}
