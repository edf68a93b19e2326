//! The ways to append events.

use std::fmt::Display;

use factum_kernel::{
    Aggregate, Attempts, Committing, DecisionModel, Drafted, ErrorKind, ExecuteError, Kernel,
    Metadata, Repository, RetryPolicy, Transaction, TransactionError,
};
use factum_runtime::{CommandRouter, Commands, Entities};

use crate::bench::options;

/// A way to append events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Repository,
    Draft,
    Transaction,
    Model,
    Entities,
    Commands,
}

/// A rejection or an error, as its caller sees it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) kind: ErrorKind,
    pub(crate) text: String,
}

impl Refusal {
    fn new(kind: ErrorKind, error: impl Display) -> Self {
        Self { kind, text: error.to_string() }
    }
}

impl<R: std::error::Error> From<ExecuteError<R>> for Refusal {
    fn from(error: ExecuteError<R>) -> Self {
        Self::new(error.kind(), error)
    }
}

/// The targets that commands are sent to.
pub(crate) struct Target<'k> {
    pub(crate) kernel: &'k Kernel,
    pub(crate) retry: RetryPolicy,
}

impl<'k> Target<'k> {
    pub(crate) fn new(kernel: &'k Kernel) -> Self {
        Self { kernel, retry: RetryPolicy::new() }
    }
}

impl From<TransactionError> for Refusal {
    fn from(error: TransactionError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// The command of a model that decides as an aggregate does, with the aggregate's key.
#[derive(Debug, Clone)]
pub(crate) struct Keyed<C> {
    pub(crate) key: String,
    pub(crate) command: C,
}

impl Entry {
    pub(crate) const ALL: [Self; 6] = [
        Self::Repository,
        Self::Draft,
        Self::Transaction,
        Self::Model,
        Self::Entities,
        Self::Commands,
    ];

    /// Sends a command this way. The model decides as the aggregate does, and gets the key.
    pub(crate) async fn send<A, M>(
        self,
        target: &Target<'_>,
        key: &str,
        command: A::Command,
        metadata: &Metadata,
    ) -> Result<(), Refusal>
    where
        A: Aggregate<Command: Clone>,
        M: DecisionModel<Command = Keyed<A::Command>>,
    {
        let Target { kernel, retry } = *target;
        let repository = Repository::<A>::new(kernel.clone()).with_retry(retry);
        match self {
            Self::Repository => drop(repository.execute_with(key, &command, metadata).await?),
            Self::Draft => draft(&repository, key, &command, metadata).await?,
            Self::Transaction => {
                let one = Transaction::new(kernel.clone()).with_retry(retry);
                one.execute(&repository, key, command).commit(metadata).await?;
            }
            Self::Model => {
                let command = Keyed { key: key.to_owned(), command };
                let one = Transaction::new(kernel.clone()).with_retry(retry);
                one.decide::<M>(command).commit(metadata).await?;
            }
            Self::Entities => {
                let entities = Entities::new(repository, options());
                let asked = entities.ask_with(key, command, metadata.clone()).await;
                asked.map_err(|error| Refusal::new(error.kind(), error))?;
            }
            Self::Commands => {
                let router = CommandRouter::new().with(Entities::new(repository, options()));
                let commands = Commands::new(router, kernel);
                let sent = commands.dispatch_with::<A>(key, command, metadata.clone()).await;
                sent.map_err(|error| Refusal::new(error.kind(), error))?;
            }
        }
        Ok(())
    }
}

async fn draft<A: Aggregate>(
    repository: &Repository<A>,
    key: &str,
    command: &A::Command,
    metadata: &Metadata,
) -> Result<(), ExecuteError<A::Rejection>> {
    let mut attempts = Attempts::new(repository.retry());
    loop {
        let mut draft = repository.draft(&repository.stream(key)?, &mut attempts).await?;
        let drafted = draft.decide(repository, command, metadata)?;
        assert!(matches!(drafted, Drafted::Taken(events) if !events.is_empty()));
        if let Committing::Stored(_) = draft.commit(repository, &mut attempts).await? {
            return Ok(());
        }
    }
}
