//! States that are stored nowhere: folded from the log when somebody asks.

use factum_kernel::{
    DecodeError, ErrorKind, Event, InvalidTag, Kernel, Matching, Position, ReadQuery,
    RecordedEvent, StoreError, decode_event,
};

/// Why a live state can't be folded.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event that this program can't read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A tag of the query is none, or a hashed one lacks its key.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
}

impl LiveError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind().into(),
            Self::Decode(error) => error.kind(),
            Self::Tag(error) => error.kind(),
        }
    }
}

/// A state folded from the events that match a query, up to now or to a position, and kept
/// nowhere. For what is asked rarely or has few events; else a
/// [`Projection`](crate::Projection) is worth it.
///
/// It folds the events that are there. A stream whose history went behind a summary gives its
/// summary and what came after; events of other enums that match are left out.
///
/// ```
/// use factum_kernel::Matching;
/// use factum_projection::LiveState;
/// use factum_testing::bank::{Account, AccountCommand, AccountEvent};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
/// # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
/// # let accounts = factum_kernel::Repository::<Account>::new(kernel.clone());
/// # let email = "ada@example.org".to_owned();
/// # accounts.execute("ada", &AccountCommand::Open { owner: "Ada".into(), email }).await?;
/// # accounts.execute("ada", &AccountCommand::Deposit { cents: 500 }).await?;
/// let deposited = LiveState::of(Matching::events::<AccountEvent>())
///     .fold(&kernel, 0, |sum, event, _| {
///         if let AccountEvent::Deposited { cents } = event {
///             *sum += cents;
///         }
///     })
///     .await?;
/// assert_eq!(deposited.state, 500);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct LiveState {
    matching: Matching,
    until: Option<Position>,
}

/// A folded state, and how far it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Folded<S> {
    /// The state.
    pub state: S,
    /// Every matching event up to here is in it, and none after.
    pub position: Position,
}

impl LiveState {
    /// Over the events that match, up to now.
    pub fn of(matching: Matching) -> Self {
        Self { matching, until: None }
    }

    /// Only up to this position: the state as it was then.
    pub fn until(mut self, position: Position) -> Self {
        self.until = Some(position);
        self
    }

    /// Reads and folds, page by page.
    ///
    /// # Errors
    /// Those of the store; an event that can't be decoded; a tag that is none.
    pub async fn fold<E: Event, S>(
        self,
        kernel: &Kernel,
        mut state: S,
        mut fold: impl FnMut(&mut S, E, &RecordedEvent),
    ) -> Result<Folded<S>, LiveError> {
        let query = self.matching.resolve(kernel.tag_key())?;
        let mut next = ReadQuery::matching(query);
        // What comes while it is folded is not in it: a fold has an end.
        let mut until = self.until;
        loop {
            let page = kernel.events().read(next.clone()).await?;
            let until = *until.get_or_insert(page.head);
            for recorded in page.events.iter().take_while(|event| event.position() <= until) {
                if E::owns(recorded.name()) && !recorded.stream().is_system() {
                    decode_event(recorded, &mut |event| fold(&mut state, event, recorded))?;
                }
            }
            match next.next(&page).filter(|_| page.scanned_through < until) {
                Some(query) => next = query,
                None => return Ok(Folded { state, position: until.min(page.scanned_through) }),
            }
        }
    }
}
