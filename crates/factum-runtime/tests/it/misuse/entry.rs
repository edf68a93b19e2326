//! The ways to an append.

use std::fmt::Display;

use factum_core::{
    Attempts, Drafted, ErrorKind, ExecuteError, Kernel, Metadata, Repository, RetryPolicy,
    Transaction, execute_model,
};
use factum_runtime::{CommandRouter, Commands, Entities};

use super::claim::{Claim, Claims, Found};
use crate::bench::options;

/// A way to an append.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entry {
    Repository,
    Draft,
    Transaction,
    Model,
    Entities,
    Commands,
}

/// A rejection or an error, as its caller sees it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) kind: ErrorKind,
    pub(super) text: String,
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

impl Entry {
    pub(super) const ALL: [Self; 6] = [
        Self::Repository,
        Self::Draft,
        Self::Transaction,
        Self::Model,
        Self::Entities,
        Self::Commands,
    ];

    /// Sends a claim this way.
    pub(super) async fn send(
        self,
        kernel: &Kernel,
        key: &str,
        claim: Claim,
        metadata: &Metadata,
    ) -> Result<(), Refusal> {
        let claims = Repository::<Claims>::new(kernel.clone());
        match self {
            Self::Repository => drop(claims.execute_with(key, &claim, metadata).await?),
            Self::Draft => draft(&claims, key, &claim, metadata).await?,
            Self::Transaction => {
                let one = Transaction::new(kernel.clone()).execute(&claims, key, claim);
                one.commit(metadata).await?;
            }
            Self::Model => {
                let command = (key.to_owned(), claim);
                execute_model::<Found>(kernel, &command, metadata, RetryPolicy::new()).await?;
            }
            Self::Entities => {
                let entities = Entities::new(claims, options());
                let asked = entities.ask_with(key, claim, metadata.clone()).await;
                asked.map_err(|error| Refusal::new(error.kind(), error))?;
            }
            Self::Commands => {
                let router = CommandRouter::new().with(Entities::new(claims, options()));
                let commands = Commands::new(router, kernel);
                let sent = commands.dispatch_with::<Claims>(key, claim, metadata.clone()).await;
                sent.map_err(|error| Refusal::new(error.kind(), error))?;
            }
        }
        Ok(())
    }
}

async fn draft(
    claims: &Repository<Claims>,
    key: &str,
    claim: &Claim,
    metadata: &Metadata,
) -> Result<(), ExecuteError<super::claim::Taken>> {
    let mut attempts = Attempts::new(RetryPolicy::new());
    let mut draft = claims.draft(&claims.stream(key)?, &mut attempts).await?;
    let drafted = draft.decide(claims, claim, metadata)?;
    assert!(matches!(drafted, Drafted::Taken(events) if events.len() == 1));
    draft.commit(claims, &mut attempts).await.map(drop)
}
