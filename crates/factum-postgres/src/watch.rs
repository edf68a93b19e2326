//! The news of appends, from and to other processes: one connection, on a thread of its own.
//!
//! No correctness depends on it. A lost `NOTIFY`, or a pooler without it, costs at most the time
//! between two looks at the head. A forged one costs a look, because it carries no data.

use std::{sync::Arc, thread, time::Duration};

use factum_backend::Head;
use factum_kernel::{Clock, StoreError, SystemClock};
use tokio::{
    runtime::Builder,
    sync::{Notify, watch},
    time::timeout,
};
use tokio_postgres::types::Type;

use crate::{
    error,
    link::{CANCEL_TIMEOUT, Dialer, Link, Running},
    pool::Pool,
    seen::Seen,
    statement::Statements,
};

/// The longest time that news may be missed: the head is looked at this often, whatever was heard.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The time between two `NOTIFY`s of this process, because each takes a lock that exists once per
/// server. Also the time between two looks after a `NOTIFY` was heard.
const NOTIFY_EVERY: Duration = Duration::from_millis(20);

/// Tells other processes to look at the head, which they then read from the server.
pub(crate) const NOTIFY: &str = "SELECT pg_catalog.pg_notify($1, '')";

/// The news between the writer and the listener. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals {
    /// The end of the log that the listener's server answered last.
    pub(crate) looked: Arc<watch::Sender<Option<Seen>>>,
    /// Notified when this process has appended.
    pub(crate) appended: Arc<Notify>,
}

/// The thread that keeps the head up to date. Its drop ends the thread and waits for its end.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Option<watch::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The listener's inputs and outputs.
pub(crate) struct Watched {
    pub(crate) dialer: Dialer,
    pub(crate) statements: Arc<Statements>,
    /// The channel on which other processes are notified and heard.
    pub(crate) channel: String,
    pub(crate) head: Head,
    pub(crate) signals: Signals,
    /// The pool whose idle connections are closed after this many looks.
    pub(crate) pool: Pool,
    pub(crate) idle_looks_max: u32,
}

impl Watch {
    pub(crate) fn start(watched: Watched) -> Result<Self, StoreError> {
        let (stop, stopped) = watch::channel(());
        let listener = Listener { watched, stopped };
        let thread = thread::Builder::new().name("factum-postgres-head".into());
        let watch = move || {
            // Without a runtime, the head only follows reads, which is slower but not wrong.
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
            // A panic of the thread has been printed, and the head is only a hint.
            let _ = thread.join();
        }
    }
}

struct Listener {
    watched: Watched,
    /// Never carries a message; its drop is the sign to stop.
    stopped: watch::Receiver<()>,
}

impl Listener {
    async fn run(self) {
        loop {
            tokio::select! {
                () = self.stopping() => return,
                // Reads meet the same error, and report it.
                _ = self.listen() => {}
            }
            if timeout(LOOK_EVERY, self.stopping()).await.is_ok() {
                return;
            }
        }
    }

    async fn stopping(&self) {
        let _ = self.stopped.clone().changed().await;
    }

    /// Listens until the connection is lost, or another server answers, on which no `LISTEN` was
    /// run.
    async fn listen(&self) -> Result<(), StoreError> {
        let news = Arc::new(Notify::new());
        let link = self.watched.dialer.connect(Some(news.clone())).await?;
        let listened = self.listen_on(&link, &news).await;
        link.end(Running::IsCancelled, CANCEL_TIMEOUT).await;
        listened
    }

    async fn listen_on(&self, link: &Link, news: &Notify) -> Result<(), StoreError> {
        // A standby can't listen; the looks do without.
        let _ = link.run(&format!("LISTEN \"{}\"", self.watched.channel)).await;
        let server = self.look(link).await?.server;
        let mut rested = SystemClock.monotonic();
        loop {
            let since = SystemClock.monotonic().saturating_since(rested);
            // A constant stream of news must not keep the look and the rest away.
            let is_own = match since >= LOOK_EVERY {
                true => None,
                false => timeout(LOOK_EVERY - since, self.heard(news)).await.ok(),
            };
            if is_own.is_none() {
                rested = SystemClock.monotonic();
                self.watched.pool.rest(self.watched.idle_looks_max);
            }
            if is_own == Some(true) {
                self.notify(link).await?;
            } else if self.look(link).await?.server != server {
                return Ok(());
            }
            // News that arrives in the meantime is sent, or looked for, together.
            let _ = timeout(NOTIFY_EVERY, self.stopping()).await;
        }
    }

    /// Waits until there is something to do. True: this process has appended.
    async fn heard(&self, news: &Notify) -> bool {
        tokio::select! {
            () = news.notified() => false,
            () = self.watched.signals.appended.notified() => true,
        }
    }

    async fn look(&self, link: &Link) -> Result<Seen, StoreError> {
        let known = self.watched.head.position();
        let rows = link.ask(&self.watched.statements.log_end, &[]).await;
        let seen = Seen::of(&rows.map_err(error::of_read)?)?;
        self.watched.head.answered(known, seen.head);
        self.watched.signals.looked.send_replace(Some(seen.clone()));
        Ok(seen)
    }

    /// Notifies outside of any append, and without waiting for the disk: it stores nothing.
    async fn notify(&self, link: &Link) -> Result<(), StoreError> {
        let told = format!("{NOTIFY}, pg_catalog.set_config('synchronous_commit', 'off', true)");
        let told = link.ask(&told, &[(&self.watched.channel, Type::TEXT)]).await;
        told.map_err(error::of_read).map(drop)
    }
}
