use factum_consumer::{
    ConsumerName, DeadLetter, HandleError, StartError, StopReason, part::StoredLetter,
};
use factum_kernel::{
    CodecError, DecodeError, DecodeReason, ErrorKind, InvalidTag, Position, StoreError, StreamId,
    Tag,
};
use factum_testing::{Hidden, assert_kinds};

use super::BuildError;
use crate::{LiveError, QueryError, model_build::Build};

fn away() -> StoreError {
    StoreError::unavailable("away")
}

fn name() -> ConsumerName {
    ConsumerName::new("counts").expect("it is a name")
}

fn undecoded() -> DecodeError {
    let stream = "account-ada".into();
    let position = Position::new(1);
    let reason = DecodeReason::UnknownType;
    DecodeError { stream, position, name: "account.opened".into(), schema_version: 1, reason }
}

fn letter() -> DeadLetter {
    let event = "account.opened".into();
    let error = "x".into();
    let letter = StoredLetter {
        version: 1,
        position: 1,
        event,
        error,
        attempts: 1,
        parked_at: 0,
        is_unread: None,
        deaths: 0,
    };
    letter.open(&StreamId::new("account", "ada").expect("it is a stream"))
}

fn no_tag() -> InvalidTag {
    Tag::new("", "").expect_err("it is no tag")
}

#[test]
fn every_error_of_read_models_has_its_kind() {
    let projection = name();
    let build = Build { version: 1, generation: 0 };
    assert_kinds!(BuildError {
        BuildError::Name(_) = ConsumerName::new("").expect_err("it is no name").into() => Invalid,
        BuildError::Start(_) = StartError::Closed(name()).into() => Closed,
        BuildError::Store(_) = away().into() => Unavailable,
        BuildError::Building { .. } =
            BuildError::Building { projection: projection.clone(), build } => Conflict,
        BuildError::Superseded { .. } =
            BuildError::Superseded { projection: projection.clone(), build } => Conflict,
        BuildError::Stopped { .. } = BuildError::Stopped {
            projection: projection.clone(), build, reason: StopReason::Fenced,
        } => Closed,
        BuildError::Parked { .. } = BuildError::Parked {
            projection: projection.clone(), build, letter: Box::new(letter()),
        } => Invalid,
        BuildError::NothingKept(_) = BuildError::NothingKept(name()) => Invalid,
        BuildError::Closed(_) = BuildError::Closed(name()) => Closed,
        BuildError::RuntimeEnded(_) = BuildError::RuntimeEnded(name()) => Closed,
    });
    assert_kinds!(QueryError {
        QueryError::Store(_) = away().into() => Unavailable,
        QueryError::NotStarted(_) = QueryError::NotStarted(name()) => Invalid,
        QueryError::Decode { .. } = QueryError::Decode {
            projection: projection.clone(), build, key: "x".into(), error: CodecError::new("x"),
        } => Corrupt,
        QueryError::NoIndex { .. } =
            QueryError::NoIndex { projection: projection.clone(), build, index: "x".into() }
            => Invalid,
        QueryError::Replaced(_) = QueryError::Replaced(name()) => Conflict,
    });
    assert_kinds!(LiveError {
        LiveError::Store(_) = away().into() => Unavailable,
        LiveError::Decode(_) = undecoded().into() => Corrupt,
        LiveError::Tag(_) = no_tag().into() => Invalid,
    });
}

#[test]
fn an_outage_is_found_however_it_is_wrapped() {
    let outages: Vec<HandleError> = vec![
        Box::new(Hidden(QueryError::from(StoreError::closed()))),
        Box::new(Hidden(BuildError::from(away()))),
        Box::new(Hidden(Hidden(LiveError::from(away())))),
    ];
    for error in outages {
        assert!(ErrorKind::of(&*error).is_some_and(ErrorKind::is_outage), "{error:?}");
    }
}
