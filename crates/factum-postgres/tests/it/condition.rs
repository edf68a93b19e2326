//! The judgement of a group's conditions, compared with the meaning of each alone.

use factum_kernel::{
    AppendBatch, EventName, EventStore, ExpectedVersion, NewEvent, Query, QueryItem, Tag,
};
use factum_testing::deletion;
use tokio_postgres::{Client, Row};

use crate::fresh::{Fresh, event, stream};

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % most
    }

    fn some<T>(&mut self, most: u64, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| one(self)).collect()
    }

    fn name(&mut self) -> EventName {
        EventName::parse(&format!("type.{}", self.below(5))).unwrap()
    }

    fn tag(&mut self) -> Tag {
        Tag::new("t", self.below(5)).unwrap()
    }

    /// An event with fewer names to choose from, the later it is.
    fn event(&mut self, number: u64) -> NewEvent {
        let names = 4 - number / 20;
        let name = EventName::parse(&format!("type.{}", self.below(names))).unwrap();
        let mut tags = self.some(2, |dice| Tag::new("t", dice.below(names)).unwrap());
        tags.dedup();
        NewEvent { name, tags, ..event("{}") }
    }

    fn query(&mut self) -> Query {
        Query::new(self.some(3, |dice| QueryItem {
            types: dice.some(2, Self::name),
            tags: dice.some(2, Self::tag),
        }))
    }
}

/// A condition of a member, and the position that it looks after.
struct Condition {
    member: i32,
    after: i64,
    query: Query,
}

/// The database's result for a member.
#[derive(Debug)]
struct Hit {
    member: i32,
    /// The index of the condition.
    condition: usize,
    position: i64,
}

/// The database's results for the members, of which some are refused already.
async fn hits(
    raw: &Client,
    schema: &str,
    head: i64,
    refused: &[i32],
    conditions: &[Condition],
) -> Vec<Hit> {
    let items: Vec<&QueryItem> = conditions.iter().flat_map(|it| it.query.items()).collect();
    let count = |number: usize| i32::try_from(number).unwrap();
    let members: Vec<_> = conditions.iter().map(|it| it.member).collect();
    let after: Vec<_> = conditions.iter().map(|it| it.after).collect();
    let of_conditions: Vec<_> = conditions.iter().map(|it| count(it.query.items().len())).collect();
    let of_types: Vec<_> = items.iter().map(|item| count(item.types.len())).collect();
    let of_tags: Vec<_> = items.iter().map(|item| count(item.tags.len())).collect();
    let types: Vec<_> = items.iter().flat_map(|it| &it.types).map(EventName::as_str).collect();
    let tags: Vec<_> = items.iter().flat_map(|it| &it.tags).map(Tag::as_str).collect();
    let asked = format!("SELECT * FROM {schema}.hits($1, $2, $3, $4, $5, $6, $7, $8, $9)");
    let rows = raw
        .query(
            &asked,
            &[
                &head,
                &refused,
                &members,
                &after,
                &of_conditions,
                &of_types,
                &of_tags,
                &types,
                &tags,
            ],
        )
        .await
        .unwrap();
    let place = |number: i32| usize::try_from(number).unwrap() - 1;
    let hit =
        |row: &Row| Hit { member: row.get(0), condition: place(row.get(1)), position: row.get(2) };
    rows.iter().map(hit).collect()
}

#[tokio::test]
async fn conditions_of_a_group_are_judged_as_each_by_itself() {
    let fresh = Fresh::open().await;
    let mut dice = Dice(7);
    let mut log = Vec::new();
    for number in 0..60 {
        let new = dice.event(number);
        let key = if number % 7 == 0 { "gone" } else { "kept" };
        let batch = AppendBatch::new().write(stream(key), ExpectedVersion::Any, [new.clone()]);
        fresh.store.append(batch).await.unwrap();
        log.push((key == "kept").then_some(new));
    }
    fresh.store.append(deletion(stream("gone"))).await.unwrap();
    let raw = fresh.schema.raw().await;
    let head = 60;
    let mut found = 0;
    for _ in 0..200 {
        let mut conditions = Vec::new();
        let earliest = dice.below(60);
        for member in 1..=4 {
            conditions.extend(dice.some(3, |dice| Condition {
                member,
                after: (earliest + dice.below(6)) as i64,
                query: dice.query(),
            }));
        }
        let refused = dice.some(2, |dice| 1 + dice.below(4) as i32);
        let met = |condition: &Condition| -> Vec<i64> {
            let events = (1_i64..).zip(&log).filter(|(position, _)| *position > condition.after);
            let events = events.filter_map(|(position, event)| Some((position, event.as_ref()?)));
            let is_met = |(_, event): &(i64, &NewEvent)| {
                let tags = event.tags.iter().map(Tag::as_str);
                condition.query.matches(event.name.as_str(), tags)
            };
            events.filter(is_met).map(|(position, _)| position).collect()
        };
        let mut hits = hits(&raw, &fresh.schema.name, head, &refused, &conditions).await;
        found += hits.len();
        for member in 1..=4 {
            let hit = hits.iter().position(|hit| hit.member == member).map(|at| hits.remove(at));
            let mut own = conditions.iter().enumerate().filter(|(_, it)| it.member == member);
            let first = own.find(|(_, condition)| !met(condition).is_empty());
            let first = first.filter(|_| !refused.contains(&member));
            let condition = hit.as_ref().map(|hit| hit.condition);
            assert_eq!(condition, first.map(|(place, _)| place), "of member {member}");
            if let (Some(hit), Some((_, condition))) = (hit, first) {
                assert!(met(condition).contains(&hit.position), "{hit:?} of {:?}", met(condition));
            }
        }
        assert!(hits.is_empty(), "one hit for each member, left are {hits:?}");
    }
    assert!((100..700).contains(&found), "some are met and some are not: {found}");
}
