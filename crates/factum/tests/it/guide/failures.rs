//! The code of the chapter *When things fail*.

use std::{
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum::{
    App, Consumer, ConsumerOptions, ErrorKind, ExpectedVersion, HandleError, Metadata, Position,
    RecordedEvent, SendError, StoreError,
    consumer::{
        ConsumerHandle, ConsumerState, FailurePolicy, Release, ReleaseError, WaitError,
        order_release, stored_consumers,
    },
    event::{EventId, StreamId, encode_event},
    sentence,
    store::AppendBatch,
};
use factum_testing::bank::{Account, AccountCommand, AccountEvent};

type Done = Result<(), Box<dyn Error>>;

const WAIT: Duration = Duration::from_secs(30);

/// Deposits of 13 cents fail until the test mends that.
async fn start(
    app: &App,
    is_mended: &Arc<AtomicBool>,
    options: ConsumerOptions,
) -> Result<ConsumerHandle, Box<dyn Error>> {
    let is_mended = is_mended.clone();
    let handle = move |event: AccountEvent, _: RecordedEvent| {
        let is_bad = matches!(event, AccountEvent::Deposited { cents: 13 });
        let fails = is_bad && !is_mended.load(Ordering::SeqCst);
        async move { if fails { Err(HandleError::from("thirteen")) } else { Ok(()) } }
    };
    Ok(app.consumers().start(Consumer::new("mails", handle).with_options(options)).await?)
}

async fn deposit(app: &App, key: &str, amounts: &[u64]) -> Result<Position, Box<dyn Error>> {
    let open = AccountCommand::Open { owner: key.into(), email: format!("{key}@example.org") };
    app.command::<Account>(key, open).await?;
    let mut last = Position::ZERO;
    for cents in amounts {
        let deposit = AccountCommand::Deposit { cents: *cents };
        last = app.command::<Account>(key, deposit).await?.position.unwrap_or_default();
    }
    Ok(last)
}

#[tokio::test]
async fn parking() -> Done {
    let app = App::open("memory:").await?;
    let is_mended = Arc::new(AtomicBool::new(false));
    let failure = FailurePolicy::new()
        .with_retries_max(3)
        .with_pause(Duration::from_millis(10), Duration::from_secs(1))
        .with_timeout(Duration::from_secs(5))
        .with_parked_max(20);
    let options = ConsumerOptions::new().with_failure(failure);
    let mails = start(&app, &is_mended, options).await?;
    deposit(&app, "ada", &[13, 14]).await?;
    let last = deposit(&app, "bob", &[15]).await?;

    // A parked stream does not block the others: bob's events are handled.
    mails.wait_for(last, WAIT).await?;
    for letter in mails.dead_letters().await {
        println!("{}: {} after {} attempts", letter.stream, letter.error, letter.attempts);
    }
    assert_eq!(mails.health().parked, 1);

    let ada = StreamId::new("account", "ada")?;
    let retried = mails.retry(&ada).await;
    assert_eq!(retried, Err(ReleaseError::Failed("thirteen".into())), "it stays parked");
    is_mended.store(true, Ordering::SeqCst);
    mails.retry(&ada).await?;
    assert_eq!(mails.health().parked, 0);
    app.close().await?;
    Ok(())
}

/// A newer program, which knows that an account can be frozen.
mod newer {
    #[derive(Debug, factum::Event)]
    pub(super) enum AccountEvent {
        Opened { owner: String, email: String },
        Frozen,
    }
}

#[tokio::test]
async fn deploying_a_new_version() -> Done {
    let app = App::open("memory:").await?;
    let mails = start(&app, &Arc::default(), ConsumerOptions::new()).await?;
    deposit(&app, "ada", &[]).await?;
    let kernel = app.kernel();
    let id = EventId::new(kernel.ids().uuid(kernel.clock().now()));
    let frozen = encode_event(&newer::AccountEvent::Frozen, id, &Metadata::new(), None)?;
    let ada = StreamId::new("account", "ada")?;
    let frozen = AppendBatch::new().write(ada, ExpectedVersion::Any, [frozen]);
    kernel.events().append(frozen).await?;
    let last = deposit(&app, "bob", &[]).await?.max(*kernel.events().head().borrow());

    let told = mails.wait_for(last, WAIT).await;
    let Err(WaitError::Unread { event, .. }) = &told else { panic!("{told:?}") };
    assert_eq!((event.event.as_str(), event.stream.key()), ("account.frozen", "ada"));
    assert_eq!((mails.health().waiting, mails.health().parked), (1, 0));
    let opening = AccountCommand::Open { owner: "eve".into(), email: "eve@example.org".into() };
    let sent = app.command::<Account>("eve", opening).seen_by("mails").await;
    let Err(SendError::Unseen { error: WaitError::Unread { .. }, .. }) = sent else {
        panic!("{sent:?}")
    };

    mails.stop().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = seen.clone();
    let newer = move |event: newer::AccountEvent, _: RecordedEvent| {
        all.lock().expect("no holder panics").push(matches!(event, newer::AccountEvent::Frozen));
        async { Ok(()) }
    };
    let mails = app.consumers().start(Consumer::new("mails", newer)).await?;
    mails.wait_for(last, WAIT).await?;
    assert_eq!((mails.health().waiting, mails.dead_letters().await.len()), (0, 0));
    assert_eq!(*seen.lock().expect("no holder panics"), [true], "it is all that was left");
    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn stopping() -> Done {
    let app = App::open("memory:").await?;
    let is_mended = Arc::new(AtomicBool::new(false));
    let stops = FailurePolicy::new().with_retries_max(0).then_stop();
    let options = ConsumerOptions::new().with_failure(stops).ignoring_unknown();
    let mails = start(&app, &is_mended, options.clone()).await?;
    let last = deposit(&app, "ada", &[13, 14]).await?;

    match mails.wait_for(last, WAIT).await {
        Ok(()) => println!("it has seen everything"),
        Err(WaitError::Behind { reached, .. }) => println!("it is at {reached}, ask later"),
        Err(error) => println!("{}", sentence(&error)),
    }
    if let ConsumerState::Stopped(reason) = mails.health().state {
        println!("stopped: {}", sentence(&reason));
    }
    // After the cause is corrected, it continues where it stopped.
    is_mended.store(true, Ordering::SeqCst);
    let mails = start(&app, &is_mended, options).await?;
    mails.wait_for(last, WAIT).await?;
    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn ordering_from_elsewhere() -> Done {
    let app = App::open("memory:").await?;
    let is_mended = Arc::new(AtomicBool::new(false));
    let options = ConsumerOptions::new().with_failure(FailurePolicy::new().with_retries_max(0));
    let mails = start(&app, &is_mended, options.clone()).await?;
    let last = deposit(&app, "ada", &[13, 14]).await?;
    mails.wait_for(last, WAIT).await?;
    mails.stop().await;

    for consumer in stored_consumers(&**app.kernel().documents()).await? {
        for letter in consumer.dead_letters {
            let name = &consumer.name;
            let stream = &letter.stream;
            order_release(app.kernel(), name, stream, Release::Discard).await?;
        }
    }
    // The consumer takes the request when it starts.
    let mails = start(&app, &is_mended, options).await?;
    mails.watch().wait_for(|health| health.parked == 0).await?;
    app.close().await?;
    Ok(())
}

#[test]
fn telling_an_outage() {
    #[derive(Debug, thiserror::Error)]
    enum Unsent {
        #[error(transparent)]
        Account(#[from] StoreError),
    }
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    let away = StoreError::unavailable("the mail server is away").with_source(refused);
    let error = Unsent::from(away);
    match ErrorKind::of(&error) {
        Some(kind) if kind.is_outage() => println!("try later: {error}"),
        _ => println!("{error}"),
    }
    assert_eq!(ErrorKind::of(&error), Some(ErrorKind::Unavailable));
}
