//! One connection, and what is known of each statement that was sent over it.
//!
//! Statements are unnamed and leave nothing behind, so that a connection may as well be one to a
//! pooler that gives each transaction another server process.

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

/// How long the server may take to cancel a statement before its connection is given up.
pub(crate) const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// The time between two requests to cancel a statement: one that comes before the statement has
/// begun does nothing.
const CANCEL_EVERY: Duration = Duration::from_secs(1);

/// How long a connection that runs nothing of account may take to close before its socket is
/// dropped. What it still runs, the server ends when its time is over.
pub(crate) const CLOSE_MAX: Duration = Duration::from_secs(1);

/// A parameter of a statement, with its type.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// What becomes of the statement that a connection runs when it is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Running {
    /// The server is asked to cancel it.
    IsCancelled,
    /// It runs to its end.
    GoesOn,
}

/// How connections are made. Clones share what was learned.
#[derive(Clone)]
pub(crate) struct Dialer(Arc<Dialing>);

struct Dialing {
    /// With a time limit for each statement, which the server keeps.
    limited: tokio_postgres::Config,
    /// Without, for poolers that refuse it.
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
        // The user's own come last, and so they hold.
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

    /// The place that errors name.
    pub(crate) fn place(&self) -> &str {
        &self.0.place
    }

    /// How long a statement may take.
    pub(crate) fn statement_timeout(&self) -> Duration {
        self.0.statement_timeout
    }

    /// A connection, driven by a task of the runtime that this is called in. `news` is told
    /// when it is notified of something.
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
                // Left alone, it would wait for the server's answer, and count nowhere.
                link.end(Running::GoesOn, CLOSE_MAX).await;
                Err(error)
            }
        }
    }

    /// Connects with a time limit for statements, and without where a pooler refuses to pass it on.
    async fn dial(&self) -> Result<Dialled, tokio_postgres::Error> {
        let Dialing { limited, plain, is_refused, tls, .. } = &*self.0;
        if !is_refused.load(Ordering::Relaxed) {
            match limited.connect(tls.clone()).await {
                Err(error) if is_refusal_of_options(&error) => {
                    let connected = plain.connect(tls.clone()).await?;
                    // Only now it is known that the option was what it refused.
                    is_refused.store(true, Ordering::Relaxed);
                    return Ok(connected);
                }
                connected => return connected,
            }
        }
        plain.connect(tls.clone()).await
    }
}

/// Refuses a caller outside of a runtime, whether a connection is there already or not.
pub(crate) fn check_runtime() -> Result<(), StoreError> {
    let outside = "a PostgreSQL store needs a tokio runtime with I/O and time, call it from one";
    Handle::try_current().map(drop).map_err(|_| StoreError::invalid(outside))
}

type Stream = <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<Socket>>::Stream;
type Dialled = (Client, Connection<Socket, Stream>);

/// The limit as an option of the connection's start, in whole milliseconds: 0 would be none.
fn statement_limit(limit: Duration) -> String {
    let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1);
    format!("-c statement_timeout={millis}")
}

/// PgBouncer calls an option of the start that it does not know a violation of the protocol, and
/// others say that they don't have the feature.
fn is_refusal_of_options(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| ["08P01", "0A000"].contains(&code.code()))
}

/// Until the connection is closed: by the server, or because its client has gone and nothing is
/// running any more.
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
            // Anybody may send one, with any text: it only means that a look may pay.
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
    /// Ends with the connection.
    driver: JoinHandle<()>,
    runtime: Handle,
    /// The server warned of something since the last statement was sent.
    warned: Arc<AtomicBool>,
    /// A statement was sent whose answer nobody has taken.
    is_asked: AtomicBool,
    dialer: Dialer,
}

impl Link {
    /// The role's default may be an isolation under which a lock does not show what was committed
    /// before it was given. Behind a pooler this may fail to hold; then the functions refuse.
    async fn pin_isolation(&self) -> Result<(), StoreError> {
        // Not by `ask`: what a server warns of when a session begins is about no commit.
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

    /// Whether it can't be used any more, as far as is known. A statement whose caller has gone is
    /// left to end alone, so that nothing it still has to say is taken for another's.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed() || self.is_asked.load(Ordering::Acquire)
    }

    /// The runtime that drives it.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Closes the connection when the statement that it runs has ended, waits for that, and after
    /// this time drops its socket.
    pub(crate) async fn end(self, running: Running, limit: Duration) {
        let Self { client, cancel, mut driver, is_asked, dialer, .. } = self;
        // With its client gone, the driver ends after the last answer.
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

    /// Runs statements without parameters whose outcome is of no account.
    pub(crate) async fn run(&self, statements: &str) -> Result<(), StoreError> {
        let place = self.dialer.place();
        let limit = self.dialer.statement_timeout();
        match timeout(limit, self.client.batch_execute(statements)).await {
            Ok(done) => done.map_err(|e| error::at(place, &e)),
            Err(_) => Err(no_answer(place)),
        }
    }

    /// Runs a statement as a transaction of its own, cancels it when it takes too long, and says
    /// truthfully what is known of it.
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
                // Whether the cancellation arrives shows in the answer to the statement itself.
                let cancel = self.cancel.cancel_query(self.dialer.0.tls.clone());
                let _ = timeout(CANCEL_TIMEOUT, cancel).await;
                let answer = timeout(CANCEL_TIMEOUT, asked).await;
                answer.map_err(|_| CommitError::Unknown(no_answer(place)))?
            }
        };
        self.is_asked.store(false, Ordering::Release);
        // The answer ends behind the commit, so that a warning about the commit is there before.
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
