//! Tags from fields.

use std::collections::BTreeSet;

use factum_kernel::{EncodeError, InvalidTag, Metadata, Tag, TagKey, encode_event};

use crate::{append, decode, id};

#[derive(Debug, Clone, PartialEq, factum_macros::Event)]
#[event(crate = factum_kernel)]
enum CourseEvent {
    Defined {
        #[event(tag)]
        course: String,
        #[event(tag = "room-no")]
        room: u16,
        capacity: u8,
    },
    Subscribed(#[event(tag = "course")] String, #[event(tag = "student", hashed)] String),
    Planned {
        #[event(tag)]
        teacher: Option<String>,
        #[event(tag = "day")]
        days: Vec<u8>,
        #[event(tag, hashed)]
        r#type: BTreeSet<String>,
    },
    Moved {
        #[event(tag = "room")]
        from: u16,
        #[event(tag = "room")]
        to: u16,
    },
    Cancelled,
}

fn tags(event: &CourseEvent, key: Option<&TagKey>) -> Result<Vec<Tag>, EncodeError> {
    encode_event(event, id(), &Metadata::new(), key).map(|new| new.tags)
}

fn check(event: &CourseEvent, expected: &[&str]) {
    let tags = tags(event, None).expect("valid tags without a key");
    assert_eq!(tags.iter().map(Tag::as_str).collect::<Vec<_>>(), expected);
}

fn planned(teacher: Option<&str>, days: &[u8], types: &[&str]) -> CourseEvent {
    CourseEvent::Planned {
        teacher: teacher.map(Into::into),
        days: days.to_vec(),
        r#type: types.iter().copied().map(Into::into).collect::<BTreeSet<_>>(),
    }
}

#[test]
fn a_tag_has_the_name_of_its_field_or_the_one_that_was_set() {
    let event = CourseEvent::Defined { course: "rust-101".into(), room: 12, capacity: 30 };
    check(&event, &["course:rust-101", "room-no:12"]);
    assert_eq!(decode(&append(&event)), Ok(vec![event]));
}

#[test]
fn two_fields_may_have_one_tag_name() {
    check(&CourseEvent::Moved { from: 1, to: 2 }, &["room:1", "room:2"]);
    check(&CourseEvent::Moved { from: 1, to: 1 }, &["room:1"]);
}

#[test]
fn a_variant_without_tags_has_none() {
    check(&CourseEvent::Cancelled, &[]);
}

#[test]
fn each_item_of_an_option_vector_or_set_is_a_tag() {
    check(&planned(Some("ada"), &[1, 3], &[]), &["teacher:ada", "day:1", "day:3"]);
    check(&planned(None, &[], &[]), &[]);
}

#[test]
fn a_hashed_tag_is_the_hash_under_the_key() {
    let key = TagKey::new([7; 32]);
    let event = CourseEvent::Subscribed("rust-101".into(), "ada".into());
    let hashed = key.hashed("student", "ada").unwrap();
    assert_eq!(
        tags(&event, Some(&key)).unwrap(),
        [Tag::new("course", "rust-101").unwrap(), hashed]
    );
    let items = planned(None, &[], &["lab", "talk"]);
    let hashed = ["lab", "talk"].map(|item| key.hashed("type", item).unwrap());
    assert_eq!(tags(&items, Some(&key)).unwrap(), hashed);
}

#[test]
fn a_hashed_tag_without_a_key_is_an_error() {
    let event = CourseEvent::Subscribed("rust-101".into(), "ada".into());
    assert_eq!(tags(&event, None), Err(InvalidTag::NoKey("student".into()).into()));
}

#[test]
fn a_value_that_no_tag_can_have_is_an_error() {
    let event = CourseEvent::Defined { course: String::new(), room: 12, capacity: 30 };
    assert_eq!(tags(&event, None), Err(InvalidTag::Value("course".into()).into()));
}
