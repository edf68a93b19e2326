use std::{error::Error, fmt, io};

use super::{Cause, ErrorKind};
use crate::{
    AlongError, AppendError, ChangeError, Checkpoint, CodecError, CommandId, Content, DecodeError,
    DecodeReason, DeleteError, Diverged, DivergedReason, EncodeError, EventId, EventName,
    ExecuteError, ExpectedVersion, IdTaken, InvalidTag, Lineage, LoadError, Position, ReadError,
    StepRejected, StoreError, StoreErrorKind, StreamId, StreamVersion, Tag, TransactionError, Uuid,
    VersionConflict, WriteError,
};

/// A user's own error around one of ours.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Hidden<E: Error + 'static>(E);

#[derive(Debug)]
struct No;

impl fmt::Display for No {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no")
    }
}

impl Error for No {}

/// Asserts that the text of an error does not repeat the text of its source.
fn assert_said_once(error: &(dyn Error + 'static)) {
    let chain = std::iter::successors(Some(error), |error| (**error).source());
    let said: Vec<_> =
        chain.filter(|error| !error.is::<Cause>()).map(ToString::to_string).collect();
    for pair in said.windows(2) {
        assert!(!pair[0].contains(&pair[1]), "{:?} repeats its source {:?}", pair[0], pair[1]);
    }
}

/// Asserts the kind of each variant, and that an outage is found through two transparent errors.
macro_rules! kinds {
    ($type:ty { $($pattern:pat = $error:expr => $kind:ident,)+ }) => {
        // A variant that the table lacks does not compile.
        #[allow(unreachable_patterns, reason = "a variant may have several kinds")]
        let _ = |error: &$type| match error { $($pattern => (),)+ };
        $({
            let error: $type = $error;
            let text = error.to_string();
            let kind = ErrorKind::$kind;
            assert_eq!(error.kind(), kind, "{text}");
            assert_said_once(&error);
            let found = ErrorKind::of(&Hidden(Hidden(error)));
            let is_outage = found.is_some_and(ErrorKind::is_outage);
            assert_eq!(is_outage, kind.is_outage(), "{text}: found={found:?}");
        })+
    };
}

fn taken() -> IdTaken {
    let id = CommandId::new(Uuid::nil());
    IdTaken { id, stored: Box::default(), sent: Box::default() }
}

fn away() -> StoreError {
    StoreError::unavailable("away").with_source(io::Error::other("no route"))
}

fn corrupt() -> StoreError {
    StoreError::corrupt("damaged")
}

fn conflict() -> VersionConflict {
    let stream = StreamId::new("account", "ada").expect("it is a stream");
    let expected = ExpectedVersion::NoStream;
    let actual = StreamVersion::new(1);
    VersionConflict { stream, expected, actual, deleted_at: None }
}

fn undecoded() -> DecodeError {
    let stream = "account-ada".into();
    let position = Position::new(1);
    let reason = DecodeReason::NotOne(2);
    DecodeError { stream, position, name: "account.opened".into(), schema_version: 1, reason }
}

fn diverged() -> Diverged {
    let lineage = Lineage::new(Uuid::nil());
    let position = Position::new(1);
    let checkpoint = Checkpoint { lineage, position, event_id: EventId::new(Uuid::nil()) };
    Diverged { checkpoint, reason: DivergedReason::Short(Position::ZERO) }
}

fn no_tag() -> InvalidTag {
    Tag::new("", "").expect_err("it is no tag")
}

#[test]
fn every_error_of_a_store_tells_its_kind_through_a_transparent_error() {
    for kind in [
        StoreErrorKind::Unavailable,
        StoreErrorKind::Invalid,
        StoreErrorKind::Corrupt,
        StoreErrorKind::Closed,
        StoreErrorKind::Internal,
    ] {
        let error = StoreError::new(kind, "x");
        assert_eq!(ErrorKind::of(&error), Some(kind.into()));
        assert_eq!(ErrorKind::of(&Hidden(Hidden(error))), Some(kind.into()));
    }
    kinds!(AppendError {
        AppendError::Conflict(_) = conflict().into() => Conflict,
        AppendError::ConditionFailed { .. } =
            AppendError::ConditionFailed { condition: 0, position: Position::ZERO } => Conflict,
        AppendError::Indeterminate(_) = AppendError::Indeterminate(away()) => Unknown,
        AppendError::Store(_) = away().into() => Unavailable,
        AppendError::Store(_) = StoreError::closed().into() => Closed,
        AppendError::Store(_) = corrupt().into() => Corrupt,
    });
    kinds!(ChangeError {
        ChangeError::Indeterminate(_) = ChangeError::Indeterminate(away()) => Unknown,
        ChangeError::Store(_) = away().into() => Unavailable,
    });
    kinds!(WriteError {
        WriteError::Conflict { .. } = WriteError::Conflict { entry: 0 } => Conflict,
        WriteError::Indeterminate(_) = WriteError::Indeterminate(away()) => Unknown,
        WriteError::Store(_) = away().into() => Unavailable,
    });
    kinds!(ReadError {
        ReadError::Store(_) = away().into() => Unavailable,
        ReadError::Gap { .. } =
            ReadError::Gap { expected: Position::ZERO, found: Position::ZERO } => Corrupt,
        ReadError::Diverged(_) = diverged().into() => Corrupt,
    });
}

#[test]
fn every_error_of_an_aggregate_tells_its_kind_through_a_transparent_error() {
    kinds!(LoadError {
        LoadError::Store(_) = away().into() => Unavailable,
        LoadError::Store(_) = StoreError::internal("x").into() => Internal,
        LoadError::Decode(_) = undecoded().into() => Corrupt,
        LoadError::Key(_) = StreamId::new("", "").expect_err("it is no id").into() => Invalid,
        LoadError::Truncated { .. } =
            LoadError::Truncated { stream: conflict().stream, erased_through: StreamVersion::ZERO }
            => Corrupt,
    });
    kinds!(EncodeError {
        EncodeError::Codec { .. } = EncodeError::Codec {
            name: EventName::from_static("account.opened"),
            reason: CodecError::new("x"),
        } => Invalid,
        EncodeError::Command { .. } = EncodeError::Command {
            name: "account.open",
            reason: CodecError::new("x"),
        } => Invalid,
        EncodeError::Tag(_) = no_tag().into() => Invalid,
        EncodeError::NotReadable(_) = EncodeError::NotReadable(undecoded()) => Invalid,
        EncodeError::Changed { .. } = EncodeError::Changed {
            name: EventName::from_static("account.opened"),
            field: "owner",
        } => Invalid,
        EncodeError::MatchesNothing = EncodeError::MatchesNothing => Invalid,
    });
    kinds!(ExecuteError<No> {
        ExecuteError::Rejected(_) = ExecuteError::Rejected(No) => Rejected,
        ExecuteError::Conflict(_) = ExecuteError::Conflict(conflict()) => Conflict,
        ExecuteError::Load(_) = LoadError::from(away()).into() => Unavailable,
        ExecuteError::Load(_) = LoadError::from(undecoded()).into() => Corrupt,
        ExecuteError::Encode(_) = EncodeError::from(no_tag()).into() => Invalid,
        ExecuteError::Indeterminate(_) = ExecuteError::Indeterminate(away()) => Unknown,
        ExecuteError::Store(_) = away().into() => Unavailable,
        ExecuteError::Store(_) = StoreError::closed().into() => Closed,
    });
    kinds!(AlongError<No> {
        AlongError::Execute(_) = ExecuteError::Rejected(No).into() => Rejected,
        AlongError::Execute(_) = ExecuteError::Indeterminate(away()).into() => Unknown,
        AlongError::Conflict(_) = AlongError::Conflict(conflict()) => Conflict,
        AlongError::Condition { .. } =
            AlongError::Condition { condition: 0, position: Position::ZERO } => Conflict,
    });
    kinds!(TransactionError {
        TransactionError::Rejected(_) =
            TransactionError::Rejected(StepRejected::new(0, No)) => Rejected,
        TransactionError::Unchanged { .. } = TransactionError::Unchanged { step: 0 } => Rejected,
        TransactionError::IdTaken(_) = taken().into() => Invalid,
        TransactionError::Conflict(_) = TransactionError::Conflict(conflict()) => Conflict,
        TransactionError::Overtaken { .. } =
            TransactionError::Overtaken { position: Position::ZERO } => Conflict,
        TransactionError::Load(_) = LoadError::from(away()).into() => Unavailable,
        TransactionError::Encode(_) = EncodeError::from(no_tag()).into() => Invalid,
        TransactionError::Indeterminate(_) = TransactionError::Indeterminate(away()) => Unknown,
        TransactionError::Store(_) = StoreError::closed().into() => Closed,
    });
    kinds!(DeleteError {
        DeleteError::Key(_) = StreamId::new("", "").expect_err("it is no id").into() => Invalid,
        DeleteError::Conflict(_) = DeleteError::Conflict(conflict()) => Conflict,
        DeleteError::Indeterminate(_) = DeleteError::Indeterminate(away()) => Unknown,
        DeleteError::Store(_) = away().into() => Unavailable,
    });
}

#[test]
fn every_error_without_a_store_tells_its_kind() {
    kinds!(DivergedReason {
        DivergedReason::Lineage(_) = DivergedReason::Lineage(Lineage::new(Uuid::nil())) => Corrupt,
        DivergedReason::Event(_) = DivergedReason::Event(EventId::new(Uuid::nil())) => Corrupt,
        DivergedReason::Short(_) = DivergedReason::Short(Position::ZERO) => Corrupt,
    });
    kinds!(DecodeReason {
        DecodeReason::UnknownType = DecodeReason::UnknownType => Corrupt,
        DecodeReason::NewerSchema(_) = DecodeReason::NewerSchema(1) => Corrupt,
        DecodeReason::NoUpcaster(_) = DecodeReason::NoUpcaster(1) => Corrupt,
        DecodeReason::EndlessUpcast = DecodeReason::EndlessUpcast => Corrupt,
        DecodeReason::Upcast(_) = DecodeReason::Upcast("x".into()) => Corrupt,
        DecodeReason::UnknownContent(_) = DecodeReason::UnknownContent(Content::Json) => Corrupt,
        DecodeReason::Fields(_) = DecodeReason::Fields(CodecError::new("x")) => Corrupt,
        DecodeReason::NotOne(_) = DecodeReason::NotOne(2) => Corrupt,
    });
    kinds!(InvalidTag {
        InvalidTag::Name(_) = InvalidTag::Name("x".into()) => Invalid,
        InvalidTag::Value(_) = InvalidTag::Value("x".into()) => Invalid,
        InvalidTag::TooLong(_) = InvalidTag::TooLong("x".into()) => Invalid,
        InvalidTag::Mixed(_) = InvalidTag::Mixed("x".into()) => Invalid,
        InvalidTag::NoKey(_) = InvalidTag::NoKey("x".into()) => Invalid,
    });
}

#[test]
fn the_drivers_own_error_stays_in_the_chain() {
    let error = away();
    let driver = error.source().and_then(Error::source);
    assert!(driver.is_some_and(<dyn Error>::is::<io::Error>));
}
