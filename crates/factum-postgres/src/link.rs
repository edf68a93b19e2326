//! A connection, and the knowledge about the outcome of each statement sent over it.
//!
//! Statements are unnamed and leave no state, so the connection may lead to a pooler that gives
//! each transaction another server process.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_backend::CommitError;
use factum_kernel::StoreError;
use tokio::{runtime::Handle, sync::Notify, task::JoinHandle, time::timeout};
use tokio_postgres::{
    AsyncMessage, CancelToken, Client, Connection, Row, Socket,
    config::SslMode,
    error::Severity,
    tls::TlsStream,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    error,
    options::{PostgresOptions, Tls},
    tls,
};

/// The time that the server has to cancel a statement before its connection is given up.
pub(crate) const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// The time between two requests to cancel a statement. A request that arrives before the statement
/// has begun has no effect.
const CANCEL_EVERY: Duration = Duration::from_secs(1);

/// The time that a connection without an important statement has to close before its socket is
/// dropped. The server ends a statement that still runs when its time is over.
pub(crate) const CLOSE_MAX: Duration = Duration::from_secs(1);

/// A parameter of a statement, with its type.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// The fate of the running statement when its connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Running {
    /// The server is asked to cancel it.
    IsCancelled,
    /// It runs to its end.
    GoesOn,
}

/// Makes connections. Clones share what was learned about the server.
#[derive(Clone)]
pub(crate) struct Dialer(Arc<Dialing>);

struct Dialing {
    /// With a time limit for each statement, which the server enforces.
    limited: tokio_postgres::Config,
    /// Without the limit, for poolers that refuse it.
    plain: tokio_postgres::Config,
    is_refused: AtomicBool,
    tls: MakeRustlsConnect,
    connect_timeout: Duration,
    statement_timeout: Duration,
    place: String,
}

impl Dialer {
    pub(crate) fn new(options: &PostgresOptions) -> Result<Self, StoreError> {
        let mut plain = options.config.clone();
        plain.ssl_mode(match options.tls {
            Tls::Disable => SslMode::Disable,
            Tls::Prefer => SslMode::Prefer,
            Tls::Require | Tls::VerifyFull => SslMode::Require,
        });
        plain.connect_timeout(options.connect_timeout);
        if plain.get_application_name().is_none() {
            plain.application_name("factum");
        }
        let mut limited = plain.clone();
        // The user's own options come last, so that they win.
        let own = plain.get_options().unwrap_or_default();
        limited.options(format!("{} {own}", statement_limit(options.statement_timeout)).trim_end());
        Ok(Self(Arc::new(Dialing {
            limited,
            plain,
            is_refused: AtomicBool::new(false),
            tls: tls::connector(options)?,
            connect_timeout: options.connect_timeout,
            statement_timeout: options.statement_timeout,
            place: options.place(),
        })))
    }

    /// The place, for error messages.
    pub(crate) fn place(&self) -> &str {
        &self.0.place
    }

    /// The time limit of a statement.
    pub(crate) fn statement_timeout(&self) -> Duration {
        self.0.statement_timeout
    }

    /// Makes a connection, driven by a task of the caller's runtime. `news` is notified when a
    /// notification arrives.
    pub(crate) async fn connect(&self, news: Option<Arc<Notify>>) -> Result<Link, StoreError> {
        check_runtime()?;
        let place = self.place();
        let connected = timeout(self.0.connect_timeout, self.dial()).await;
        let (client, connection) =
            connected.map_err(|_| no_answer(place))?.map_err(|e| error::at(place, &e))?;
        let warned = Arc::new(AtomicBool::new(false));
        let driver = tokio::spawn(drive(connection, Arc::clone(&warned), news));
        let cancel = client.cancel_token();
        let runtime = Handle::current();
        let is_asked = AtomicBool::new(false);
        let dialer = self.clone();
        let link = Link { client, cancel, driver, runtime, warned, is_asked, dialer };
        match link.pin_isolation().await {
            Ok(()) => Ok(link),
            Err(error) => {
                // Left alone, it would wait for the server's answer without counting anywhere.
                link.end(Running::GoesOn, CLOSE_MAX).await;
                Err(error)
            }
        }
    }

    /// Connects with a time limit for statements, or without if a pooler refuses to pass it on.
    async fn dial(&self) -> Result<Dialled, tokio_postgres::Error> {
        let Dialing { limited, plain, is_refused, tls, .. } = &*self.0;
        if !is_refused.load(Ordering::Relaxed) {
            match limited.connect(tls.clone()).await {
                Err(error) if is_refusal_of_options(&error) => {
                    let connected = plain.connect(tls.clone()).await?;
                    // Only now it is known that the refusal was about this option.
                    is_refused.store(true, Ordering::Relaxed);
                    return Ok(connected);
                }
                connected => return connected,
            }
        }
        plain.connect(tls.clone()).await
    }
}

/// Refuses a caller outside of a runtime, whether or not a connection exists.
pub(crate) fn check_runtime() -> Result<(), StoreError> {
    let outside = "a PostgreSQL store needs a tokio runtime with I/O and time, call it from one";
    Handle::try_current().map(drop).map_err(|_| StoreError::invalid(outside))
}

type Stream = <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<Socket>>::Stream;
type Dialled = (Client, Connection<Socket, Stream>);

/// The limit as a start-up option, in whole milliseconds; 0 would mean no limit.
fn statement_limit(limit: Duration) -> String {
    let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1);
    format!("-c statement_timeout={millis}")
}

