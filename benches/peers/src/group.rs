//! Group commit for engines that have none: async clients, a bounded channel, and one thread that
//! takes the waiting appends, stores them durably together, and answers.

use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, oneshot};

use crate::load::Record;

/// The most appends that wait before clients have to wait.
const CHANNEL_APPENDS: usize = 1_024;
/// The most events of a group.
const GROUP_EVENTS: usize = 4_096;

/// Stores a group durably before it returns.
pub(crate) trait Commit: Send + 'static {
    fn commit(&mut self, group: &[Vec<Record>]);
}

struct Request {
    records: Vec<Record>,
    done: oneshot::Sender<()>,
}

/// The clients' end.
#[derive(Debug)]
pub(crate) struct Grouped {
    requests: mpsc::Sender<Request>,
    thread: JoinHandle<()>,
}

impl Grouped {
    pub(crate) fn start(commit: impl Commit) -> Self {
        let (requests, received) = mpsc::channel(CHANNEL_APPENDS);
        let thread = thread::spawn(move || serve(commit, received));
        Self { requests, thread }
    }

    pub(crate) async fn append(&self, records: Vec<Record>) {
        let (done, is_done) = oneshot::channel();
        let sent = self.requests.send(Request { records, done }).await;
        assert!(sent.is_ok(), "the writer runs as long as there are clients");
        is_done.await.expect("the writer answers");
    }

    pub(crate) fn close(self) {
        drop(self.requests);
        self.thread.join().expect("the writer ends by itself");
    }
}

fn serve(mut commit: impl Commit, mut received: mpsc::Receiver<Request>) {
    let mut group = Vec::new();
    let mut answers = Vec::new();
    while let Some(first) = received.blocking_recv() {
        let mut next = Some(first);
        let mut events = 0;
        while let Some(Request { records, done }) = next {
            events += records.len();
            group.push(records);
            answers.push(done);
            next = if events < GROUP_EVENTS { received.try_recv().ok() } else { None };
        }
        commit.commit(&group);
        group.clear();
        for done in answers.drain(..) {
            // A client that went away needs no answer.
            let _ = done.send(());
        }
    }
}
