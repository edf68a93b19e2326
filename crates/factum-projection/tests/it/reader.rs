//! Two builds of a program on one store: what one of them can't read waits for the other.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use factum_consumer::{
    Consumer, ConsumerHandle, ConsumerOptions, ConsumerState, Consumers, Partitions, Release,
    StopReason, WaitError, order_release, stored_consumers,
};
use factum_kernel::{
    AppendBatch, Event, EventId, ExpectedVersion, IdSource, Kernel, Metadata, OldEvent, Position,
    RecordedEvent, StreamId, SystemClock, SystemIds, Upcast, encode_event,
};
use factum_memory::MemoryStore;
use factum_projection::{Fold, Projections};

use crate::{
    bench::{LEASE, LONG, options},
    ledger::until,
};

/// The older build.
mod old {
    #[derive(Debug, factum_macros::Event)]
    #[event(crate = factum_kernel)]
    pub(super) enum NoteEvent {
        Written { text: String },
    }
}

/// The newer build: it knows one more event, and a newer schema of the first one.
mod new {
    use super::{OldEvent, Upcast};

    #[derive(Debug, factum_macros::Event)]
    #[event(crate = factum_kernel)]
    pub(super) enum NoteEvent {
        #[event(schema_version = 2, upcast(from = 1, with = add_author))]
        Written {
            text: String,
            author: String,
        },
        Struck {
            text: String,
        },
    }

    fn add_author(mut event: OldEvent) -> Result<Upcast, String> {
        event.set("author", "ada");
        Ok(event.next())
    }
}

/// A build whose upcaster is broken.
mod broken {
    use super::{OldEvent, Upcast};

    #[derive(Debug, factum_macros::Event)]
    #[event(crate = factum_kernel)]
    pub(super) enum NoteEvent {
        #[event(schema_version = 2, upcast(from = 1, with = refuse))]
        Written { text: String, author: String },
    }

    fn refuse(_: OldEvent) -> Result<Upcast, String> {
        Err("the author is unknown".into())
    }
}

/// The text of an event, which every build can take.
trait Text: Event + Sized {
    fn text(&self) -> String;
}

impl Text for old::NoteEvent {
    fn text(&self) -> String {
        let Self::Written { text } = self;
        text.clone()
    }
}

impl Text for new::NoteEvent {
    fn text(&self) -> String {
        let (Self::Written { text, .. } | Self::Struck { text }) = self;
        text.clone()
    }
}

impl Text for broken::NoteEvent {
    fn text(&self) -> String {
        let Self::Written { text, .. } = self;
        text.clone()
    }
}

type Texts = BTreeMap<String, Vec<String>>;

/// A store, with the effects of its consumers.
#[derive(Clone)]
struct Notes {
    kernel: Kernel,
    seen: Arc<Mutex<Texts>>,
    /// The texts for which the handler fails, each once.
    failing: Arc<Mutex<Vec<String>>>,
}

/// One start of a program.
struct Program {
    consumers: Consumers,
    notes: ConsumerHandle,
}

