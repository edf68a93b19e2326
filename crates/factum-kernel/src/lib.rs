//! The kernel of Factum: the vocabulary of event sourcing, the two traits that a store implements,
//! and the typed layer on top.
//!
//! Applications depend on the facade crate `factum`. Authors of stores depend on this crate and on
//! `factum-backend`.

mod number;

mod batch;
mod checkpoint;
mod digest;
mod document;
mod error;
mod event;
mod guarantee;
mod id;
mod kind;
mod limit;
mod metadata;
mod page;
mod position;
mod query;
mod read;
mod recorded;
mod store;
mod stream;
mod tag;
mod time;
mod version;

mod aggregate;
mod codec;
mod decision;
mod deletion;
mod draft;
mod encoder;
mod execution;
mod history;
mod identity;
mod kernel;
mod load;
mod model;
mod proposal;
mod read_back;
mod read_log;
mod repository;
mod retry;
mod schema;
mod snapshot;
mod subscription;
mod tagged;
mod transaction;

pub use aggregate::{Aggregate, Context, fold};
pub use batch::{AppendBatch, Appended, StreamCheck, StreamWrite, Versions};
pub use checkpoint::{Checkpoint, Diverged, DivergedReason};
pub use codec::{Cbor, Codec, CodecError, Json, Value};
pub use decision::{Decision, Verdict};
pub use deletion::OrDeleted;
pub use document::{
    Document, DocumentStore, DocumentWrite, ExpectedRevision, KeyRange, Revision, ScanPage,
    ScanQuery, WriteBatch,
};
pub use draft::{Draft, Drafted, Tail};
pub use error::{
    AppendError, ChangeError, StoreError, StoreErrorKind, VersionConflict, WriteError,
};
pub use event::{Content, EVENT_NAME_BYTES_MAX, EventName, InvalidEventName, NewEvent};
pub use execution::{AlongError, DeleteError, Deleted, ExecuteError, Executed, TransactionError};
pub use guarantee::{Durability, Guarantees, Limits, POLL_OWN, POLL_SHARED, Writers};
pub use history::{History, HistoryEntry};
pub use id::{EventId, IdSource, SystemIds};
pub use identity::{COMMAND_TAG, CommandId, IdTaken, NamedCommand, Once};
pub use kernel::Kernel;
pub use kind::{Cause, ErrorKind, sentence};
pub use load::{At, LoadError, Loaded};
pub use metadata::{METADATA_TEXT_BYTES_MAX, Metadata};
pub use model::{DecisionModel, ModelDecision};
pub use page::{Page, StreamBounds};
pub use position::{ErasedRange, Lineage, Position};
pub use proposal::Committing;
pub use query::{AppendCondition, Matching, QUERY_ITEMS_MAX, Query, QueryItem};
pub use read::{
    Direction, PAGE_BYTES_DEFAULT, PAGE_BYTES_MAX, PAGE_EVENTS_DEFAULT, PAGE_EVENTS_MAX, ReadFrom,
    ReadQuery, Scope,
};
pub use read_log::{ReadError, ReadLog};
pub use recorded::{
    BodyLayout, EventHeader, EventParts, InvalidBody, RecordedEvent, Tags, encode_tags,
};
pub use repository::Repository;
pub use retry::{Attempts, RetryPolicy};
pub use schema::{
    Command, DecodeError, DecodeReason, DuplicateEventType, EncodeError, EncodedEvent, Event,
    EventType, OldEvent, Upcast, Upcaster, decode_event, encode_event, upcast_event,
};
pub use snapshot::{InvalidSnapshotPolicy, SnapshotPolicy, SnapshotStats};
pub use store::{EventStore, RETRY_WINDOW, Retention, StreamChange, StreamInfo};
pub use stream::{
    CATEGORY_BYTES_MAX, Category, InvalidStreamId, KEY_BYTES_MAX, StreamId, StreamRef,
};
pub use subscription::{SubscribeFrom, Subscription, SubscriptionPages};
pub use tag::{InvalidTag, TAG_BYTES_MAX, TAGS_MAX, Tag, TagKey, TagWriter};
pub use time::{Clock, InvalidTimestamp, Monotonic, SystemClock, Timestamp};
pub use transaction::{Committed, StepRejected, Transaction};
pub use version::{ExpectedVersion, StreamVersion};

/// The type of correlation and causation ids.
pub use uuid::Uuid;

/// The paths that the macros' output and other crates of Factum use. Not a public interface.
#[doc(hidden)]
pub mod __private {
    pub use bytes;
    pub use serde;

    pub use crate::{
        codec::{Cbor, Codec, CodecError, Fields, read_fields},
        event::{Content, EventName},
        read_back::{ReadBackError, digest_of, encode_read_back},
        schema::{DecodeError, DecodeReason, EncodedEvent, EventType, upcast_event},
        stream::may_be_category,
        tag::{InvalidTag, TagWriter},
    };
}
