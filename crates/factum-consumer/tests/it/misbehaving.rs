//! Targets and stores that break their contracts: the consumer stops, and says which contract.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use async_trait::async_trait;
use factum_consumer::{
    Consumer, ConsumerName, ConsumerOptions, Fence, Opened, Save, Target, TargetError,
    part::{EventNames, Failure, Launch, Work},
};
use factum_kernel::{
    Category, EventStore, Page, ReadQuery, RecordedEvent, Scope, StoreError, sentence,
};
use factum_testing::{ForwardEvents, Forwarding, bank::AccountEvent};

use crate::bench::{Bench, LONG, quick};

/// A target whose fence stays as it is.
#[derive(Default)]
struct Unmoved(Mutex<Opened>);

impl Target for Unmoved {
    type Tx = ();

    async fn open(&self, _: &ConsumerName) -> Result<Opened, TargetError> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn begin(&self, _: &ConsumerName) -> Result<(), TargetError> {
        Ok(())
    }

    async fn commit(&self, _: &ConsumerName, (): (), save: Save) -> Result<Fence, TargetError> {
        self.0.lock().unwrap().progress = Some(save.progress);
        Ok(save.expected)
    }

    async fn clear(&self, _: &ConsumerName) -> Result<(), TargetError> {
        Ok(())
    }
}

#[derive(Default)]
struct Counting(AtomicUsize);

impl Work for Counting {
    type Target = Unmoved;

    fn wants(&self, _: &RecordedEvent) -> bool {
        true
    }

    fn wants_deletions(&self) -> bool {
        true
    }

    fn names(&self) -> EventNames {
        EventNames::default()
    }

    async fn handle(&self, _: &RecordedEvent, (): &mut ()) -> Result<(), Failure> {
        self.0.fetch_add(1, SeqCst);
        Ok(())
    }
}

#[tokio::test]
async fn a_target_whose_fence_does_not_grow_is_not_written_to() {
    let bench = Bench::new();
    bench.open("ada").await;
    let work = Arc::new(Counting::default());
    let counting = Launch {
        name: ConsumerName::new("counting").unwrap(),
        work: work.clone(),
        target: Arc::new(Unmoved::default()),
        options: quick(),
        is_layout_kept: false,
        handover: None,
    };
    let counting = bench.consumers.launch(counting).await.unwrap();
    let error = counting.wait_for(bench.head(), LONG).await.unwrap_err();
    assert!(sentence(&error).contains("a save has a larger fence"), "{}", sentence(&error));
    assert_eq!(work.0.load(SeqCst), 0, "no event is handled");
}

/// A log whose pages are in the reverse order.
#[derive(Debug)]
struct Reversed(Arc<dyn EventStore>);

#[async_trait]
impl ForwardEvents for Reversed {
    fn events(&self) -> Arc<dyn EventStore> {
        self.0.clone()
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        let mut page = self.0.read(query).await?;
        page.events.reverse();
        Ok(page)
    }
}

#[tokio::test]
async fn a_page_out_of_order_is_not_handled() {
    let mut bench = Bench::new();
    bench.open("ada").await;
    bench.deposit("ada", 1).await;
    let events = bench.kernel.events().clone();
    let kernel = bench.kernel.clone().with_events(Arc::new(Forwarding(Reversed(events))));
    bench.consumers = factum_consumer::Consumers::new(kernel);
    let handled = Arc::new(AtomicUsize::new(0));
    let counted = handled.clone();
    let mails = Consumer::new("mails", move |_: AccountEvent, _| {
        counted.fetch_add(1, SeqCst);
        async { Ok(()) }
    });
    // A read of the whole log is checked for holes already.
    let options: ConsumerOptions =
        quick().with_scope(Scope::Category(Category::new("account").unwrap()));
    let mails = bench.consumers.start(mails.with_options(options)).await.unwrap();
    let error = mails.wait_for(bench.head(), LONG).await.unwrap_err();
    assert!(sentence(&error).contains("in the order of the log"), "{}", sentence(&error));
    assert_eq!(handled.load(SeqCst), 0);
}
