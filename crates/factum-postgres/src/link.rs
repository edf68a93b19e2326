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
use factum_core::StoreError;
use tokio::{sync::mpsc, time::timeout};
use tokio_postgres::{
    AsyncMessage, CancelToken, Client, Row,
    config::SslMode,
    error::Severity,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    error,
    options::{PostgresOptions, Tls},
    tls,
};

/// How long the server may take to cancel a statement before its connection is given up.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// The most news that wait for the listener; further ones are dropped, for any one will do.
pub(crate) const NEWS_MAX: usize = 64;

/// A parameter of a statement, with its type.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// How connections are made.
#[derive(Clone)]
pub(crate) struct Dialer {
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    connect_timeout: Duration,
    statement_timeout: Duration,
    pub(crate) place: Arc<str>,
}

impl Dialer {
    pub(crate) fn new(options: &PostgresOptions) -> Result<Self, StoreError> {
        let mut config = options.config.clone();
        config.ssl_mode(match options.tls {
            Tls::Disable => SslMode::Disable,
            Tls::Prefer => SslMode::Prefer,
            Tls::Require | Tls::VerifyFull => SslMode::Require,
        });
        config.connect_timeout(options.connect_timeout);
        if config.get_application_name().is_none() {
            config.application_name("factum");
        }
        Ok(Self {
            config,
            tls: tls::connector(options)?,
            connect_timeout: options.connect_timeout,
            statement_timeout: options.statement_timeout,
            place: options.place().into(),
        })
    }

    /// A connection, driven by a task of the runtime that this is called in. What it is notified
    /// of goes to `news`.
    pub(crate) async fn connect(
        &self,
        news: Option<mpsc::Sender<String>>,
    ) -> Result<Link, StoreError> {
        let connected = timeout(self.connect_timeout, self.config.connect(self.tls.clone())).await;
        let (client, mut connection) = connected
            .map_err(|_| no_answer(&self.place))?
            .map_err(|e| error::at(&self.place, &e))?;
        let warned = Arc::new(AtomicBool::new(false));
        let notices = Arc::clone(&warned);
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                match message {
                    AsyncMessage::Notice(notice)
                        if notice.parsed_severity() == Some(Severity::Warning) =>
                    {
                        notices.store(true, Ordering::Release);
                    }
                    AsyncMessage::Notification(notification) => {
                        if let Some(news) = &news {
                            // Where there are too many, those that wait say enough.
                            let _ = news.try_send(notification.payload().into());
                        }
                    }
                    _ => {}
                }
            }
        });
        let cancel = client.cancel_token();
        let dialer = self.clone();
        let link = Link { client, cancel, warned, is_asked: AtomicBool::new(false), dialer };
        link.pin_isolation().await?;
        Ok(link)
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("place", &self.place).finish_non_exhaustive()
    }
}

/// A connection.
pub(crate) struct Link {
    client: Client,
    cancel: CancelToken,
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
        let (place, limit) = (&self.dialer.place, self.dialer.statement_timeout);
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

    /// Runs statements without parameters whose outcome is of no account.
    pub(crate) async fn run(&self, statements: &str) -> Result<(), StoreError> {
        let place = &self.dialer.place;
        match timeout(self.dialer.statement_timeout, self.client.batch_execute(statements)).await {
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
        let place = &self.dialer.place;
        self.warned.store(false, Ordering::Release);
        self.is_asked.store(true, Ordering::Release);
        let mut asked = std::pin::pin!(self.client.query_typed(statement, parameters));
        let answer = match timeout(self.dialer.statement_timeout, &mut asked).await {
            Ok(answer) => answer,
            Err(_) => {
                // Whether the cancellation arrives shows in the answer to the statement itself.
                let cancel = self.cancel.cancel_query(self.dialer.tls.clone());
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
        f.debug_struct("Link").field("place", &self.dialer.place).finish_non_exhaustive()
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
