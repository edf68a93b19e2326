use std::{error::Error, sync::Arc, time::Duration};

use factum_kernel::{
    DecodeError, DecodeReason, ErrorKind, Position, ReadError, StoreError, StreamId, sentence,
};
use factum_testing::{Hidden, assert_kinds};

use super::{HandleError, ReleaseError, StartError, WaitError};
use crate::{
    BusError, RewindError, TargetError, UnreadEvent,
    health::{StopCause, StopReason},
    name::ConsumerName,
    outage::Outages,
};

fn away() -> StoreError {
    StoreError::unavailable("away")
}

fn stream() -> StreamId {
    StreamId::new("account", "ada").expect("it is a stream")
}

fn name() -> ConsumerName {
    ConsumerName::new("counts").expect("it is a name")
}

fn source(error: StoreError) -> Arc<dyn Error + Send + Sync> {
    Arc::new(error)
}

fn undecoded() -> DecodeError {
    let stream = "account-ada".into();
    let position = Position::new(1);
    let reason = DecodeReason::UnknownType;
    DecodeError { stream, position, name: "account.opened".into(), schema_version: 1, reason }
}

fn no_name() -> crate::InvalidConsumerName {
    ConsumerName::new("").expect_err("it is no name")
}

fn behind() -> WaitError {
    let position = Position::new(2);
    let reached = Position::new(1);
    let waited = Duration::ZERO;
    WaitError::Behind { consumer: name(), position, reached, waited }
}

fn unread() -> WaitError {
    let event = UnreadEvent {
        stream: stream(),
        position: Position::new(2),
        event: "account.frozen".into(),
        error: "no variant has this name".into(),
    };
    WaitError::Unread { consumer: name(), event }
}

fn stopped() -> WaitError {
    WaitError::Stopped { consumer: name(), reason: StopReason::Asked }
}

#[test]
fn every_error_of_consumers_has_its_kind() {
    assert_kinds!(ReleaseError {
        ReleaseError::NothingParked(_) = ReleaseError::NothingParked(stream()) => Invalid,
        ReleaseError::Failed(_) = ReleaseError::Failed("thirteen".into()) => Internal,
        ReleaseError::NotNow(_) = ReleaseError::interrupted() => Unavailable,
        ReleaseError::Stopped = ReleaseError::Stopped => Closed,
    });
    assert_kinds!(StartError {
        StartError::Name(_) = no_name().into() => Invalid,
        StartError::Running(_) = StartError::Running(name()) => Invalid,
        StartError::Closed(_) = StartError::Closed(name()) => Closed,
        StartError::OnePartition(_) = StartError::OnePartition(name()) => Invalid,
        StartError::PartitionedByKey(_) = StartError::PartitionedByKey(name()) => Invalid,
        StartError::Store(_) = away().into() => Unavailable,
        StartError::Target(_) = TargetError::Fenced.into() => Conflict,
    });
    assert_kinds!(WaitError {
        WaitError::Behind { .. } = behind() => TimedOut,
        WaitError::Unread { .. } = unread() => TimedOut,
        WaitError::Stopped { .. } = stopped() => Closed,
        WaitError::Unknown(_) = WaitError::Unknown("x".into()) => Invalid,
        WaitError::Store(_) = away().into() => Unavailable,
    });
    assert_kinds!(BusError {
        BusError::Read(_) = ReadError::from(away()).into() => Unavailable,
        BusError::Decode(_) = BusError::Decode(Box::new(undecoded())) => Corrupt,
    });
    // Its text holds that of its source, so it is shown without the chain.
    for (error, kind) in [
        (TargetError::Fenced, ErrorKind::Conflict),
        (TargetError::Overtaken, ErrorKind::Conflict),
        (TargetError::Unknown(source(away())), ErrorKind::Unknown),
        (TargetError::TooLarge(source(away())), ErrorKind::Invalid),
        (away().into(), ErrorKind::Unavailable),
        (StoreError::internal("x").into(), ErrorKind::Unavailable),
        (StoreError::invalid("x").into(), ErrorKind::Invalid),
        (StoreError::closed().into(), ErrorKind::Closed),
        (StoreError::corrupt("x").into(), ErrorKind::Corrupt),
    ] {
        assert_eq!(error.kind(), kind, "{error}");
    }
    assert_kinds!(RewindError {
        RewindError::Running(_) = RewindError::Running(name()) => Invalid,
        RewindError::Unknown(_) = RewindError::Unknown(name()) => Invalid,
        RewindError::Beyond { .. } =
            RewindError::Beyond { position: Position::ZERO, head: Position::ZERO } => Invalid,
        RewindError::Store(_) = away().into() => Unavailable,
        RewindError::Target(_) = TargetError::Fenced.into() => Conflict,
    });
}

#[test]
fn an_error_about_a_stop_shows_its_cause_and_is_closed_whatever_the_cause_is() {
    let damaged = StoreError::corrupt("the last page is damaged");
    let reason = StopReason::Broken(StopCause::new(damaged));
    assert_eq!((reason.kind(), ErrorKind::of(&reason)), (ErrorKind::Corrupt, reason.kind().into()));
    let error = WaitError::Stopped { consumer: name(), reason };
    let text = sentence(&error);
    assert!(text.ends_with("can't continue: the last page is damaged"), "{text}");
    assert_eq!((error.kind(), ErrorKind::of(&error)), (ErrorKind::Closed, error.kind().into()));
    for (reason, kind) in
        [(StopReason::Asked, ErrorKind::Closed), (StopReason::Fenced, ErrorKind::Conflict)]
    {
        assert_eq!((reason.kind(), ErrorKind::of(&reason)), (kind, Some(kind)));
    }
    let bare = StopReason::Broken(StopCause::new("a defect"));
    assert_eq!(bare.kind(), ErrorKind::Internal);
}

#[test]
fn an_outage_is_found_however_it_is_wrapped() {
    #[derive(Debug, thiserror::Error)]
    #[error("the total was not written")]
    struct Wrapped(#[source] Box<dyn Error + Send + Sync>);
    let outages: Vec<HandleError> = vec![
        Box::new(away()),
        Box::new(Hidden(away())),
        Box::new(Hidden(Hidden(WaitError::from(away())))),
        // The consumer that was waited for may have been stopped by a shutdown.
        Box::new(Hidden(stopped())),
        Box::new(Hidden(StartError::from(StoreError::closed()))),
        Box::new(Wrapped(Box::new(Hidden(RewindError::from(away()))))),
        // The handler's error shows the outage of another service.
        Box::new(Wrapped(Box::new(StoreError::unavailable("the mail server is away")))),
    ];
    for error in outages {
        assert!(Outages::default().caused(&*error), "{error:?}");
    }
    let failures: Vec<HandleError> = vec![
        "thirteen".into(),
        Box::new(Hidden(behind())),
        Box::new(Hidden(StoreError::invalid("x"))),
        Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)),
    ];
    for error in failures {
        assert!(!Outages::default().caused(&*error), "{error:?}");
    }
}
