//! The desk: the thread of the writer's process that carries orders out.

use std::{
    io::{self, Write},
    sync::mpsc,
    thread,
    time::Duration,
};

use async_trait::async_trait;
use factum_kernel::StoreError;
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

/// A store that carries orders out.
#[async_trait]
pub(crate) trait Carry: Send + Sync {
    /// Carries an order out.
    async fn carry_out(&self, order: Order) -> Outcome;
}

/// The thread that looks into the inbox, until this is dropped.
#[derive(Debug)]
pub(crate) struct Desk {
    /// Its drop ends the thread.
    stop: Option<mpsc::Sender<()>>,
    ended: watch::Receiver<()>,
}

impl Desk {
    /// Starts to look, for the store that `hold` gives as long as it is there.
    pub(crate) fn open<S: Carry>(
        folder: Folder,
        hold: impl Fn() -> Option<S> + Send + 'static,
    ) -> Result<Self, StoreError> {
        // Others may send orders as soon as the journal is open. A journal on a full disk opens
        // without an inbox; the thread makes it later.
        let _ = folder.make();
        let at = |e| StoreError::unavailable("no thread could be started").with_source(e);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(at)?;
        let (stop, stopped) = mpsc::channel();
        let (is_running, ended) = watch::channel(());
        let name = "factum-inbox".to_owned();
        let thread = thread::Builder::new().name(name).spawn(move || {
            attend(&folder, &runtime, &hold, &stopped);
            drop(is_running);
        });
        thread.map_err(at)?;
        Ok(Self { stop: Some(stop), ended })
    }

    /// Stops the thread, and waits for the order that it carries out.
    pub(crate) async fn close(&mut self) {
        self.stop = None;
        while self.ended.changed().await.is_ok() {}
    }
}

fn attend<S: Carry>(
    folder: &Folder,
    runtime: &Runtime,
    hold: &dyn Fn() -> Option<S>,
    stopped: &mpsc::Receiver<()>,
) {
    let mut pause = LOOK_MIN;
    let mut desk = None;
    while stopped.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
        pause = (2 * pause).min(LOOK_MAX);
        // Where it can't be looked into, senders say that nobody takes their orders.
        let Ok((inbox, waiting)) = look(folder) else { continue };
        if desk.as_ref().is_none_or(|desk| !inbox.is_attended_by(desk)) {
            // An error is met again, and this tried again, at the next look.
            desk = inbox.attend().ok();
        }
        for id in waiting {
            let Some(store) = hold() else { return };
            // Of one that fails the sender finds that the lock of its answer has gone, or that
            // nobody takes it.
            pause = serve(&inbox, runtime, &store, id).map_or(LOOK_MAX, |()| LOOK_MIN);
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

/// Carries out one order, if its sender is still there.
fn serve(inbox: &Inbox, runtime: &Runtime, store: &impl Carry, id: Uuid) -> io::Result<()> {
    // Locked before the order is taken: without the lock nobody works on it.
    let mut answering = inbox.create(id, Part::Answering)?;
    // Others may have been carried out since it was seen, and that takes its time.
    if inbox.is_held(id, Part::Order)? != Some(true) {
        // Withdrawn, or without its sender, which the next look removes.
        return inbox.remove(id, Part::Answering).map(drop);
    }
    match inbox.rename(id, Part::Order, Part::Taken) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return inbox.remove(id, Part::Answering).map(drop);
        }
        taken => taken?,
    }
    let order = inbox.read(id, Part::Taken)?.unwrap_or_default();
    let answer = match unseal(&order) {
        Some(order) => Ok(runtime.block_on(store.carry_out(order))),
        None => Err(StoreError::invalid(
            "the order can't be read, send it by the version of the program that has the journal \
             open",
        )),
    };
    answering.write_all(&seal(&answer))?;
    inbox.rename(id, Part::Answering, Part::Answer)
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Mutex};

    use factum_kernel::KeyRange;

    use super::*;
    use crate::disk::SystemFiles;

    /// Notes what it is asked.
    #[derive(Default)]
    struct Noted(Mutex<Vec<Order>>);

    #[async_trait]
    impl Carry for Noted {
        async fn carry_out(&self, order: Order) -> Outcome {
            self.0.lock().unwrap().push(order);
            Outcome::of(&Ok::<(), StoreError>(()))
        }
    }

    /// An inbox, and the orders of this many senders in it.
    fn inbox(senders: u128) -> (tempfile::TempDir, Inbox, Vec<fs::File>) {
        let journal = tempfile::tempdir().unwrap();
        let folder = Folder::of(&SystemFiles::open(journal.path()).unwrap());
        let inbox = folder.make().unwrap();
        let order = seal(&Order::Clear(KeyRange::all()));
        let send = |id| {
            let mut file = inbox.create(Uuid::from_u128(id), Part::Writing).unwrap();
            file.write_all(&order).unwrap();
            inbox.rename(Uuid::from_u128(id), Part::Writing, Part::Order).unwrap();
            file
        };
        let files = (1..=senders).map(send).collect();
        (journal, inbox, files)
    }

    #[test]
    fn an_order_whose_sender_goes_while_another_is_carried_out_is_not() {
        let (_journal, inbox, mut senders) = inbox(2);
        let runtime = Builder::new_current_thread().build().unwrap();
        let store = Noted::default();
        let waiting = inbox.waiting().unwrap();
        assert_eq!(waiting.len(), 2);
        serve(&inbox, &runtime, &store, waiting[0]).unwrap();
        senders.pop();
        serve(&inbox, &runtime, &store, waiting[1]).unwrap();
        assert_eq!(store.0.lock().unwrap().len(), 1);
        assert!(inbox.waiting().unwrap().is_empty(), "what is left of it is removed");
        assert!(!inbox.has(waiting[1], Part::Order).unwrap());
    }

    #[test]
    fn what_can_not_be_looked_at_holds_up_no_other_order() {
        let (journal, inbox, _senders) = inbox(1);
        let bad = journal.path().join("inbox").join(format!("{}.order", Uuid::from_u128(0)));
        std::os::unix::fs::symlink(&bad, &bad).unwrap();
        assert_eq!(inbox.waiting().unwrap(), [Uuid::from_u128(1)]);
    }

    #[test]
    fn a_desk_whose_file_was_removed_is_none_that_senders_see() {
        let (journal, inbox, _senders) = inbox(0);
        let desk = inbox.attend().unwrap();
        assert!(inbox.is_attended_by(&desk) && inbox.is_attended().unwrap());
        fs::remove_file(journal.path().join("inbox").join("desk")).unwrap();
        assert!(!inbox.is_attended_by(&desk) && !inbox.is_attended().unwrap());
        let again = inbox.attend().unwrap();
        assert!(!inbox.is_attended_by(&desk) && inbox.is_attended_by(&again));
    }
}