impl Notes {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let kernel = Kernel::new(store.clone(), store);
        Self { kernel, seen: Arc::default(), failing: Arc::default() }
    }

    async fn append<E: Event>(&self, key: &str, event: &E) -> Position {
        let id = EventId::new(SystemIds.uuid(factum_kernel::Clock::now(&SystemClock)));
        let event = encode_event(event, id, &Metadata::new(), None).unwrap();
        let stream = StreamId::new("note", key).unwrap();
        let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [event]);
        self.kernel.events().append(batch).await.unwrap();
        self.head()
    }

    async fn write(&self, key: &str, text: &str) -> Position {
        self.append(key, &old::NoteEvent::Written { text: text.into() }).await
    }

    async fn strike(&self, key: &str, text: &str) -> Position {
        self.append(key, &new::NoteEvent::Struck { text: text.into() }).await
    }

    async fn write_anew(&self, key: &str, text: &str) -> Position {
        let author = "bob".into();
        self.append(key, &new::NoteEvent::Written { text: text.into(), author }).await
    }

    fn head(&self) -> Position {
        *self.kernel.events().head().borrow()
    }

    fn seen(&self) -> Texts {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn start<E: Text + Send + 'static>(&self, options: ConsumerOptions) -> Program {
        let consumers = Consumers::new(self.kernel.clone()).with_lease(LEASE);
        let all = self.clone();
        let handler = move |event: E, recorded: RecordedEvent| {
            let text = event.text();
            let fails = {
                let mut failing = all.failing.lock().unwrap();
                let at = failing.iter().position(|it| *it == text);
                at.map(|at| failing.remove(at)).is_some()
            };
            if !fails {
                let key = recorded.stream().key().to_owned();
                all.seen.lock().unwrap().entry(key).or_default().push(text);
            }
            async move { if fails { Err("it fails".into()) } else { Ok(()) } }
        };
        let consumer = Consumer::new("notes", handler).with_options(options);
        let notes = consumers.start(consumer).await.unwrap();
        Program { consumers, notes }
    }

    async fn old(&self) -> Program {
        self.start::<old::NoteEvent>(options()).await
    }

    async fn new_build(&self) -> Program {
        self.start::<new::NoteEvent>(options()).await
    }

    /// Waits until everything has taken effect, in order and once, and nothing waits.
    async fn all_is_seen(&self, program: &Program, expected: &Texts) {
        let head = self.head();
        until(|| async { program.notes.wait_for(head, LONG).await.is_ok() }).await;
        assert_eq!(self.seen(), *expected);
        assert_eq!(program.notes.dead_letters().await, []);
        let health = program.notes.health();
        assert_eq!((health.parked, health.waiting, health.unread), (0, 0, None));
    }
}

fn texts(key: &str, texts: &[&str]) -> (String, Vec<String>) {
    (key.into(), texts.iter().map(|&text| text.into()).collect())
}

#[tokio::test]
async fn what_the_running_program_cannot_read_waits_and_other_streams_continue() {
    let store = Notes::new();
    store.write("a", "a1").await;
    let unread = store.strike("a", "a2").await;
    store.write("a", "a3").await;
    let last = store.write("b", "b1").await;
    let old = store.old().await;
    let told = old.notes.wait_for(last, LONG).await.unwrap_err();
    let WaitError::Unread { consumer, event } = &told else { panic!("{told}") };
    assert_eq!((consumer.as_str(), event.position), ("notes", unread));
    assert_eq!(
        (event.stream.to_string().as_str(), event.event.as_str()),
        ("note-a", "note.struck")
    );
    old.notes.wait_for(unread.previous(), LONG).await.unwrap();
    assert_eq!(store.seen(), Texts::from([texts("a", &["a1"]), texts("b", &["b1"])]));
    let health =
        old.notes.watch().wait_for(|it| it.state == ConsumerState::Waiting).await.unwrap().clone();
    assert_eq!((health.parked, health.waiting), (0, 1));
    assert_eq!(health.unread.as_ref(), Some(event));
    let [letter] = &old.notes.dead_letters().await[..] else { panic!("one waits") };
    assert_eq!((letter.is_unread, letter.attempts), (true, 0));
    assert!(old.notes.retry(&letter.stream).await.is_err(), "it can't read it now either");
    assert!(matches!(old.notes.wait_for(last, LONG).await, Err(WaitError::Unread { .. })));

    // A second start of the old program changes nothing in the store.
    let before = store.kernel.documents().get(b"$consumer/notes/letter/note-a").await.unwrap();
    old.consumers.close().await;
    let old = store.old().await;
    assert!(matches!(old.notes.wait_for(last, LONG).await, Err(WaitError::Unread { .. })));
    let after = store.kernel.documents().get(b"$consumer/notes/letter/note-a").await.unwrap();
    assert_eq!(after.map(|it| it.revision), before.map(|it| it.revision));
    old.consumers.close().await;

    let new = store.new_build().await;
    let all = Texts::from([texts("a", &["a1", "a2", "a3"]), texts("b", &["b1"])]);
    // No caller is told of what the new program has not tried yet.
    new.notes.wait_for(last, LONG).await.unwrap();
    store.all_is_seen(&new, &all).await;
    new.consumers.close().await;
}

