//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once.

use tokio::sync::watch;

use crate::exit::{Exit, Failure};

/// Whether somebody asked for an end, and how. Clones know the same.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(watch::Receiver<Option<Exit>>);

impl Interrupt {
    /// Listens from now on.
    pub(crate) fn listen() -> Self {
        let (sender, receiver) = watch::channel(None);
        let mut terminations = Terminations::listen();
        tokio::spawn(async move {
            sender.send_replace(Some(next(&mut terminations).await));
            std::process::exit(next(&mut terminations).await as i32);
        });
        Self(receiver)
    }

    /// Goes on, or fails with this text, if somebody asked for an end.
    pub(crate) fn check(&self, text: &str) -> Result<(), Failure> {
        match *self.0.borrow() {
            Some(exit) => Err(Failure::new(exit, text)),
            None => Ok(()),
        }
    }

    /// Until somebody asks for an end: the failure with this text.
    pub(crate) async fn wait(&self, text: &str) -> Failure {
        let mut receiver = self.0.clone();
        let asked = receiver.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        match asked {
            Some(exit) => Failure::new(exit, text),
            None => std::future::pending().await,
        }
    }
}

/// The next signal, as the exit code that it leads to. Where none can be received, the system ends
/// the program by itself, and this waits for ever.
async fn next(terminations: &mut Terminations) -> Exit {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = interrupted => Exit::Interrupted,
        () = terminations.next() => Exit::Terminated,
    }
}

/// SIGTERM, where there is such a thing.
struct Terminations(#[cfg(unix)] Option<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Terminations {
    fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self(signal(SignalKind::terminate()).ok())
    }

    async fn next(&mut self) {
        let received = match &mut self.0 {
            Some(signal) => signal.recv().await,
            None => None,
        };
        if received.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(not(unix))]
impl Terminations {
    fn listen() -> Self {
        Self()
    }

    async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}
