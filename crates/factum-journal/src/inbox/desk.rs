//! The desk: the thread of the writer's process that carries orders out.

use std::{
    fmt,
    io::{self, Write},
    sync::mpsc,
    thread,
    time::Duration,
};

use async_trait::async_trait;
use factum_core::StoreError;
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
};
use uuid::Uuid;

use super::{
    folder::{Folder, Inbox, Part},
    order::Order,
    wire::{Outcome, seal, unseal},
};

/// The time between two looks when orders have come lately, and when none have.
const LOOK_MIN: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_millis(100);

/// The store that carries orders out.
#[async_trait]
pub(crate) trait Carry: fmt::Debug + Send + 'static {
    /// Carries an order out; `None` when the store has gone.
    async fn carry_out(&self, order: Order) -> Option<Outcome>;
}

/// Looks into the inbox until it is dropped.
#[derive(Debug)]
pub(crate) struct Desk {
    /// Its drop ends the thread.
    stop: Option<mpsc::Sender<()>>,
    ended: watch::Receiver<()>,
}

impl Desk {
    /// Starts to look.
    pub(crate) fn open(folder: Folder, store: impl Carry) -> Result<Self, StoreError> {
        // Others may send orders as soon as the journal is open. A journal on a full disk opens
        // without an inbox; the thread makes it later.
        let _ = folder.make();
        let at = |e| StoreError::unavailable("no thread could be started").with_source(e);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(at)?;
        let ((stop, stopped), (is_running, ended)) = (mpsc::channel(), watch::channel(()));
        let name = "factum-inbox".to_owned();
        let thread = thread::Builder::new().name(name).spawn(move || {
            attend(&folder, &runtime, &store, &stopped);
            drop(is_running);
        });
        thread.map_err(at)?;
        Ok(Self { stop: Some(stop), ended })
    }

    /// Ends it, after the order that it carries out.
    pub(crate) async fn close(&mut self) {
        self.stop = None;
        while self.ended.changed().await.is_ok() {}
    }
}

fn attend(folder: &Folder, runtime: &Runtime, store: &dyn Carry, stopped: &mpsc::Receiver<()>) {
    let mut pause = LOOK_MIN;
    let mut desk = None;
    while stopped.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
        pause = (2 * pause).min(LOOK_MAX);
        // Where it can't be looked into, senders say that nobody takes their orders.
        let Ok((inbox, waiting)) = look(folder) else { continue };
        if desk.is_none() {
            desk = inbox.attend().ok();
        }
        for id in waiting {
            pause = LOOK_MIN;
            match serve(&inbox, runtime, store, id) {
                Ok(Some(())) => {}
                Ok(None) => break,
                // The sender withdraws, or finds that the lock of its answer has gone.
                Err(_) => pause = LOOK_MAX,
            }
            if stopped.try_recv() != Err(mpsc::TryRecvError::Empty) {
                break;
            }
        }
    }
    if let Some(desk) = desk {
        // Not by the drop alone: a program that is being started may hold a copy of it.
        let _ = desk.unlock();
    }
}

/// The folder is opened at each look: it may have been removed, and copied back.
fn look(folder: &Folder) -> io::Result<(Inbox, Vec<Uuid>)> {
    let inbox = folder.make()?;
    let waiting = inbox.waiting()?;
    Ok((inbox, waiting))
}

/// Carries out one order; `None` when the store has gone.
fn serve(inbox: &Inbox, runtime: &Runtime, store: &dyn Carry, id: Uuid) -> io::Result<Option<()>> {
    // Locked before the order is taken: without the lock nobody works on it.
    let mut answering = inbox.create(id, Part::Answering)?;
    match inbox.rename(id, Part::Order, Part::Taken) {
        // It was withdrawn.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return inbox.remove(id, Part::Answering).map(|_| Some(()));
        }
        taken => taken?,
    }
    let order = inbox.read(id, Part::Taken)?.unwrap_or_default();
    let answer = match unseal(&order) {
        Some(order) => runtime.block_on(store.carry_out(order)).map(Ok),
        None => Some(Err(StoreError::invalid(
            "the order can't be read, send it by the version of the program that has the journal \
             open",
        ))),
    };
    let Some(answer) = answer else { return Ok(None) };
    answering.write_all(&seal(&answer))?;
    inbox.rename(id, Part::Answering, Part::Answer)?;
    Ok(Some(()))
}
