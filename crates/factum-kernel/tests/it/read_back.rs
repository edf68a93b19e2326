//! What is stored reads back as what was decided, or is not stored.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
};

use factum_kernel::{
    Aggregate, Context, Decision, EncodeError, ExecuteError, Json, Repository, Verdict, category,
};
use factum_macros::Event;
use serde::{Deserialize, Deserializer, Serialize};

use crate::bench::Bench;

/// One event of each shape that a codec may not hold, in JSON.
#[derive(Debug, Clone, PartialEq, Event)]
#[event(crate = factum_kernel, codec = Json)]
enum JsonEvent {
    Answered {
        at: u64,
        answer: Option<Option<bool>>,
    },
    Confirmed {
        confirmation: Option<()>,
    },
    Weighed {
        grams: f64,
    },
    Tallied {
        votes: HashMap<String, u64>,
        voters: HashSet<u64>,
    },
    Counted {
        total: u128,
        lowest: i128,
    },
    Named {
        #[serde(deserialize_with = "trimmed")]
        name: String,
    },
    Priced {
        price: Price,
    },
}

/// Numbers in a type that serde has to look at before it knows them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Price {
    Exact { cents: u64 },
    Rate { rate: f64 },
}

fn trimmed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(String::deserialize(deserializer)?.trim().to_owned())
}

/// Stores whatever it is told.
#[derive(Debug, Default)]
struct Form(Vec<JsonEvent>);

impl Aggregate for Form {
    const CATEGORY: &'static str = category!("form");
    type Command = JsonEvent;
    type Event = JsonEvent;
    type Rejection = Infallible;

    fn decide(&self, event: &JsonEvent, _: &Context<'_>) -> Verdict<Self> {
        Ok(Decision::from([event.clone()]))
    }

    fn evolve(&mut self, event: &JsonEvent) {
        self.0.push(event.clone());
    }
}

/// The field that stands in the way of an event; none if it was stored, and loads as it was.
async fn check(event: JsonEvent) -> Option<&'static str> {
    let bench = Bench::new();
    let forms = Repository::<Form>::new(bench.kernel.clone());
    match forms.execute("a", &event).await {
        Ok(_) => {
            assert_eq!(forms.load("a").await.unwrap().state.0, [event]);
            None
        }
        Err(ExecuteError::Encode(EncodeError::Changed { field, .. })) => {
            assert_eq!(forms.load("a").await.unwrap().version.value(), 0);
            Some(field)
        }
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_value_that_the_codec_does_not_hold_is_an_error_that_names_its_field() {
    let answered = |answer| JsonEvent::Answered { at: 7, answer };
    assert_eq!(check(answered(Some(None))).await, Some("answer"));
    assert_eq!(check(answered(None)).await, None);
    assert_eq!(check(answered(Some(Some(true)))).await, None);
    let confirmed = |confirmation| JsonEvent::Confirmed { confirmation };
    assert_eq!(check(confirmed(Some(()))).await, Some("confirmation"));
    assert_eq!(check(confirmed(None)).await, None);
}

#[tokio::test]
async fn a_field_that_is_read_otherwise_than_it_is_written_is_an_error() {
    let named = |name: &str| JsonEvent::Named { name: name.into() };
    assert_eq!(check(named(" Ada ")).await, Some("name"));
    assert_eq!(check(named("Ada")).await, None);
}

#[tokio::test]
async fn what_the_codec_holds_is_stored_whatever_its_order() {
    let numbers = 0..100_u64;
    let votes = numbers.clone().map(|it| (it.to_string(), it)).collect();
    assert_eq!(check(JsonEvent::Tallied { votes, voters: numbers.collect() }).await, None);
    let counted = JsonEvent::Counted { total: u128::MAX, lowest: i128::MIN };
    assert_eq!(check(counted).await, None);
    for cents in 0..1_000 {
        let grams = f64::from(cents) * 1.19 / 7.0;
        assert_eq!(check(JsonEvent::Weighed { grams }).await, None);
        let price = Price::Rate { rate: grams };
        assert_eq!(check(JsonEvent::Priced { price }).await, None);
    }
    assert_eq!(check(JsonEvent::Priced { price: Price::Exact { cents: u64::MAX } }).await, None);
}
