//! Every way to append refuses the same mistakes, in the same words.

mod claim;

use std::sync::Arc;

use factum_kernel::{
    ErrorKind, EventName, Kernel, METADATA_TEXT_BYTES_MAX, Matching, Metadata, Position,
    QUERY_ITEMS_MAX, Query, ReadQuery, TagKey,
};
use factum_memory::MemoryStore;

use claim::{ADDRESS, Claim, ClaimEvent, Claims, Found, OneWay, hashed, plain, poisoned};

use crate::entry::{Entry, Refusal, Target};

/// A mistake of the program, and the text that every way refuses it with.
struct Misuse {
    claim: Claim,
    key: &'static str,
    metadata: Metadata,
    has_tag_key: bool,
    text: &'static str,
}

impl Misuse {
    fn of(event: ClaimEvent, guard: impl Into<Matching>, text: &'static str) -> Self {
        let claim = Claim { event, guard: guard.into() };
        Self { claim, key: "one", metadata: Metadata::new(), has_tag_key: true, text }
    }
}

fn plain_tag() -> Matching {
    Matching::tag("email", ADDRESS)
}

fn hashed_tag() -> Matching {
    Matching::hashed_tag("email", ADDRESS)
}

fn other_types() -> Matching {
    Query::types([EventName::from_static("order.placed")]).into()
}

/// More items than the limit of a query.
fn too_many() -> Matching {
    (0..QUERY_ITEMS_MAX).fold(hashed_tag(), |all, n| all.or(Matching::tag("n", n)))
}

fn misuses() -> Vec<Misuse> {
    let mixed = "differ in whether the tag is hashed";
    let nothing = "can match no event";
    let large = ClaimEvent::Noted { text: "x".repeat(2 << 20) };
    let unread = ClaimEvent::Unread { field: OneWay };
    let wordy = Metadata::new().with_user(&"x".repeat(METADATA_TEXT_BYTES_MAX + 1));
    let no_types = Query::types(std::iter::empty());
    let disjoint = Matching::events::<ClaimEvent>().and(other_types());
    vec![
        Misuse::of(hashed(), plain_tag(), mixed),
        Misuse::of(plain(), hashed_tag(), mixed),
        Misuse::of(hashed(), disjoint.clone(), nothing),
        Misuse::of(hashed(), disjoint.and(hashed_tag()), nothing),
        Misuse::of(hashed(), Query::default(), nothing),
        Misuse::of(hashed(), no_types, nothing),
        Misuse::of(hashed(), Matching::tag("owner", ""), "invalid tag value"),
        Misuse::of(hashed(), Matching::tag("a:b", "x"), "invalid tag name"),
        Misuse::of(hashed(), too_many(), "too many items in a query"),
        Misuse::of(ClaimEvent::Plain { email: String::new() }, plain_tag(), "invalid tag value"),
        Misuse::of(large, hashed_tag(), "too many bytes in an event"),
        Misuse::of(unread, hashed_tag(), "event does not read back"),
        Misuse { key: "", ..Misuse::of(hashed(), hashed_tag(), "the key is empty") },
        Misuse { metadata: wordy, ..Misuse::of(hashed(), hashed_tag(), "metadata hold a text") },
        Misuse { has_tag_key: false, ..Misuse::of(hashed(), hashed_tag(), "needs a tag key") },
    ]
}

fn kernel(has_tag_key: bool) -> Kernel {
    let store = Arc::new(MemoryStore::new());
    let kernel = Kernel::new(store.clone(), store);
    if has_tag_key { kernel.with_tag_key(TagKey::new([1; 32])) } else { kernel }
}

async fn send(
    entry: Entry,
    kernel: &Kernel,
    key: &str,
    claim: Claim,
    metadata: &Metadata,
) -> Result<(), Refusal> {
    entry.send::<Claims, Found>(&Target::new(kernel), key, claim, metadata).await
}

async fn head(kernel: &Kernel) -> Position {
    kernel.events().read(ReadQuery::log()).await.unwrap().head
}

#[tokio::test]
async fn what_one_entry_point_refuses_all_refuse_in_the_same_words() {
    let mut wrong = Vec::new();
    for (row, misuse) in misuses().into_iter().enumerate() {
        let mut texts = Vec::new();
        for entry in Entry::ALL {
            let kernel = kernel(misuse.has_tag_key);
            let sent = send(entry, &kernel, misuse.key, misuse.claim.clone(), &misuse.metadata);
            match sent.await {
                Err(Refusal { kind: ErrorKind::Invalid, text }) if text.contains(misuse.text) => {
                    // Values are last in the text. A command of the bus has more metadata than
                    // others.
                    texts
                        .push(text.rsplit_once(": ").map_or(&*text, |(words, _)| words).to_owned());
                }
                other => wrong.push(format!("misuse {row}, {entry:?}: {other:?}")),
            }
            if head(&kernel).await > Position::ZERO {
                wrong.push(format!("misuse {row}, {entry:?}: it is stored"));
            }
        }
        texts.dedup();
        if texts.len() > 1 {
            wrong.push(format!("misuse {row} in several words: {texts:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn an_address_is_unique_over_all_entry_points() {
    for (event, guard) in [(hashed(), hashed_tag()), (plain(), plain_tag())] {
        for first in Entry::ALL {
            for second in Entry::ALL {
                let kernel = kernel(true);
                let claim = Claim { event: event.clone(), guard: guard.clone() };
                send(first, &kernel, "one", claim.clone(), &Metadata::new()).await.unwrap();
                let taken = send(second, &kernel, "two", claim, &Metadata::new()).await;
                let Refusal { kind, text } = taken.expect_err("the address is taken");
                let told = (kind, text.contains("the address is taken"));
                assert_eq!(told, (ErrorKind::Rejected, true), "{first:?}, {second:?}: {text}");
                assert_eq!(head(&kernel).await, Position::new(1), "{first:?}, {second:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_event_that_evolve_panics_on_is_stored_by_none() {
    for entry in Entry::ALL {
        let kernel = kernel(true);
        let sent = tokio::spawn({
            let kernel = kernel.clone();
            let claim = Claim { event: poisoned(), guard: hashed_tag() };
            async move { send(entry, &kernel, "one", claim, &Metadata::new()).await }
        });
        // Entities catch the panic and report it.
        let is_told = sent.await.is_ok_and(|sent| sent.is_err());
        let catches = matches!(entry, Entry::Entities | Entry::Commands);
        assert_eq!(is_told, catches, "{entry:?}");
        assert_eq!(head(&kernel).await, Position::ZERO, "{entry:?} stores it");
    }
}
