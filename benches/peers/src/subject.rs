//! One engine under measurement, of any kind: fresh for each reading of appends, filled once and
//! kept for the reads.

use std::{
    fs, io,
    marker::PhantomData,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    clients::{self, Measured},
    load::{EVENTS_PER_STREAM, Load, STREAMS, spread},
    peer::{self, Peer, Store},
};

/// The measurements of an engine.
pub(crate) trait Subject {
    /// Appends to a fresh engine.
    fn append(&self, disk: &Path, load: Load) -> Measured;
    /// Makes an engine filled with [`Load::to_read`].
    fn fill(&self, disk: &Path) -> Box<dyn Filled>;
}

/// An engine with events in it.
pub(crate) trait Filled {
    fn scan(&self, time_min: Duration) -> Measured;
    fn read_streams(&self, time_min: Duration) -> Measured;
    /// The size of its files on disk, including space that it set aside for later events.
    fn bytes_per_event(&self) -> f64;
}

pub(crate) fn subject(store: Store, runtime: &Arc<Runtime>) -> Box<dyn Subject> {
    match store {
        #[cfg(feature = "journal")]
        Store::Journal => Of::<peer::journal::Journal>::boxed(store, runtime),
        #[cfg(not(feature = "journal"))]
        Store::Journal => unreachable!("this build has no journal, and no name for it"),
        Store::Sqlite => Of::<peer::sqlite::Sqlite>::boxed(store, runtime),
        Store::Floor => Of::<peer::floor::Floor<true>>::boxed(store, runtime),
        Store::Growing => Of::<peer::floor::Floor<false>>::boxed(store, runtime),
        Store::Channel => Of::<peer::channel::Channel>::boxed(store, runtime),
        Store::Umadb => Of::<peer::umadb::Umadb<false>>::boxed(store, runtime),
        Store::UmadbCached => Of::<peer::umadb::Umadb<true>>::boxed(store, runtime),
        Store::Fjall => Of::<peer::fjall::Fjall>::boxed(store, runtime),
        Store::Redb => Of::<peer::redb::Redb>::boxed(store, runtime),
    }
}

struct Of<P> {
    store: Store,
    runtime: Arc<Runtime>,
    peer: PhantomData<P>,
}

impl<P: Peer> Of<P> {
    fn boxed(store: Store, runtime: &Arc<Runtime>) -> Box<dyn Subject> {
        Box::new(Self { store, runtime: runtime.clone(), peer: PhantomData })
    }

    fn open(&self, disk: &Path, events: usize) -> (TempDir, Arc<P>) {
        let folder = tempfile::Builder::new().prefix("peers-").tempdir_in(disk);
        let folder = folder.expect("the disk can be written to");
        let peer = self.runtime.block_on(P::open(folder.path(), events));
        (folder, Arc::new(peer))
    }

    fn run_load(&self, peer: &Arc<P>, load: Load) -> Measured {
        // Also in a group, each client's events are consecutive.
        let run = load.events_per_append;
        let load = if self.store.writes_groups() { load.as_groups() } else { load };
        let peer = peer.clone();
        let work = async move { clients::append(&peer, load, run).await };
        self.runtime.block_on(self.runtime.spawn(work)).expect("no panic")
    }
}

impl<P: Peer> Subject for Of<P> {
    fn append(&self, disk: &Path, load: Load) -> Measured {
        let (_folder, peer) = self.open(disk, load.events);
        let measured = self.run_load(&peer, load);
        close(&self.runtime, peer);
        measured
    }

    fn fill(&self, disk: &Path) -> Box<dyn Filled> {
        let load = Load::to_read();
        let (folder, peer) = self.open(disk, load.events);
        self.run_load(&peer, load);
        Box::new(FilledPeer { folder, peer: Some(peer), runtime: self.runtime.clone() })
    }
}

struct FilledPeer<P: Peer> {
    folder: TempDir,
    /// Present until it is closed.
    peer: Option<Arc<P>>,
    runtime: Arc<Runtime>,
}

impl<P: Peer> FilledPeer<P> {
    /// Repeats the call until the time has passed.
    fn repeat(&self, time_min: Duration, call: Call) -> Measured {
        let peer = self.peer.clone().expect("open until it is dropped");
        let events = call.events();
        let work = async move {
            let begin = Instant::now();
            let mut latencies = Vec::new();
            while begin.elapsed() < time_min {
                let asked = Instant::now();
                let found = call.make(&*peer, latencies.len()).await;
                assert_eq!(found, events, "events are missing");
                latencies.push(asked.elapsed());
            }
            Measured { events: events * latencies.len(), time: begin.elapsed(), latencies }
        };
        self.runtime.block_on(self.runtime.spawn(work)).expect("no panic")
    }
}

/// One read of everything, or of one stream.
#[derive(Debug, Clone, Copy)]
enum Call {
    Scan,
    Stream,
}

impl Call {
    fn events(self) -> usize {
        match self {
            Self::Scan => STREAMS * EVENTS_PER_STREAM,
            Self::Stream => EVENTS_PER_STREAM,
        }
    }

    async fn make<P: Peer>(self, peer: &P, n: usize) -> usize {
        match self {
            Self::Scan => peer.scan().await,
            Self::Stream => peer.read_stream(spread(n)).await,
        }
    }
}

impl<P: Peer> Filled for FilledPeer<P> {
    fn scan(&self, time_min: Duration) -> Measured {
        self.repeat(time_min, Call::Scan)
    }

    fn read_streams(&self, time_min: Duration) -> Measured {
        self.repeat(time_min, Call::Stream)
    }

    fn bytes_per_event(&self) -> f64 {
        let bytes = bytes_on_disk(self.folder.path()).expect("its folder can be read");
        bytes as f64 / (STREAMS * EVENTS_PER_STREAM) as f64
    }
}

impl<P: Peer> Drop for FilledPeer<P> {
    fn drop(&mut self) {
        if let Some(peer) = self.peer.take() {
            close(&self.runtime, peer);
        }
    }
}

fn close<P: Peer>(runtime: &Runtime, peer: Arc<P>) {
    let peer = Arc::into_inner(peer).expect("no client is left");
    runtime.block_on(peer.close());
}

fn bytes_on_disk(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let found = entry.metadata()?;
        bytes += if found.is_dir() { bytes_on_disk(&entry.path())? } else { found.blocks() * 512 };
    }
    Ok(bytes)
}