/// In each phase both builds, one of them or none runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_builds_started_and_stopped_in_every_order_lose_nothing() {
    for phases in 0..16 {
        let store = Notes::new();
        let mut expected = Texts::new();
        let mut old: Option<Program> = None;
        let mut new: Option<Program> = None;
        for running in [phases % 4, phases / 4] {
            match (&old, running & 1 == 1) {
                (None, true) => old = Some(store.old().await),
                (Some(it), false) => {
                    it.consumers.close().await;
                    old = None;
                }
                _ => {}
            }
            match (&new, running & 2 == 2) {
                (None, true) => new = Some(store.new_build().await),
                (Some(it), false) => {
                    it.consumers.close().await;
                    new = None;
                }
                _ => {}
            }
            for key in ["a", "b"] {
                store.write(key, "1").await;
                store.strike(key, "2").await;
                store.write_anew(key, "3").await;
                store.write(key, "4").await;
                let more = texts(key, &["1", "2", "3", "4"]);
                expected.entry(more.0).or_default().extend(more.1);
            }
            for program in old.iter().chain(&new) {
                let come = program.notes.wait_for(store.head(), LONG).await;
                assert!(matches!(come, Ok(()) | Err(WaitError::Unread { .. })), "{come:?}");
                assert_eq!(program.notes.health().parked, 0, "phases={phases}");
            }
        }
        if let Some(old) = old {
            old.consumers.close().await;
        }
        let new = match new {
            Some(new) => new,
            None => store.new_build().await,
        };
        store.all_is_seen(&new, &expected).await;
        new.consumers.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_rolling_deploy_the_new_program_reads_what_the_old_one_could_not() {
    let store = Notes::new();
    let shared = || options().with_partitions(Partitions::by_stream(2));
    let keys: Vec<String> = (0..8).map(|n| format!("k{n}")).collect();
    for key in &keys {
        store.write(key, "1").await;
    }
    let old = store.start::<old::NoteEvent>(shared()).await;
    old.notes.wait_for(store.head(), LONG).await.unwrap();
    let new = store.start::<new::NoteEvent>(shared()).await;
    let elsewhere = |program: &Program| program.notes.health().elsewhere;
    until(|| async { (elsewhere(&old), elsewhere(&new)) == (1, 1) }).await;
    for key in &keys {
        store.strike(key, "2").await;
        store.write_anew(key, "3").await;
    }
    let head = store.head();
    // The old program has one of the partitions, and both programs say so.
    for program in [&old, &new] {
        let told = program.notes.wait_for(head, LONG).await;
        assert!(matches!(told, Err(WaitError::Unread { .. })), "{told:?}");
    }
    assert_eq!((old.notes.health().parked, new.notes.health().parked), (0, 0));
    old.consumers.close().await;
    let all = keys.iter().map(|key| texts(key, &["1", "2", "3"])).collect();
    store.all_is_seen(&new, &all).await;
    new.consumers.close().await;
}

/// The old program can't know the key of what it can't read. It took the stream as the key, and the
/// partition of the real key had passed the event when the new program came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_read_takes_effect_once_also_if_its_partition_was_unknown() {
    fn by_text<E: Text>() -> ConsumerOptions {
        options().with_partitions(Partitions::by_event(4, |event: &E| Some(event.text())))
    }
    let store = Notes::new();
    let mut all = Texts::new();
    for key in ["a", "b", "c"] {
        let written = format!("{key} 1");
        let struck = format!("{key} 2");
        store.write(key, &written).await;
        store.strike(key, &struck).await;
        all.insert(key.into(), vec![written, struck]);
    }
    let last = store.head();
    let old = store.start::<old::NoteEvent>(by_text::<old::NoteEvent>()).await;
    let told = old.notes.wait_for(last, LONG).await;
    assert!(matches!(told, Err(WaitError::Unread { .. })), "{told:?}");
    old.consumers.close().await;
    let new = store.start::<new::NoteEvent>(by_text::<new::NoteEvent>()).await;
    store.all_is_seen(&new, &all).await;
    new.consumers.close().await;
}

