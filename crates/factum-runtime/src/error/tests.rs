use std::error::Error;

use factum_kernel::{
    CodecError, CommandId, EncodeError, ErrorKind, EventName, ExpectedVersion, IdTaken, LoadError,
    StoreError, StreamId, StreamVersion, TransactionError, Uuid, VersionConflict,
};
use factum_testing::{Hidden, assert_kinds};

use super::{AskError, EntityError};
use crate::{
    bus::{BoxError, CommandError, DispatchError},
    supervisor::SupervisorError,
};

#[derive(Debug, thiserror::Error)]
#[error("no")]
struct No;

fn ada() -> StreamId {
    StreamId::new("account", "ada").expect("it is a stream")
}

fn away() -> StoreError {
    StoreError::unavailable("away")
}

fn conflict() -> VersionConflict {
    let expected = ExpectedVersion::NoStream;
    let actual = StreamVersion::new(1);
    VersionConflict { stream: ada(), expected, actual, deleted_at: None }
}

fn unwritten() -> EncodeError {
    let name = EventName::from_static("account.opened");
    EncodeError::Codec { name, reason: CodecError::new("x") }
}

fn taken() -> IdTaken {
    let id = CommandId::new(Uuid::nil());
    IdTaken { id, stored: Box::default(), sent: Box::default() }
}

/// One of each, and the outages among them.
fn all() -> Vec<EntityError> {
    let truncated = LoadError::Truncated { stream: ada(), erased_through: StreamVersion::ZERO };
    vec![
        EntityError::Busy(ada()),
        EntityError::Deadline(ada()),
        EntityError::Closed(ada()),
        // It has had its pauses: the event that meets it fails.
        EntityError::Quarantined { cause: Box::new(away().into()) },
        EntityError::Panicked { stream: ada(), message: "x".into() },
        EntityError::ReplyPanicked { stream: ada(), message: "x".into() },
        taken().into(),
        EntityError::Lost(ada()),
        EntityError::Load(away().into()),
        EntityError::Load(truncated),
        EntityError::Encode(unwritten()),
        EntityError::Conflict(conflict()),
        EntityError::Indeterminate(away()),
        EntityError::Store(away()),
        EntityError::Store(StoreError::closed()),
        EntityError::Store(StoreError::corrupt("x")),
    ]
}

#[test]
fn every_error_of_entities_the_bus_and_supervisors_tells_its_kind() {
    let panicked = || EntityError::Panicked { stream: ada(), message: "x".into() };
    assert_kinds!(EntityError {
        EntityError::Busy(_) = EntityError::Busy(ada()) => Unavailable,
        EntityError::Deadline(_) = EntityError::Deadline(ada()) => TimedOut,
        EntityError::Closed(_) = EntityError::Closed(ada()) => Closed,
        EntityError::Quarantined { .. } =
            EntityError::Quarantined { cause: Box::new(away().into()) } => Internal,
        EntityError::Panicked { .. } = panicked() => Internal,
        EntityError::ReplyPanicked { .. } =
            EntityError::ReplyPanicked { stream: ada(), message: "x".into() } => Internal,
        EntityError::IdTaken(_) = taken().into() => Invalid,
        EntityError::Lost(_) = EntityError::Lost(ada()) => Unknown,
        EntityError::Load(_) = LoadError::from(away()).into() => Unavailable,
        EntityError::Encode(_) = unwritten().into() => Invalid,
        EntityError::Conflict(_) = EntityError::Conflict(conflict()) => Conflict,
        EntityError::Indeterminate(_) = EntityError::Indeterminate(away()) => Unknown,
        EntityError::Store(_) = StoreError::closed().into() => Closed,
    });
    assert_kinds!(AskError<No> {
        AskError::Rejected(_) = AskError::Rejected(No) => Rejected,
        AskError::Failed(_) = EntityError::Busy(ada()).into() => Unavailable,
    });
    assert_kinds!(CommandError {
        CommandError::UnknownAggregate(_) = CommandError::UnknownAggregate("account") => Invalid,
        CommandError::WrongCommand { .. } =
            CommandError::WrongCommand { category: "account", command: "open" } => Invalid,
        CommandError::Unnamed { .. } =
            CommandError::Unnamed { category: "account", command: "Open" } => Invalid,
        CommandError::Entity(_) = EntityError::Closed(ada()).into() => Closed,
        CommandError::Transaction(_) =
            CommandError::from(TransactionError::Indeterminate(away())) => Unknown,
    });
    assert_kinds!(DispatchError<No> {
        DispatchError::Rejected(_) = DispatchError::Rejected(No) => Rejected,
        DispatchError::Refused(_) = DispatchError::Refused(Box::new(No)) => Rejected,
        DispatchError::Failed(_) = CommandError::from(panicked()).into() => Internal,
        DispatchError::Layer(_) = DispatchError::Layer(BoxError::from("x")) => Internal,
        DispatchError::Layer(_) = DispatchError::Layer(Box::new(away())) => Unavailable,
    });
    assert_kinds!(SupervisorError {
        SupervisorError::NameTaken(_) = SupervisorError::NameTaken("x".into()) => Invalid,
        SupervisorError::TooMany(_) = SupervisorError::TooMany(1) => Invalid,
        SupervisorError::Unknown(_) = SupervisorError::Unknown("x".into()) => Invalid,
        SupervisorError::Closed = SupervisorError::Closed => Closed,
    });
}

#[test]
fn an_outage_is_found_through_transparent_errors() {
    let is_outage =
        |error: &(dyn Error + 'static)| ErrorKind::of(error).is_some_and(ErrorKind::is_outage);
    for error in all() {
        let expected = error.kind().is_outage();
        assert_eq!(is_outage(&Hidden(error.clone())), expected, "{error}");
        let asked = AskError::<No>::from(error.clone());
        assert_eq!(is_outage(&Hidden(Hidden(asked))), expected, "{error}");
        let dispatched = DispatchError::<No>::from(CommandError::from(error.clone()));
        assert_eq!(is_outage(&Hidden(dispatched)), expected, "{error}");
    }
}
