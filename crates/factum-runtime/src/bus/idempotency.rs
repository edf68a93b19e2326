//! Command ids that are derived from the command's metadata.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use factum_kernel::{CommandId, EventId, Timestamp};
use tower_layer::Layer;
use tower_service::Service;

use super::{request::CommandRequest, response::CommandResponse, step::CommandStep};

/// Recognises repeated commands by an entry of their metadata, such as the `idempotency-key` of an
/// HTTP request.
///
/// A command with the entry gets an id that is derived from category, key and entry. So equal
/// entries for two aggregates identify two commands. An entry that comes again with another command
/// for the same aggregate is refused: [`IdTaken`](factum_kernel::IdTaken). A transaction gets its
/// id from the categories and keys of all its steps. A decision, and a transaction with a decision
/// among its steps, gets none: a decision model has no key that tells two decisions apart, so the
/// caller gives the id. Then the command is sent as by
/// [`dispatch_once`](super::Commands::dispatch_once), with the same guarantees. A command that was
/// dispatched with an id keeps it. A command without the entry is decided each time it is sent. The
/// bus must know the stored names of the commands: [`Commands::named`](super::Commands::named).
///
/// ```
/// # use factum_kernel::{Kernel, Repository, TagKey};
/// # use factum_runtime::{CommandRouter, Commands, Entities, EntityOptions};
/// # use factum_testing::bank::{Account, AccountCommand};
/// use factum_kernel::Metadata;
/// use factum_runtime::IdempotencyLayer;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = Kernel::new(store.clone(), store).with_tag_key(TagKey::new([1; 32]));
/// # let repository = Repository::new(kernel.clone());
/// # let accounts = Entities::<Account>::new(repository, EntityOptions::new());
/// # let email = "ada@example.org".to_owned();
/// # accounts.ask("ada", AccountCommand::Open { owner: "Ada".into(), email }).await?;
/// # let commands = Commands::new(CommandRouter::new().with(accounts), &kernel);
/// let commands =
///     commands.named::<Account>().layer(IdempotencyLayer::new("idempotency-key"));
/// for replayed in [false, true] {
///     let sent = Metadata::new().with("idempotency-key", "order-17");
///     let deposit = AccountCommand::Deposit { cents: 500 };
///     let done = commands.dispatch_with::<Account>("ada", deposit, sent).await?;
///     assert_eq!(done.replayed, replayed);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct IdempotencyLayer {
    entry: Arc<str>,
}

impl IdempotencyLayer {
    /// Makes a layer that reads the entry with this name from the metadata's [free
    /// map](factum_kernel::Metadata::extra).
    pub fn new(entry: &str) -> Self {
        Self { entry: entry.into() }
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = Idempotency<S>;

    fn layer(&self, service: S) -> Idempotency<S> {
        Idempotency { entry: self.entry.clone(), service }
    }
}

/// The service that [`IdempotencyLayer`] makes.
#[derive(Debug, Clone)]
pub struct Idempotency<S> {
    entry: Arc<str>,
    service: S,
}

impl<S> Idempotency<S> {
    fn identified(&self, request: CommandRequest) -> CommandRequest {
        match request.metadata.extra.get(&self.entry) {
            Some(entry) if !request.is_once() && has_keys(&request) => {
                let source = source(&request, entry);
                // Not `CommandId::derived`: logs hold ids that earlier versions made in this way.
                let id = EventId::derived(Timestamp::EPOCH, source.as_bytes());
                request.once(CommandId::new(id.as_uuid()))
            }
            _ => request,
        }
    }
}

/// The text that an id is derived from: the steps and the entry. It can be split in one way only,
/// because a category has no dash and a key has no line feed.
fn source(request: &CommandRequest, entry: &str) -> String {
    let commands = || request.steps().iter().filter(|step| step.expected().is_none());
    let targets: String = commands().map(line).collect();
    match commands().count() {
        1 => format!("{targets}{entry}"),
        count => format!("{count}\n{targets}{entry}"),
    }
}

/// True if every step is for an aggregate with a key.
fn has_keys(request: &CommandRequest) -> bool {
    request.steps().iter().all(|step| !step.key().is_empty())
}

fn line(step: &CommandStep) -> String {
    format!("{}-{}\n", step.category(), step.key())
}

impl<S> Service<CommandRequest> for Idempotency<S>
where
    S: Service<CommandRequest, Response = CommandResponse>,
{
    type Response = CommandResponse;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: CommandRequest) -> S::Future {
        let request = self.identified(request);
        self.service.call(request)
    }
}