#[tokio::test]
async fn what_a_broken_upcaster_could_not_read_takes_effect_after_it_is_mended() {
    let store = Notes::new();
    store.write("a", "1").await;
    let last = store.write("a", "2").await;
    let broken = store.start::<broken::NoteEvent>(options()).await;
    let told = broken.notes.wait_for(last, LONG).await;
    assert!(matches!(told, Err(WaitError::Unread { .. })), "{told:?}");
    broken.consumers.close().await;
    let mended = store.new_build().await;
    store.all_is_seen(&mended, &Texts::from([texts("a", &["1", "2"])])).await;
    mended.consumers.close().await;
}

/// The letter as a release before this rule stored it: parked, after one attempt, without a sign.
#[tokio::test]
async fn what_an_earlier_release_parked_as_undecodable_is_tried_at_the_next_start() {
    let store = Notes::new();
    store.write("a", "1").await;
    let last = store.write("b", "1").await;
    let broken = store.start::<broken::NoteEvent>(options()).await;
    assert!(broken.notes.wait_for(last, LONG).await.is_err());
    broken.consumers.close().await;
    for key in ["a", "b"] {
        let key = format!("$consumer/notes/letter/note-{key}");
        let documents = store.kernel.documents();
        let letter = documents.get(key.as_bytes()).await.unwrap().expect("it waits");
        let letter = earlier_release(&letter.value);
        let any = factum_kernel::ExpectedRevision::Any;
        documents.write(factum_kernel::WriteBatch::new().put(key, any, letter)).await.unwrap();
    }
    let stored = stored_consumers(&**store.kernel.documents()).await.unwrap();
    assert_eq!(stored[0].waiting(), 2);
    let mended = store.new_build().await;
    let all = Texts::from([texts("a", &["1"]), texts("b", &["1"])]);
    store.all_is_seen(&mended, &all).await;
    mended.consumers.close().await;
}

/// A stored letter without the fields that say what it is, after one attempt.
fn earlier_release(letter: &[u8]) -> bytes::Bytes {
    use factum_kernel::{Cbor, Codec, Value};
    let Ok(Value::Map(mut fields)) = Cbor::decode(letter) else { panic!("it is a map") };
    fields.retain(|(name, _)| *name != Value::from("is_unread") && *name != Value::from("deaths"));
    for (name, value) in &mut fields {
        if *name == Value::from("attempts") {
            *value = Value::from(1_u64);
        }
    }
    let mut out = bytes::BytesMut::new();
    Cbor::encode(&Value::Map(fields), &mut out).unwrap();
    out.freeze()
}

#[tokio::test]
async fn a_handler_that_fails_at_a_stream_that_waited_is_tried_again_as_the_policy_says() {
    let store = Notes::new();
    store.strike("a", "1").await;
    store.write("a", "2").await;
    let last = store.strike("b", "1").await;
    let old = store.old().await;
    assert!(old.notes.wait_for(last, LONG).await.is_err());
    old.consumers.close().await;
    // The options allow two retries.
    *store.failing.lock().unwrap() = vec!["2".into(), "2".into()];
    let new = store.new_build().await;
    let all = Texts::from([texts("a", &["1", "2"]), texts("b", &["1"])]);
    store.all_is_seen(&new, &all).await;
    new.consumers.close().await;

    let store = Notes::new();
    let last = store.strike("a", "1").await;
    let old = store.old().await;
    assert!(old.notes.wait_for(last, LONG).await.is_err());
    old.consumers.close().await;
    *store.failing.lock().unwrap() = vec!["1".into(); 3];
    let new = store.new_build().await;
    new.notes.wait_for(last, LONG).await.unwrap();
    let [letter] = &new.notes.dead_letters().await[..] else { panic!("it is parked") };
    assert_eq!((letter.is_unread, letter.attempts), (false, 3));
    // It is at fault now: the next start leaves it to a person.
    new.consumers.close().await;
    let new = store.new_build().await;
    new.notes.wait_for(last, LONG).await.unwrap();
    assert_eq!((new.notes.health().parked, store.seen()), (1, Texts::new()));
    new.consumers.close().await;
}

