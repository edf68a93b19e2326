use std::error::Error;

use factum_kernel::{
    Cause, CodecError, EncodeError, ErrorKind, EventName, ExpectedVersion, LoadError, StoreError,
    StreamId, StreamVersion, TransactionError, VersionConflict,
};

use super::{AskError, EntityError};
use crate::{
    bus::{BoxError, CommandError, DispatchError},
    supervisor::SupervisorError,
};

/// A user's own error that wraps one of Factum's.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Hidden<E: Error + 'static>(E);

/// The text of an error does not repeat that of its source.
fn is_said_once(error: &(dyn Error + 'static)) {
    let chain = std::iter::successors(Some(error), |error| (**error).source());
    let said: Vec<_> =
        chain.filter(|error| !error.is::<Cause>()).map(ToString::to_string).collect();
    for pair in said.windows(2) {
        assert!(!pair[0].contains(&pair[1]), "{:?} repeats its source {:?}", pair[0], pair[1]);
    }
}

/// Compares the kinds of all variants.
macro_rules! kinds {
    ($type:ty { $($pattern:pat = $error:expr => $kind:ident,)+ }) => {
        // A variant that the table lacks does not compile.
        #[allow(unreachable_patterns, reason = "a variant may have several kinds")]
        let _ = |error: &$type| match error { $($pattern => (),)+ };
        $({
            let error: $type = $error;
            assert_eq!(error.kind(), ErrorKind::$kind, "{error}");
            is_said_once(&error);
        })+
    };
}

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
    kinds!(EntityError {
        EntityError::Busy(_) = EntityError::Busy(ada()) => Unavailable,
        EntityError::Deadline(_) = EntityError::Deadline(ada()) => TimedOut,
        EntityError::Closed(_) = EntityError::Closed(ada()) => Closed,
        EntityError::Quarantined { .. } =
            EntityError::Quarantined { cause: Box::new(away().into()) } => Internal,
        EntityError::Panicked { .. } = panicked() => Internal,
        EntityError::Lost(_) = EntityError::Lost(ada()) => Unknown,
        EntityError::Load(_) = LoadError::from(away()).into() => Unavailable,
        EntityError::Encode(_) = unwritten().into() => Invalid,
        EntityError::Conflict(_) = EntityError::Conflict(conflict()) => Conflict,
        EntityError::Indeterminate(_) = EntityError::Indeterminate(away()) => Unknown,
        EntityError::Store(_) = StoreError::closed().into() => Closed,
    });
    kinds!(AskError<No> {
        AskError::Rejected(_) = AskError::Rejected(No) => Rejected,
        AskError::Failed(_) = EntityError::Busy(ada()).into() => Unavailable,
    });
    kinds!(CommandError {
        CommandError::UnknownAggregate(_) = CommandError::UnknownAggregate("account") => Invalid,
        CommandError::WrongCommand { .. } =
            CommandError::WrongCommand { category: "account", command: "open" } => Invalid,
        CommandError::Entity(_) = EntityError::Closed(ada()).into() => Closed,
        CommandError::Transaction(_) =
            CommandError::from(TransactionError::Indeterminate(away())) => Unknown,
    });
    kinds!(DispatchError<No> {
        DispatchError::Rejected(_) = DispatchError::Rejected(No) => Rejected,
        DispatchError::Refused(_) = DispatchError::Refused(Box::new(No)) => Rejected,
        DispatchError::Failed(_) = CommandError::from(panicked()).into() => Internal,
        DispatchError::Layer(_) = DispatchError::Layer(BoxError::from("x")) => Internal,
        DispatchError::Layer(_) = DispatchError::Layer(Box::new(away())) => Unavailable,
    });
    kinds!(SupervisorError {
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
