//! Ctrl-C and SIGTERM: the first signal asks for an orderly end, the second ends at once.

use tokio::sync::watch;

use crate::exit::{Exit, Failure};

/// The request to end the program, once a signal came. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(watch::Receiver<Option<Exit>>);

impl Interrupt {
    /// Listens for signals from now on.
    pub(crate) fn listen() -> Self {
        let (sender, receiver) = watch::channel(None);
        let mut terminations = Terminations::listen();
        tokio::spawn(async move {
            sender.send_replace(Some(next(&mut terminations).await));
            std::process::exit(next(&mut terminations).await as i32);
        });
        Self(receiver)
    }

    /// Fails with this text if a signal came.
    pub(crate) fn check(&self, text: &str) -> Result<(), Failure> {
        match *self.0.borrow() {
            Some(exit) => Err(Failure::new(exit, text)),
            None => Ok(()),
        }
    }

    /// Waits for a signal and returns the failure with this text.
    pub(crate) async fn wait(&self, text: &str) -> Failure {
        let mut receiver = self.0.clone();
        let asked = receiver.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        match asked {
            Some(exit) => Failure::new(exit, text),
            None => std::future::pending().await,
        }
    }
}

/// Waits for the next signal and returns its exit code. Where no signal can be received, the system
/// ends the program by itself, and this waits forever.
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

/// SIGTERM, on systems that have it.
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