#[tokio::test]
async fn an_event_that_no_program_needs_any_more_is_discarded() {
    let store = Notes::new();
    store.strike("a", "1").await;
    let last = store.write("a", "2").await;
    let old = store.old().await;
    assert!(old.notes.wait_for(last, LONG).await.is_err());
    let stream = StreamId::new("note", "a").unwrap();
    order_release(&store.kernel, "notes", &stream, Release::Discard).await.unwrap();
    until(|| async { old.notes.wait_for(last, LONG).await.is_ok() }).await;
    assert_eq!(store.seen(), Texts::from([texts("a", &["2"])]));
    old.consumers.close().await;
}

#[tokio::test]
async fn an_order_to_discard_an_unread_event_is_carried_out_before_the_next_program_tries_it() {
    let store = Notes::new();
    store.strike("a", "1").await;
    let last = store.write("a", "2").await;
    let old = store.old().await;
    assert!(old.notes.wait_for(last, LONG).await.is_err());
    old.consumers.close().await;
    let stream = StreamId::new("note", "a").unwrap();
    order_release(&store.kernel, "notes", &stream, Release::Discard).await.unwrap();
    let new = store.new_build().await;
    store.all_is_seen(&new, &Texts::from([texts("a", &["2"])])).await;
    new.consumers.close().await;
}

/// Nothing may overtake an event of a consumer that stops at each failure.
#[tokio::test]
async fn a_consumer_that_must_stop_at_a_failure_stops_at_what_it_cannot_read() {
    let store = Notes::new();
    let strict = || {
        let mut options = options();
        options.failure = options.failure.then_stop();
        options
    };
    store.strike("a", "1").await;
    let last = store.write("b", "1").await;
    let old = store.start::<old::NoteEvent>(strict()).await;
    let told = old.notes.wait_for(last, LONG).await;
    let Err(WaitError::Stopped { reason: StopReason::Failed { .. }, .. }) = told else {
        panic!("{told:?}")
    };
    assert_eq!(store.seen(), Texts::new());
    old.consumers.close().await;
    let new = store.start::<new::NoteEvent>(strict()).await;
    let all = Texts::from([texts("a", &["1"]), texts("b", &["1"])]);
    store.all_is_seen(&new, &all).await;
    new.consumers.close().await;
}

#[tokio::test]
async fn a_model_in_memory_waits_for_a_program_that_can_read_it() {
    async fn fold<E: Text>(kernel: &Kernel) -> (Consumers, factum_projection::MemoryModel<Texts>) {
        let consumers = Consumers::new(kernel.clone());
        let fold = Fold::new("texts", 1, |texts: &mut Texts, event: E, recorded| {
            let recorded: &RecordedEvent = recorded;
            texts.entry(recorded.stream().key().into()).or_default().push(event.text());
        });
        let model = consumers.fold(fold.with_options(options())).await.unwrap();
        (consumers, model)
    }
    let store = Notes::new();
    store.write("a", "1").await;
    store.strike("a", "2").await;
    store.write_anew("a", "3").await;
    let last = store.write("b", "1").await;
    for _ in 0..2 {
        let (consumers, old) = fold::<old::NoteEvent>(&store.kernel).await;
        let told = old.wait_for(last, LONG).await;
        assert!(matches!(told, Err(WaitError::Unread { .. })), "{told:?}");
        old.watch().wait_for(|it| it.state == ConsumerState::Waiting).await.unwrap();
        assert_eq!((old.health().parked, old.health().waiting), (0, 1));
        let all = Texts::from([texts("a", &["1"]), texts("b", &["1"])]);
        assert_eq!(*old.read().await.unwrap(), all);
        consumers.close().await;
    }
    let (consumers, new) = fold::<new::NoteEvent>(&store.kernel).await;
    new.wait_for(last, Duration::from_secs(20)).await.unwrap();
    let all = Texts::from([texts("a", &["1", "2", "3"]), texts("b", &["1"])]);
    assert_eq!(*new.read().await.unwrap(), all);
    assert_eq!((new.health().parked, new.health().waiting), (0, 0));
    consumers.close().await;
}