/// Returns whether a pooler refused an option of the start. PgBouncer calls an unknown option a
/// violation of the protocol; others answer that they don't support the feature.
fn is_refusal_of_options(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| ["08P01", "0A000"].contains(&code.code()))
}

/// Drives the connection until it is closed: by the server, or because its client has gone and no
/// statement is running.
async fn drive<S>(
    mut connection: Connection<Socket, S>,
    warned: Arc<AtomicBool>,
    news: Option<Arc<Notify>>,
) where
    S: TlsStream + Unpin,
{
    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
        match message {
            AsyncMessage::Notice(notice) if notice.parsed_severity() == Some(Severity::Warning) => {
                warned.store(true, Ordering::Release);
            }
            // Any client may send one, with any text: it only means that a look may pay off.
            AsyncMessage::Notification(_) => {
                if let Some(news) = &news {
                    news.notify_one();
                }
            }
            _ => {}
        }
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("place", &self.place()).finish_non_exhaustive()
    }
}

/// A connection.
pub(crate) struct Link {
    client: Client,
    cancel: CancelToken,
    /// The task that drives the connection, and ends with it.
    driver: JoinHandle<()>,
    runtime: Handle,
    /// True if the server sent a warning since the last statement.
    warned: Arc<AtomicBool>,
    /// True while the answer to a sent statement has not been taken.
    is_asked: AtomicBool,
    dialer: Dialer,
}

impl Link {
    /// Sets the isolation level. The role's default may be a level under which a lock does not show
    /// what was committed before it was granted. Behind a pooler this setting may not last; then
    /// the functions refuse.
    async fn pin_isolation(&self) -> Result<(), StoreError> {
        // Not by `ask`: a warning at the beginning of a session is not about a commit.
        let asked = "SELECT pg_catalog.current_setting('default_transaction_isolation')";
        let place = self.dialer.place();
        let limit = self.dialer.statement_timeout();
        let row = timeout(limit, self.client.query_typed_one(asked, &[])).await;
        let row = row.map_err(|_| no_answer(place))?.map_err(|e| error::at(place, &e))?;
        if get::<&str>(&row, 0)? != "read committed" {
            self.run("SET default_transaction_isolation TO 'read committed'").await?;
        }
        Ok(())
    }

    /// Returns whether the connection is known to be unusable. A statement whose caller has gone is
    /// left to end alone, so that its remaining answer is not taken for another statement's.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed() || self.is_asked.load(Ordering::Acquire)
    }

    /// The runtime that drives it.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Closes the connection after its running statement has ended, and waits for that. After
    /// `limit` it drops the socket.
    pub(crate) async fn end(self, running: Running, limit: Duration) {
        let Self { client, cancel, mut driver, is_asked, dialer, .. } = self;
        // Without its client, the driver ends after the last answer.
        drop(client);
        let closing = async {
            let is_cancelled = running == Running::IsCancelled && is_asked.into_inner();
            if is_cancelled {
                loop {
                    let cancel = cancel.cancel_query(dialer.0.tls.clone());
                    let _ = timeout(CANCEL_TIMEOUT, cancel).await;
                    if timeout(CANCEL_EVERY, &mut driver).await.is_ok() {
                        return;
                    }
                }
            }
            let _ = (&mut driver).await;
        };
        if timeout(limit, closing).await.is_err() {
            driver.abort();
        }
    }

    /// Runs statements without parameters whose outcome does not matter.
    pub(crate) async fn run(&self, statements: &str) -> Result<(), StoreError> {
        let place = self.dialer.place();
        let limit = self.dialer.statement_timeout();
        match timeout(limit, self.client.batch_execute(statements)).await {
            Ok(done) => done.map_err(|e| error::at(place, &e)),
            Err(_) => Err(no_answer(place)),
        }
    }

    /// Runs a statement as a transaction of its own, and cancels it if it takes too long. The error
    /// tells truthfully what is known of the outcome.
    pub(crate) async fn ask(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, CommitError> {
        let place = self.dialer.place();
        let limit = self.dialer.statement_timeout();
        self.warned.store(false, Ordering::Release);
        self.is_asked.store(true, Ordering::Release);
        let mut asked = std::pin::pin!(self.client.query_typed(statement, parameters));
        let answer = match timeout(limit, &mut asked).await {
            Ok(answer) => answer,
            Err(_) => {
                // The answer to the statement itself shows whether the cancellation arrived.
                let cancel = self.cancel.cancel_query(self.dialer.0.tls.clone());
                let _ = timeout(CANCEL_TIMEOUT, cancel).await;
                let answer = timeout(CANCEL_TIMEOUT, asked).await;
                answer.map_err(|_| CommitError::Unknown(no_answer(place)))?
            }
        };
        self.is_asked.store(false, Ordering::Release);
        // The answer ends after the commit, so a warning about the commit arrives before it.
        match answer {
            Ok(_) if self.warned.load(Ordering::Acquire) => {
                Err(CommitError::Unknown(StoreError::unavailable(format!(
                    "the server committed with a warning, it may not have waited for its standby: \
                     {place}"
                ))))
            }
            Ok(rows) => Ok(rows),
            Err(e) => Err(error::outcome(place, &e)),
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("place", &self.dialer.place()).finish_non_exhaustive()
    }
}

fn no_answer(place: &str) -> StoreError {
    StoreError::unavailable(format!("the server does not answer, try again: {place}"))
}

/// A value of a row.
pub(crate) fn get<'r, T: tokio_postgres::types::FromSql<'r>>(
    row: &'r Row,
    column: usize,
) -> Result<T, StoreError> {
    row.try_get(column).map_err(error::strange)
}
