//! The receiver: the thread of the writer's process that carries orders out.

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

/// The time between two looks after an order, which doubles up to [`LOOK_MAX`].
const LOOK_MIN: Duration = Duration::from_millis(1);
/// The longest time between two looks.
const LOOK_MAX: Duration = Duration::from_millis(100);

/// A store that can carry orders out.
#[async_trait]
pub(crate) trait Carry: Send + Sync {
    /// Carries an order out.
    async fn carry_out(&self, order: Order) -> Outcome;
}

/// The thread that takes orders from the inbox. Its drop ends the thread.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// Its drop ends the thread.
    stop: Option<mpsc::Sender<()>>,
    ended: watch::Receiver<()>,
}

impl Receiver {
    /// Starts the thread, for the store that `hold` returns as long as it exists.
    pub(crate) fn open<S: Carry>(
        folder: Folder,
        hold: impl Fn() -> Option<S> + Send + 'static,
    ) -> Result<Self, StoreError> {
        // Other processes may send orders as soon as the journal is open. On a full disk a journal
        // opens without an inbox, and the thread makes it later.
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

    /// Stops the thread, after it has carried out its current order.
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
    let mut lock = None;
    while stopped.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
        pause = (2 * pause).min(LOOK_MAX);
        // While the inbox can't be read, senders report that no process takes their orders.
        let Ok((inbox, waiting)) = look(folder) else { continue };
        if lock.as_ref().is_none_or(|lock| !inbox.is_attended_by(lock)) {
            // If this fails, the next look tries it again.
            lock = inbox.attend().ok();
        }
        for id in waiting {
            let Some(store) = hold() else { return };
            // If this fails, the sender finds that the lock of its answer is free, or that no
            // process takes the order.
            pause = serve(&inbox, runtime, &store, id).map_or(LOOK_MAX, |()| LOOK_MIN);
            if stopped.try_recv() != Err(mpsc::TryRecvError::Empty) {
                break;
            }
        }
    }
    if let Some(lock) = lock {
        // The drop alone might not unlock it: a child process that is being started may hold a copy
        // of the descriptor.
        let _ = lock.unlock();
    }
}

/// Opens the folder at each look, because it may have been removed and copied back.
fn look(folder: &Folder) -> io::Result<(Inbox, Vec<Uuid>)> {
    let inbox = folder.make()?;
    let waiting = inbox.waiting()?;
    Ok((inbox, waiting))
}

/// Carries out one order, if its sender is still there.
fn serve(inbox: &Inbox, runtime: &Runtime, store: &impl Carry, id: Uuid) -> io::Result<()> {
    // The lock comes before the order is taken: without the lock, no process works on it.
    let mut answering = inbox.create(id, Part::Answering)?;
    // Carrying out other orders since the look may have taken a while.
    if inbox.is_held(id, Part::Order)? != Some(true) {
        // Withdrawn, or without its sender; the next look removes it then.
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

    /// Records the orders that it is given.
    #[derive(Default)]
    struct Noted(Mutex<Vec<Order>>);

    #[async_trait]
    impl Carry for Noted {
        async fn carry_out(&self, order: Order) -> Outcome {
            self.0.lock().unwrap().push(order);
            Outcome::of(&Ok::<(), StoreError>(()))
        }
    }

    /// The inbox of a journal, and the files of those that sent an order to it.
    struct Ordered {
        journal: tempfile::TempDir,
        inbox: Inbox,
        senders: Vec<fs::File>,
    }

    /// An inbox with one order of each of this many senders.
    fn ordered(senders: u128) -> Ordered {
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
        let senders = (1..=senders).map(send).collect();
        Ordered { journal, inbox, senders }
    }

    #[test]
    fn an_order_whose_sender_goes_while_another_is_carried_out_is_not() {
        let Ordered { journal: _journal, inbox, mut senders } = ordered(2);
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
        let Ordered { journal, inbox, senders: _senders } = ordered(1);
        let bad = journal.path().join("inbox").join(format!("{}.order", Uuid::from_u128(0)));
        std::os::unix::fs::symlink(&bad, &bad).unwrap();
        assert_eq!(inbox.waiting().unwrap(), [Uuid::from_u128(1)]);
    }

    #[test]
    fn senders_see_no_receiver_whose_file_was_removed() {
        let Ordered { journal, inbox, senders: _senders } = ordered(0);
        let lock = inbox.attend().unwrap();
        assert!(inbox.is_attended_by(&lock) && inbox.is_attended().unwrap());
        fs::remove_file(journal.path().join("inbox").join("desk")).unwrap();
        assert!(!inbox.is_attended_by(&lock) && !inbox.is_attended().unwrap());
        let again = inbox.attend().unwrap();
        assert!(!inbox.is_attended_by(&lock) && inbox.is_attended_by(&again));
    }
}
