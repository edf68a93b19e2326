//! Projections: events in, a read model out.

use std::future::Future;

use factum_kernel::{Event, RecordedEvent};

use crate::{error::HandleError, target::Target};

/// A consumer that maintains a read model.
///
/// It writes to its target and nowhere else: a projection is handed events again when it is
/// rebuilt, and whatever else it did would be done again. What sends mails or calls services is a
/// [`Consumer`](crate::Consumer), which is never rebuilt.
///
/// ```
/// use factum_kernel::RecordedEvent;
/// use factum_projection::{Documents, DocumentsTx, HandleError, Projection};
/// use factum_testing::bank::AccountEvent;
///
/// /// Money in each account, in cents.
/// struct Balances;
///
/// impl Projection for Balances {
///     const NAME: &'static str = "balances";
///     type Event = AccountEvent;
///     type Target = Documents;
///
///     async fn project(
///         &self,
///         event: AccountEvent,
///         recorded: &RecordedEvent,
///         balances: &mut DocumentsTx,
///     ) -> Result<(), HandleError> {
///         match event {
///             AccountEvent::Deposited { cents } => {
///                 balances.update(recorded.stream().key(), |sum: &mut u64| *sum += cents).await
///             }
///             _ => Ok(()),
///         }
///     }
/// }
/// ```
pub trait Projection: Send + Sync + 'static {
    /// Its name: letters, digits, `-`, `_`, `.`.
    const NAME: &'static str;

    /// The version of what it does. A changed version is built beside the old one.
    const VERSION: u32 = 1;

    /// The events it is about. An enum of enums (`#[event(flatten)]`) for several aggregates.
    type Event: Event;

    /// Where the read model is.
    type Target: Target;

    /// Declares on a target what the read model needs: secondary indexes. What is declared
    /// otherwise asks for a larger [`VERSION`](Self::VERSION).
    fn declare(&self, target: Self::Target) -> Self::Target {
        target
    }

    /// Applies one event. What it writes to `tx` is stored together with the checkpoint; it may be
    /// called again for the same event where that failed.
    fn project(
        &self,
        event: Self::Event,
        recorded: &RecordedEvent,
        tx: &mut <Self::Target as Target>::Tx,
    ) -> impl Future<Output = Result<(), HandleError>> + Send;
}
