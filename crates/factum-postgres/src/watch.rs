//! News of what other processes append, and the telling of it to them: one connection, on a
//! thread of its own.
//!
//! Nothing depends on it: a `NOTIFY` that is lost, or a pooler that knows none, costs at most the
//! time between two looks at the head.

use std::{sync::Arc, thread, time::Duration};

use factum_backend::Head;
use factum_core::{Position, StoreError};
use tokio::{
    runtime::Builder,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_postgres::types::Type;

use crate::{
    error,
    link::{Dialer, Link, NEWS_MAX, get},
    number::unsigned,
    statement::Statements,
};

/// How long news may be missed: the head is looked at so often, whatever was heard.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The time between two `NOTIFY`s of this process: each takes a lock that the whole server has
/// once.
const NOTIFY_EVERY: Duration = Duration::from_millis(20);

/// The thread that keeps the head up to date. Dropping it ends the thread and waits for that.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Option<watch::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watch {
    /// `is_writer`: others are told of what this process appends.
    pub(crate) fn start(
        dialer: Dialer,
        statements: Arc<Statements>,
        (channel, is_writer): (String, bool),
        head: Head,
    ) -> Result<Self, StoreError> {
        let (stop, stopped) = watch::channel(());
        let listener = Listener { dialer, statements, channel, is_writer, head, stopped };
        let thread = thread::Builder::new().name("factum-postgres-head".into());
        let watch = move || {
            // Without one the head follows what is read, which is slower, and nothing else.
            if let Ok(runtime) = Builder::new_current_thread().enable_all().build() {
                runtime.block_on(listener.run());
            }
        };
        let thread = thread.spawn(watch).map_err(|e| {
            StoreError::unavailable("no thread to watch the head, try again").with_source(e)
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed, and the head is only a hint.
            let _ = thread.join();
        }
    }
}

struct Listener {
    dialer: Dialer,
    statements: Arc<Statements>,
    channel: String,
    is_writer: bool,
    head: Head,
    /// Nothing is ever sent; its end is the sign to stop.
    stopped: watch::Receiver<()>,
}

impl Listener {
    async fn run(mut self) {
        loop {
            let mut stopped = self.stopped.clone();
            tokio::select! {
                _ = stopped.changed() => return,
                // An error here is one that reads meet as well, and they report it.
                _ = self.listen() => {}
            }
            if timeout(LOOK_EVERY, self.stopped.changed()).await.is_ok() {
                return;
            }
        }
    }

    /// Listens until the connection is lost.
    async fn listen(&mut self) -> Result<(), StoreError> {
        let (tell, mut news) = mpsc::channel(NEWS_MAX);
        let link = self.dialer.connect(Some(tell)).await?;
        // What a standby can't do is left to looking.
        let _ = link.run(&format!("LISTEN \"{}\"", self.channel)).await;
        let mut own = self.head.subscribe();
        // Of this much others know.
        let mut told = self.look(&link).await?;
        loop {
            let heard = timeout(LOOK_EVERY, async {
                tokio::select! {
                    heard = news.recv() => heard,
                    _ = own.changed() => Some(String::new()),
                }
            });
            match heard.await {
                Err(_) => told = told.max(self.look(&link).await?),
                // The sender went with the connection's driver.
                Ok(None) => return Ok(()),
                Ok(Some(text)) => {
                    if let Ok(position) = text.parse().map(Position::new) {
                        told = told.max(position);
                        self.head.advance(position);
                    }
                }
            }
            let head = self.head.position();
            if self.is_writer && head > told {
                self.notify(&link, head).await?;
                told = head;
                // What is appended meanwhile is told in one piece.
                if timeout(NOTIFY_EVERY, self.stopped.clone().changed()).await.is_ok() {
                    return Ok(());
                }
            }
        }
    }

    async fn look(&self, link: &Link) -> Result<Position, StoreError> {
        let rows = link.ask(&self.statements.log_end, &[]).await.map_err(error::of_read)?;
        let head = match rows.first() {
            Some(row) => Position::new(unsigned(get(row, 0)?)),
            None => Position::ZERO,
        };
        self.head.advance(head);
        Ok(head)
    }

    /// Outside of any append, and without waiting for the disk: it stores nothing.
    async fn notify(&self, link: &Link, head: Position) -> Result<(), StoreError> {
        const NOTIFY: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'off', true), \
            pg_catalog.pg_notify($1, $2)";
        let (channel, head) = (&self.channel, head.to_string());
        let told = link.ask(NOTIFY, &[(channel, Type::TEXT), (&head, Type::TEXT)]).await;
        told.map_err(error::of_read).map(drop)
    }
}
