//! The answer to an order: the store's result, as the store would return it to the sender itself.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use factum_kernel::{
    AppendError, Appended, ChangeError, Position, StoreError, StoreErrorKind, StreamInfo,
    StreamVersion, Timestamp, VersionConflict, Versions, WriteError,
};

use super::wire::{Wire, put_all, put_bytes, take_text};
use crate::{
    number::take_len,
    record::{StreamState, put_state, take_state},
};

impl Wire for Appended {
    fn put(&self, out: &mut BytesMut) {
        self.first.put(out);
        self.last.put(out);
        put_all(out, &self.versions);
        self.recorded_at.put(out);
        self.replayed.put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let first = Position::take(bytes)?;
        let last = Position::take(bytes)?;
        let versions = Versions::from(Vec::<StreamVersion>::take(bytes)?);
        let count = last.value().checked_sub(first.value())?.checked_add(1)?;
        let appended = Self::new(first, versions, Timestamp::take(bytes)?)
            .with_events(usize::try_from(count).ok()?);
        Some(if bool::take(bytes)? { appended.replayed() } else { appended })
    }
}

impl Wire for StreamInfo {
    fn put(&self, out: &mut BytesMut) {
        put_state(out, &StreamState { bounds: self.bounds, retention: self.retention });
        self.first_at.put(out);
        self.last_at.put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let StreamState { bounds, retention } = take_state(bytes)?;
        let first_at = Wire::take(bytes)?;
        let last_at = Wire::take(bytes)?;
        Some(Self::new(bounds).with_times(first_at, last_at).with_retention(retention))
    }
}

impl Wire for StoreError {
    fn put(&self, out: &mut BytesMut) {
        out.put_u8(match self.kind() {
            StoreErrorKind::Unavailable => 1,
            StoreErrorKind::Invalid => 2,
            StoreErrorKind::Corrupt => 3,
            StoreErrorKind::Closed => 4,
            _ => 5,
        });
        let mut text = self.to_string();
        // The first source names the remedy, which the kind does too.
        let mut source = self.source().and_then(Error::source);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        put_bytes(out, text.as_bytes());
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let kind = match u8::take(bytes)? {
            1 => StoreErrorKind::Unavailable,
            2 => StoreErrorKind::Invalid,
            3 => StoreErrorKind::Corrupt,
            4 => StoreErrorKind::Closed,
            5 => StoreErrorKind::Internal,
            _ => return None,
        };
        Some(Self::new(kind, take_text(bytes)?))
    }
}

impl Wire for AppendError {
    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Conflict(VersionConflict { stream, expected, actual, deleted_at }) => {
                out.put_u8(1);
                stream.put(out);
                expected.put(out);
                actual.put(out);
                deleted_at.put(out);
            }
            Self::ConditionFailed { condition, position } => {
                out.put_u8(2);
                (*condition as u64).put(out);
                position.put(out);
            }
            Self::Indeterminate(error) => {
                out.put_u8(3);
                error.put(out);
            }
            Self::Store(error) => {
                out.put_u8(4);
                error.put(out);
            }
            other => {
                out.put_u8(3);
                StoreError::internal(other.to_string()).put(out);
            }
        }
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        match u8::take(bytes)? {
            1 => {
                let stream = Wire::take(bytes)?;
                let expected = Wire::take(bytes)?;
                let actual = Wire::take(bytes)?;
                let deleted_at = Wire::take(bytes)?;
                Some(VersionConflict { stream, expected, actual, deleted_at }.into())
            }
            2 => {
                let condition = take_len(bytes)?;
                Some(Self::ConditionFailed { condition, position: Wire::take(bytes)? })
            }
            3 => StoreError::take(bytes).map(Self::Indeterminate),
            4 => StoreError::take(bytes).map(Self::Store),
            _ => None,
        }
    }
}

impl Wire for ChangeError {
    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Indeterminate(error) => {
                out.put_u8(1);
                error.put(out);
            }
            Self::Store(error) => {
                out.put_u8(2);
                error.put(out);
            }
            other => {
                out.put_u8(1);
                StoreError::internal(other.to_string()).put(out);
            }
        }
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        match u8::take(bytes)? {
            1 => StoreError::take(bytes).map(Self::Indeterminate),
            2 => StoreError::take(bytes).map(Self::Store),
            _ => None,
        }
    }
}

impl Wire for WriteError {
    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Conflict { entry } => {
                out.put_u8(1);
                (*entry as u64).put(out);
            }
            Self::Indeterminate(error) => {
                out.put_u8(2);
                error.put(out);
            }
            Self::Store(error) => {
                out.put_u8(3);
                error.put(out);
            }
            other => {
                out.put_u8(2);
                StoreError::internal(other.to_string()).put(out);
            }
        }
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        match u8::take(bytes)? {
            1 => take_len(bytes).map(|entry| Self::Conflict { entry }),
            2 => StoreError::take(bytes).map(Self::Indeterminate),
            3 => StoreError::take(bytes).map(Self::Store),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use factum_kernel::{ExpectedVersion as Version, StreamId};

    use super::*;
    use crate::inbox::wire::{seal, unseal};

    fn back<T: Wire>(value: &T) -> T {
        unseal(&seal(value)).unwrap()
    }

    #[test]
    fn an_answer_comes_back_as_it_was_given() {
        let versions = [3, 300].map(StreamVersion::new).to_vec();
        let appended = Appended::new(Position::new(7), versions.into(), Timestamp::from_micros(9))
            .with_events(5);
        for appended in [appended.clone(), appended.replayed()] {
            assert_eq!(back(&appended), appended);
        }
        let info = StreamInfo::default().with_times(Some(Timestamp::from_micros(4)), None);
        assert_eq!(back(&info), info);
    }

    #[test]
    fn an_error_comes_back_with_all_that_a_caller_can_ask_it() {
        let full = io::Error::new(io::ErrorKind::StorageFull, "no space");
        let error = StoreError::unavailable("the disk is full").with_source(full);
        let stream = StreamId::new("account", "ada").unwrap();
        let expected = Version::NoStream;
        let actual = StreamVersion::new(4);
        let deleted_at = Some(StreamVersion::new(3));
        let conflict = VersionConflict { stream, expected, actual, deleted_at };
        let errors = [
            AppendError::Conflict(conflict),
            AppendError::ConditionFailed { condition: 2, position: Position::new(300) },
            AppendError::Indeterminate(StoreError::corrupt("torn")),
            AppendError::Store(StoreError::closed()),
        ];
        for error in errors {
            assert_eq!(format!("{:?}", back(&error)), format!("{error:?}"));
        }
        let told = back(&error);
        assert_eq!(told.kind(), error.kind());
        assert_eq!(told.to_string(), "the disk is full: no space");
        for error in [
            ChangeError::Indeterminate(StoreError::corrupt("torn")),
            ChangeError::Store(StoreError::invalid("no")),
        ] {
            assert_eq!(format!("{:?}", back(&error)), format!("{error:?}"));
        }
        for error in [
            WriteError::Conflict { entry: 3 },
            WriteError::Indeterminate(StoreError::corrupt("torn")),
            WriteError::Store(StoreError::invalid("no")),
        ] {
            assert_eq!(format!("{:?}", back(&error)), format!("{error:?}"));
        }
    }
}
