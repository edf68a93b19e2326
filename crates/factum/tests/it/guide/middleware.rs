//! The code of the chapter *Middleware*.

use std::{
    error::Error,
    task::{Context, Poll},
    time::Duration,
};

use factum::{
    AdmissionLayer, App, BoxError, CommandError, CommandFuture, CommandId, CommandRequest,
    CommandResponse, Commands, DispatchError, EntityError, Metadata, TracingLayer,
};
use factum_testing::bank::{Account, AccountCommand};
use tower::{Layer, Service, ServiceBuilder};

type Done = Result<(), Box<dyn Error>>;

async fn bank() -> Result<(App, Commands), Box<dyn Error>> {
    let app = App::builder().aggregate::<Account>().open("memory:").await?;
    let commands = app.commands();
    let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    commands.dispatch::<Account>("ada", open).await?;
    Ok((app, commands))
}

#[tokio::test]
async fn dispatching() -> Done {
    let app = App::builder().aggregate::<Account>().open("memory:").await?;
    let commands = app.commands().named::<Account>().layer(TracingLayer::new());

    let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    let opened = commands.dispatch::<Account>("ada", open).await?;
    assert_eq!((opened.version.value(), opened.events.len()), (1, 1));
    Ok(())
}

#[tokio::test]
async fn saying_who_asks() -> Done {
    let (app, commands) = bank().await?;
    let commands = commands.layer(AdmissionLayer::new(|request| match &request.metadata.user {
        Some(_) => Ok(()),
        None => Err("log in first".into()),
    }));
    let deposit = AccountCommand::Deposit { cents: 500 };
    let refused = commands.dispatch::<Account>("ada", deposit.clone()).await;
    assert!(matches!(refused, Err(DispatchError::Refused(_))));

    let ada = Metadata::new().with_user("ada").with("channel", "counter");
    let done = commands.dispatch_with::<Account>("ada", deposit, ada).await?;
    let recorded = app.entities::<Account>().history("ada")?.collect().await?;
    let recorded = recorded.last().expect("it was stored").recorded.metadata();
    assert_eq!((recorded.user.as_deref(), done.version.value()), (Some("ada"), 2));
    Ok(())
}

#[tokio::test]
async fn sending_again() -> Done {
    let (_, commands) = bank().await?;
    let commands = commands.layer(tower::timeout::TimeoutLayer::new(Duration::from_secs(5)));
    let id = CommandId::derived(b"ada/order-17");
    let deposited = loop {
        let deposit = AccountCommand::Deposit { cents: 500 };
        match commands.dispatch_once::<Account>("ada", id, deposit, Metadata::new()).await {
            // Perhaps it is stored, perhaps not: the next answer tells.
            Err(DispatchError::Layer(error)) if error.is::<tower::timeout::error::Elapsed>() => {}
            done => break done?,
        }
    };
    assert_eq!(deposited.version.value(), 2);
    Ok(())
}

#[tokio::test]
async fn seeing_what_went_wrong() -> Done {
    let (_, commands) = bank().await?;
    match commands.dispatch::<Account>("ada", AccountCommand::Withdraw { cents: 800 }).await {
        Ok(done) => println!("done at version {}", done.version),
        Err(DispatchError::Rejected(no)) => println!("the rules say no: {no}"),
        Err(DispatchError::Refused(no)) => println!("a layer says no: {no}"),
        Err(DispatchError::Failed(CommandError::Entity(EntityError::Busy(_)))) => {
            println!("try later");
        }
        Err(DispatchError::Failed(error)) => println!("{error}"),
        Err(DispatchError::Layer(error)) => println!("timed out or shed: {error}"),
        Err(error) => println!("{error}"),
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
    let (_, commands) = bank().await?;
    let closed =
        |is_night| tower::layer::layer_fn(move |service| ClosedAtNight { is_night, service });
    let deposit = AccountCommand::Deposit { cents: 1 };
    let by_night = commands.clone().layer(closed(|| true));
    let refused = by_night.dispatch::<Account>("ada", deposit.clone()).await;
    assert!(matches!(refused, Err(DispatchError::Refused(_))));
    let by_day = commands.layer(closed(|| false));
    assert_eq!(by_day.dispatch::<Account>("ada", deposit).await?.version.value(), 2);
    Ok(())
}

#[test]
fn the_order_of_layers_is_that_of_the_calls() {
    let service = ServiceBuilder::new().layer(TracingLayer::new()).timeout(Duration::from_secs(5));
    let traced = service.into_inner().layer(factum::CommandRouter::new());
    assert!(format!("{traced:?}").starts_with("Tracing"));
}
