//! The code of the chapter *Middleware*.

use std::{
    error::Error,
    task::{Context, Poll},
    time::Duration,
};

use factum::{
    App, CommandId, Metadata, SendError,
    runtime::{
        AdmissionLayer, BoxError, CommandError, CommandFuture, CommandRequest, CommandResponse,
        EntityError, TracingLayer,
    },
    sentence,
};
use factum_testing::bank::{Account, AccountCommand};
use tower::{
    Service,
    timeout::{TimeoutLayer, error::Elapsed},
};

type Done = Result<(), Box<dyn Error>>;

fn open() -> AccountCommand {
    AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() }
}

#[tokio::test]
async fn tracing() -> Done {
    let app =
        App::builder().commands::<Account>().layer(TracingLayer::new()).open("memory:").await?;
    let opened = app.command::<Account>("ada", open()).await?;
    assert_eq!((opened.version.value(), opened.events.len()), (1, 1));
    Ok(())
}

#[tokio::test]
async fn saying_who_asks() -> Done {
    let app = App::builder()
        .layer(AdmissionLayer::new(|request| match &request.metadata.user {
            Some(_) => Ok(()),
            None => Err("log in first".into()),
        }))
        .open("memory:")
        .await?;
    let refused = app.command::<Account>("ada", open()).await;
    assert!(matches!(refused, Err(SendError::Refused(_))));

    let ada = Metadata::new().with_user("ada").with("channel", "counter");
    let done = app.command::<Account>("ada", open()).with_metadata(ada).await?;
    let recorded = app.aggregate::<Account>().history("ada")?.collect().await?;
    let recorded = recorded.last().expect("it was stored").recorded.metadata();
    assert_eq!((recorded.user.as_deref(), done.version.value()), (Some("ada"), 1));
    Ok(())
}

#[tokio::test]
async fn sending_again() -> Done {
    let app = App::builder().layer(TimeoutLayer::new(Duration::from_secs(5)));
    let app = app.open("memory:").await?;
    app.command::<Account>("ada", open()).await?;
    let id = CommandId::derived("order-17", "deposit");
    let deposited = loop {
        let deposit = AccountCommand::Deposit { cents: 500 };
        match app.command::<Account>("ada", deposit).once(id).await {
            // The command may be stored or not: the next answer tells.
            Err(SendError::Layer(error)) if error.is::<Elapsed>() => {}
            done => break done?,
        }
    };
    assert_eq!(deposited.version.value(), 2);
    Ok(())
}

#[tokio::test]
async fn seeing_what_went_wrong() -> Done {
    let app = App::open("memory:").await?;
    match app.command::<Account>("ada", AccountCommand::Withdraw { cents: 800 }).await {
        Ok(done) => println!("done at version {}", done.version),
        Err(SendError::Rejected(no)) => println!("rejected by the rules: {no}"),
        Err(SendError::Refused(no)) => println!("refused by a layer: {no}"),
        Err(SendError::Failed(CommandError::Entity(EntityError::Busy(_)))) => {
            println!("try later");
        }
        Err(SendError::Layer(error)) => println!("timed out or shed: {error}"),
        Err(error) => println!("{}", sentence(&error)),
    }
    Ok(())
}

/// Refuses commands at night.
#[derive(Debug, Clone)]
struct ClosedAtNight<S> {
    is_night: fn() -> bool,
    service: S,
}

impl<S> Service<CommandRequest> for ClosedAtNight<S>
where
    S: Service<CommandRequest, Response = CommandResponse, Error: Into<BoxError>>,
    S::Future: Send + 'static,
{
    type Response = CommandResponse;
    type Error = BoxError;
    type Future = CommandFuture<BoxError>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.service.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: CommandRequest) -> Self::Future {
        if (self.is_night)() {
            return Box::pin(async { Ok(CommandResponse::Refused("we are closed".into())) });
        }
        let response = self.service.call(request);
        Box::pin(async { response.await.map_err(Into::into) })
    }
}

#[tokio::test]
async fn at_night_every_command_is_refused() -> Done {
    let closed =
        |is_night| tower::layer::layer_fn(move |service| ClosedAtNight { is_night, service });
    let by_night = App::builder().layer(closed(|| true)).open("memory:").await?;
    let refused = by_night.command::<Account>("ada", open()).await;
    assert!(matches!(refused, Err(SendError::Refused(_))));
    let by_day = App::builder().layer(closed(|| false)).open("memory:").await?;
    assert_eq!(by_day.command::<Account>("ada", open()).await?.version.value(), 1);
    Ok(())
}
