//! Live states: folded from the log on request, and stored nowhere.

use factum_kernel::{
    DecodeError, ErrorKind, Event, InvalidTag, Kernel, Matching, Position, ReadQuery,
    RecordedEvent, StoreError, decode_event,
};

/// The reason why a live state can't be folded.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event can't be decoded by this program.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A tag of the query is invalid, or its key for hashing is missing.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
}

impl LiveError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind().into(),
            Self::Decode(error) => error.kind(),
            Self::Tag(error) => error.kind(),
        }
    }
}

/// A state folded from the events that match a query, up to now or up to a position, and stored
/// nowhere. Use it for rare requests or few events; otherwise use a
/// [`Projection`](crate::Projection).
///
/// Deleted events are missing from it: if the history of a stream was deleted up to a summary, the
/// state is folded from the summary and the events after it. Matching events of other enums are
/// skipped.
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

/// A folded state and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Folded<S> {
    /// The state.
    pub state: S,
    /// The state contains every matching event up to this position, and no later one.
    pub position: Position,
}

impl LiveState {
    /// The state of the matching events, up to now.
    pub fn of(matching: Matching) -> Self {
        Self { matching, until: None }
    }

    /// Sets the last position to fold: the state as it was then.
    pub fn until(mut self, position: Position) -> Self {
        self.until = Some(position);
        self
    }

    /// Reads the events page by page and folds them.
    ///
    /// # Errors
    /// Errors of the store, an event that can't be decoded, an invalid tag.
    pub async fn fold<E: Event, S>(
        self,
        kernel: &Kernel,
        mut state: S,
        mut fold: impl FnMut(&mut S, E, &RecordedEvent),
    ) -> Result<Folded<S>, LiveError> {
        let query = self.matching.resolve(kernel.tag_key())?;
        let mut next = ReadQuery::matching(query);
        // Events that are appended during the fold are left out: a fold has an end.
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
